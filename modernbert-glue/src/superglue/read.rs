//! The files of the tasks: `TASK/train.jsonl` and `TASK/val.jsonl`.

use modernbert_train::finetune::table::{ChoiceFile, ChoiceRow, TableError};
use modernbert_train::finetune::{Target, Text};
use modernbert_train::formats::{Cell, FormatError, Row, Rows};
use serde_json::Value;
use std::path::Path;

use super::SuperTask;

/// A labelled pair of texts.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PairRow {
    /// Line in the file, from 1.
    pub line: u64,
    /// The first text.
    pub text: String,
    /// The second text.
    pub pair: String,
    /// Class id.
    pub class: usize,
    /// Number of the question in the file, from 0: of MultiRC several rows have the same.
    pub group: usize,
}

/// Training and dev set of a task on pairs.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PairSet {
    /// Training set.
    pub train: Vec<PairRow>,
    /// Dev set.
    pub dev: Vec<PairRow>,
}

impl PairSet {
    /// Rows as texts to train on or to predict.
    pub fn texts(rows: &[PairRow]) -> Vec<Text<'_>> {
        let rows = rows.iter();
        rows.map(|row| Text {
            text: &row.text,
            pair: Some(&row.pair),
            target: Target::Class(row.class as u32),
        })
        .collect()
    }
}

/// Training and dev set of COPA.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ChoiceSet {
    /// Training set.
    pub train: ChoiceFile,
    /// Dev set.
    pub dev: ChoiceFile,
}

/// Reads the sets of a task on pairs (all but COPA) from the folder that holds the folders of the tasks.
///
/// # Errors
/// A file that is missing or has no rows; a malformed row: with file and line.
pub fn read_pairs(folder: &Path, task: SuperTask) -> Result<PairSet, TableError> {
    let read = |name: &str| {
        let path = folder.join(task.name()).join(name);
        let mut rows = Vec::new();
        let mut groups = 0;
        for row in Rows::open(&path)? {
            pairs(&row?, task, &mut groups, &mut rows)?;
        }
        if rows.is_empty() {
            return Err(TableError::Empty(path));
        }
        Ok(rows)
    };
    Ok(PairSet {
        train: read("train.jsonl")?,
        dev: read("val.jsonl")?,
    })
}

/// Reads COPA's sets from the folder that holds the folders of the tasks.
///
/// # Errors
/// As [`read_pairs`].
pub fn read_choices(folder: &Path) -> Result<ChoiceSet, TableError> {
    let read = |name: &str| {
        let path = folder.join(SuperTask::Copa.name()).join(name);
        let rows: Result<Vec<ChoiceRow>, FormatError> =
            Rows::open(&path)?.map(|row| copa(&row?)).collect();
        let rows = rows?;
        if rows.is_empty() {
            return Err(TableError::Empty(path));
        }
        Ok(ChoiceFile { path, rows })
    };
    Ok(ChoiceSet {
        train: read("train.jsonl")?,
        dev: read("val.jsonl")?,
    })
}

/// Adds the pairs of a row; `groups` counts the questions before it.
fn pairs(
    row: &Row,
    task: SuperTask,
    groups: &mut usize,
    rows: &mut Vec<PairRow>,
) -> Result<(), FormatError> {
    let line = row.number();
    let text = |field: &str| row.text(field).map(str::to_owned);
    let mut add = |text: String, pair: String, class: usize, group: usize| {
        rows.push(PairRow {
            line,
            text,
            pair,
            class,
            group,
        });
    };
    match task {
        SuperTask::BoolQ => add(text("question")?, text("passage")?, truth(row)?, *groups),
        SuperTask::Wic => {
            check_word(row)?;
            let first = format!("{}: {}", row.text("word")?, row.text("sentence1")?);
            add(first, text("sentence2")?, truth(row)?, *groups);
        }
        SuperTask::Cb => {
            let label = row.text("label")?;
            let class = task.labels().iter().position(|name| *name == label);
            let class = class.ok_or_else(|| {
                row.error(format!(
                    "the label {label:?} is none of {}; take the files of SuperGLUE",
                    task.labels().join(", ")
                ))
            })?;
            add(text("premise")?, text("hypothesis")?, class, *groups);
        }
        SuperTask::MultiRc => return multirc(row, groups, &mut add),
        SuperTask::Copa => {
            return Err(row.error("COPA has choices, not pairs; read it with read_choices"));
        }
    }
    *groups += 1;
    Ok(())
}

