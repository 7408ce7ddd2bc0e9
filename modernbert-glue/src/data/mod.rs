//! GLUE folders to examples: the official TSV files or the Hub's Parquet files, read strictly.
//!
//! Columns are found by name, text is taken unchanged (blanks and quotes included), and any other deviation is
//! an error with its file and line (in Parquet: row). Two deviations are tolerated and counted instead: rows of QQP that are
//! split over several lines, which every user of the official file drops, and empty sentences. Both forms of the same data
//! give identical examples.
//!
//! | form | files in the folder of a task |
//! |---|---|
//! | official | `train.tsv`, `dev.tsv` (MNLI: `dev_matched.tsv`, …), `test.tsv` |
//! | Hub | `train-00000-of-00001.parquet` or `train.parquet`, the same for `validation` (`validation_matched`, …) and `test` |
//!
//! If a folder contains both, the official files are read.

mod error;
mod notes;
mod official;
mod parquet;
mod source;
pub mod tsv;

#[cfg(test)]
mod real;
#[cfg(test)]
mod tests;

use std::path::{Path, PathBuf};

pub use error::GlueDataError;
use modernbert_train::finetune::{Target, Text};
pub use notes::notes;
pub use source::{DataSource, DatasetSourceError};

use crate::task::{SplitFile, Task};
use official::file_name;

/// Label of an example.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Label {
    /// A class id.
    Class(usize),
    /// A score.
    Score(f32),
    /// No label: a test row.
    Hidden,
}

/// One row of a task.
#[derive(Debug, Clone, PartialEq)]
pub struct GlueExample {
    /// Its position in [`Split::examples`] as loaded.
    pub index: usize,
    /// The first or only sentence.
    pub text_a: String,
    /// The second sentence, for pair tasks.
    pub text_b: Option<String>,
    /// The label.
    pub label: Label,
}

/// A row that was left out because it has too few columns.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct SkippedRow {
    /// Its line in the file, from 1.
    pub line: usize,
    /// Number of its columns.
    pub columns: usize,
}

/// One file of a task.
#[derive(Debug, Clone, PartialEq)]
pub struct Split {
    /// `train`, `dev`, `dev_matched`, ...
    pub name: &'static str,
    /// The file.
    pub path: PathBuf,
    /// The rows, in file order.
    pub examples: Vec<GlueExample>,
    /// Rows the official file has.
    pub official_rows: usize,
    /// True if there are fewer rows than in the official file, rows left out counted as missing.
    pub partial: bool,
    /// Corrupt rows left out; only QQP may have any.
    pub skipped: Vec<SkippedRow>,
    /// Examples in which a sentence is empty; they are kept.
    pub empty_sentences: usize,
}

impl Split {
    /// A split of the same name and file without rows.
    pub(crate) fn empty_like(other: &Self) -> Self {
        Self {
            name: other.name,
            path: other.path.clone(),
            examples: Vec::new(),
            official_rows: other.official_rows,
            partial: other.partial,
            skipped: Vec::new(),
            empty_sentences: 0,
        }
    }

    /// Keeps only the first `rows` examples, and sets `partial`.
    pub fn truncate(&mut self, rows: usize) {
        self.partial |= rows < self.examples.len();
        self.examples.truncate(rows);
    }

    /// The rows as texts to train on or to predict; a hidden label becomes class 0, which prediction ignores.
    pub fn texts(&self) -> Vec<Text<'_>> {
        let rows = self.examples.iter();
        rows.map(|row| Text {
            text: &row.text_a,
            pair: row.text_b.as_deref(),
            target: match row.label {
                Label::Class(class) => Target::Class(class as u32),
                Label::Score(score) => Target::Score(score),
                Label::Hidden => Target::Class(0),
            },
        })
        .collect()
    }

    /// The class ids, in order.
    ///
    /// # Panics
    /// On rows of a regression task or of a test set, which have none.
    pub fn classes(&self) -> Vec<usize> {
        let class = |row: &GlueExample| match row.label {
            Label::Class(class) => class,
            other => panic!("row {} has {other:?} instead of a class", row.index),
        };
        self.examples.iter().map(class).collect()
    }

    /// The scores of a regression task, in order.
    ///
    /// # Panics
    /// On rows of other tasks, which have none.
    pub fn scores(&self) -> Vec<f64> {
        let score = |row: &GlueExample| match row.label {
            Label::Score(score) => f64::from(score),
            other => panic!("row {} has {other:?} instead of a score", row.index),
        };
        self.examples.iter().map(score).collect()
    }

    /// The labels, in order.
    pub fn labels(&self) -> Vec<Label> {
        self.examples.iter().map(|example| example.label).collect()
    }
}

