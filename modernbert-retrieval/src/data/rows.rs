//! Rows of JSONL (also .gz) and Parquet files, as JSON objects with their place.

use std::io::{BufRead, BufReader, Read};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use flate2::bufread::MultiGzDecoder;
use modernbert_files::read;
use modernbert_train::formats::guarded_parquet;
use parquet::errors::ParquetError;
use parquet::file::reader::SerializedFileReader;
use parquet::record::{Field, Row as ParquetRow};
use serde::de::{Deserialize, Deserializer, MapAccess, Visitor};
use serde_json::{Map, Value};

use super::RetrievalDataError;

/// Longest line, in bytes: a packed file without line breaks must not fill the memory.
const LONGEST_LINE: u64 = 256 << 20;

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
pub(crate) type RowStream = Box<dyn Iterator<Item = Result<Row, RetrievalDataError>> + Send>;

/// One numbered line of text.
pub(crate) struct Line {
    /// From 1.
    pub(crate) number: usize,
    /// Without its line break.
    pub(crate) text: String,
}

/// Opens a file for reading, unpacking .gz.
pub(crate) fn open(path: &Path) -> Result<Box<dyn BufRead + Send>, RetrievalDataError> {
    let file = read::open(path).map_err(|source| RetrievalDataError::Read {
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
) -> Result<impl Iterator<Item = Result<Line, RetrievalDataError>> + Send + use<>, RetrievalDataError>
{
    lines_up_to(path, LONGEST_LINE)
}

fn lines_up_to(
    path: &Path,
    limit: u64,
) -> Result<impl Iterator<Item = Result<Line, RetrievalDataError>> + Send + use<>, RetrievalDataError>
{
    let mut reader = open(path)?;
    let path = path.to_path_buf();
    let mut number = 0;
    let mut failed = false;
    Ok(std::iter::from_fn(move || {
        while !failed {
            number += 1;
            let mut bytes = Vec::new();
            let read = (&mut reader).take(limit + 1).read_until(b'\n', &mut bytes);
            match read {
                Ok(0) => return None,
                Ok(length) if length as u64 > limit => {
                    failed = true;
                    return Some(Err(RetrievalDataError::LongLine {
                        path: path.clone(),
                        line: number,
                        limit: limit >> 20,
                    }));
                }
                Ok(_) => {}
                Err(source) => {
                    failed = true;
                    return Some(Err(RetrievalDataError::ReadLine {
                        path: path.clone(),
                        line: number,
                        source,
                    }));
                }
            }
            let not_utf8 = |bytes: &[u8]| {
                let first = if number == 1 { bytes } else { b"" };
                let encoding = read::other_encoding(first);
                RetrievalDataError::NotUtf8 {
                    path: path.clone(),
                    line: number,
                    hint: encoding.map_or_else(String::new, |name| format!(" (it is {name})")),
                    remedy: read::encoding_remedy(first, &path),
                }
            };
            // UTF-16 without a mark can be valid UTF-8.
            if number == 1 && read::other_encoding(&bytes).is_some() {
                failed = true;
                return Some(Err(not_utf8(&bytes)));
            }
            let text = match String::from_utf8(bytes) {
                Ok(text) => text,
                Err(error) => {
                    failed = true;
                    return Some(Err(not_utf8(error.as_bytes())));
                }
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
pub(crate) fn rows(path: &Path) -> Result<RowStream, RetrievalDataError> {
    if path
        .extension()
        .is_some_and(|extension| extension == "parquet")
    {
        return parquet_rows(path);
    }
    let shared = Arc::new(path.to_path_buf());
    Ok(Box::new(lines(path)?.map(move |line| {
        let line = line?;
        let fields: Fields =
            serde_json::from_str(&line.text).map_err(|error| RetrievalDataError::Json {
                path: shared.to_path_buf(),
                line: line.number,
                reason: error.to_string(),
            })?;
        if let Some(field) = fields.twice {
            return Err(RetrievalDataError::FieldTwice {
                path: shared.to_path_buf(),
                line: line.number,
                field,
            });
        }
        Ok(Row {
            path: Arc::clone(&shared),
            line: line.number,
            fields: fields.all,
        })
    })))
}

/// The fields of a JSON object, and the first name that occurs twice in it.
struct Fields {
    all: Map<String, Value>,
    twice: Option<String>,
}

impl<'de> Deserialize<'de> for Fields {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Visit;
        impl<'de> Visitor<'de> for Visit {
            type Value = Fields;

            fn expecting(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                f.write_str("an object")
            }

            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Fields, A::Error> {
                let (mut all, mut twice) = (Map::new(), None);
                while let Some((name, value)) = map.next_entry::<String, Value>()? {
                    if all.contains_key(&name) {
                        twice.get_or_insert(name);
                    } else {
                        all.insert(name, value);
                    }
                }
                Ok(Fields { all, twice })
            }
        }
        deserializer.deserialize_map(Visit)
    }
}

/// Returns the rows of several files, one after the other. A file is opened when its first row is due.
pub(crate) fn rows_of(paths: &[PathBuf]) -> RowStream {
    let paths = paths.to_vec();
    Box::new(paths.into_iter().flat_map(|path| match rows(&path) {
        Ok(rows) => rows,
        Err(error) => Box::new(std::iter::once(Err(error))) as RowStream,
    }))
}

fn parquet_rows(path: &Path) -> Result<RowStream, RetrievalDataError> {
    let shared = Arc::new(path.to_path_buf());
    let file = read::open(path).map_err(|source| RetrievalDataError::Read {
        path: path.to_path_buf(),
        source,
    })?;
    let mut rows = guarded(path, "", || SerializedFileReader::new(file))?.into_iter();
    let mut line = 0;
    let mut failed = false;
    let rows = std::iter::from_fn(move || {
        if failed {
            return None;
        }
        line += 1;
        let row = guarded(&shared, &format!("row {line}: "), || {
            rows.next().transpose()
        });
        let row = row.transpose()?;
        failed = row.is_err();
        Some(row.map(|row| Row {
            path: Arc::clone(&shared),
            line,
            fields: object(&row),
        }))
    });
    Ok(Box::new(rows))
}

fn guarded<T>(
    path: &Path,
    place: &str,
    read: impl FnOnce() -> Result<T, ParquetError>,
) -> Result<T, RetrievalDataError> {
    guarded_parquet(read).map_err(|fault| RetrievalDataError::Parquet {
        path: path.to_path_buf(),
        reason: format!("{place}{fault}"),
    })
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
    ) -> Result<(&'name str, &'row Value), RetrievalDataError> {
        let missing = || {
            let null = names.iter().find(|name| self.fields.contains_key(**name));
            if let Some(field) = null {
                return RetrievalDataError::NullField {
                    path: self.path.to_path_buf(),
                    line: self.line,
                    field: field.to_string(),
                };
            }
            RetrievalDataError::NoField {
                path: self.path.to_path_buf(),
                line: self.line,
                wanted: quoted(names.iter().copied()),
                found: quoted(self.fields.keys().map(String::as_str)),
            }
        };
        self.find(names).ok_or_else(missing)
    }

    /// Returns an id: a string or an integer.
    pub(crate) fn id(
        &self,
        names: &[&str],
        what: &'static str,
    ) -> Result<String, RetrievalDataError> {
        let (field, value) = self.need(names)?;
        if field == "_id"
            && names.contains(&"id")
            && let Some((_, other)) = self.find(&["id"])
            && plain(other) != plain(value)
        {
            return Err(RetrievalDataError::TwoIds {
                path: self.path.to_path_buf(),
                line: self.line,
                first: plain(value),
                second: plain(other),
            });
        }
        let id = match value {
            Value::String(text) => text.clone(),
            Value::Number(number) if number.is_i64() || number.is_u64() => number.to_string(),
            other => {
                return Err(self.wrong_type(field, other, "a string or an integer of 64 bits"));
            }
        };
        if id.is_empty() {
            return Err(RetrievalDataError::EmptyId {
                path: self.path.to_path_buf(),
                line: self.line,
                what,
            });
        }
        Ok(id)
    }

    /// Returns a text that must be present.
    pub(crate) fn text(&self, names: &[&str]) -> Result<String, RetrievalDataError> {
        let (field, value) = self.need(names)?;
        match value {
            Value::String(text) => Ok(text.clone()),
            other => Err(self.wrong_type(field, other, "a string")),
        }
    }

    /// Returns a text, empty where the field is absent or null.
    pub(crate) fn text_or_empty(&self, names: &[&str]) -> Result<String, RetrievalDataError> {
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
    ) -> RetrievalDataError {
        RetrievalDataError::FieldType {
            path: self.path.to_path_buf(),
            line: self.line,
            field: field.to_string(),
            found: kind(value),
            expected,
        }
    }
}

/// A string without its quotes, another value as JSON.
fn plain(value: &Value) -> String {
    value
        .as_str()
        .map_or_else(|| value.to_string(), str::to_owned)
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

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;

    #[test]
    fn a_line_without_end_is_refused() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("corpus.jsonl");
        std::fs::write(&path, "12345\n123456\n1\n").unwrap();
        let lines: Vec<_> = lines_up_to(&path, 6).unwrap().collect();
        assert_eq!(lines.len(), 2);
        assert_eq!(lines[0].as_ref().unwrap().text, "12345");
        let error = lines[1].as_ref().err().unwrap().to_string();
        assert!(error.contains("corpus.jsonl:2: longer than"), "{error}");
    }

    #[test]
    fn utf16_is_named() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("test.tsv");
        let units = "query-id\tcorpus-id\tscore\n".encode_utf16();
        let bytes: Vec<u8> = units.flat_map(u16::to_le_bytes).collect();
        for (mark, named) in [
            (&b"\xff\xfe"[..], "(it is UTF-16)"),
            (b"", "(it is UTF-16LE)"),
        ] {
            std::fs::write(&path, [mark, &bytes].concat()).unwrap();
            let first = lines(&path).unwrap().next().unwrap();
            let error = first.err().unwrap().to_string();
            assert!(
                error.contains("test.tsv:1") && error.contains(named),
                "{error}"
            );
            assert!(error.contains("iconv -f UTF-16"), "{error}");
        }
    }

    #[test]
    fn two_ids_of_one_row_are_refused() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("corpus.jsonl");
        let id = |row: &str| {
            std::fs::write(&path, row).unwrap();
            let row = rows(&path).unwrap().next().unwrap().unwrap();
            row.id(&["_id", "id", "docid"], "document")
                .map_err(|error| error.to_string())
        };
        assert_eq!(id("{\"_id\":\"a\",\"id\":\"a\"}").unwrap(), "a");
        assert_eq!(id("{\"_id\":\"7\",\"id\":7}").unwrap(), "7");
        assert_eq!(id("{\"_id\":\"a\",\"id\":null}").unwrap(), "a");
        // The id of a part of a document, and that of the document.
        assert_eq!(id("{\"id\":\"a\",\"docid\":\"b\"}").unwrap(), "a");
        let error = id("{\"id\":\"b\",\"_id\":\"a\"}").unwrap_err();
        assert!(
            error.contains("corpus.jsonl:1: _id is \"a\" and id is \"b\""),
            "{error}"
        );
    }

    #[cfg(unix)]
    #[test]
    fn a_device_is_not_read() {
        let folder = tempfile::tempdir().unwrap();
        for name in ["corpus.jsonl", "corpus.parquet"] {
            let path = folder.path().join(name);
            std::os::unix::fs::symlink("/dev/zero", &path).unwrap();
            let error = rows(&path).err().unwrap().to_string();
            assert!(error.contains("a device"), "{error}");
        }
    }

    #[test]
    fn every_damaged_parquet_file_is_an_error() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("a.parquet");
        let bytes = test_rows(&path);
        for at in 0..bytes.len() {
            let mut damaged = bytes.clone();
            damaged[at] ^= 0x55;
            std::fs::write(&path, damaged).unwrap();
            // The position of a changed byte decides if the reader reports an error; the reader returns in every case.
            if let Ok(rows) = rows(&path) {
                let failed = rows.take(9).filter(Result::is_err).count();
                assert!(failed <= 1);
            }
        }
        std::fs::write(&path, &bytes[..bytes.len() - 3]).unwrap();
        assert!(rows(&path).is_err());
    }

    /// Writes two rows of text; returns the file's bytes.
    fn test_rows(path: &Path) -> Vec<u8> {
        use parquet::data_type::{ByteArray, ByteArrayType};
        use parquet::file::writer::SerializedFileWriter;
        let schema = parquet::schema::parser::parse_message_type(
            "message rows { required binary text (UTF8); }",
        );
        let file = std::fs::File::create(path).unwrap();
        let properties = Arc::default();
        let mut writer =
            SerializedFileWriter::new(file, Arc::new(schema.unwrap()), properties).unwrap();
        let mut group = writer.next_row_group().unwrap();
        let mut column = group.next_column().unwrap().unwrap();
        let values = [ByteArray::from("one"), ByteArray::from("two")];
        let typed = column.typed::<ByteArrayType>();
        typed.write_batch(&values, None, None).unwrap();
        column.close().unwrap();
        group.close().unwrap();
        writer.close().unwrap();
        std::fs::read(path).unwrap()
    }
}
