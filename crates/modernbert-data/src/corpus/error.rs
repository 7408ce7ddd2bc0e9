//! What can be wrong with text on disk.

use std::path::PathBuf;

/// An error of a corpus; each names the file, and the line if there is one, and what to do.
#[derive(Debug, thiserror::Error)]
pub enum CorpusError {
    /// There is no such file or folder, or it cannot be read.
    #[error("{path}: cannot be read ({source}); check the path and that you may read it")]
    Read {
        /// The file or folder.
        path: PathBuf,
        /// What the system said.
        source: std::io::Error,
    },
    /// A single file has an ending that is not known.
    #[error("{path}: not a kind of text that is read here; pass a file that ends in {endings}", endings = crate::formats::endings())]
    Ending {
        /// The file.
        path: PathBuf,
    },
    /// There is no text.
    #[error(
        "{path}: no documents found; pass a file or folder with text in files that end in {endings} ({skipped} files \
         with other endings were skipped)", endings = crate::formats::endings()
    )]
    NoDocuments {
        /// The file or folder.
        path: PathBuf,
        /// Files with other endings.
        skipped: usize,
    },
    /// A file is not UTF-8.
    #[error("{path}: not UTF-8 at byte {offset}; convert the file to UTF-8 or remove it")]
    NotUtf8 {
        /// The file.
        path: PathBuf,
        /// The first byte that is wrong.
        offset: usize,
    },
    /// A row is not JSON, or not an object.
    #[error(
        "{path}:{line}: not a row of JSON ({reason}); write one object for each line, with a \"text\""
    )]
    BadRow {
        /// The file.
        path: PathBuf,
        /// The line, counted from 1.
        line: usize,
        /// What the JSON reader said.
        reason: String,
    },
    /// A row has no text.
    #[error(
        "{path}:{line}: the row has no \"{field}\" string; rename the field that holds the text to \"{field}\", or name it with \
         --text-field where that is offered"
    )]
    NoText {
        /// The file.
        path: PathBuf,
        /// The line or row, counted from 1.
        line: usize,
        /// The field that was expected.
        field: String,
    },
    /// A table has no such column.
    #[error(
        "{path}: there is no column {column}; it has {columns}: name the one that holds the text with --text-field"
    )]
    NoColumn {
        /// The file.
        path: PathBuf,
        /// The column that was expected.
        column: String,
        /// Those there are.
        columns: String,
    },
    /// A compressed file is damaged.
    #[error("{path}: not a whole gzip file ({source}); download or compress it again")]
    Gzip {
        /// The file.
        path: PathBuf,
        /// What the decompressor said.
        source: std::io::Error,
    },
    /// A compressed file is damaged.
    #[error("{path}: not a whole Zstandard file ({source}); download or compress it again")]
    Zstd {
        /// The file.
        path: PathBuf,
        /// What the decompressor said.
        source: std::io::Error,
    },
    /// A Parquet file is damaged, or of a kind that is not read here.
    #[error("{path}: not a Parquet file that can be read ({reason}); download or write it again")]
    Parquet {
        /// The file.
        path: PathBuf,
        /// What the reader said.
        reason: String,
    },
    /// An MDS index or shard is damaged, or of a kind that is not read here.
    #[error("{path}: not MDS data that can be read ({reason}); download or convert it again")]
    Mds {
        /// The index or shard.
        path: PathBuf,
        /// What is wrong.
        reason: String,
    },
    /// A sample of an MDS shard can't be read.
    #[error(
        "{path}:{sample}: this sample can't be read ({reason}); convert the data again or leave it out"
    )]
    BadSample {
        /// The shard.
        path: PathBuf,
        /// The sample, counted from 1.
        sample: usize,
        /// What is wrong.
        reason: String,
    },
    /// Tokens where text is wanted.
    #[error("{path}: holds tokens and no text; make shards of it with `modernbert-train tokenize`")]
    Tokens {
        /// The file or folder.
        path: PathBuf,
    },
    /// There is neither a registry nor a source tree.
    #[error(
        "no cargo registry and no sources of this project were found; pass a file or folder of text instead"
    )]
    NoRegistry,
    /// There is too little to set some of it aside.
    #[error(
        "a corpus of {bytes} bytes is too small to set some of it aside for evaluation; pass more text"
    )]
    TooSmall {
        /// Its size.
        bytes: usize,
    },
    /// The share for evaluation is none.
    #[error("an evaluation share of {0} is not between 0 and 1; 0.05 is a good one")]
    Fraction(f64),
}

impl CorpusError {
    /// Whether a single row is to blame, so that what follows it may be read.
    pub fn is_of_a_row(&self) -> bool {
        matches!(
            self,
            Self::NotUtf8 { .. }
                | Self::BadRow { .. }
                | Self::NoText { .. }
                | Self::BadSample { .. }
        )
    }
}