/// Data of a task.
#[derive(Debug, Clone, PartialEq)]
pub struct TaskData {
    /// The task.
    pub task: Task,
    /// The training set.
    pub train: Split,
    /// The dev sets: one, or for MNLI matched and, where the file exists, mismatched.
    pub dev: Vec<Split>,
    /// Dev files of the official release that are missing.
    pub missing: Vec<PathBuf>,
}

impl TaskData {
    /// Reads train and dev of a task from the folder that holds the task folders.
    pub fn load(dir: &Path, task: Task) -> Result<Self, GlueDataError> {
        let file = task
            .train_split()
            .ok_or(GlueDataError::NoTrainingSet { task })?;
        let folder = task_folder(dir, task)?;
        let train = load_split(&folder, task, file, true)?;
        let (dev, missing) = load_splits(&folder, task, task.dev_splits(), true)?;
        Ok(Self {
            task,
            train,
            dev,
            missing,
        })
    }

    /// Reads the test files of a task, labels [`Label::Hidden`]; of MNLI's two the mismatched one may be missing.
    pub fn load_test(dir: &Path, task: Task) -> Result<Vec<Split>, GlueDataError> {
        let folder = task_folder(dir, task)?;
        Ok(load_splits(&folder, task, task.test_splits(), false)?.0)
    }

    /// Returns true if rows or files of the official release are missing.
    pub fn partial(&self) -> bool {
        self.train.partial || !self.missing.is_empty() || self.dev.iter().any(|split| split.partial)
    }

    /// Rows of all dev sets together.
    pub fn dev_rows(&self) -> usize {
        self.dev.iter().map(|split| split.examples.len()).sum()
    }
}

fn task_folder(dir: &Path, task: Task) -> Result<PathBuf, GlueDataError> {
    if !dir.is_dir() {
        return Err(GlueDataError::NoGlueFolder {
            path: dir.to_path_buf(),
        });
    }
    let known = task.folders().iter().map(|name| dir.join(name));
    known.into_iter().find(|path| path.is_dir()).ok_or_else(|| {
        let splits = task
            .train_split()
            .into_iter()
            .chain(task.dev_splits().iter().copied());
        let mut files: Vec<String> = splits.map(|split| file_name(split.name)).collect();
        if files.is_empty() {
            files = task
                .test_splits()
                .iter()
                .map(|split| file_name(split.name))
                .collect();
        }
        GlueDataError::NoTaskFolder {
            path: dir.join(task.folder()),
            task,
            files: files.join(", "),
        }
    })
}

/// A split in the form in which the folder has the task.
fn load_split(
    folder: &Path,
    task: Task,
    file: SplitFile,
    labelled: bool,
) -> Result<Split, GlueDataError> {
    let official = task
        .train_split()
        .into_iter()
        .chain(task.dev_splits().iter().copied())
        .chain(task.test_splits().iter().copied())
        .any(|split| folder.join(file_name(split.name)).exists());
    if !official && parquet::any(folder) {
        parquet::load_split(folder, task, file, labelled)
    } else {
        official::load_split(folder, task, file, labelled)
    }
}

/// The first file must be there; a later one, MNLI's mismatched, may be missing.
fn load_splits(
    folder: &Path,
    task: Task,
    files: &[SplitFile],
    labelled: bool,
) -> Result<(Vec<Split>, Vec<PathBuf>), GlueDataError> {
    let (mut splits, mut missing) = (Vec::new(), Vec::new());
    for (i, file) in files.iter().enumerate() {
        match load_split(folder, task, *file, labelled) {
            Err(GlueDataError::NoFile { path, .. }) if i > 0 => missing.push(path),
            other => splits.push(other?),
        }
    }
    Ok((splits, missing))
}
