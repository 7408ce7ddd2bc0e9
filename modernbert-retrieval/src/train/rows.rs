//! Training data: queries with documents, and a teacher's scores, from JSONL, CSV, TSV and Parquet.
//!
//! | columns | row |
//! |---|---|
//! | `query` (also `anchor`, `question`), `positive` (also `answer`) | a pair |
//! | and `negative`, or `negative_1`, `negative_2`, …, or a list `negatives` | a triplet, or a tuple with several negatives |
//! | `query` and a list `documents` | documents with a teacher's scores; the first counts as the positive |
//! | and a list `scores`, or a number `score` for one document | a score for each document, the positive's first |

use modernbert_files::output::named_twice;
use modernbert_files::wording::counted;
use modernbert_train::formats::{Cell, FormatError, Row, Rows};
use serde_json::Value;
use std::collections::{HashMap, HashSet};
use std::path::{Path, PathBuf};

use super::error::TrainError;
use super::losses::Loss;

const QUERY: [&str; 3] = ["query", "anchor", "question"];
const POSITIVE: [&str; 2] = ["positive", "answer"];
/// Place of rows that come from no file.
const IN_MEMORY: &str = "the training data";

/// A query with its documents; texts are indices of [`TrainRows::texts`].
#[derive(Clone, Debug, PartialEq)]
pub struct TrainRow {
    /// The query.
    pub query: u32,
    /// The positive, then the negatives.
    pub documents: Vec<u32>,
    /// A teacher's score of each document; empty where the file has none.
    pub scores: Vec<f32>,
}

impl TrainRow {
    /// All texts of the row.
    pub fn texts(&self) -> impl Iterator<Item = u32> + '_ {
        std::iter::once(self.query).chain(self.documents.iter().copied())
    }
}

/// The rows of one or more files, all with the same number of documents.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct TrainRows {
    /// Every text once.
    pub texts: Vec<String>,
    /// The rows, in order.
    pub rows: Vec<TrainRow>,
    first: Option<First>,
    known: HashMap<String, u32>,
}

/// Columns of the first row, and its place.
#[derive(Clone, Debug, PartialEq, Eq)]
struct First {
    place: String,
    documents: usize,
    scores: bool,
}

impl TrainRows {
    /// Reads files.
    ///
    /// # Errors
    /// A file that is named twice, can't be read or has no row; a row without a query or document, with an empty text, with another number of documents
    /// than the first, with a score that is not finite, or with another number of scores than documents: with file and line.
    pub fn read<P: AsRef<Path>>(files: &[P]) -> Result<Self, TrainError> {
        if let Some(path) = named_twice(files) {
            return Err(TrainError::Twice(path.to_path_buf()));
        }
        let mut all = Self::default();
        for file in files {
            let before = all.rows.len();
            for row in Rows::open(file.as_ref())? {
                all.add(&row?)?;
            }
            if all.rows.len() == before {
                return Err(TrainError::Empty(file.as_ref().to_path_buf()));
            }
        }
        if all.rows.is_empty() {
            return Err(TrainError::Empty(PathBuf::from(IN_MEMORY)));
        }
        Ok(all)
    }

