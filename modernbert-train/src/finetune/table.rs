//! Rows with labels of one's own, from CSV, TSV and JSONL files.
//!
//! | ending | form |
//! |---|---|
//! | `.csv` | RFC 4180: commas, a header line, double quotes around fields that need them |
//! | `.tsv` | tabs, a header line, no quoting: a double quote is a letter like any other |
//! | `.jsonl` | one JSON object a line; labels may be strings, numbers or `true` and `false` |

use serde_json::Value;
use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

use super::batches::Target;
use super::encode::Text;

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

/// One row of a file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Row {
    /// Its line in the file, from 1; the first one of a row that spans several.
    pub line: u64,
    /// The text.
    pub text: String,
    /// The second text.
    pub pair: Option<String>,
    /// The label as the file spells it.
    pub label: String,
}

/// A file of rows.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Table {
    /// The file.
    pub path: PathBuf,
    /// Its rows, in order; at least one.
    pub rows: Vec<Row>,
}

/// Why a file can't be used.
#[derive(Debug, thiserror::Error)]
pub enum TableError {
    /// An ending that is none of the three.
    #[error("{}: the form can't be told; name the file .csv, .tsv or .jsonl", .0.display())]
    Form(PathBuf),
    /// The system refused to hand out the file.
    #[error("{}: cannot be read ({source}); check the path", path.display())]
    Read {
        /// The file.
        path: PathBuf,
        /// What the system said.
        source: std::io::Error,
    },
    /// A row that is none.
    #[error("{}:{line}: {reason}", path.display())]
    Row {
        /// The file.
        path: PathBuf,
        /// The line, from 1.
        line: u64,
        /// What is wrong with it.
        reason: String,
    },
    /// A column that isn't there.
    #[error("{}: no column {column:?} in the header, which has {found}; name the columns of your file", path.display())]
    Column {
        /// The file.
        path: PathBuf,
        /// The column looked for.
        column: String,
        /// The columns there.
        found: String,
    },
    /// No rows.
    #[error("{}: holds no rows", .0.display())]
    Empty(PathBuf),
    /// A label that the training set doesn't have.
    #[error("{}:{line}: the label {label:?} is not among those of the training set: {known}", path.display())]
    Label {
        /// The file.
        path: PathBuf,
        /// The line, from 1.
        line: u64,
        /// The label.
        label: String,
        /// The known ones.
        known: String,
    },
    /// A score that is no number.
    #[error("{}:{line}: the label {label:?} is not a number, which regression needs", path.display())]
    Score {
        /// The file.
        path: PathBuf,
        /// The line, from 1.
        line: u64,
        /// The label.
        label: String,
    },
    /// One class only.
    #[error("{}: every row has the label {label:?}; there is nothing to tell apart", path.display())]
    OneClass {
        /// The file.
        path: PathBuf,
        /// The label.
        label: String,
    },
}

impl Table {
    /// Reads a file; its ending says its form.
    ///
    /// # Errors
    /// A file that can't be read, a missing column, a broken row: with file and line.
    pub fn read(path: &Path, columns: &Columns) -> Result<Self, TableError> {
        let ending = path.extension().and_then(|e| e.to_str()).unwrap_or("");
        let rows = match ending.to_lowercase().as_str() {
            "csv" => delimited(path, columns, b',', true)?,
            "tsv" => delimited(path, columns, b'\t', false)?,
            "jsonl" => json_lines(path, columns)?,
            _ => return Err(TableError::Form(path.to_path_buf())),
        };
        if rows.is_empty() {
            return Err(TableError::Empty(path.to_path_buf()));
        }
        Ok(Self {
            path: path.to_path_buf(),
            rows,
        })
    }

    /// The texts with class ids.
    ///
    /// # Errors
    /// A label that is not in the set, with file and line.
    pub fn classes(&self, labels: &LabelSet) -> Result<Vec<Text<'_>>, TableError> {
        let text = |row| {
            let id = labels
                .id(&row_label(row))
                .ok_or_else(|| TableError::Label {
                    path: self.path.clone(),
                    line: row.line,
                    label: row.label.clone(),
                    known: labels.names.join(", "),
                })?;
            Ok(row_text(row, Target::Class(id)))
        };
        self.rows.iter().map(text).collect()
    }

    /// The texts with numbers.
    ///
    /// # Errors
    /// A label that is no finite number, with file and line.
    pub fn scores(&self) -> Result<Vec<Text<'_>>, TableError> {
        let text = |row: &'_ Row| {
            let score: Option<f32> = row_label(row).parse().ok();
            let score = score.filter(|score| score.is_finite());
            score.ok_or_else(|| TableError::Score {
                path: self.path.clone(),
                line: row.line,
                label: row.label.clone(),
            })
        };
        let scores: Vec<f32> = self.rows.iter().map(text).collect::<Result<_, _>>()?;
        let rows = self.rows.iter().zip(scores);
        Ok(rows
            .map(|(row, score)| row_text(row, Target::Score(score)))
            .collect())
    }
}

