//! Tab-separated text as GLUE writes it: no quoting, so a double quote is an ordinary character.
//!
//! Lines end at `\n`; one `\r` before it is dropped, any other stays in the text. A byte order mark at the start, a
//! missing last newline and blank lines at the end are all accepted.

use std::io;
use std::path::{Path, PathBuf};

use modernbert::read::encoding_remedy;

use super::error::GlueDataError;
use crate::task::Task;

/// The text of a file, known to be UTF-8.
#[derive(Debug, Clone)]
pub struct TextFile {
    path: PathBuf,
    text: String,
}

impl TextFile {
    /// Reads a file of `task` (named in the error when the file is missing).
    pub fn read(path: &Path, task: Task) -> Result<Self, GlueDataError> {
        let bytes = modernbert::read::bytes(path).map_err(|source| match source.kind() {
            io::ErrorKind::NotFound => GlueDataError::NoFile {
                path: path.to_path_buf(),
                task,
            },
            _ => GlueDataError::Read {
                path: path.to_path_buf(),
                source,
            },
        })?;
        let text = String::from_utf8(bytes).map_err(|error| {
            let valid = &error.as_bytes()[..error.utf8_error().valid_up_to()];
            let line = 1 + valid.iter().filter(|byte| **byte == b'\n').count();
            GlueDataError::NotUtf8 {
                path: path.to_path_buf(),
                line,
                remedy: encoding_remedy(error.as_bytes(), path),
            }
        })?;
        Ok(Self {
            path: path.to_path_buf(),
            text,
        })
    }

    /// File of the text.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// The lines with their numbers, from 1.
    pub fn lines(&self) -> impl Iterator<Item = (usize, &str)> {
        read_lines(&self.text)
    }
}

/// The lines of a text with their numbers, from 1: the module docs define a line.
pub fn read_lines(text: &str) -> impl Iterator<Item = (usize, &str)> {
    let text = text
        .strip_prefix('\u{feff}')
        .unwrap_or(text)
        .trim_end_matches(['\r', '\n']);
    let lines = (!text.is_empty()).then(|| text.split('\n'));
    lines
        .into_iter()
        .flatten()
        .enumerate()
        .map(|(i, line)| (i + 1, line.strip_suffix('\r').unwrap_or(line)))
}

/// Positions of the wanted columns in a file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Header {
    names: Vec<String>,
}

impl Header {
    /// Parses the header line.
    pub fn parse(line: &str) -> Self {
        Self {
            names: line.split('\t').map(str::to_string).collect(),
        }
    }

    /// The header of a file that has none of its own.
    pub fn of(names: &[&str]) -> Self {
        Self {
            names: names.iter().map(ToString::to_string).collect(),
        }
    }

    /// Number of columns that every row must have.
    pub fn width(&self) -> usize {
        self.names.len()
    }

    /// Returns true if there is a column of this name.
    pub fn has(&self, name: &str) -> bool {
        self.names.iter().any(|known| known == name)
    }

    /// The position of a column; `path` is for the error.
    pub fn column(&self, name: &str, path: &Path) -> Result<usize, GlueDataError> {
        let mut found = self
            .names
            .iter()
            .enumerate()
            .filter(|(_, known)| *known == name)
            .map(|(i, _)| i);
        match (found.next(), found.next()) {
            (Some(i), None) => Ok(i),
            (Some(_), Some(_)) => Err(GlueDataError::DuplicateColumn {
                path: path.to_path_buf(),
                column: name.to_string(),
            }),
            (None, _) => Err(GlueDataError::MissingColumn {
                path: path.to_path_buf(),
                column: name.to_string(),
                found: self
                    .names
                    .iter()
                    .map(|name| format!("'{name}'"))
                    .collect::<Vec<_>>()
                    .join(", "),
            }),
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use proptest::prelude::*;

    fn lines(text: &str) -> Vec<&str> {
        read_lines(text).map(|(_, line)| line).collect()
    }

    #[test]
    fn line_ends_and_marks_of_other_systems_are_no_text() {
        assert_eq!(lines("a\tb\nc\td\n"), ["a\tb", "c\td"]);
        assert_eq!(lines("\u{feff}a\r\nb\r\n"), ["a", "b"]);
        assert_eq!(lines("a\nb"), ["a", "b"]);
        assert_eq!(lines("a\n\nb\n\r\n\n"), ["a", "", "b"]);
        assert!(lines("").is_empty() && lines("\u{feff}\r\n").is_empty());
    }

    #[test]
    fn what_only_looks_like_a_line_end_is_text() {
        assert_eq!(
            lines("a\rb\u{2028}c\u{85}d\u{b}\ne"),
            ["a\rb\u{2028}c\u{85}d\u{b}", "e"]
        );
        assert_eq!(lines("a \t\nb "), ["a \t", "b "]);
    }

    proptest! {
        #[test]
        fn any_rows_come_back_as_written(
            rows in prop::collection::vec("[^\\t\\n\\r\u{feff}]{0,9}\t[^\\t\\n\\r]{1,9}", 1..9),
            crlf: bool, bom: bool, last: bool,
        ) {
            let end = if crlf { "\r\n" } else { "\n" };
            let text = format!("{}{}{}", if bom { "\u{feff}" } else { "" }, rows.join(end), if last { end } else { "" });
            prop_assert_eq!(lines(&text), rows);
        }
    }
}
