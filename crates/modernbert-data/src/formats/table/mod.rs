//! Rows with labels, on which classifiers are finetuned, from CSV, TSV, JSONL and Parquet files.

mod error;
mod labels;
mod several;
#[cfg(test)]
mod tests;

use std::path::{Path, PathBuf};

pub use error::TableError;
pub use labels::LabelSet;
pub(super) use labels::meaning;
pub use several::{SeveralRow, SeveralTable};

use super::row::{Cell, Row, is_whole};
use super::{FormatError, Rows};

/// Names of the columns or fields to read.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Columns {
    /// The text, or the first of a pair.
    pub text: String,
    /// The second text of a pair.
    pub pair: Option<String>,
    /// The label.
    pub label: String,
}

/// One labelled row of a file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LabelledRow {
    /// Line in the file, from 1 (of a row of several lines the first); in Parquet the row, from 1.
    pub line: u64,
    /// The text.
    pub text: String,
    /// The second text.
    pub pair: Option<String>,
    /// The label as the file spells it, without white space around it; never empty.
    pub label: String,
}

/// A file of labelled rows.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Table {
    /// The file.
    pub path: PathBuf,
    /// Its rows, in order; at least one.
    pub rows: Vec<LabelledRow>,
}

impl Table {
    /// Reads a file; its ending says its format, see [`Rows`].
    ///
    /// # Errors
    /// A file that can't be read, a missing or doubled column, a broken row, a row without text or label, labels of different types:
    /// with file and line.
    pub fn read(path: &Path, columns: &Columns) -> Result<Self, TableError> {
        let mut rows = Vec::new();
        let mut first: Option<(u64, &'static str)> = None;
        each_row(path, columns, |row, text, pair| {
            let (label, type_name) = label(&row, &columns.label)?;
            let (line, type_before) = *first.get_or_insert((row.number(), type_name));
            if type_before != type_name {
                return Err(row.error(format!(
                    "the label is {type_name}, in line {line} it is {type_before}; write all labels as one type"
                )));
            }
            rows.push(LabelledRow {
                line: row.number(),
                pair,
                label,
                text,
            });
            Ok(())
        })?;
        Ok(Self {
            path: path.to_path_buf(),
            rows,
        })
    }

    /// The class id of every row.
    ///
    /// # Errors
    /// A label that is not in the set, with file and line.
    pub fn class_ids(&self, labels: &LabelSet) -> Result<Vec<u32>, TableError> {
        let id = |row: &LabelledRow| labels.known_id(&self.path, row.line, &row.label);
        self.rows.iter().map(id).collect()
    }

    /// The label of every row as a number.
    ///
    /// # Errors
    /// A label that is no finite number, or a whole number that f32 does not hold, with file and line.
    pub fn scores(&self) -> Result<Vec<f32>, TableError> {
        let score = |row: &LabelledRow| {
            let exact: Option<f64> = row.label.parse().ok();
            let exact = exact.filter(|score| score.is_finite());
            let exact = exact.ok_or_else(|| TableError::Score {
                path: self.path.clone(),
                line: row.line,
                label: row.label.clone(),
            })?;
            // A fraction is rounded; a whole number must stay the one that was written.
            let score = exact as f32;
            let vanishes = exact != 0.0 && score.abs() < f32::MIN_POSITIVE;
            if !score.is_finite() || vanishes || (exact.fract() == 0.0 && f64::from(score) != exact)
            {
                return Err(TableError::ScoreDigits {
                    path: self.path.clone(),
                    line: row.line,
                    label: row.label.clone(),
                });
            }
            Ok(score)
        };
        self.rows.iter().map(score).collect()
    }
}

/// Calls `see` with each row of a file, its text and the second text of its pair.
fn each_row(
    path: &Path,
    columns: &Columns,
    mut see: impl FnMut(Row, String, Option<String>) -> Result<(), FormatError>,
) -> Result<(), TableError> {
    let wanted = [
        Some(&columns.text),
        columns.pair.as_ref(),
        Some(&columns.label),
    ];
    let wanted: Vec<&str> = wanted.into_iter().flatten().map(String::as_str).collect();
    for (i, column) in wanted.iter().enumerate() {
        if wanted[..i].contains(column) {
            return Err(TableError::SameColumn((*column).into()));
        }
    }
    let mut is_empty = true;
    for row in Rows::open_columns(path, &wanted)? {
        let mut row = row?;
        if row.is_bare() {
            return Err(row
                .error("a text without a label; write an object with both, or use .csv or .tsv")
                .into());
        }
        is_empty = false;
        let pair = columns.pair.as_deref().map(|pair| row.take_text(pair));
        let pair = pair.transpose()?;
        let text = row.take_text(&columns.text)?;
        see(row, text, pair)?;
    }
    if is_empty {
        return Err(TableError::Empty(path.to_path_buf()));
    }
    Ok(())
}

/// A row's label and its type in words.
fn label(row: &Row, column: &str) -> Result<(String, &'static str), FormatError> {
    let cell = row.cell(column);
    let label = match cell {
        Some(Cell::Text(label)) => label.trim().to_owned(),
        Some(Cell::Number(label)) => {
            let large = |value: f64| !is_whole(label) && value.abs() >= 2f64.powi(53);
            if label
                .parse()
                .is_ok_and(|value: f64| value.is_nan() || large(value))
            {
                return Err(row.error(format!(
                    "the label {label} is not an exact number; write a class as a whole number or a string, a number to be learned below 2^53"
                )));
            }
            label.clone()
        }
        Some(Cell::Bool(label)) => label.to_string(),
        Some(Cell::Null) => {
            return Err(row.error("the label is null; give the row a label or leave it out"));
        }
        Some(cell @ (Cell::Nested(_) | Cell::Bytes(_))) => {
            return Err(row.error(format!(
                "the label is {}, neither a string nor a number; one label a row is read here",
                cell.type_name()
            )));
        }
        None => {
            return Err(row.error(format!(
                "no field {column:?} for the label; name the field that holds it, or leave the row out"
            )));
        }
    };
    if label.is_empty() {
        return Err(row.error("the label is empty; give the row a label or leave it out"));
    }
    Ok((label, cell.map_or("", Cell::type_name)))
}