    /// Rows of texts in memory: a query and its documents each.
    ///
    /// # Panics
    /// If the rows have different numbers of documents.
    pub fn of<'a>(rows: impl IntoIterator<Item = (&'a str, Vec<&'a str>)>) -> Self {
        let mut all = Self::default();
        for (query, documents) in rows {
            let query = all.text(query);
            let documents: Vec<u32> = documents.iter().map(|text| all.text(text)).collect();
            if let Some(first) = all.rows.first() {
                assert_eq!(first.documents.len(), documents.len(), "documents of a row");
            }
            all.rows.push(TrainRow {
                query,
                documents,
                scores: Vec::new(),
            });
        }
        all
    }

    /// Documents of a row.
    pub fn ways(&self) -> usize {
        self.rows.first().map_or(0, |row| row.documents.len())
    }

    /// Refuses rows that `loss` can't learn from.
    ///
    /// # Errors
    /// No rows; no scores where the loss needs them, scores where it ignores them; too few documents for a query.
    pub fn check(&self, loss: &Loss) -> Result<(), TrainError> {
        if self.rows.is_empty() {
            return Err(TrainError::Empty(PathBuf::from(IN_MEMORY)));
        }
        if loss.needs_scores() && !self.has_scores() {
            return Err(TrainError::NoScores {
                place: self.place(),
            });
        }
        if !loss.needs_scores() {
            self.check_unscored()?;
        }
        if self.ways() < loss.least_ways() {
            return Err(TrainError::TooFewDocuments {
                place: self.place(),
                found: counted(self.ways() as u64, "document", "documents"),
                needed: loss.least_ways(),
            });
        }
        Ok(())
    }

    /// Refuses scores, for a use that takes every first document as relevant.
    ///
    /// # Errors
    /// The rows have scores.
    pub fn check_unscored(&self) -> Result<(), TrainError> {
        match self.has_scores() {
            false => Ok(()),
            true => Err(TrainError::UnusedScores {
                place: self.place(),
            }),
        }
    }

    /// File and line of the first row, or "the training data" of rows in memory.
    pub fn place(&self) -> String {
        let first = self.first.as_ref();
        first.map_or(IN_MEMORY.to_string(), |first| first.place.clone())
    }

    /// Number of rows with documents besides the positive.
    pub fn with_negatives(&self) -> usize {
        let has_negatives = |row: &&TrainRow| row.documents.len() > 1;
        self.rows.iter().filter(has_negatives).count()
    }

    /// Refuses a row in which a document occurs twice, or the query is a negative: it would be its own negative. Refuses rows whose queries
    /// are all their own positives.
    ///
    /// # Errors
    /// The first such row.
    pub fn check_own_negatives(&self) -> Result<(), TrainError> {
        let is_own = |row: &TrainRow| row.documents.first() == Some(&row.query);
        if !self.rows.is_empty() && self.rows.iter().all(is_own) {
            return Err(TrainError::QueryIsPositive);
        }
        for (index, row) in self.rows.iter().enumerate() {
            if row.documents.iter().skip(1).any(|text| *text == row.query) {
                return Err(TrainError::QueryIsNegative {
                    row: index + 1,
                    text: self.texts[row.query as usize].chars().take(40).collect(),
                });
            }
            let mut seen = HashSet::new();
            if let Some(&text) = row.documents.iter().find(|text| !seen.insert(**text)) {
                return Err(TrainError::OwnNegative {
                    row: index + 1,
                    text: self.texts[text as usize].chars().take(40).collect(),
                });
            }
        }
        Ok(())
    }

    /// True if the rows have a teacher's scores.
    pub fn has_scores(&self) -> bool {
        self.rows.first().is_some_and(|row| !row.scores.is_empty())
    }

    fn text(&mut self, text: &str) -> u32 {
        if let Some(&index) = self.known.get(text) {
            return index;
        }
        let index = self.texts.len() as u32;
        self.known.insert(text.to_string(), index);
        self.texts.push(text.to_string());
        index
    }

    fn add(&mut self, row: &Row) -> Result<(), FormatError> {
        if row.is_bare() {
            return Err(row.error(
                "a text without columns; write an object with the fields \"query\" and \"positive\"",
            ));
        }
        check_names(row)?;
        let query = required(row, &QUERY)?;
        let documents = documents(row)?;
        let scores = scores(row, documents.len())?;
        for (text, what) in std::iter::once((query, "query".to_string())).chain(
            documents
                .iter()
                .enumerate()
                .map(|(i, text)| (text.as_str(), format!("document {i}"))),
        ) {
            if text.trim().is_empty() {
                return Err(row.error(format!("the {what} is empty; leave the row out")));
            }
        }
        let own = First {
            place: row.place(),
            documents: documents.len(),
            scores: !scores.is_empty(),
        };
        let first = self.first.get_or_insert_with(|| own.clone());
        if first.documents != own.documents {
            return Err(row.error(format!(
                "{} for the query, {} has {}; give each query as many documents",
                counted(own.documents, "document", "documents"),
                first.place,
                first.documents
            )));
        }
        if first.scores != own.scores {
            let (has, lacks) = if own.scores {
                ("scores", "none")
            } else {
                ("no scores", "some")
            };
            return Err(row.error(format!(
                "the row has {has}, {} has {lacks}; give scores in every row or in none",
                first.place
            )));
        }
        let query = self.text(query);
        let documents = documents.iter().map(|text| self.text(text)).collect();
        self.rows.push(TrainRow {
            query,
            documents,
            scores,
        });
        Ok(())
    }
}

