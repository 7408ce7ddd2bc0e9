//! A row: its place in a file and its cells by column.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use serde_json::{Map, Value};

use super::FormatError;

/// A cell of a row.
#[derive(Debug, Clone, PartialEq)]
pub enum Cell {
    /// No value.
    Null,
    /// A text; every cell of CSV and TSV is one.
    Text(String),
    /// True or false.
    Bool(bool),
    /// A number as the file spells it, of any size.
    Number(String),
    /// A list or an object.
    Nested(Value),
    /// Bytes that are not UTF-8.
    Bytes(Vec<u8>),
}

impl Cell {
    /// The type of the value, in words for messages.
    pub fn type_name(&self) -> &'static str {
        match self {
            Self::Null => "null",
            Self::Text(_) => "a string",
            Self::Bool(_) => "true or false",
            Self::Number(_) => "a number",
            Self::Nested(Value::Array(_)) => "a list",
            Self::Nested(_) => "an object",
            Self::Bytes(_) => "bytes that are not UTF-8",
        }
    }

    /// The value as JSON. A number that JSON's 64 bits can't hold exactly becomes a string of its digits.
    pub fn to_json(&self) -> Value {
        match self {
            Self::Null => Value::Null,
            Self::Text(text) => text.clone().into(),
            Self::Bool(value) => (*value).into(),
            Self::Nested(value) => value.clone(),
            Self::Bytes(bytes) => bytes.clone().into(),
            Self::Number(digits) => match serde_json::from_str(digits) {
                Ok(Value::Number(number)) if number.is_f64() && is_whole(digits) => {
                    digits.clone().into()
                }
                Ok(value) => value,
                Err(_) => digits.clone().into(),
            },
        }
    }
}

/// Returns true for digits without a fraction or an exponent.
pub(super) fn is_whole(number: &str) -> bool {
    let digits = number.strip_prefix(['-', '+']).unwrap_or(number);
    !digits.is_empty() && digits.bytes().all(|byte| byte.is_ascii_digit())
}

/// The columns that are wanted of a file.
#[derive(Debug, Clone)]
pub(super) struct Wanted {
    /// Their names, without repetition.
    pub(super) names: Vec<String>,
    /// Number of leading names that a table must have.
    pub(super) required: usize,
}

impl Wanted {
    pub(super) fn all_of(names: &[&str]) -> Self {
        Self {
            names: names.iter().map(|&name| name.to_owned()).collect(),
            required: names.len(),
        }
    }
}

#[derive(Debug, Clone, PartialEq)]
pub(super) enum RowContent {
    /// A text without columns: a line of a text file, a JSON string.
    Bare(String),
    /// Cells by column, in the order of the file.
    Cells(Vec<(String, Cell)>),
}

/// A row of a file.
#[derive(Debug, Clone, PartialEq)]
pub struct Row {
    path: Arc<Path>,
    number: u64,
    content: RowContent,
}

impl Row {
    pub(super) fn new(path: &Arc<Path>, number: u64, content: RowContent) -> Self {
        Self {
            path: path.clone(),
            number,
            content,
        }
    }

    /// Line of the file, from 1 (of a row of several lines the first); in Parquet the row, from 1.
    pub fn number(&self) -> u64 {
        self.number
    }

    /// `file:line`, for messages.
    pub fn place(&self) -> String {
        format!("{}:{}", self.path.display(), self.number)
    }

    /// Returns true for a text without columns: a line of a text file, a JSON string. Its text is the value of every text column.
    pub fn is_bare(&self) -> bool {
        matches!(self.content, RowContent::Bare(_))
    }

    /// The cell of a column; `None` if the row lacks the column, or is a bare text.
    pub fn cell(&self, column: &str) -> Option<&Cell> {
        let RowContent::Cells(cells) = &self.content else {
            return None;
        };
        let found = cells.iter().find(|(name, _)| name == column);
        found.map(|(_, cell)| cell)
    }

    /// Names of the columns, in the order of the file.
    pub fn columns(&self) -> impl Iterator<Item = &str> {
        let cells: &[_] = match &self.content {
            RowContent::Bare(_) => &[],
            RowContent::Cells(cells) => cells,
        };
        cells.iter().map(|(name, _)| name.as_str())
    }

    /// The text of a column, or the whole of a bare text.
    ///
    /// # Errors
    /// A row without the column, a null, a value that is no string: with file and line.
    pub fn text(&self, column: &str) -> Result<&str, FormatError> {
        if let RowContent::Bare(text) = &self.content {
            return Ok(text);
        }
        match self.cell(column) {
            Some(Cell::Text(text)) => Ok(text),
            other => Err(self.no_text(column, other)),
        }
    }

    /// The text of a column; `None` if the row is a bare text, lacks the column or has null there.
    ///
    /// # Errors
    /// A value that is no string, with file and line.
    pub fn optional_text(&self, column: &str) -> Result<Option<&str>, FormatError> {
        match self.cell(column) {
            None | Some(Cell::Null) => Ok(None),
            Some(Cell::Text(text)) => Ok(Some(text)),
            other => Err(self.no_text(column, other)),
        }
    }

    /// As [`Self::text`], taking the text out of the row.
    ///
    /// # Errors
    /// As [`Self::text`].
    pub fn take_text(&mut self, column: &str) -> Result<String, FormatError> {
        self.text(column)?;
        Ok(match &mut self.content {
            RowContent::Bare(text) => std::mem::take(text),
            RowContent::Cells(cells) => {
                let cell = cells.iter_mut().find(|(name, _)| name == column);
                match cell {
                    Some((_, Cell::Text(text))) => std::mem::take(text),
                    _ => String::new(),
                }
            }
        })
    }

    /// The row as JSON: an object, or a string for a bare text. Whole numbers beyond 64 bits become strings.
    pub fn to_json(&self) -> Value {
        match &self.content {
            RowContent::Bare(text) => text.clone().into(),
            RowContent::Cells(cells) => {
                let members = cells.iter();
                let members = members.map(|(name, cell)| (name.clone(), cell.to_json()));
                Value::Object(members.collect::<Map<_, _>>())
            }
        }
    }

    /// An error of this row; the reason says what is wrong and what to do.
    pub fn error(&self, reason: impl Into<String>) -> FormatError {
        FormatError::Row {
            path: PathBuf::from(&*self.path),
            line: self.number,
            reason: reason.into(),
        }
    }

    fn no_text(&self, column: &str, found: Option<&Cell>) -> FormatError {
        self.error(match found {
            None => no_field(column, self.columns()),
            Some(Cell::Null) => {
                format!("the field {column:?} is null; give the row a text or leave it out")
            }
            Some(cell) => format!(
                "the field {column:?} is {}, not a string; write it as a string",
                cell.type_name()
            ),
        })
    }
}

/// The reason of a row that lacks a field.
pub(super) fn no_field<'a>(field: &str, present: impl Iterator<Item = &'a str>) -> String {
    let present = quoted(present);
    format!(
        "no field {field:?} (the row has {present}); name the field that holds it, or leave the row out"
    )
}

/// Names in quotes, for messages: a space at the end of one shows.
pub(super) fn quoted<'a>(names: impl Iterator<Item = &'a str>) -> String {
    let names: Vec<String> = names.map(|name| format!("{name:?}")).collect();
    if names.is_empty() {
        "none".into()
    } else {
        names.join(", ")
    }
}
