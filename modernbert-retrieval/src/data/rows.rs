//! Rows of JSONL (also .gz) and Parquet files, as JSON objects with their place.

use std::fs::File;
use std::io::{BufRead, BufReader, Read};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use flate2::bufread::MultiGzDecoder;
use parquet::file::reader::SerializedFileReader;
use parquet::record::{Field, Row as ParquetRow};
use serde_json::{Map, Value};

use super::DataError;

/// One row and its place.
#[derive(Clone, Debug)]
pub(crate) struct Row {
    /// The file, shared by its rows.
    pub(crate) path: Arc<PathBuf>,
    /// The line, or the row of a Parquet file, from 1.
    pub(crate) line: usize,
    /// The fields.
    pub(crate) fields: Map<String, Value>,
}

/// A stream of rows.
pub(crate) type Rows = Box<dyn Iterator<Item = Result<Row, DataError>> + Send>;

/// One numbered line of text.
pub(crate) struct Line {
    /// From 1.
    pub(crate) number: usize,
    /// Without its line break.
    pub(crate) text: String,
}

/// Opens a file for reading, unpacking .gz.
pub(crate) fn open(path: &Path) -> Result<Box<dyn BufRead + Send>, DataError> {
    let file = File::open(path).map_err(|source| DataError::Read {
        path: path.to_path_buf(),
        source,
    })?;
    let plain = BufReader::with_capacity(1 << 18, file);
    if path.extension().is_some_and(|extension| extension == "gz") {
        let unpacked: Box<dyn Read + Send> = Box::new(MultiGzDecoder::new(plain));
        return Ok(Box::new(BufReader::with_capacity(1 << 18, unpacked)));
    }
    Ok(Box::new(plain))
}

/// Returns the lines of a UTF-8 file, also .gz. A byte order mark is dropped; blank lines are skipped.
pub(crate) fn lines(
    path: &Path,
) -> Result<impl Iterator<Item = Result<Line, DataError>> + Send + use<>, DataError> {
    let mut reader = open(path)?;
    let path = path.to_path_buf();
    let mut number = 0;
    let mut failed = false;
    Ok(std::iter::from_fn(move || {
        while !failed {
            number += 1;
            let mut bytes = Vec::new();
            match reader.read_until(b'\n', &mut bytes) {
                Ok(0) => return None,
                Ok(_) => {}
                Err(source) => {
                    failed = true;
                    return Some(Err(DataError::ReadLine {
                        path: path.clone(),
                        line: number,
                        source,
                    }));
                }
            }
            let Ok(text) = String::from_utf8(bytes) else {
                failed = true;
                return Some(Err(DataError::NotUtf8 {
                    path: path.clone(),
                    line: number,
                }));
            };
            let mut text = text.trim_end_matches(['\n', '\r']);
            if number == 1 {
                text = text.strip_prefix('\u{feff}').unwrap_or(text);
            }
            if !text.trim().is_empty() {
                let text = text.to_string();
                return Some(Ok(Line { number, text }));
            }
        }
        None
    }))
}

/// Returns the rows of one file: Parquet by its extension, JSONL otherwise.
pub(crate) fn rows(path: &Path) -> Result<Rows, DataError> {
    if path
        .extension()
        .is_some_and(|extension| extension == "parquet")
    {
        return parquet_rows(path);
    }
    let shared = Arc::new(path.to_path_buf());
    Ok(Box::new(lines(path)?.map(move |line| {
        let line = line?;
        let fields = serde_json::from_str(&line.text).map_err(|error| DataError::Json {
            path: shared.to_path_buf(),
            line: line.number,
            reason: error.to_string(),
        })?;
        Ok(Row {
            path: Arc::clone(&shared),
            line: line.number,
            fields,
        })
    })))
}

/// Returns the rows of several files, one after the other. A file is opened when its first row is due.
pub(crate) fn rows_of(paths: &[PathBuf]) -> Rows {
    let paths = paths.to_vec();
    Box::new(paths.into_iter().flat_map(|path| match rows(&path) {
        Ok(rows) => rows,
        Err(error) => Box::new(std::iter::once(Err(error))) as Rows,
    }))
}

fn parquet_rows(path: &Path) -> Result<Rows, DataError> {
    let shared = Arc::new(path.to_path_buf());
    let broken = |path: &Path, reason: String| DataError::Parquet {
        path: path.to_path_buf(),
        reason,
    };
    let file = File::open(path).map_err(|source| DataError::Read {
        path: path.to_path_buf(),
        source,
    })?;
    let reader =
        SerializedFileReader::new(file).map_err(|error| broken(path, error.to_string()))?;
    let rows = reader.into_iter().enumerate().map(move |(number, row)| {
        let row = row.map_err(|error| broken(&shared, format!("row {}: {error}", number + 1)))?;
        Ok(Row {
            path: Arc::clone(&shared),
            line: number + 1,
            fields: object(&row),
        })
    });
    Ok(Box::new(rows))
}

