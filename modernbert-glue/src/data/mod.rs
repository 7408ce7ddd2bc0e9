//! GLUE folders to examples: the official TSV layout, read strictly.
//!
//! Columns are found by name, text is taken as it stands (blanks and quotes included), and anything that does not fit is
//! an error with its file and line. Two things are tolerated and counted instead: rows of QQP that were broken over
//! several lines, which every user of the official file drops, and empty sentences.

mod error;
pub mod tsv;

#[cfg(test)]
mod real;
#[cfg(test)]
mod tests;

use std::path::{Path, PathBuf};

pub use error::DataError;

use crate::task::{SplitFile, Task, TaskKind};
use tsv::{Header, TextFile};

/// What an example is labelled with.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Label {
    /// A class id.
    Class(usize),
    /// A score.
    Score(f32),
    /// Nothing: a test row.
    Hidden,
}

/// One row of a task.
#[derive(Debug, Clone, PartialEq)]
pub struct Example {
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
    /// How many columns it has.
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
    pub examples: Vec<Example>,
    /// Rows the official file has.
    pub official_rows: usize,
    /// Whether there are fewer rows than in the official file.
    pub partial: bool,
    /// Corrupt rows left out; only QQP may have any.
    pub skipped: Vec<SkippedRow>,
    /// Examples in which a sentence is empty; they are kept.
    pub empty_sentences: usize,
}

impl Split {
    /// Keeps the first `rows` examples only, and says so in `partial`.
    pub fn truncate(&mut self, rows: usize) {
        self.partial |= rows < self.examples.len();
        self.examples.truncate(rows);
    }

    /// The labels, in order.
    pub fn labels(&self) -> Vec<Label> {
        self.examples.iter().map(|example| example.label).collect()
    }
}

/// What training a task needs.
#[derive(Debug, Clone, PartialEq)]
pub struct TaskData {
    /// The task.
    pub task: Task,
    /// The training set.
    pub train: Split,
    /// The dev sets: one, or for MNLI matched and, where the file exists, mismatched.
    pub dev: Vec<Split>,
    /// Dev files that are not there although the official release has them.
    pub missing: Vec<PathBuf>,
}

impl TaskData {
    /// Reads train and dev of a task from the folder that holds the task folders.
    pub fn load(dir: &Path, task: Task) -> Result<Self, DataError> {
        let file = task
            .train_split()
            .ok_or(DataError::NoTrainingSet { task })?;
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
    pub fn load_test(dir: &Path, task: Task) -> Result<Vec<Split>, DataError> {
        let folder = task_folder(dir, task)?;
        Ok(load_splits(&folder, task, task.test_splits(), false)?.0)
    }

    /// Whether anything the official release has is not here.
    pub fn partial(&self) -> bool {
        self.train.partial || !self.missing.is_empty() || self.dev.iter().any(|split| split.partial)
    }

    /// Rows of all dev sets together.
    pub fn dev_rows(&self) -> usize {
        self.dev.iter().map(|split| split.examples.len()).sum()
    }
}

fn task_folder(dir: &Path, task: Task) -> Result<PathBuf, DataError> {
    if !dir.is_dir() {
        return Err(DataError::NoGlueFolder {
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
        DataError::NoTaskFolder {
            path: dir.join(task.folder()),
            task,
            files: files.join(", "),
        }
    })
}

fn file_name(split: &str) -> String {
    format!("{split}.tsv")
}

/// The first file must be there; a later one, MNLI's mismatched, may be missing.
fn load_splits(
    folder: &Path,
    task: Task,
    files: &[SplitFile],
    labelled: bool,
) -> Result<(Vec<Split>, Vec<PathBuf>), DataError> {
    let (mut splits, mut missing) = (Vec::new(), Vec::new());
    for (i, file) in files.iter().enumerate() {
        match load_split(folder, task, *file, labelled) {
            Err(DataError::NoFile { path, .. }) if i > 0 => missing.push(path),
            other => splits.push(other?),
        }
    }
    Ok((splits, missing))
}

fn load_split(
    folder: &Path,
    task: Task,
    file: SplitFile,
    labelled: bool,
) -> Result<Split, DataError> {
    let text = TextFile::read(&folder.join(file_name(file.name)), task)?;
    let path = text.path();
    let mut lines = text.lines();
    let header = match task.implicit_header(file.name) {
        Some(names) => Header::of(names),
        None => Header::parse(
            lines
                .next()
                .ok_or_else(|| DataError::NoRows {
                    path: path.to_path_buf(),
                })?
                .1,
        ),
    };
    let (name_a, name_b, name_label) = task.columns();
    let column_a = header.column(name_a, path)?;
    let column_b = name_b.map(|name| header.column(name, path)).transpose()?;
    let column_label = labelled
        .then(|| header.column(name_label, path))
        .transpose()?;

    let (mut examples, mut skipped, mut empty_sentences) = (Vec::new(), Vec::new(), 0);
    for (line, row) in lines {
        let cells: Vec<&str> = row.split('\t').collect();
        if task == Task::Qqp && cells.len() < header.width() {
            skipped.push(SkippedRow {
                line,
                columns: cells.len(),
            });
            continue;
        }
        if cells.len() != header.width() {
            let (expected, found) = (header.width(), cells.len());
            return Err(DataError::ColumnCount {
                path: path.to_path_buf(),
                line,
                expected,
                found,
            });
        }
        let label = match column_label {
            Some(column) => parse_label(task, cells[column], path, line)?,
            None => Label::Hidden,
        };
        let (text_a, text_b) = (cells[column_a], column_b.map(|column| cells[column]));
        empty_sentences += usize::from(text_a.is_empty() || text_b == Some(""));
        let (text_a, text_b) = (text_a.to_string(), text_b.map(str::to_string));
        examples.push(Example {
            index: examples.len(),
            text_a,
            text_b,
            label,
        });
    }
    if examples.is_empty() {
        return Err(DataError::NoRows {
            path: path.to_path_buf(),
        });
    }
    let partial = examples.len() + skipped.len() < file.rows;
    let (name, path, official_rows) = (file.name, path.to_path_buf(), file.rows);
    Ok(Split {
        name,
        path,
        examples,
        official_rows,
        partial,
        skipped,
        empty_sentences,
    })
}

fn parse_label(task: Task, cell: &str, path: &Path, line: usize) -> Result<Label, DataError> {
    let path = || path.to_path_buf();
    match task.kind() {
        TaskKind::Classification { .. } => task.label_id(cell).map(Label::Class).ok_or_else(|| {
            let (label, known) = (cell.to_string(), task.file_labels().join(", "));
            DataError::UnknownLabel {
                path: path(),
                line,
                label,
                known,
            }
        }),
        TaskKind::Regression { min, max } => {
            let score: f32 = match cell.parse() {
                Ok(score) => score,
                Err(_) => {
                    return Err(DataError::ScoreNotANumber {
                        path: path(),
                        line,
                        score: cell.to_string(),
                    });
                }
            };
            // A NaN is in no range.
            if !(min..=max).contains(&score) {
                return Err(DataError::ScoreOutOfRange {
                    path: path(),
                    line,
                    score: cell.to_string(),
                    min,
                    max,
                });
            }
            Ok(Label::Score(score))
        }
    }
}
