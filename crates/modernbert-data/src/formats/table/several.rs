//! Rows with any number of labels each.

use std::path::{Path, PathBuf};

use serde_json::Value;

use super::super::row::{Cell, Row};
use super::{Columns, FormatError, LabelSet, TableError, each_row};

/// One row of a file with any number of labels.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SeveralRow {
    /// Line in the file, from 1 (of a row of several lines the first); in Parquet the row, from 1.
    pub line: u64,
    /// The text.
    pub text: String,
    /// The second text.
    pub pair: Option<String>,
    /// The labels that apply, each once, as the file spells them.
    pub labels: Vec<String>,
}

/// A file of rows with any number of labels each.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SeveralTable {
    /// The file.
    pub path: PathBuf,
    /// Its rows, in order; at least one.
    pub rows: Vec<SeveralRow>,
}

impl SeveralTable {
    /// Reads a file; its ending says its format, see [`Rows`](super::Rows). Labels are a list of strings or whole numbers (JSONL,
    /// Parquet), or a text in which `separator` is between two labels. An empty list or text is a row to which no label applies.
    ///
    /// # Errors
    /// As [`Table::read`](super::Table::read); a label that is empty or there twice.
    pub fn read(path: &Path, columns: &Columns, separator: &str) -> Result<Self, TableError> {
        let mut rows = Vec::new();
        each_row(path, columns, |row, text, pair| {
            rows.push(SeveralRow {
                line: row.number(),
                labels: labels(&row, &columns.label, separator)?,
                text,
                pair,
            });
            Ok(())
        })?;
        Ok(Self {
            path: path.to_path_buf(),
            rows,
        })
    }

    /// Refuses a file to score on in which no row has a label.
    ///
    /// # Errors
    /// No label, by which F1 would be undefined.
    pub fn check_scored(&self) -> Result<(), TableError> {
        match self.rows.iter().any(|row| !row.labels.is_empty()) {
            true => Ok(()),
            false => Err(TableError::NothingToFind(self.path.clone())),
        }
    }

    /// The ids of every row's labels, in rising order.
    ///
    /// # Errors
    /// A label that is not in the set, with file and line.
    pub fn label_ids(&self, set: &LabelSet) -> Result<Vec<Vec<u32>>, TableError> {
        let ids = |row: &SeveralRow| {
            let labels = row.labels.iter();
            let ids: Result<Vec<u32>, TableError> = labels
                .map(|label| set.known_id(&self.path, row.line, label))
                .collect();
            ids.map(|mut ids| {
                ids.sort_unstable();
                ids
            })
        };
        self.rows.iter().map(ids).collect()
    }
}

/// Returns true for a list as Python and JSON write it: `['x', 'y']`, `[0, 1]`, `{'x'}`, `('x',)`.
fn is_list(text: &str) -> bool {
    let inner = |open: char, close: char| text.strip_prefix(open)?.strip_suffix(close);
    if let Some(inner) = inner('[', ']') {
        let of_numbers = |c: char| c.is_ascii_digit() || c.is_whitespace();
        return inner.contains(['\'', '"', ',']) || inner.chars().all(of_numbers);
    }
    let inner = inner('{', '}').or_else(|| inner('(', ')'));
    inner.is_some_and(|inner| inner.trim_start().starts_with(['\'', '"']))
}

