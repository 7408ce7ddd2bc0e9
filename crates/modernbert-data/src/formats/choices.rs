//! Questions with several choices, one of which is right: from JSONL, CSV, TSV and Parquet, SWAG's columns among them.

use std::path::{Path, PathBuf};

use serde_json::Value;

use super::row::{Cell, Row};
use super::table::TableError;
use super::{FormatError, Rows};

/// A question and its choices.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ChoiceRow {
    /// Line in the file, from 1 (of a row of several lines the first); in Parquet the row, from 1.
    pub line: u64,
    /// The question, or the beginning that the choices continue.
    pub prompt: String,
    /// The choices, two or more.
    pub choices: Vec<String>,
    /// Number of the right choice, from 0.
    pub label: u32,
}

/// A file of questions with choices.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ChoiceFile {
    /// The file.
    pub path: PathBuf,
    /// Its rows, in order; at least one, all with the same number of choices.
    pub rows: Vec<ChoiceRow>,
}

impl ChoiceFile {
    /// Reads a file; its ending says its format, see [`Rows`].
    ///
    /// A row has a `prompt`, a `label` that counts its choices from 0, and the choices: a list `choices`, or columns whose names are
    /// `choice` and a number. Rows with the columns of SWAG (`sent1`, `sent2`, `ending0`, …) are read as the authors of BERT read them:
    /// `sent1` is the prompt, and each choice is `sent2` with an ending.
    ///
    /// # Errors
    /// A file that can't be read or holds no row; a row that is broken, or has another number of choices than the first: with file and
    /// line.
    pub fn read(path: &Path) -> Result<Self, TableError> {
        let mut rows: Vec<ChoiceRow> = Vec::new();
        for row in Rows::open(path)? {
            let row = row?;
            let read = choice_row(&row)?;
            if let Some(first) = rows.first()
                && first.choices.len() != read.choices.len()
            {
                return Err(row
                    .error(format!(
                        "{} choices, in line {} there are {}; give each question as many choices",
                        read.choices.len(),
                        first.line,
                        first.choices.len()
                    ))
                    .into());
            }
            rows.push(read);
        }
        if rows.is_empty() {
            return Err(TableError::Empty(path.to_path_buf()));
        }
        Ok(Self {
            path: path.to_path_buf(),
            rows,
        })
    }
}

/// Refuses a row with two sets of choices, of which one would be ignored.
fn check_forms(row: &Row) -> Result<(), FormatError> {
    let mut forms: Vec<&str> = Vec::new();
    let is_given = |column: &str| row.cell(column).is_some_and(|cell| *cell != Cell::Null);
    let has = |prefix: &str| {
        let mut columns = row.columns();
        columns.any(|column| column_number(column, prefix).is_some() && is_given(column))
    };
    if has("ending") {
        forms.push("ending0, …");
    }
    if is_given("choices") {
        forms.push("the list \"choices\"");
    }
    if has("choice") {
        forms.push("choice0, …");
    }
    if let [first, second, ..] = forms[..] {
        return Err(row.error(format!(
            "two sets of choices, {first} and {second}; keep the one that the label counts"
        )));
    }
    Ok(())
}

/// Number of a column whose name is `prefix` and a number.
fn column_number(column: &str, prefix: &str) -> Option<u32> {
    column.strip_prefix(prefix)?.parse().ok()
}

fn choice_row(row: &Row) -> Result<ChoiceRow, FormatError> {
    check_forms(row)?;
    let is_swag = ["sent1", "sent2", "ending0"]
        .iter()
        .all(|column| row.cell(column).is_some());
    let (prompt, choices) = if is_swag {
        let begun = row.text("sent2")?;
        let endings = numbered(row, "ending")?;
        let whole = endings
            .iter()
            .map(|ending| format!("{begun} {ending}").trim().to_owned());
        (row.text("sent1")?, whole.collect())
    } else {
        let prompt = row.text("prompt")?;
        let choices = match row.cell("choices") {
            Some(Cell::Nested(Value::Array(list))) => {
                let choice = |value: &Value| value.as_str().map(str::to_owned);
                let choices: Option<Vec<String>> = list.iter().map(choice).collect();
                choices.ok_or_else(|| {
                    row.error("the field \"choices\" is not a list of strings; write one")
                })?
            }
            Some(cell) => {
                return Err(row.error(format!(
                    "the field \"choices\" is {}; write a list of strings, or columns choice0, choice1, …",
                    cell.type_name()
                )));
            }
            None => numbered(row, "choice")?,
        };
        (prompt, choices)
    };
    if choices.len() < 2 {
        return Err(row.error(format!(
            "{} where two choices or more are needed; write a list \"choices\", or columns choice0, choice1, …",
            choices.len()
        )));
    }
    if let Some(i) = choices.iter().position(|choice| choice.trim().is_empty()) {
        return Err(row.error(format!("choice {i} is empty; leave the row out")));
    }
    let label = match row.cell("label") {
        Some(Cell::Number(label) | Cell::Text(label)) => label.trim().parse().ok(),
        _ => None,
    };
    let label = label.filter(|&label: &u32| (label as usize) < choices.len());
    let label = label.ok_or_else(|| {
        row.error(format!(
            "the label is not the number of a choice; write a whole number from 0 to {}",
            choices.len() - 1
        ))
    })?;
    Ok(ChoiceRow {
        line: row.number(),
        prompt: prompt.to_owned(),
        choices,
        label,
    })
}

