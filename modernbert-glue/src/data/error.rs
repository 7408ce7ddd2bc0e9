//! Errors of GLUE folders.

use std::io;
use std::path::PathBuf;

use modernbert_train::formats::FormatError;

use crate::task::Task;

/// Reason why a GLUE folder could not be read. Every message names the place and the remedy.
#[derive(Debug, thiserror::Error)]
pub enum GlueDataError {
    /// The GLUE folder is missing.
    #[error(
        "{path}: no such folder; give the folder that holds the GLUE task folders (CoLA, SST-2, ...)"
    )]
    NoGlueFolder {
        /// The folder.
        path: PathBuf,
    },
    /// The folder of a task is missing.
    #[error("{path}: no such folder; put the GLUE files of {task} there: {files}")]
    NoTaskFolder {
        /// Expected path of the folder.
        path: PathBuf,
        /// The task.
        task: Task,
        /// The files it should contain.
        files: String,
    },
    /// A file of a task is missing.
    #[error(
        "{path}: no such file; {task} needs it, get it with the official GLUE download or from the Hub (nyu-mll/glue)"
    )]
    NoFile {
        /// The file expected.
        path: PathBuf,
        /// The task.
        task: Task,
    },
    /// A file can't be read.
    #[error("{path}: cannot be read ({source}); check that it is a file and that you may read it")]
    Read {
        /// The file.
        path: PathBuf,
        /// Error of the operating system.
        source: io::Error,
    },
    /// Bytes that are no UTF-8 text.
    #[error("{path}:{line}: not UTF-8; {remedy}")]
    NotUtf8 {
        /// The file.
        path: PathBuf,
        /// The line, from 1.
        line: usize,
        /// The remedy.
        remedy: String,
    },
    /// A file without a single row.
    #[error("{path}: holds no rows; download it again")]
    NoRows {
        /// The file.
        path: PathBuf,
    },
    /// The header lacks a column.
    #[error(
        "{path}: no column '{column}' in the header, which has {found}; this is not the official GLUE layout"
    )]
    MissingColumn {
        /// The file.
        path: PathBuf,
        /// The column looked for.
        column: String,
        /// The columns there, quoted.
        found: String,
    },
    /// The header names a column twice.
    #[error(
        "{path}: the header names the column '{column}' more than once; this is not the official GLUE layout"
    )]
    DuplicateColumn {
        /// The file.
        path: PathBuf,
        /// The column.
        column: String,
    },
    /// A row with more or fewer columns than the file has.
    #[error(
        "{path}:{line}: {}, {expected} are expected; the row is truncated or has too many tabs: correct it or \
         download the file again",
        modernbert_cli::text::counted(*found, "column", "columns")
    )]
    ColumnCount {
        /// The file.
        path: PathBuf,
        /// The line, from 1.
        line: usize,
        /// Columns of the file.
        expected: usize,
        /// Columns of the row.
        found: usize,
    },
    /// A row of a test set whose index is not the number of the row.
    #[error(
        "{path}:{line}: the index is '{found}', and {expected} is expected: rows are missing, doubled or in another order; download the \
         file again"
    )]
    Index {
        /// The file.
        path: PathBuf,
        /// The line, from 1.
        line: usize,
        /// The index there.
        found: String,
        /// Number of the row, from 0.
        expected: usize,
    },
    /// A label that the task does not have.
    #[error(
        "{path}:{line}: unknown label '{label}', expected {known}; check that the file is of this task"
    )]
    UnknownLabel {
        /// The file.
        path: PathBuf,
        /// The line, from 1.
        line: usize,
        /// The label there.
        label: String,
        /// The labels of the task.
        known: String,
    },
    /// A score that is no number.
    #[error(
        "{path}:{line}: the score '{score}' is not a number; correct the row or download the file again"
    )]
    ScoreNotANumber {
        /// The file.
        path: PathBuf,
        /// The line, from 1.
        line: usize,
        /// The score there.
        score: String,
    },
    /// A score outside the task's bounds.
    #[error(
        "{path}:{line}: the score {score} is not between {min} and {max}; bring the scores to that range"
    )]
    ScoreOutOfRange {
        /// The file.
        path: PathBuf,
        /// The line, from 1.
        line: usize,
        /// The score there.
        score: String,
        /// Lowest score allowed.
        min: f32,
        /// Highest score allowed.
        max: f32,
    },
    /// A Parquet file that can't be read.
    #[error(transparent)]
    Format(#[from] FormatError),
    /// Parts of a split are missing, or exist in two forms.
    #[error(
        "{path}: the split {split} is incomplete or exists twice ({found}); keep one complete set of files"
    )]
    Parts {
        /// The folder.
        path: PathBuf,
        /// The split.
        split: String,
        /// The files of the split.
        found: String,
    },
    /// A cell of a type that its column should not have.
    #[error(
        "{path}: row {row}: the column '{column}' holds {found}, not {expected}; this is not the Hub's layout"
    )]
    CellType {
        /// The file.
        path: PathBuf,
        /// The row, from 1.
        row: usize,
        /// The column.
        column: String,
        /// The value found.
        found: String,
        /// The expected value.
        expected: &'static str,
    },
    /// A task without a training set.
    #[error(
        "{task} has no training set, only unlabelled sentences; choose another task to train on"
    )]
    NoTrainingSet {
        /// The task.
        task: Task,
    },
}