/// Refuses a row of WiC whose word is not at a place in its sentences. Forms such as "went" of "go" are not compared with the word.
fn check_word(row: &Row) -> Result<(), FormatError> {
    for number in ["1", "2"] {
        let position = |name: &str| match row.cell(&format!("{name}{number}")) {
            Some(Cell::Number(number)) => number.parse::<usize>().ok(),
            _ => None,
        };
        let (Some(start), Some(end)) = (position("start"), position("end")) else {
            continue;
        };
        let sentence = row.text(&format!("sentence{number}"))?;
        let length = sentence.chars().count();
        let mut chosen = sentence.chars().skip(start).take(end.saturating_sub(start));
        if end > length || !chosen.any(char::is_alphanumeric) {
            return Err(row.error(format!(
                "the word of sentence{number} is at {start}..{end} of {length} characters, where no word is; take the files of SuperGLUE"
            )));
        }
    }
    Ok(())
}

/// The class of a label that is true or false.
fn truth(row: &Row) -> Result<usize, FormatError> {
    match row.cell("label") {
        Some(Cell::Bool(label)) => Ok(usize::from(*label)),
        _ => Err(row.error("the label is not true or false; take the files of SuperGLUE")),
    }
}

fn multirc(
    row: &Row,
    groups: &mut usize,
    add: &mut dyn FnMut(String, String, usize, usize),
) -> Result<(), FormatError> {
    let wrong = || {
        row.error(
            "the passage is not {\"text\": …, \"questions\": [{\"question\": …, \"answers\": [{\"text\": …, \"label\": 0}]}]}; take the \
             files of SuperGLUE",
        )
    };
    let Some(Cell::Nested(passage)) = row.cell("passage") else {
        return Err(wrong());
    };
    let string = |value: &Value, name: &str| {
        let text = value.get(name).and_then(Value::as_str);
        text.map(str::to_owned).ok_or_else(wrong)
    };
    let list = |value: &Value, name: &str| {
        let list = value.get(name).and_then(Value::as_array).cloned();
        list.ok_or_else(wrong)
    };
    let text = string(passage, "text")?;
    for question in list(passage, "questions")? {
        let asked = string(&question, "question")?;
        for answer in list(&question, "answers")? {
            let label = answer.get("label").and_then(Value::as_u64);
            let class = label.filter(|&label| label < 2).ok_or_else(wrong)? as usize;
            let pair = format!("{asked} {}", string(&answer, "text")?);
            add(text.clone(), pair, class, *groups);
        }
        *groups += 1;
    }
    Ok(())
}

fn copa(row: &Row) -> Result<ChoiceRow, FormatError> {
    let question = match row.text("question")? {
        "cause" => "What was the cause?",
        "effect" => "What happened as a result?",
        other => {
            return Err(row.error(format!(
                "the question {other:?} is neither cause nor effect; take the files of SuperGLUE"
            )));
        }
    };
    let label = match row.cell("label") {
        Some(Cell::Number(label)) => label.parse().ok().filter(|&label: &u32| label < 2),
        _ => None,
    };
    Ok(ChoiceRow {
        line: row.number(),
        prompt: format!("{} {question}", row.text("premise")?),
        choices: vec![
            row.text("choice1")?.to_owned(),
            row.text("choice2")?.to_owned(),
        ],
        label: label
            .ok_or_else(|| row.error("the label is not 0 or 1; take the files of SuperGLUE"))?,
    })
}
