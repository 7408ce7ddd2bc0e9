//! Parquet files: rows with a text column.

use std::fs::File;
use std::path::Path;
use std::sync::Arc;

use ::parquet::file::reader::{FileReader, SerializedFileReader};
use ::parquet::record::reader::RowIter;
use ::parquet::record::{Field, Row};
use ::parquet::schema::types::Type;

use super::{Fields, Place, Record};
use crate::corpus::CorpusError;

/// The rows of a file. Only the columns of text and id are read.
pub(super) struct Rows {
    rows: RowIter<'static>,
    place: Place,
    fields: Fields,
    row: usize,
    ended: bool,
}

impl Rows {
    pub(super) fn open(path: &Path, name: &str, fields: &Fields) -> Result<Self, CorpusError> {
        let broken = |error: ::parquet::errors::ParquetError| CorpusError::Parquet {
            path: path.into(),
            reason: error.to_string(),
        };
        let file = File::open(path).map_err(|source| CorpusError::Read {
            path: path.into(),
            source,
        })?;
        let reader = SerializedFileReader::new(file).map_err(broken)?;
        let schema = reader.metadata().file_metadata().schema();
        let all: Vec<&str> = schema
            .get_fields()
            .iter()
            .map(|field| field.name())
            .collect();
        if !all.contains(&fields.text.as_str()) {
            return Err(CorpusError::NoColumn {
                path: path.into(),
                column: fields.text.clone(),
                columns: all.join(", "),
            });
        }
        let wanted = schema
            .get_fields()
            .iter()
            .filter(|field| field.name() == fields.text || field.name() == fields.id);
        let projection = Type::group_type_builder(schema.name())
            .with_fields(wanted.map(Arc::clone).collect())
            .build()
            .map_err(broken)?;
        let rows = RowIter::from_file_into(Box::new(reader))
            .project(Some(projection))
            .map_err(broken)?;
        Ok(Self {
            rows,
            place: Place::new(path, name),
            fields: fields.clone(),
            row: 0,
            ended: false,
        })
    }

    fn record(&self, row: Row) -> Result<Option<Record>, CorpusError> {
        let (mut text, mut id) = (None, None);
        for (name, field) in row.into_columns() {
            if name == self.fields.text {
                text = string(field);
            } else if name == self.fields.id {
                id = match field {
                    Field::Null => None,
                    field @ (Field::Str(_) | Field::Bytes(_)) => string(field),
                    other => Some(other.to_string()),
                };
            }
        }
        let Some(text) = text else {
            return Err(CorpusError::NoText {
                path: self.place.path.clone(),
                line: self.row,
                field: self.fields.text.clone(),
            });
        };
        let id = id.filter(|id| !id.is_empty());
        Ok(self.place.record(self.row, id, text))
    }
}

/// A text, also one in a column whose writer forgot to say that it is one.
fn string(field: Field) -> Option<String> {
    match field {
        Field::Str(text) => Some(text),
        Field::Bytes(bytes) => String::from_utf8(bytes.data().to_vec()).ok(),
        _ => None,
    }
}

impl Iterator for Rows {
    type Item = Result<Record, CorpusError>;

    fn next(&mut self) -> Option<Self::Item> {
        while !self.ended {
            let Some(row) = self.rows.next() else {
                self.ended = true;
                break;
            };
            self.row += 1;
            let record = match row {
                Ok(row) => self.record(row).transpose(),
                Err(error) => {
                    self.ended = true;
                    Some(Err(CorpusError::Parquet {
                        path: self.place.path.clone(),
                        reason: format!("row {}: {error}", self.row),
                    }))
                }
            };
            if record.is_some() {
                return record;
            }
        }
        None
    }
}