/// Refuses columns that mean documents or scores under names that are not read: training without them would give another model.
fn check_names(row: &Row) -> Result<(), FormatError> {
    let is_given = |column: &&str| row.cell(column).is_some_and(|cell| *cell != Cell::Null);
    for column in row.columns().filter(is_given) {
        let plain: String = column.to_lowercase();
        let plain = plain.replace(['_', '-', ' '], "");
        let known = ["query", "positive", "documents", "scores", "score"];
        let remedy = if NAMES.contains(&column) || negative_number(column).is_some() {
            continue;
        } else if is_negative_name(&plain) {
            "name it \"negative\", \"negative_1\", … or, for a list, \"negatives\"".to_string()
        } else if GRADES.contains(&plain.as_str()) {
            "name it \"score\" and choose a --loss that learns from scores, such as mse; or remove it, and with it the rows of irrelevant pairs"
                .to_string()
        } else if let Some(known) = known.iter().find(|known| ***known == plain) {
            format!("name it {known:?}")
        } else {
            continue;
        };
        return Err(row.error(format!("the field {column:?} is not read; {remedy}")));
    }
    Ok(())
}

/// Names that are read.
const NAMES: [&str; 9] = [
    "query",
    "anchor",
    "question",
    "positive",
    "answer",
    "documents",
    "negatives",
    "scores",
    "score",
];
/// Names of grades in other data sets, without `_`.
const GRADES: [&str; 8] = [
    "label",
    "labels",
    "rel",
    "relevance",
    "grade",
    "qrel",
    "relevancescore",
    "relevancelabel",
];

/// Returns true for names of negatives in other data sets, such as `hard_negative` and `neg`, without `_` and in lower case.
fn is_negative_name(plain: &str) -> bool {
    let rest = plain.strip_prefix("hard").unwrap_or(plain);
    let rest = rest.strip_prefix("negative").or(rest.strip_prefix("neg"));
    let Some(rest) = rest.map(|rest| rest.strip_prefix('s').unwrap_or(rest)) else {
        return false;
    };
    let rest = rest.trim_end_matches(|c: char| c.is_ascii_digit());
    let of_texts = [
        "",
        "text",
        "texts",
        "passage",
        "passages",
        "doc",
        "docs",
        "document",
        "documents",
    ];
    of_texts.contains(&rest)
}

/// Number of a column of negatives: 0 for `negative`.
fn negative_number(column: &str) -> Option<u32> {
    let rest = column.strip_prefix("negative")?;
    match rest {
        "" => Some(0),
        rest => rest.strip_prefix('_').unwrap_or(rest).parse().ok(),
    }
}

/// The text of the one of these columns that the row has.
fn required<'a>(row: &'a Row, columns: &[&str]) -> Result<&'a str, FormatError> {
    let found = one_of(row, columns)?;
    row.text(found.unwrap_or(columns[0]))
}

/// The one of these columns that the row has. Columns for the same thing would contradict each other.
fn one_of<'c>(row: &Row, columns: &[&'c str]) -> Result<Option<&'c str>, FormatError> {
    let is_given = |column: &&&str| row.cell(column).is_some_and(|cell| *cell != Cell::Null);
    let mut given = columns.iter().filter(is_given);
    match (given.next(), given.next()) {
        (Some(first), Some(second)) => Err(row.error(format!(
            "the fields {first:?} and {second:?} mean the same here; leave one of them out"
        ))),
        (first, _) => Ok(first.copied()),
    }
}