fn object(row: &ParquetRow) -> Map<String, Value> {
    let cells = row.get_column_iter();
    cells
        .map(|(name, cell)| (name.clone(), json(cell)))
        .collect()
}

/// Converts a Parquet cell. Types that no retrieval layout uses become their text.
fn json(cell: &Field) -> Value {
    match cell {
        Field::Null => Value::Null,
        Field::Bool(value) => Value::from(*value),
        Field::Byte(value) => Value::from(*value),
        Field::Short(value) => Value::from(*value),
        Field::Int(value) => Value::from(*value),
        Field::Long(value) => Value::from(*value),
        Field::UByte(value) => Value::from(*value),
        Field::UShort(value) => Value::from(*value),
        Field::UInt(value) => Value::from(*value),
        Field::ULong(value) => Value::from(*value),
        Field::Float(value) => Value::from(*value),
        Field::Double(value) => Value::from(*value),
        Field::Str(value) => Value::from(value.as_str()),
        Field::Group(row) => Value::Object(object(row)),
        Field::ListInternal(list) => list.elements().iter().map(json).collect(),
        other => Value::from(other.to_string()),
    }
}

impl Row {
    /// Returns the first of the named fields that is present and not null, with its name.
    pub(crate) fn find<'row, 'name>(
        &'row self,
        names: &[&'name str],
    ) -> Option<(&'name str, &'row Value)> {
        let present = |name: &&'name str| {
            let value = self.fields.get(*name)?;
            (!value.is_null()).then_some((*name, value))
        };
        names.iter().find_map(present)
    }

    /// As [`Self::find`], with an error for a row that has none of the fields.
    pub(crate) fn need<'row, 'name>(
        &'row self,
        names: &[&'name str],
    ) -> Result<(&'name str, &'row Value), DataError> {
        self.find(names).ok_or_else(|| DataError::NoField {
            path: self.path.to_path_buf(),
            line: self.line,
            wanted: quoted(names.iter().copied()),
            found: quoted(self.fields.keys().map(String::as_str)),
        })
    }

    /// Returns an id: a string or an integer.
    pub(crate) fn id(&self, names: &[&str], what: &'static str) -> Result<String, DataError> {
        let (field, value) = self.need(names)?;
        let id = match value {
            Value::String(text) => text.clone(),
            Value::Number(number) if number.is_i64() || number.is_u64() => number.to_string(),
            other => return Err(self.wrong_type(field, other, "a string or an integer")),
        };
        if id.is_empty() {
            return Err(DataError::EmptyId {
                path: self.path.to_path_buf(),
                line: self.line,
                what,
            });
        }
        Ok(id)
    }

    /// Returns a text that must be present.
    pub(crate) fn text(&self, names: &[&str]) -> Result<String, DataError> {
        let (field, value) = self.need(names)?;
        match value {
            Value::String(text) => Ok(text.clone()),
            other => Err(self.wrong_type(field, other, "a string")),
        }
    }

    /// Returns a text, empty where the field is absent or null.
    pub(crate) fn text_or_empty(&self, names: &[&str]) -> Result<String, DataError> {
        match self.find(names) {
            None => Ok(String::new()),
            Some(_) => self.text(names),
        }
    }

    /// The error for a field of another type.
    pub(crate) fn wrong_type(
        &self,
        field: &str,
        value: &Value,
        expected: &'static str,
    ) -> DataError {
        DataError::FieldType {
            path: self.path.to_path_buf(),
            line: self.line,
            field: field.to_string(),
            found: kind(value),
            expected,
        }
    }
}

fn kind(value: &Value) -> &'static str {
    match value {
        Value::Null => "null",
        Value::Bool(_) => "a Boolean",
        Value::Number(_) => "a number",
        Value::String(_) => "a string",
        Value::Array(_) => "a list",
        Value::Object(_) => "an object",
    }
}

/// Returns names in quotes, separated by commas; "nothing" where there is none.
pub(crate) fn quoted<'a>(names: impl Iterator<Item = &'a str>) -> String {
    let names: Vec<String> = names.map(|name| format!("'{name}'")).collect();
    if names.is_empty() {
        return "nothing".to_string();
    }
    names.join(", ")
}
