//! The Hub's Parquet files: the same examples with columns under other names and class ids instead of label names.

use std::path::{Path, PathBuf};

use modernbert_train::formats::{Cell, Row, Rows};

use super::{GlueDataError, GlueExample, Label, Split};
use crate::task::{SplitFile, Task, TaskKind};

/// Returns true if a folder has any Parquet file.
pub(super) fn any(folder: &Path) -> bool {
    !files(folder, |_| true).is_empty()
}

/// Files of a split: `train.parquet`, or `train-00000-of-00002.parquet` and the following ones in order.
fn files(folder: &Path, wanted: impl Fn(&str) -> bool) -> Vec<PathBuf> {
    let entries = std::fs::read_dir(folder).into_iter().flatten().flatten();
    let mut files: Vec<PathBuf> = entries
        .map(|entry| entry.path())
        .filter(|path| {
            let name = path.file_name().and_then(|name| name.to_str());
            name.and_then(|name| name.strip_suffix(".parquet"))
                .is_some_and(&wanted)
        })
        .collect();
    files.sort();
    files
}

/// Refuses a split of which a part is missing or exists twice: rows would be lost or duplicated.
fn check_parts(folder: &Path, split: &str, paths: &[PathBuf]) -> Result<(), GlueDataError> {
    let names = paths.iter().filter_map(|path| path.file_stem()?.to_str());
    let names: Vec<&str> = names.collect();
    let counts = names
        .iter()
        .map(|name| name.rsplit_once("-of-")?.1.parse().ok());
    let counts: Vec<Option<usize>> = counts.collect();
    let is_whole = match counts[..] {
        [Some(count), ..] => {
            count == names.len() && counts.iter().all(|other| *other == Some(count))
        }
        _ => counts.iter().all(Option::is_none) && (names.len() == 1 || !names.contains(&split)),
    };
    if is_whole {
        return Ok(());
    }
    Err(GlueDataError::Parts {
        path: folder.to_path_buf(),
        split: split.to_string(),
        found: names.join(", "),
    })
}

pub(super) fn load_split(
    folder: &Path,
    task: Task,
    file: SplitFile,
    labelled: bool,
) -> Result<Split, GlueDataError> {
    let split = task.hub_split(file.name);
    let paths = files(folder, |name| {
        name.split_once('-').map_or(name, |(split, _)| split) == split
    });
    let Some(first) = paths.first() else {
        return Err(GlueDataError::NoFile {
            path: folder.join(format!("{split}-*.parquet")),
            task,
        });
    };
    check_parts(folder, &split, &paths)?;
    let mut examples = Vec::new();
    for path in &paths {
        read_file(path, task, labelled, &mut examples)?;
    }
    if examples.is_empty() {
        return Err(GlueDataError::NoRows {
            path: first.clone(),
        });
    }
    let empty = |e: &&GlueExample| e.text_a.is_empty() || e.text_b.as_deref() == Some("");
    Ok(Split {
        name: file.name,
        path: first.clone(),
        official_rows: file.rows,
        partial: examples.len() < file.rows,
        skipped: Vec::new(),
        empty_sentences: examples.iter().filter(empty).count(),
        examples,
    })
}

fn read_file(
    path: &Path,
    task: Task,
    labelled: bool,
    examples: &mut Vec<GlueExample>,
) -> Result<(), GlueDataError> {
    let (name_a, name_b) = task.hub_columns();
    let label = labelled.then_some("label");
    let columns: Vec<&str> = [Some(name_a), name_b, label]
        .into_iter()
        .flatten()
        .collect();
    for row in Rows::open_columns(path, &columns)? {
        let row = row?;
        let cells = Cells { path, row: &row };
        examples.push(GlueExample {
            index: examples.len(),
            text_a: cells.text(name_a)?,
            text_b: name_b.map(|column| cells.text(column)).transpose()?,
            label: match label {
                Some(column) => cells.label(task, column)?,
                None => Label::Hidden,
            },
        });
    }
    Ok(())
}

/// The cells of one row, with its place.
struct Cells<'a> {
    path: &'a Path,
    row: &'a Row,
}

impl Cells<'_> {
    fn number(&self) -> usize {
        self.row.number() as usize
    }

    fn wrong(&self, column: &str, expected: &'static str) -> GlueDataError {
        let found = self.row.cell(column);
        GlueDataError::CellType {
            path: self.path.to_path_buf(),
            row: self.number(),
            column: column.to_string(),
            found: found.map_or_else(|| "nothing".to_string(), |cell| cell.to_json().to_string()),
            expected,
        }
    }

    fn text(&self, column: &str) -> Result<String, GlueDataError> {
        match self.row.cell(column) {
            Some(Cell::Text(text)) => Ok(text.clone()),
            _ => Err(self.wrong(column, "text")),
        }
    }

    fn label(&self, task: Task, column: &str) -> Result<Label, GlueDataError> {
        match (task.kind(), self.row.cell(column)) {
            (TaskKind::Regression { min, max }, Some(Cell::Number(number))) => {
                let score: f32 = number.parse().unwrap_or(f32::NAN);
                // NaN is in no range.
                if (min..=max).contains(&score) {
                    return Ok(Label::Score(score));
                }
                Err(GlueDataError::ScoreOutOfRange {
                    path: self.path.to_path_buf(),
                    line: self.number(),
                    score: score.to_string(),
                    min,
                    max,
                })
            }
            (TaskKind::Classification { labels }, Some(Cell::Number(number))) => {
                let id: Option<usize> = number.parse().ok();
                id.filter(|&id| id < labels.len())
                    .map(Label::Class)
                    .ok_or_else(|| self.unknown(number.clone(), task))
            }
            (TaskKind::Classification { labels }, Some(Cell::Text(name))) => {
                let known = labels.iter().position(|label| label == name);
                let id = task.label_id(name).or(known);
                id.map(Label::Class)
                    .ok_or_else(|| self.unknown(name.clone(), task))
            }
            _ => Err(self.wrong(column, "a label")),
        }
    }

    fn unknown(&self, label: String, task: Task) -> GlueDataError {
        GlueDataError::UnknownLabel {
            path: self.path.to_path_buf(),
            line: self.number(),
            label,
            known: format!("a class id from 0 to {}", task.num_outputs() - 1),
        }
    }
}
