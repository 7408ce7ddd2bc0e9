//! Files of many formats, as one stream of records.
//!
//! | format | files | what a record is |
//! |---|---|---|
//! | text | `.txt`, `.md` and the endings of source code | the file |
//! | rows of JSON | `.jsonl`, and `.jsonl`, `.json` packed with gzip (`.gz`) or Zstandard (`.zst`) | a line: an object with a text and, if it likes, an id |
//! | Parquet | `.parquet` | a row with a text column |
//! | MDS, MosaicML's format | a folder with an `index.json` that lists shards | a sample with a text or a token column |
//!
//! [`Records`] reads one file (or MDS folder) at a time and holds no more than one record, row group or shard in memory. What can't be
//! read is an error that names file and row; after an error of a single row the stream goes on with the next one.

mod json;
pub mod mds;
mod parquet;
#[cfg(test)]
mod tests;
mod text;
mod walk;

use std::path::{Path, PathBuf};

pub(crate) use text::read_text;
pub use walk::{Input, inputs};
pub(crate) use walk::{files_below, relative};

use crate::corpus::CorpusError;

/// The endings of files whose whole content is one text.
pub const TEXT_ENDINGS: &[&str] = &[
    ".txt", ".md", ".rst", ".tex", ".rs", ".py", ".c", ".h", ".cc", ".cpp", ".hpp", ".cs", ".go",
    ".java", ".js", ".jsx", ".ts", ".tsx", ".kt", ".scala", ".swift", ".rb", ".php", ".pl", ".lua",
    ".r", ".jl", ".hs", ".ml", ".ex", ".erl", ".clj", ".sh", ".sql", ".html", ".css", ".toml",
    ".yaml", ".yml",
];
/// The endings of files with a JSON object in each line.
pub const ROW_ENDINGS: &[&str] = &[".jsonl", ".jsonl.gz", ".jsonl.zst", ".json.gz", ".json.zst"];
/// The ending of Parquet files.
pub const PARQUET_ENDING: &str = ".parquet";

/// Which fields of a row hold what.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Fields {
    /// The text; `"text"` by default.
    pub text: String,
    /// What to call the row, if it has one; `"id"` by default.
    pub id: String,
    /// Token ids of rows without a text, in MDS; `"input_ids"` by default.
    pub tokens: String,
}

impl Default for Fields {
    fn default() -> Self {
        Self {
            text: "text".into(),
            id: "id".into(),
            tokens: "input_ids".into(),
        }
    }
}

/// A piece of text or tokens that belongs together.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Record {
    /// What to call it in messages: a relative path, a row's id or `file:row`.
    pub name: String,
    /// What it holds.
    pub content: Content,
}

/// What a record holds.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Content {
    /// Text, never blank.
    Text(String),
    /// Text that was tokenized elsewhere.
    Tokens(Vec<u32>),
}

type Stream = Box<dyn Iterator<Item = Result<Record, CorpusError>> + Send>;

/// The records of one input, in the order of the file.
pub struct Records(Stream);

impl Records {
    /// Opens a file or an MDS folder.
    ///
    /// # Errors
    /// A file that can't be opened or is no file of its format, an ending that means nothing here, a column that is missing.
    pub fn open(input: &Input, fields: &Fields) -> Result<Self, CorpusError> {
        let (path, name) = (input.path.as_path(), input.name.as_str());
        let stream: Stream = if input.is_mds {
            Box::new(mds::Samples::open(path, name, fields)?)
        } else {
            match Kind::of(path).ok_or_else(|| CorpusError::Ending { path: path.into() })? {
                Kind::Text => Box::new(text::read(path, name).transpose().into_iter()),
                Kind::Rows(packing) => Box::new(json::Rows::open(path, name, packing, fields)?),
                Kind::Parquet => Box::new(parquet::Rows::open(path, name, fields)?),
            }
        };
        Ok(Self(stream))
    }
}

impl Iterator for Records {
    type Item = Result<Record, CorpusError>;

    fn next(&mut self) -> Option<Self::Item> {
        self.0.next()
    }
}

/// How a file of rows is compressed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Packing {
    None,
    Gzip,
    Zstd,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kind {
    Text,
    Rows(Packing),
    Parquet,
}

impl Kind {
    /// What the name of a file says it is.
    fn of(path: &Path) -> Option<Self> {
        let name = path.file_name()?.to_str()?;
        if ROW_ENDINGS.iter().any(|ending| name.ends_with(ending)) {
            return Some(Self::Rows(match name.rsplit('.').next() {
                Some("gz") => Packing::Gzip,
                Some("zst") => Packing::Zstd,
                _ => Packing::None,
            }));
        }
        if name.ends_with(PARQUET_ENDING) {
            return Some(Self::Parquet);
        }
        let text = TEXT_ENDINGS.iter().any(|ending| name.ends_with(ending));
        text.then_some(Self::Text)
    }
}

/// The endings in words.
pub(crate) fn endings() -> String {
    let rows = ROW_ENDINGS.join(", ");
    format!(".txt, .md, .rs (and those of other source code), {rows}, {PARQUET_ENDING}")
}

/// Where a row is, for messages: the file and the row, counted from 1.
#[derive(Debug, Clone)]
struct Place {
    path: PathBuf,
    name: String,
}

impl Place {
    fn new(path: &Path, name: &str) -> Self {
        Self {
            path: path.into(),
            name: name.into(),
        }
    }

    /// A record of `text`, called `id` or after the row; `None` for blank text.
    fn record(&self, row: usize, id: Option<String>, text: String) -> Option<Record> {
        let name = id.unwrap_or_else(|| format!("{}:{row}", self.name));
        text::content(text).map(|content| Record { name, content })
    }
}
