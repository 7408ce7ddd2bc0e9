//! The documents of files.

use std::path::Path;

use super::bytes::ReadBytes;
use super::kind::{FileKind, Format};
use super::row::{Cell, Row, Wanted};
use super::text::{content, whole};
use super::{FormatError, InputFile, Rows, mds, text};

/// Names of the fields that are read.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Fields {
    /// The text; `"text"` by default.
    pub text: String,
    /// A row's name, if it has one; `"id"` by default.
    pub id: String,
    /// Token ids of rows without a text, in MDS; `"input_ids"` by default.
    pub tokens: String,
}

impl Default for Fields {
    fn default() -> Self {
        Self {
            text: "text".into(),
            id: "id".into(),
            tokens: "input_ids".into(),
        }
    }
}

/// A document.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Record {
    /// Its name in messages: a relative path, a row's id or `file:row`.
    pub name: String,
    /// Its text or tokens.
    pub content: Content,
}

/// The content of a document.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Content {
    /// Text, never blank.
    Text(String),
    /// Text that was tokenized elsewhere.
    Tokens(Vec<u32>),
}

type RecordIter = Box<dyn Iterator<Item = Result<Record, FormatError>> + Send>;

/// The documents of one file or MDS folder, in the order of the file. Blank ones are left out.
pub struct Records {
    stream: RecordIter,
    read: ReadBytes,
}

impl Records {
    /// Opens a file or an MDS folder.
    ///
    /// A file of text is one document, a row of any other format is one.
    ///
    /// # Errors
    /// A file that can't be opened or is no file of its format, an ending that is not known, a column that is missing.
    pub fn open(input: &InputFile, fields: &Fields) -> Result<Self, FormatError> {
        let (path, name) = (input.path.as_path(), input.name.as_str());
        let read = ReadBytes::default();
        let stream: RecordIter = if input.is_mds {
            Box::new(mds::MdsRecords::open(path, name, fields, &read)?)
        } else {
            let kind =
                FileKind::of(path).ok_or_else(|| FormatError::Ending { path: path.into() })?;
            if kind.format == Format::Text {
                let limit = text::LONGEST_DOCUMENT;
                let document = content(whole(path, kind.compression, &read, limit)?);
                let name = name.to_owned();
                let record = document.map(|content| Ok(Record { name, content }));
                Box::new(record.into_iter())
            } else {
                rows(path, name, kind, fields, &read)?
            }
        };
        Ok(Self { stream, read })
    }

    /// Bytes read of the file on disk so far, shared: for progress.
    pub fn read_bytes(&self) -> ReadBytes {
        self.read.clone()
    }
}

impl Iterator for Records {
    type Item = Result<Record, FormatError>;

    fn next(&mut self) -> Option<Self::Item> {
        self.stream.next()
    }
}

fn rows(
    path: &Path,
    name: &str,
    kind: FileKind,
    fields: &Fields,
    read: &ReadBytes,
) -> Result<RecordIter, FormatError> {
    let mut wanted = Wanted::all_of(&[&fields.text]);
    if fields.id != fields.text {
        // Rows without an id are called by their place.
        wanted.names.push(fields.id.clone());
    }
    let (name, fields) = (name.to_owned(), fields.clone());
    let rows = Rows::of_kind(path, kind, Some(wanted), read)?;
    Ok(Box::new(rows.filter_map(move |row| {
        row.and_then(|row| record(row, &name, &fields)).transpose()
    })))
}

/// A row as a document, called by its id or its place; `None` for blank text.
fn record(mut row: Row, file: &str, fields: &Fields) -> Result<Option<Record>, FormatError> {
    let id = match row.cell(&fields.id) {
        Some(Cell::Text(id)) if !id.is_empty() => Some(id.clone()),
        Some(Cell::Number(id)) => Some(id.clone()),
        _ => None,
    };
    let name = id.unwrap_or_else(|| format!("{file}:{}", row.number()));
    let text = row.take_text(&fields.text)?;
    Ok(content(text).map(|content| Record { name, content }))
}
