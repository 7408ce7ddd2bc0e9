//! Questions with a context and the answers in it, from JSONL in the form of SQuAD's rows.

use std::collections::HashMap;
use std::path::{Path, PathBuf};

use serde_json::Value;

use super::row::{Cell, Row};
use super::table::TableError;
use super::{FormatError, Rows};

/// A question about a context.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct QuestionRow {
    /// Line in the file, from 1.
    pub line: u64,
    /// Name of the question, if it has one.
    pub id: Option<String>,
    /// The question.
    pub question: String,
    /// The text that may answer it.
    pub context: String,
    /// Answers, each of them right; none for a question that the context doesn't answer.
    pub answers: Vec<AnswerSpan>,
}

/// An answer in its context.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AnswerSpan {
    /// The answer as it is in the context.
    pub text: String,
    /// Its first character in the context, counted from 0 in Unicode code points.
    pub start: usize,
}

/// A file of questions.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct QuestionFile {
    /// The file.
    pub path: PathBuf,
    /// Its rows, in order; at least one.
    pub rows: Vec<QuestionRow>,
}

impl QuestionFile {
    /// Reads a file of objects with the fields `question`, `context` and `answers`, and `id` where there is one. Answers are a list of
    /// `{"text": …, "answer_start": …}`, or one object of two lists, `{"text": […], "answer_start": […]}`; no answer makes the question one
    /// that the context doesn't answer.
    ///
    /// # Errors
    /// A file that can't be read or holds no row; a row that is broken, or whose answer isn't in the context at its place: with file and
    /// line.
    pub fn read(path: &Path) -> Result<Self, TableError> {
        let mut rows = Vec::new();
        for row in Rows::open(path)? {
            rows.push(question(row?)?);
        }
        if rows.is_empty() {
            return Err(TableError::Empty(path.to_path_buf()));
        }
        Ok(Self {
            path: path.to_path_buf(),
            rows,
        })
    }

    /// Refuses a file to score on in which two rows have one id: predictions name ids.
    ///
    /// # Errors
    /// The first id that occurs twice.
    pub fn check_ids(&self) -> Result<(), TableError> {
        let mut ids = HashMap::new();
        for row in &self.rows {
            if let Some(id) = &row.id
                && let Some(first) = ids.insert(id, row.line)
            {
                return Err(TableError::SameId {
                    path: self.path.clone(),
                    line: row.line,
                    id: id.clone(),
                    first,
                });
            }
        }
        Ok(())
    }
}

fn question(row: Row) -> Result<QuestionRow, FormatError> {
    if row.is_bare() {
        return Err(row.error("a text alone; write an object with question, context and answers"));
    }
    let id = match row.cell("id") {
        None | Some(Cell::Null) => None,
        Some(Cell::Text(id) | Cell::Number(id)) => Some(id.clone()),
        Some(cell) => {
            let found = cell.type_name();
            return Err(row.error(format!("the field \"id\" is {found}; write it as a string")));
        }
    };
    let (question, context) = (row.text("question")?, row.text("context")?);
    if question.trim().is_empty() || context.trim().is_empty() {
        return Err(row.error("the question or the context is empty; leave the row out"));
    }
    let answers = answers(&row)?;
    if !answers.is_empty() && matches!(row.cell("is_impossible"), Some(Cell::Bool(true))) {
        return Err(
            row.error("\"is_impossible\" is true, but the row has answers; remove one of the two")
        );
    }
    if answers.is_empty() && matches!(row.cell("is_impossible"), Some(Cell::Bool(false))) {
        return Err(row.error(
            "\"is_impossible\" is false, but the row has no answers; add them, or remove the field where the context does not answer the question",
        ));
    }
    for (i, answer) in answers.iter().enumerate() {
        let found: String = context
            .chars()
            .skip(answer.start)
            .take(answer.text.chars().count())
            .collect();
        if answer.text.trim().is_empty() {
            return Err(row.error(format!(
                "answer {} is blank; write the text that answers the question, or an empty list where the context does not answer it",
                i + 1
            )));
        }
        if found != answer.text {
            return Err(row.error(format!(
                "answer {} is {:?}, but the context has {found:?} at character {}; correct \"answer_start\", which counts characters from 0",
                i + 1,
                answer.text,
                answer.start
            )));
        }
    }
    Ok(QuestionRow {
        line: row.number(),
        id,
        question: question.to_owned(),
        context: context.to_owned(),
        answers,
    })
}