/// Texts of the columns named `prefix` and a number, by that number.
fn numbered(row: &Row, prefix: &str) -> Result<Vec<String>, FormatError> {
    let mut columns: Vec<(u32, &str)> = row
        .columns()
        .filter_map(|column| column_number(column, prefix).map(|number| (number, column)))
        .collect();
    columns.sort_unstable();
    // The label is the number in the column's name.
    let mut numbered = columns.iter().zip(0..);
    if let Some(((_, column), place)) = numbered.find(|((number, _), place)| number != place) {
        return Err(row.error(format!(
            "the column {column:?} stands where {prefix}{place} is expected; number the columns from 0 without gaps"
        )));
    }
    let texts = columns.iter().map(|(_, column)| row.text(column));
    texts.map(|text| text.map(str::to_owned)).collect()
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    fn read(name: &str, content: &str) -> Result<ChoiceFile, TableError> {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join(name);
        std::fs::write(&path, content).unwrap();
        ChoiceFile::read(&path)
    }

    #[test]
    fn lists_columns_and_swag_hold_the_same_choices() {
        let json = read(
            "a.jsonl",
            "{\"prompt\":\"She opens the door.\",\"choices\":[\"She walks in.\",\"She swims.\"],\"label\":0}",
        )
        .unwrap();
        let csv = read(
            "a.csv",
            "label,choice1,choice0,prompt\n0,She swims.,She walks in.,She opens the door.\n",
        )
        .unwrap();
        let swag = read(
            "a.csv",
            ",video-id,startphrase,sent1,sent2,gold-source,ending0,ending1,label\n0,v,x,She opens the door.,She,gold,walks in.,swims.,0\n",
        )
        .unwrap();
        let plain = |file: &ChoiceFile| -> Vec<(String, Vec<String>, u32)> {
            let rows = file.rows.iter();
            rows.map(|row| (row.prompt.clone(), row.choices.clone(), row.label))
                .collect()
        };
        assert_eq!(plain(&json), plain(&csv));
        assert_eq!(plain(&json), plain(&swag));
        assert_eq!(json.rows[0].choices[0], "She walks in.");
    }

    #[test]
    fn numbers_of_columns_are_those_of_labels() {
        for columns in ["choice1,choice2", "choice0,choice2"] {
            let content = format!("prompt,{columns},label\na,b,c,1\n");
            let message = read("a.csv", &content).unwrap_err().to_string();
            assert!(message.contains("from 0 without gaps"), "{message}");
        }
    }

    #[test]
    fn broken_rows_are_named_with_their_line() {
        let row = |choices: &str, label: &str| {
            format!("{{\"prompt\":\"a\",\"choices\":{choices},\"label\":{label}}}\n")
        };
        for (content, said) in [
            (
                row("[\"b\",\"c\"]", "2"),
                "a.jsonl:1: the label is not the number of a choice; write a whole number from 0 to 1",
            ),
            (row("[\"b\",\"c\"]", "-1"), "the label is not"),
            (row("[\"b\",\"c\"]", "null"), "the label is not"),
            (row("[\"b\"]", "0"), "two choices or more"),
            (row("[\"b\",\" \"]", "0"), "choice 1 is empty"),
            (row("[\"b\",3]", "0"), "not a list of strings"),
            (row("\"b\"", "0"), "is a string; write a list"),
            (
                "{\"prompt\":\"a\",\"choices\":[\"b\",\"c\"],\"choice0\":\"d\",\"label\":0}".to_string(),
                ":1: two sets of choices",
            ),
            (
                "{\"sent1\":\"a\",\"sent2\":\"x\",\"ending0\":\"b\",\"ending1\":\"c\",\"prompt\":\"a\",\"choice0\":\"d\",\"label\":0}".to_string(),
                ":1: two sets of choices",
            ),
            (
                row("[\"b\",\"c\"]", "0") + &row("[\"b\",\"c\",\"d\"]", "0"),
                ":2: 3 choices, in line 1 there are 2",
            ),
            (
                "{\"choices\":[\"b\",\"c\"],\"label\":0}".to_string(),
                "\"prompt\"",
            ),
            (String::new(), "holds no rows"),
        ] {
            let message = read("a.jsonl", &content).unwrap_err().to_string();
            assert!(message.contains(said), "{said} not in {message}");
        }
    }
}
