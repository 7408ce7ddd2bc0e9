//! The official TSV files, read strictly.

use std::path::Path;

use super::tsv::{Header, TextFile};
use super::{GlueDataError, GlueExample, Label, SkippedRow, Split};
use crate::task::{SplitFile, Task, TaskKind};

/// Name of the file of a split.
pub(super) fn file_name(split: &str) -> String {
    format!("{split}.tsv")
}

pub(super) fn load_split(
    folder: &Path,
    task: Task,
    file: SplitFile,
    labelled: bool,
) -> Result<Split, GlueDataError> {
    let text = TextFile::read(&folder.join(file_name(file.name)), task)?;
    let path = text.path();
    let mut lines = text.lines();
    let header = match task.implicit_header(file.name) {
        Some(names) => Header::of(names),
        None => Header::parse(
            lines
                .next()
                .ok_or_else(|| GlueDataError::NoRows {
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

    // Predictions are written under the row's number: another order or a gap would give them to other rows.
    let column_index = (!labelled && header.has("index"))
        .then(|| header.column("index", path))
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
            return Err(GlueDataError::ColumnCount {
                path: path.to_path_buf(),
                line,
                expected,
                found,
            });
        }
        if let Some(column) = column_index
            && cells[column] != examples.len().to_string()
        {
            return Err(GlueDataError::Index {
                path: path.to_path_buf(),
                line,
                found: cells[column].to_string(),
                expected: examples.len(),
            });
        }
        let label = match column_label {
            Some(column) => parse_label(task, cells[column], path, line)?,
            None => Label::Hidden,
        };
        let (text_a, text_b) = (cells[column_a], column_b.map(|column| cells[column]));
        empty_sentences += usize::from(text_a.is_empty() || text_b == Some(""));
        let (text_a, text_b) = (text_a.to_string(), text_b.map(str::to_string));
        examples.push(GlueExample {
            index: examples.len(),
            text_a,
            text_b,
            label,
        });
    }
    if examples.is_empty() {
        return Err(GlueDataError::NoRows {
            path: path.to_path_buf(),
        });
    }
    Ok(Split {
        name: file.name,
        path: path.to_path_buf(),
        partial: examples.len() < file.rows,
        examples,
        official_rows: file.rows,
        skipped,
        empty_sentences,
    })
}

pub(super) fn parse_label(
    task: Task,
    cell: &str,
    path: &Path,
    line: usize,
) -> Result<Label, GlueDataError> {
    let path = || path.to_path_buf();
    match task.kind() {
        TaskKind::Classification { .. } => task.label_id(cell).map(Label::Class).ok_or_else(|| {
            let (label, known) = (cell.to_string(), task.file_labels().join(", "));
            GlueDataError::UnknownLabel {
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
                    return Err(GlueDataError::ScoreNotANumber {
                        path: path(),
                        line,
                        score: cell.to_string(),
                    });
                }
            };
            // NaN is in no range.
            if !(min..=max).contains(&score) {
                return Err(GlueDataError::ScoreOutOfRange {
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