fn answers(row: &Row) -> Result<Vec<AnswerSpan>, FormatError> {
    let wrong = || {
        row.error(
            "the field \"answers\" is not [{\"text\": \"…\", \"answer_start\": 0}], nor {\"text\": [\"…\"], \"answer_start\": [0]}; write one \
             of them, with an empty list where the context has no answer",
        )
    };
    let answer = |text: Option<&Value>, start: Option<&Value>| {
        let text = text.and_then(Value::as_str).ok_or_else(wrong)?;
        let start = start.and_then(Value::as_u64).ok_or_else(wrong)?;
        Ok(AnswerSpan {
            text: text.to_owned(),
            start: usize::try_from(start).map_err(|_| wrong())?,
        })
    };
    match row.cell("answers") {
        Some(Cell::Nested(Value::Array(list))) => list
            .iter()
            .map(|entry| answer(entry.get("text"), entry.get("answer_start")))
            .collect(),
        Some(Cell::Nested(object)) => {
            let list = |name: &str| object.get(name).and_then(Value::as_array).ok_or_else(wrong);
            let (texts, starts) = (list("text")?, list("answer_start")?);
            if texts.len() != starts.len() {
                return Err(wrong());
            }
            let both = texts.iter().zip(starts);
            both.map(|(text, start)| answer(Some(text), Some(start)))
                .collect()
        }
        _ => Err(wrong()),
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    fn read(content: &str) -> Result<QuestionFile, TableError> {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("q.jsonl");
        std::fs::write(&path, content).unwrap();
        QuestionFile::read(&path)
    }

    #[test]
    fn ids_of_a_file_to_score_on_occur_once() {
        let row = |id: &str| {
            format!("{{\"id\":\"{id}\",\"question\":\"q\",\"context\":\"c\",\"answers\":[]}}\n")
        };
        let file = read(&(row("a") + &row("b"))).unwrap();
        file.check_ids().unwrap();
        let message = read(&(row("a") + &row("b") + &row("a")))
            .unwrap()
            .check_ids();
        let message = message.unwrap_err().to_string();
        assert!(
            message.contains(":3: the id \"a\" occurs a second time, first in line 1"),
            "{message}"
        );
    }

    #[test]
    fn both_forms_of_answers_are_read() {
        let file = read(concat!(
            "{\"id\":\"a\",\"question\":\"où?\",\"context\":\"né à Paris\",\"answers\":[{\"text\":\"Paris\",\"answer_start\":5}]}\n",
            "{\"id\":7,\"question\":\"où?\",\"context\":\"né à Paris\",\"answers\":{\"text\":[\"Paris\"],\"answer_start\":[5]}}\n",
            "{\"question\":\"quand?\",\"context\":\"né à Paris\",\"answers\":[]}\n",
            "{\"question\":\"quand?\",\"context\":\"né à Paris\",\"answers\":{\"text\":[],\"answer_start\":[]}}\n",
        ))
        .unwrap();
        let paris = vec![AnswerSpan {
            text: "Paris".to_string(),
            start: 5,
        }];
        let answers: Vec<_> = file.rows.iter().map(|row| row.answers.clone()).collect();
        assert_eq!(answers, [paris.clone(), paris, Vec::new(), Vec::new()]);
        assert_eq!(file.rows[1].id.as_deref(), Some("7"));
    }

    #[test]
    fn broken_rows_are_named_with_their_line() {
        let row = |answers: &str| {
            format!("{{\"question\":\"a\",\"context\":\"bcd\",\"answers\":{answers}}}")
        };
        for (content, said) in [
            (
                row("[{\"text\":\"c\",\"answer_start\":0}]"),
                "q.jsonl:1: answer 1 is \"c\", but the context has \"b\" at character 0",
            ),
            (
                row("[{\"text\":\"d\",\"answer_start\":9}]"),
                "has \"\" at character 9",
            ),
            (
                row("[{\"text\":\"\",\"answer_start\":0}]"),
                "answer 1 is blank",
            ),
            (row("[{\"text\":\"b\"}]"), "the field \"answers\" is not"),
            (
                row("{\"text\":[\"b\"],\"answer_start\":[]}"),
                "the field \"answers\" is not",
            ),
            (row("\"b\""), "the field \"answers\" is not"),
            (
                row("[{\"text\":\"b\",\"answer_start\":0}],\"is_impossible\":true"),
                "\"is_impossible\" is true, but the row has answers",
            ),
            (
                row("[],\"is_impossible\":false"),
                "\"is_impossible\" is false, but the row has no answers",
            ),
            (
                "{\"question\":\"a\",\"answers\":[]}".to_string(),
                "\"context\"",
            ),
            (
                "{\"question\":\" \",\"context\":\"b\",\"answers\":[]}".to_string(),
                "is empty",
            ),
            ("\"a\"".to_string(), "a text alone"),
            (String::new(), "holds no rows"),
        ] {
            let message = read(&content).unwrap_err().to_string();
            assert!(message.contains(said), "{said} not in {message}");
        }
    }
}
