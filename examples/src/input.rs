//! Texts from the command line, files or pipes, read in windows, so that a file may be larger than memory.

use anyhow::bail;
use clap::{Args, ValueEnum};
use modernbert::inference::{BatchOptions, Input};
use modernbert_cli::check_stdin;
use modernbert_data::formats::{
    Cell, Compression, Format, FormatError, Row, Rows, read_text, read_text_from,
};
use serde_json::Value;
use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::SystemTime;

use crate::windows::{RecordSource, Windows};

/// Source of the texts.
#[derive(Args, Clone, Debug, Default)]
pub struct InputArgs {
    /// Takes these texts, one per argument.
    pub texts: Vec<String>,
    /// Reads texts from this file: .txt (one text per line), .jsonl, .csv or .tsv, each also as .gz; `-` for standard input; .zst and .parquet
    /// in programs built with the features `zstd` and `parquet`.
    #[arg(long, value_name = "FILE", conflicts_with = "texts")]
    pub input: Option<OsString>,
    /// Reads the file in this format; by default the one of its ending, and txt for standard input.
    #[arg(long, value_enum)]
    pub format: Option<FormatArg>,
    /// Reads the text from this field or column [default: text].
    #[arg(long, value_name = "FIELD")]
    pub text_field: Option<String>,
    /// Reads the second text of a pair from this field or column, if a row has it [default: pair].
    #[arg(long, value_name = "FIELD")]
    pub pair_field: Option<String>,
    /// True if the text field has a list of strings instead of a text.
    #[arg(skip)]
    pub lists: bool,
    /// True if every row must have the second text.
    #[arg(skip)]
    pub pairs: bool,
    /// True if a row with a second text is refused.
    #[arg(skip)]
    pub singles: bool,
}

/// Format of an input file.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum FormatArg {
    /// One text per line.
    Txt,
    /// One JSON string or object per line; an object's `id` is copied to its result.
    Jsonl,
    /// Comma-separated values with a header.
    Csv,
    /// Tab-separated values with a header.
    Tsv,
}

impl From<FormatArg> for Format {
    fn from(format: FormatArg) -> Self {
        match format {
            FormatArg::Txt => Self::Text,
            FormatArg::Jsonl => Self::Jsonl,
            FormatArg::Csv => Self::Csv,
            FormatArg::Tsv => Self::Tsv,
        }
    }
}

/// Size and time of change of a file, by which a change is noticed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct State {
    bytes: u64,
    changed: Option<SystemTime>,
}

impl State {
    fn of(path: &Path) -> Option<Self> {
        let data = std::fs::metadata(path).ok()?;
        Some(Self {
            bytes: data.len(),
            changed: data.modified().ok(),
        })
    }
}

/// One input with its label in the output.
#[derive(Clone, Debug, PartialEq)]
pub struct InputRecord {
    /// The `id` of a row.
    pub id: Option<Value>,
    /// The list of strings in the text field, where one is asked for.
    pub list: Vec<String>,
    /// Text or pair.
    pub input: Input<'static>,
}

impl InputRecord {
    /// A text or pair without an id.
    pub fn without_id(input: impl Into<Input<'static>>) -> Self {
        Self {
            id: None,
            list: Vec::new(),
            input: input.into(),
        }
    }

    /// Returns the bytes of all texts of the record.
    pub(crate) fn bytes(&self) -> usize {
        self.input.bytes() + self.list.iter().map(String::len).sum::<usize>()
    }
}

impl InputArgs {
    /// Returns the records of the chosen source in windows of at most `count` records.
    ///
    /// # Errors
    /// No source, a file that can't be opened, an unknown format. Errors of single rows are returned by the iterator.
    pub fn windows(&self, count: usize) -> anyhow::Result<Windows> {
        let bytes = BatchOptions::default().window_bytes;
        if let (Some(text), Some(pair)) = (&self.text_field, &self.pair_field)
            && text == pair
        {
            bail!(
                "--text-field and --pair-field name one field, {text:?}; name two, or leave --pair-field out"
            );
        }
        let Some(name) = &self.input else {
            if self.texts.is_empty() {
                bail!(
                    "no text; pass texts as arguments, or a file with --input FILE (- for standard input)"
                );
            }
            for (option, is_given) in [
                ("--format", self.format.is_some()),
                ("--text-field", self.text_field.is_some()),
                ("--pair-field", self.pair_field.is_some()),
            ] {
                if is_given {
                    bail!(
                        "{option} is for the rows of a file, and the texts are arguments; leave it out, or pass --input"
                    );
                }
            }
            let texts = self.texts.clone().into_iter();
            let records = texts.map(|text| Ok(InputRecord::without_id(text)));
            return Ok(Windows::new(RecordSource::here(records), count, bytes));
        };
        let is_file = name != "-" && Path::new(name).is_file();
        let before = is_file.then(|| State::of(Path::new(name))).flatten();
        let rows = self.rows(name)?;
        let text = self.text_field.clone().unwrap_or_else(|| "text".to_owned());
        let pair = self.pair_field.clone().unwrap_or_else(|| "pair".to_owned());
        let (lists, pairs, singles) = (self.lists, self.pairs, self.singles);
        // Fields that the caller named and no row has are a mistake in the name.
        let missing = self.pair_field.clone().filter(|_| !pairs && !lists);
        let is_named = self.text_field.is_some() && !pairs && !lists;
        let path = PathBuf::from(name);
        let seen = Arc::new(AtomicBool::new(missing.is_none()));
        let noted = seen.clone();
        let records = rows.map(move |row| {
            let row = row?;
            if is_named && row.is_bare() {
                return Err(row
                    .error("a text without fields, and --text-field names one; leave it out")
                    .into());
            }
            if !noted.load(Ordering::Relaxed) && row.cell(&pair).is_some() {
                noted.store(true, Ordering::Relaxed);
            }
            if singles && row.cell(&pair).is_some_and(|cell| *cell != Cell::Null) {
                return Err(row
                    .error(format!(
                        "the field {pair:?} is the second text of a pair, and texts are labelled one by one; remove the field, or write a row for each text"
                    ))
                    .into());
            }
            Ok(match lists {
                true => list_record(&row, &text),
                false => text_record(row, &text, &pair, pairs),
            }?)
        });
        let ending = std::iter::once_with(move || {
            if before.is_some() && State::of(&path) != before {
                anyhow::bail!(
                    "{}: the file was changed while it was read; repeat the command",
                    path.display()
                );
            }
            if let Some(field) = missing
                && !seen.load(Ordering::Relaxed)
            {
                anyhow::bail!(
                    "{}: no row has the field {field:?} that --pair-field names",
                    path.display()
                );
            }
            Ok(())
        });
        let records = records.chain(ending.filter_map(|end| end.err().map(Err)));
        // The writer of a pipe may pause; a thread reads it, so that the results of earlier rows need not wait for later rows.
        let source = match is_file {
            true => RecordSource::here(records),
            false => RecordSource::thread(records)?,
        };
        Ok(Windows::new(source, count, bytes))
    }