fn labels(row: &Row, column: &str, separator: &str) -> Result<Vec<String>, FormatError> {
    let found: Vec<String> = match row.cell(column) {
        Some(Cell::Text(text)) if text.trim().is_empty() => Vec::new(),
        Some(Cell::Text(text)) if is_list(text.trim()) => {
            return Err(row.error(format!(
                "the labels {:?} are a list in one text; write the names with {separator:?} between two, or a list in .jsonl or .parquet",
                text.trim()
            )));
        }
        Some(Cell::Text(text)) => text
            .split(separator)
            .map(|label| label.trim().to_owned())
            .collect(),
        Some(Cell::Nested(Value::Array(list))) => {
            let label = |value: &Value| match value {
                Value::String(label) => Some(label.trim().to_owned()),
                Value::Number(number) if !number.is_f64() => Some(number.to_string()),
                _ => None,
            };
            let labels: Option<Vec<String>> = list.iter().map(label).collect();
            labels.ok_or_else(|| {
                row.error(
                    "the labels are not all strings or whole numbers; write a list of strings",
                )
            })?
        }
        Some(Cell::Null) => {
            return Err(row.error("the labels are null; write an empty list where none applies"));
        }
        Some(cell) => {
            return Err(row.error(format!(
                "the labels are {}, neither a list nor a text; write a list of strings",
                cell.type_name()
            )));
        }
        None => {
            return Err(row.error(format!(
                "no field {column:?} for the labels; name the field that holds them, or leave the row out"
            )));
        }
    };
    for (i, label) in found.iter().enumerate() {
        if label.is_empty() {
            return Err(row.error(format!(
                "label {} of the row is empty; remove it, or name the separator of the labels",
                i + 1
            )));
        }
        if found[..i].contains(label) {
            let vector = match found.iter().all(|label| label == "0" || label == "1") {
                true => ", and in place of a vector of 0 and 1 the names of the labels that apply",
                false => "",
            };
            return Err(row.error(format!(
                "the label {label:?} is there twice; write it once{vector}"
            )));
        }
    }
    Ok(found)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    fn read(name: &str, content: &str) -> Result<SeveralTable, TableError> {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join(name);
        std::fs::write(&path, content).unwrap();
        let columns = Columns {
            text: "text".to_string(),
            pair: None,
            label: "labels".to_string(),
        };
        SeveralTable::read(&path, &columns, "|")
    }

    #[test]
    fn labels_are_a_list_or_separated() {
        let csv = read("a.csv", "text,labels\na,red | blue\nb,\nc,red\n").unwrap();
        let json = read(
            "a.jsonl",
            "{\"text\":\"a\",\"labels\":[\"red\",\"blue\"]}\n{\"text\":\"b\",\"labels\":[]}\n{\"text\":\"c\",\"labels\":[\"red\"]}\n",
        )
        .unwrap();
        let plain = |table: &SeveralTable| -> Vec<Vec<String>> {
            table.rows.iter().map(|row| row.labels.clone()).collect()
        };
        assert_eq!(plain(&csv), plain(&json));
        let set = LabelSet::of_several(&csv).unwrap();
        assert_eq!(set.names(), ["blue", "red"]);
        assert_eq!(
            csv.label_ids(&set).unwrap(),
            [vec![0, 1], Vec::new(), vec![1]]
        );
    }

    #[test]
    fn bad_labels_are_named_with_their_line() {
        for (rows, said) in [
            (
                "{\"text\":\"a\",\"labels\":[\"x\",\"x\"]}",
                ":1: the label \"x\" is there twice",
            ),
            (
                "{\"text\":\"a\",\"labels\":[\"x\",\" \"]}",
                "label 2 of the row is empty",
            ),
            ("{\"text\":\"a\",\"labels\":null}", "null"),
            (
                "{\"text\":\"a\",\"labels\":[1.5]}",
                "strings or whole numbers",
            ),
            (
                "{\"text\":\"a\",\"labels\":true}",
                "true or false, neither a list",
            ),
            ("{\"text\":\"a\"}", "\"labels\""),
        ] {
            let message = read("a.jsonl", rows).unwrap_err().to_string();
            assert!(message.contains(said), "{said} not in {message}");
        }
        for list in [
            "['x', 'y']",
            "['x']",
            "[0 1]",
            "[]",
            "{'x'}",
            "('x',)",
            "[\"\"x\"\"]",
        ] {
            let message = read("a.csv", &format!("text,labels\na,\"{list}\"\n")).unwrap_err();
            let message = message.to_string();
            assert!(message.contains("a list in one text"), "{message}");
        }
        read("a.csv", "text,labels\na,[x]\nb,(y)\n").unwrap();
        for (rows, said) in [
            ("[0,1]\n[1,0]", "a vector of 0 and 1"),
            ("[1,0,0]\n[0,1,0]", "a vector of 0 and 1"),
            ("[\"x\"]\n[\"x\"]", "is this the column"),
        ] {
            let rows: Vec<String> = rows
                .lines()
                .map(|labels| format!("{{\"text\":\"a\",\"labels\":{labels}}}\n"))
                .collect();
            let set =
                read("a.jsonl", &rows.concat()).and_then(|table| LabelSet::of_several(&table));
            let message = set.unwrap_err().to_string();
            assert!(message.contains(said), "{said} not in {message}");
        }
        let message = read("a.csv", "text,labels\na,x||y\n").unwrap_err();
        assert!(message.to_string().contains(":2: label 2"), "{message}");
        let none = read("a.csv", "text,labels\na,\n").unwrap();
        let message = LabelSet::of_several(&none).unwrap_err().to_string();
        assert!(message.contains("no row has a label"), "{message}");
        let train = read("a.csv", "text,labels\na,x\nb,y\n").unwrap();
        let dev = read("d.csv", "text,labels\na,X\n").unwrap();
        let set = LabelSet::of_several(&train).unwrap();
        let message = dev.label_ids(&set).unwrap_err().to_string();
        assert!(
            message.contains("d.csv:2") && message.contains("spells it \"x\""),
            "{message}"
        );
    }
}