fn row_label(row: &Row) -> String {
    row.label.trim().to_string()
}

fn row_text(row: &Row, target: Target) -> Text<'_> {
    Text {
        text: &row.text,
        pair: row.pair.as_deref(),
        target,
    }
}

/// The classes of a data set, by class id.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LabelSet {
    names: Vec<String>,
}

impl LabelSet {
    /// The labels of a training set: by size if all are whole numbers, else in alphabetical order.
    ///
    /// # Errors
    /// Only one label in all rows.
    pub fn of(train: &Table) -> Result<Self, TableError> {
        let names: BTreeSet<String> = train.rows.iter().map(row_label).collect();
        let mut names: Vec<String> = names.into_iter().collect();
        let numbers: Option<Vec<i64>> = names.iter().map(|name| name.parse().ok()).collect();
        if numbers.is_some() {
            names.sort_by_key(|name| name.parse::<i64>().unwrap_or(0));
        }
        if let [label] = &names[..] {
            return Err(TableError::OneClass {
                path: train.path.clone(),
                label: label.clone(),
            });
        }
        Ok(Self { names })
    }

    /// Their names, by class id.
    pub fn names(&self) -> &[String] {
        &self.names
    }

    /// The class id of a label.
    pub fn id(&self, label: &str) -> Option<u32> {
        let position = self.names.iter().position(|name| name == label)?;
        u32::try_from(position).ok()
    }
}

fn delimited(
    path: &Path,
    columns: &Columns,
    delimiter: u8,
    quoting: bool,
) -> Result<Vec<Row>, TableError> {
    let content = std::fs::read(path).map_err(|source| TableError::Read {
        path: path.to_path_buf(),
        source,
    })?;
    // After a CRLF the reader stands before its LF and has not counted it yet.
    let line_of = |position: &csv::Position| {
        let pending = content.get(position.byte() as usize) == Some(&b'\n');
        position.line() + u64::from(pending)
    };
    let wrong = |error: csv::Error| {
        let line = error.position().map_or(1, line_of);
        match error.into_kind() {
            csv::ErrorKind::Io(source) => TableError::Read {
                path: path.to_path_buf(),
                source,
            },
            csv::ErrorKind::UnequalLengths {
                expected_len, len, ..
            } => TableError::Row {
                path: path.to_path_buf(),
                line,
                reason: format!(
                    "{len} columns where {expected_len} belong; a text with the delimiter in it needs quotes around it"
                ),
            },
            csv::ErrorKind::Utf8 { .. } => TableError::Row {
                path: path.to_path_buf(),
                line,
                reason: "not UTF-8; convert the file".to_string(),
            },
            other => TableError::Row {
                path: path.to_path_buf(),
                line,
                reason: format!("{other:?}"),
            },
        }
    };
    let mut reader = csv::ReaderBuilder::new()
        .delimiter(delimiter)
        .quoting(quoting)
        .from_reader(&content[..]);
    let header: Vec<String> = reader
        .headers()
        .map_err(wrong)?
        .iter()
        .map(|name| name.trim_start_matches('\u{feff}').to_string())
        .collect();
    let position = |column: &str| {
        let found = header.iter().position(|name| name == column);
        found.ok_or_else(|| TableError::Column {
            path: path.to_path_buf(),
            column: column.to_string(),
            found: header.join(", "),
        })
    };
    let (text, label) = (position(&columns.text)?, position(&columns.label)?);
    let pair = columns.pair.as_deref().map(position).transpose()?;
    let mut rows = Vec::new();
    for record in reader.records() {
        let record = record.map_err(wrong)?;
        let cell = |i: usize| record.get(i).unwrap_or("").to_string();
        rows.push(Row {
            line: record.position().map_or(0, line_of),
            text: cell(text),
            pair: pair.map(cell),
            label: cell(label),
        });
    }
    Ok(rows)
}