    /// Reads a whole file, or the arguments, before any work, and returns the number of records or the first error; `None` for pipes, which
    /// can be read only once.
    ///
    /// # Errors
    /// As [`Self::windows`], and those of single rows.
    pub fn check(&self) -> anyhow::Result<Option<u64>> {
        match &self.input {
            Some(name) if name == "-" || !Path::new(name).is_file() => return Ok(None),
            _ => {}
        }
        let mut count = 0;
        for window in self.windows(BatchOptions::default().window)? {
            count += window?.len() as u64;
        }
        Ok(Some(count))
    }

    fn rows(&self, name: &OsString) -> anyhow::Result<Rows> {
        let format = self.format.map(Format::from);
        if name == "-" {
            check_stdin()?;
            let format = format.unwrap_or(Format::Text);
            let stdin = Box::new(std::io::stdin());
            return Ok(Rows::from_reader(
                stdin,
                "standard input",
                format,
                Compression::None,
            )?);
        }
        let path = Path::new(name);
        let opened = match format {
            Some(format) => Rows::open_as(path, format),
            None => Rows::open(path),
        };
        opened.map_err(|error| match error {
            error @ (FormatError::Ending { .. } | FormatError::NoRows { .. }) => {
                anyhow::anyhow!("{error}, or say what it is with --format")
            }
            error => error.into(),
        })
    }
}

/// Returns the whole text of a file, `-` for standard input.
///
/// # Errors
/// A file that can't be read, is not UTF-8, or is longer than 1 GiB.
pub fn whole_text(name: &OsString) -> anyhow::Result<String> {
    Ok(if name == "-" {
        check_stdin()?;
        read_text_from(Box::new(std::io::stdin()), "standard input")
    } else {
        read_text(Path::new(name))
    }?)
}

/// The id of a row: `id`, or `_id` as BEIR names it.
fn id_of(row: &Row) -> Result<Option<Value>, FormatError> {
    let id = |name: &str| row.cell(name).map(Cell::to_json).filter(|id| !id.is_null());
    match (id("id"), id("_id")) {
        (Some(first), Some(second)) if first != second => Err(row.error(format!(
            "id is {first} and _id is {second}, both names of the row's id; remove one of the two fields"
        ))),
        (None, None) => Ok(row.cell("id").map(Cell::to_json)),
        (first, second) => Ok(first.or(second)),
    }
}

fn list_record(row: &Row, field: &str) -> Result<InputRecord, FormatError> {
    let list = match row.cell(field) {
        Some(Cell::Nested(Value::Array(list))) => {
            let words = list.iter().map(|word| word.as_str().map(str::to_string));
            words.collect::<Option<Vec<_>>>()
        }
        _ => None,
    };
    let Some(list) = list else {
        let reason = match row.cell(field) {
            None => {
                format!("no field {field:?}; write a list of strings there, or leave the row out")
            }
            Some(_) => format!(
                "the field {field:?} is not a list of strings; write one, or leave the row out"
            ),
        };
        return Err(row.error(reason));
    };
    Ok(InputRecord {
        id: id_of(row)?,
        list,
        input: String::new().into(),
    })
}

fn text_record(
    mut row: Row,
    text: &str,
    pair: &str,
    needs_pair: bool,
) -> Result<InputRecord, FormatError> {
    let id = id_of(&row)?;
    let second = match needs_pair {
        true if row.is_bare() => {
            let reason =
                format!("a text without fields; write an object with {text:?} and {pair:?}");
            return Err(row.error(reason));
        }
        true => Some(row.text(pair)?),
        false => row.optional_text(pair)?,
    };
    let second = second.map(str::to_string);
    let first = row.take_text(text).map_err(|error| {
        if row.cell(text).is_some() || needs_pair {
            return error;
        }
        let columns: Vec<String> = row.columns().map(|name| format!("{name:?}")).collect();
        row.error(format!(
            "no field {text:?} (the row has {}); name the field that holds the text with --text-field",
            columns.join(", ")
        ))
    })?;
    let input = match second {
        Some(second) => (first, second).into(),
        None => first.into(),
    };
    Ok(InputRecord {
        id,
        list: Vec::new(),
        input,
    })
}
