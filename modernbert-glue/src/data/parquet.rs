//! The Hub's Parquet files: the same examples with columns under other names and class ids instead of label names.

use std::fs::File;
use std::path::{Path, PathBuf};

use ::parquet::errors::ParquetError;
use ::parquet::file::reader::{FileReader, SerializedFileReader};
use ::parquet::record::Field;

use super::{DataError, Example, Label, Split};
use crate::task::{SplitFile, Task, TaskKind};

/// Whether a folder has any Parquet file.
pub(super) fn any(folder: &Path) -> bool {
    !files(folder, |_| true).is_empty()
}

/// Files of a split: `train.parquet`, or `train-00000-of-00002.parquet` and its fellows in order.
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

pub(super) fn load_split(
    folder: &Path,
    task: Task,
    file: SplitFile,
    labelled: bool,
) -> Result<Split, DataError> {
    let split = task.hub_split(file.name);
    let paths = files(folder, |name| {
        name.split_once('-').map_or(name, |(split, _)| split) == split
    });
    let Some(first) = paths.first() else {
        return Err(DataError::NoFile {
            path: folder.join(format!("{split}-*.parquet")),
            task,
        });
    };
    let mut examples = Vec::new();
    for path in &paths {
        read_file(path, task, labelled, &mut examples)?;
    }
    if examples.is_empty() {
        return Err(DataError::NoRows {
            path: first.clone(),
        });
    }
    let empty = |e: &&Example| e.text_a.is_empty() || e.text_b.as_deref() == Some("");
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
    examples: &mut Vec<Example>,
) -> Result<(), DataError> {
    let broken = |error: ParquetError| DataError::Parquet {
        path: path.to_path_buf(),
        reason: error.to_string(),
    };
    let file = File::open(path).map_err(|source| DataError::Read {
        path: path.to_path_buf(),
        source,
    })?;
    let reader = SerializedFileReader::new(file).map_err(broken)?;
    let schema = reader.metadata().file_metadata().schema();
    let names: Vec<&str> = schema
        .get_fields()
        .iter()
        .map(|field| field.name())
        .collect();
    let column = |name: &str| {
        let found = names.iter().position(|known| *known == name);
        found.ok_or_else(|| DataError::MissingColumn {
            path: path.to_path_buf(),
            column: name.to_string(),
            found: names
                .iter()
                .map(|name| format!("'{name}'"))
                .collect::<Vec<_>>()
                .join(", "),
        })
    };
    let (name_a, name_b) = task.hub_columns();
    let column_a = column(name_a)?;
    let column_b = name_b.map(column).transpose()?;
    let column_label = labelled.then(|| column("label")).transpose()?;
    for (i, row) in reader.get_row_iter(None).map_err(broken)?.enumerate() {
        let row = row.map_err(broken)?;
        let cells: Vec<&Field> = row.get_column_iter().map(|(_, cell)| cell).collect();
        let cell = Cell {
            path,
            row: i + 1,
            cells: &cells,
            names: &names,
        };
        let label = match column_label {
            Some(column) => cell.label(task, column)?,
            None => Label::Hidden,
        };
        examples.push(Example {
            index: examples.len(),
            text_a: cell.text(column_a)?,
            text_b: column_b.map(|column| cell.text(column)).transpose()?,
            label,
        });
    }
    Ok(())
}

/// The cells of one row and where it stands.
struct Cell<'a> {
    path: &'a Path,
    row: usize,
    cells: &'a [&'a Field],
    names: &'a [&'a str],
}

impl Cell<'_> {
    fn wrong(&self, column: usize, expected: &'static str) -> DataError {
        DataError::CellType {
            path: self.path.to_path_buf(),
            row: self.row,
            column: self.names[column].to_string(),
            found: self
                .cells
                .get(column)
                .map_or_else(|| "nothing".to_string(), ToString::to_string),
            expected,
        }
    }

    fn text(&self, column: usize) -> Result<String, DataError> {
        let text = match self.cells.get(column) {
            Some(Field::Str(text)) => Some(text.clone()),
            Some(Field::Bytes(bytes)) => String::from_utf8(bytes.data().to_vec()).ok(),
            _ => None,
        };
        text.ok_or_else(|| self.wrong(column, "text"))
    }

    fn label(&self, task: Task, column: usize) -> Result<Label, DataError> {
        let Some(cell) = self.cells.get(column) else {
            return Err(self.wrong(column, "a label"));
        };
        let number = match cell {
            Field::Byte(x) => Some(f64::from(*x)),
            Field::Short(x) => Some(f64::from(*x)),
            Field::Int(x) => Some(f64::from(*x)),
            Field::Long(x) => Some(*x as f64),
            Field::Float(x) => Some(f64::from(*x)),
            Field::Double(x) => Some(*x),
            _ => None,
        };
        match (task.kind(), number, cell) {
            (TaskKind::Regression { min, max }, Some(score), _) => {
                let score = score as f32;
                // A NaN is in no range.
                if (min..=max).contains(&score) {
                    return Ok(Label::Score(score));
                }
                Err(DataError::ScoreOutOfRange {
                    path: self.path.to_path_buf(),
                    line: self.row,
                    score: score.to_string(),
                    min,
                    max,
                })
            }
            (TaskKind::Classification { labels }, Some(id), _)
                if id >= 0.0 && id.fract() == 0.0 && (id as usize) < labels.len() =>
            {
                Ok(Label::Class(id as usize))
            }
            (TaskKind::Classification { labels }, _, Field::Str(name)) => {
                let known = labels.iter().position(|label| label == name);
                let id = task.label_id(name).or(known);
                id.map(Label::Class)
                    .ok_or_else(|| self.unknown(name.clone(), task))
            }
            (TaskKind::Classification { .. }, Some(id), _) => {
                Err(self.unknown(id.to_string(), task))
            }
            _ => Err(self.wrong(column, "a label")),
        }
    }

    fn unknown(&self, label: String, task: Task) -> DataError {
        DataError::UnknownLabel {
            path: self.path.to_path_buf(),
            line: self.row,
            label,
            known: format!("a class id from 0 to {}", task.num_outputs() - 1),
        }
    }
}