fn json_lines(path: &Path, columns: &Columns) -> Result<Vec<Row>, TableError> {
    let content = std::fs::read_to_string(path).map_err(|source| TableError::Read {
        path: path.to_path_buf(),
        source,
    })?;
    let mut rows = Vec::new();
    for (i, text) in content.lines().enumerate() {
        if text.trim().is_empty() {
            continue;
        }
        let line = i as u64 + 1;
        let wrong = |reason: String| TableError::Row {
            path: path.to_path_buf(),
            line,
            reason,
        };
        let json: Value =
            serde_json::from_str(text).map_err(|e| wrong(format!("not JSON: {e}")))?;
        let field = |name: &str| match json.get(name) {
            Some(Value::String(text)) => Ok(text.clone()),
            Some(_) => Err(wrong(format!("the field {name:?} is not a string"))),
            None => Err(wrong(format!("no field {name:?}"))),
        };
        let label = match json.get(&columns.label) {
            Some(Value::String(label)) => label.clone(),
            Some(value @ (Value::Number(_) | Value::Bool(_))) => value.to_string(),
            Some(_) => {
                return Err(wrong(format!(
                    "the field {:?} is neither a string nor a number",
                    columns.label
                )));
            }
            None => return Err(wrong(format!("no field {:?}", columns.label))),
        };
        rows.push(Row {
            line,
            text: field(&columns.text)?,
            pair: columns.pair.as_deref().map(field).transpose()?,
            label,
        });
    }
    Ok(rows)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    fn columns(pair: Option<&str>) -> Columns {
        Columns {
            text: "text".to_string(),
            pair: pair.map(str::to_string),
            label: "label".to_string(),
        }
    }

    fn read(name: &str, content: &str, pair: Option<&str>) -> Result<Table, TableError> {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join(name);
        std::fs::write(&path, content).unwrap();
        Table::read(&path, &columns(pair))
    }

    #[test]
    fn three_forms_hold_the_same_rows() {
        let csv = "\u{feff}label,text,other\r\ngood,\"a, \"\"b\"\"\nc\",x\r\nbad,d,y";
        let json = "{\"text\":\"a, \\\"b\\\"\\nc\",\"label\":\"good\"}\n\n{\"label\":\"bad\",\"text\":\"d\"}\n";
        let (csv, json) = (
            read("a.csv", csv, None).unwrap(),
            read("a.jsonl", json, None).unwrap(),
        );
        let plain = |table: &Table| {
            let rows = table.rows.iter();
            rows.map(|row| (row.text.clone(), row.label.clone()))
                .collect::<Vec<_>>()
        };
        assert_eq!(plain(&csv), plain(&json));
        assert_eq!(csv.rows[0].text, "a, \"b\"\nc");
        assert_eq!(csv.rows[1].line, 4);
        let tsv = read("a.tsv", "text\tlabel\n\"a\t1\n", None).unwrap();
        assert_eq!(tsv.rows[0].text, "\"a");
    }

    #[test]
    fn classes_are_those_of_the_training_set() {
        let train = read("t.csv", "text,label\na,10\nb,9\nc,10\n", None).unwrap();
        let labels = LabelSet::of(&train).unwrap();
        assert_eq!(labels.names(), ["9", "10"]);
        let texts = train.classes(&labels).unwrap();
        assert_eq!(texts[0].target, Target::Class(1));
        let dev = read(
            "d.jsonl",
            "{\"text\":\"a\",\"label\":9}\n{\"text\":\"b\",\"label\":8}",
            None,
        )
        .unwrap();
        let message = dev.classes(&labels).unwrap_err().to_string();
        assert!(
            message.contains("d.jsonl:2") && message.contains("\"8\"") && message.contains("9, 10"),
            "{message}"
        );
        let one = read("o.csv", "text,label\na,x\nb,x\n", None).unwrap();
        assert!(matches!(
            LabelSet::of(&one),
            Err(TableError::OneClass { .. })
        ));
    }

    #[test]
    fn scores_are_finite_numbers() {
        let table = read("s.csv", "text,label\na,1.5\nb,2\n", None).unwrap();
        assert_eq!(table.scores().unwrap()[0].target, Target::Score(1.5));
        for label in ["NaN", "x", ""] {
            let table = read("s.csv", &format!("text,label\na,{label}\n"), None).unwrap();
            let message = table.scores().unwrap_err().to_string();
            assert!(message.contains("s.csv:2"), "{message}");
        }
    }

    #[test]
    fn what_is_wrong_is_named_with_its_place() {
        for (name, content, pair, said) in [
            ("a.txt", "", None, "name the file .csv"),
            ("a.csv", "text,label\n", None, "no rows"),
            ("a.csv", "text,label\na,1,2\n", None, "a.csv:2: 3 columns"),
            (
                "a.csv",
                "title,label\na,1\n",
                None,
                "no column \"text\" in the header, which has title, label",
            ),
            ("a.csv", "text,label\na,1\n", Some("pair"), "\"pair\""),
            (
                "a.jsonl",
                "{\"text\":\"a\"}",
                None,
                "a.jsonl:1: no field \"label\"",
            ),
            ("a.jsonl", "\n{", None, "a.jsonl:2: not JSON"),
            (
                "a.jsonl",
                "{\"text\":1,\"label\":1}",
                None,
                "the field \"text\" is not a string",
            ),
        ] {
            let message = read(name, content, pair).unwrap_err().to_string();
            assert!(message.contains(said), "{said} not in {message}");
        }
        let missing = Table::read(Path::new("/nonexistent/a.csv"), &columns(None)).unwrap_err();
        assert!(missing.to_string().contains("cannot be read"));
    }
}
