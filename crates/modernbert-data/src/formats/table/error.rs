//! Errors of tables.

use std::path::PathBuf;

use crate::formats::FormatError;
use modernbert_files::config::MAX_LABELS;

/// Reason why a table can't be used.
#[derive(Debug, thiserror::Error)]
pub enum TableError {
    /// The file can't be read.
    #[error(transparent)]
    Format(#[from] FormatError),
    /// One column is named for two purposes.
    #[error("the column {0:?} is named twice; text, pair and label are different columns")]
    SameColumn(String),
    /// No rows.
    #[error("{}: holds no rows; pass a file with texts and labels", .0.display())]
    Empty(PathBuf),
    /// No row has a label.
    #[error("{}: no row has a label; a classifier needs at least one", .0.display())]
    NoLabels(PathBuf),
    /// A label that the training set doesn't have.
    #[error("{}:{line}: the label {label:?} is not among those of the training set: {known}{hint}", path.display())]
    Label {
        /// The file.
        path: PathBuf,
        /// The line, from 1.
        line: u64,
        /// The label.
        label: String,
        /// The known ones.
        known: String,
        /// A known one that means the same; or nothing.
        hint: String,
    },
    /// Two spellings of what looks like one label.
    #[error(
        "{}:{line}: the label {} differs from {} in line {other_line} in its spelling only; write one spelling, or names that \
         differ in more", path.display(), escaped(label), escaped(other)
    )]
    Spelling {
        /// The file.
        path: PathBuf,
        /// The line, from 1.
        line: u64,
        /// The label.
        label: String,
        /// The first spelling.
        other: String,
        /// Its line, from 1.
        other_line: u64,
    },
    /// A label with control characters.
    #[error("{}:{line}: the label {label:?} has line ends, tabs, other control characters or marks of the direction of text; remove them", path.display())]
    Control {
        /// The file.
        path: PathBuf,
        /// The line, from 1.
        line: u64,
        /// The label.
        label: String,
    },
    /// All rows of a training set have the same labels.
    #[error(
        "{}: every row has the same labels ({labels}), so that nothing is learned; {}", path.display(),
        match is_vector {
            true => "write the names of the labels that apply, not a vector of 0 and 1",
            false => "is this the column of the labels?",
        }
    )]
    OneSet {
        /// The file.
        path: PathBuf,
        /// The labels.
        labels: String,
        /// True if they are 0 and 1.
        is_vector: bool,
    },
    /// Another spelling of the tag `O`.
    #[error("{}:{line}: the tag {tag:?} is not \"O\", the tag of words outside of every span; write \"O\"", path.display())]
    Outside {
        /// The file.
        path: PathBuf,
        /// The line, from 1.
        line: u64,
        /// The tag.
        tag: String,
    },
    /// One id for two rows.
    #[error("{}:{line}: the id {id:?} occurs a second time, first in line {first}; results name ids, give each row its own", path.display())]
    SameId {
        /// The file.
        path: PathBuf,
        /// The line, from 1.
        line: u64,
        /// The id.
        id: String,
        /// Line of the first row with it.
        first: u64,
    },
    /// A score that f32 does not hold.
    #[error(
        "{}:{line}: the label {label} is too large or too small for regression in f32, which keeps whole numbers up to 16777216 and nothing below 1.2e-38; scale the labels", path.display()
    )]
    ScoreDigits {
        /// The file.
        path: PathBuf,
        /// The line, from 1.
        line: u64,
        /// The label.
        label: String,
    },
    /// A score that is no number.
    #[error("{}:{line}: the label {label:?} is not a number; regression needs finite numbers, correct it or leave the row out", path.display())]
    Score {
        /// The file.
        path: PathBuf,
        /// The line, from 1.
        line: u64,
        /// The label.
        label: String,
    },
    /// A file to score on without anything to find.
    #[error(
        "{}: no row has a label, so that F1 is undefined; give a file with labels to score on", .0.display()
    )]
    NothingToFind(PathBuf),
    /// More labels than a model has.
    #[error(
        "{}: {count} different labels, and a model has at most {MAX_LABELS}; is this the column of the labels? Numbers to be learned are a regression", path.display()
    )]
    ManyLabels {
        /// The file.
        path: PathBuf,
        /// Number of labels.
        count: usize,
    },
    /// One class only.
    #[error("{}: every row has the label {label:?}; a classifier needs two or more", path.display())]
    OneClass {
        /// The file.
        path: PathBuf,
        /// The label.
        label: String,
    },
}

/// A label in quotes, followed by escapes if it has characters beyond ASCII: two that look the same are told apart.
fn escaped(label: &str) -> String {
    match label.is_ascii() {
        true => format!("{label:?}"),
        false => format!("{label:?} ({})", label.escape_default()),
    }
}
