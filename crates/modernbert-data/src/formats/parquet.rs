//! Parquet files.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;

use ::parquet::errors::ParquetError;
use ::parquet::file::reader::{FileReader, SerializedFileReader};
use ::parquet::record::reader::RowIter;
use ::parquet::record::{Field, Row};
use ::parquet::schema::types::Type;
use modernbert_files::panics::caught;
use modernbert_files::read;
use serde_json::{Map, Value};

use super::FormatError;
use super::bytes::ReadBytes;
use super::row::{Cell, RowContent, Wanted, quoted};

/// The rows of a file, with the wanted columns alone.
pub(super) struct ParquetRows {
    rows: RowIter<'static>,
    path: PathBuf,
    row: u64,
    ended: bool,
    /// Progress: rows and bytes in all, bytes that were counted.
    total: (u64, u64),
    counted: u64,
    read: ReadBytes,
}

impl ParquetRows {
    pub(super) fn open(
        path: &Path,
        wanted: Option<&Wanted>,
        read: &ReadBytes,
    ) -> Result<Self, FormatError> {
        let file = read::open(path).map_err(|source| FormatError::Read {
            path: path.into(),
            source,
        })?;
        let size = file.metadata().map_or(0, |metadata| metadata.len());
        let reader = guarded(path, || SerializedFileReader::new(file))?;
        let metadata = reader.metadata().file_metadata();
        let count = u64::try_from(metadata.num_rows()).unwrap_or(0);
        let schema = metadata.schema();
        let names: Vec<&str> = schema
            .get_fields()
            .iter()
            .map(|field| field.name())
            .collect();
        let times = |column: &str| names.iter().filter(|name| **name == column).count();
        let all = Wanted::all_of(&names);
        let columns = wanted.unwrap_or(&all);
        for (i, column) in columns.names.iter().enumerate() {
            match times(column) {
                0 if i >= columns.required => {}
                0 => {
                    return Err(FormatError::NoColumn {
                        path: path.into(),
                        column: column.clone(),
                        columns: quoted(names.iter().copied()),
                        hint: "",
                    });
                }
                1 => {}
                _ => {
                    return Err(FormatError::DuplicateColumn {
                        path: path.into(),
                        column: column.clone(),
                    });
                }
            }
        }
        let projection = wanted
            .map(|wanted| {
                let fields = schema.get_fields().iter();
                let fields =
                    fields.filter(|field| wanted.names.iter().any(|name| name == field.name()));
                Type::group_type_builder(schema.name())
                    .with_fields(fields.map(Arc::clone).collect())
                    .build()
                    .map_err(|error| broken(path, error.to_string()))
            })
            .transpose()?;
        let rows = guarded(path, || {
            RowIter::from_file_into(Box::new(reader)).project(projection)
        })?;
        Ok(Self {
            rows,
            path: path.into(),
            row: 0,
            ended: false,
            total: (count, size),
            counted: 0,
            read: read.clone(),
        })
    }

    pub(super) fn next(&mut self) -> Option<Result<(u64, RowContent), FormatError>> {
        if self.ended {
            return None;
        }
        self.row += 1;
        let row = guarded(&self.path, || self.rows.next().transpose());
        let row = match row {
            Ok(None) => {
                self.ended = true;
                return None;
            }
            Ok(Some(row)) => row,
            Err(error) => {
                self.ended = true;
                return Some(Err(error));
            }
        };
        let (rows, bytes) = self.total;
        let reached = (bytes as f64 * (self.row as f64 / rows.max(1) as f64)) as u64;
        self.read
            .fetch_add(reached.saturating_sub(self.counted), Relaxed);
        self.counted = self.counted.max(reached);
        Some(Ok((self.row, cells(row))))
    }
}

/// A fault of a Parquet file, in words.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct ParquetFault(String);

/// Runs the library's reader of Parquet; a panic, which damaged files can cause in it, becomes an error.
///
/// # Errors
/// The library's error or panic.
pub fn guarded_parquet<T>(
    read: impl FnOnce() -> Result<T, ParquetError>,
) -> Result<T, ParquetFault> {
    match caught(read) {
        Ok(result) => result.map_err(|error| ParquetFault(error.to_string())),
        Err(_) => Err(ParquetFault("its pages contradict their headers".into())),
    }
}

fn guarded<T>(
    path: &Path,
    read: impl FnOnce() -> Result<T, ParquetError>,
) -> Result<T, FormatError> {
    guarded_parquet(read).map_err(|fault| broken(path, fault.to_string()))
}

fn broken(path: &Path, reason: String) -> FormatError {
    FormatError::Parquet {
        path: path.into(),
        reason,
    }
}

fn cells(row: Row) -> RowContent {
    let columns = row.into_columns().into_iter();
    RowContent::Cells(columns.map(|(name, field)| (name, cell(field))).collect())
}

fn cell(field: Field) -> Cell {
    match field {
        Field::Null => Cell::Null,
        Field::Bool(value) => Cell::Bool(value),
        Field::Str(text) => Cell::Text(text),
        // Also text in a column whose writer did not mark it as text.
        Field::Bytes(bytes) => match String::from_utf8(bytes.data().to_vec()) {
            Ok(text) => Cell::Text(text),
            Err(error) => Cell::Bytes(error.into_bytes()),
        },
        Field::Group(_) | Field::ListInternal(_) | Field::MapInternal(_) => {
            Cell::Nested(json(field))
        }
        Field::Byte(_)
        | Field::Short(_)
        | Field::Int(_)
        | Field::Long(_)
        | Field::UByte(_)
        | Field::UShort(_)
        | Field::UInt(_)
        | Field::ULong(_)
        | Field::Decimal(_) => Cell::Number(field.to_string()),
        Field::Float16(value) => Cell::Number(value.to_f32().to_string()),
        Field::Float(value) => Cell::Number(value.to_string()),
        Field::Double(value) => Cell::Number(value.to_string()),
        other => Cell::Text(other.to_string()),
    }
}

/// A nested value as JSON.
fn json(field: Field) -> Value {
    match field {
        Field::Group(row) => {
            let members = row.into_columns().into_iter();
            Value::Object(members.map(|(name, field)| (name, json(field))).collect())
        }
        Field::ListInternal(list) => list.elements().iter().cloned().map(json).collect(),
        Field::MapInternal(map) => {
            let members = map.entries().iter().map(|(key, value)| {
                let key = match cell(key.clone()) {
                    Cell::Text(text) | Cell::Number(text) => text,
                    other => other.to_json().to_string(),
                };
                (key, json(value.clone()))
            });
            Value::Object(members.collect::<Map<_, _>>())
        }
        other => cell(other).to_json(),
    }
}