fn documents(row: &Row) -> Result<Vec<String>, FormatError> {
    if let Some(cell) = row.cell("documents") {
        one_of(row, &["documents", "positive", "answer"])?;
        let list = texts(row, "documents", cell)?;
        if list.is_empty() {
            return Err(row.error("the list \"documents\" is empty; give at least one"));
        }
        return Ok(list);
    }
    let mut all = vec![required(row, &POSITIVE)?.to_string()];
    one_of(row, &["negatives", "negative", "negative_1"])?;
    if let Some(cell) = row.cell("negatives").filter(|cell| **cell != Cell::Null) {
        all.extend(texts(row, "negatives", cell)?);
        return Ok(all);
    }
    let mut columns: Vec<(u32, &str)> = row
        .columns()
        .filter_map(|column| negative_number(column).map(|number| (number, column)))
        .collect();
    columns.sort_unstable();
    if let Some(pair) = columns.windows(2).find(|pair| pair[1].0 != pair[0].0 + 1) {
        return Err(row.error(format!(
            "{:?} follows {:?}; number the columns of negatives without gaps",
            pair[1].1, pair[0].1
        )));
    }
    let mut missing = None;
    for (_, column) in columns {
        match (row.optional_text(column)?, missing) {
            (None, _) => missing = missing.or(Some(column)),
            (Some(_), Some(empty)) => {
                return Err(row.error(format!(
                    "{column:?} has a text and {empty:?} before it has none; fill the columns without gaps"
                )));
            }
            (Some(text), None) => all.push(text.to_string()),
        }
    }
    Ok(all)
}

/// The texts of a list, which CSV spells as JSON.
fn texts(row: &Row, column: &str, cell: &Cell) -> Result<Vec<String>, FormatError> {
    let wrong = || {
        row.error(format!(
            "the field {column:?} is {}; write a list of strings",
            cell.type_name()
        ))
    };
    let list = list(cell).ok_or_else(wrong)?;
    let text = |value: &Value| value.as_str().map(str::to_owned);
    let texts: Option<Vec<String>> = list.iter().map(text).collect();
    texts.ok_or_else(|| row.error(format!("the list {column:?} holds more than strings")))
}

fn list(cell: &Cell) -> Option<Vec<Value>> {
    match cell {
        Cell::Nested(Value::Array(list)) => Some(list.clone()),
        Cell::Text(text) => serde_json::from_str(text).ok(),
        _ => None,
    }
}

fn scores(row: &Row, documents: usize) -> Result<Vec<f32>, FormatError> {
    one_of(row, &["scores", "score"])?;
    let number = |text: &str| text.trim().parse::<f32>().ok();
    let scores: Vec<Option<f32>> = match (row.cell("scores"), row.cell("score")) {
        (None | Some(Cell::Null), None | Some(Cell::Null)) => return Ok(Vec::new()),
        (Some(cell), _) if *cell != Cell::Null => {
            let list = list(cell).ok_or_else(|| {
                row.error(format!(
                    "the field \"scores\" is {}; write a list of numbers",
                    cell.type_name()
                ))
            })?;
            list.iter()
                .map(|value| number(&value.to_string()))
                .collect()
        }
        (_, Some(Cell::Number(text) | Cell::Text(text))) => vec![number(text)],
        _ => return Err(row.error("the field \"score\" is not a number; write one")),
    };
    if scores.len() != documents {
        return Err(row.error(format!(
            "{} for {}; give one for each, the positive's first",
            counted(scores.len(), "score", "scores"),
            counted(documents, "document", "documents")
        )));
    }
    let finite = |score: Option<f32>| score.filter(|score| score.is_finite());
    let all: Option<Vec<f32>> = scores.into_iter().map(finite).collect();
    all.ok_or_else(|| row.error("a score is not a finite number; correct it or leave the row out"))
}
