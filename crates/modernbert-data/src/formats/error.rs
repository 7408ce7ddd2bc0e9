//! Errors of files of text and of rows.

use std::path::PathBuf;

use super::kind::endings;

/// An error of a file; each names the file, the line or row if there is one, and what to do.
#[derive(Debug, thiserror::Error)]
pub enum FormatError {
    /// There is no such file or folder, or it cannot be read.
    #[error("{path}: cannot be read ({source}); check the path and that you may read it")]
    Read {
        /// The file or folder.
        path: PathBuf,
        /// The system's error.
        source: std::io::Error,
    },
    /// The target of a symbolic link is missing.
    #[error("{path}: a symbolic link to a missing file; restore the file or remove the link")]
    BrokenLink {
        /// The link.
        path: PathBuf,
    },
    /// A folder and one inside of it list the same shards, but not all of them.
    #[error(
        "{path}: lists shards that {other} lists too, and others besides; remove one of the two indexes"
    )]
    SharedShards {
        /// The index.
        path: PathBuf,
        /// The index of a folder above.
        other: PathBuf,
    },
    /// A file has an ending that is not known.
    #[error("{path}: the format of this file is not known; pass a file that ends in {endings}", endings = endings())]
    Ending {
        /// The file.
        path: PathBuf,
    },
    /// A file of source code or markup where each line should be a text.
    #[error(
        "{path}: not a file of rows; pass .txt (a text a line), .jsonl, .csv, .tsv or .parquet, the first four also as .gz or .zst"
    )]
    NoRows {
        /// The file.
        path: PathBuf,
    },
    /// The program was built without this format.
    #[error(
        "{path}: this program was built without {format}; build it with `--features {feature}`"
    )]
    NotBuilt {
        /// The file.
        path: PathBuf,
        /// The format.
        format: &'static str,
        /// The cargo feature that adds it.
        feature: &'static str,
    },
    /// Bytes that are not UTF-8.
    #[error("{path}:{line}: not UTF-8 at byte {offset} of the file{hint}; {remedy}")]
    NotUtf8 {
        /// The file.
        path: PathBuf,
        /// The line, counted from 1.
        line: u64,
        /// The first byte that is wrong, counted from 0 in the unpacked file.
        offset: u64,
        /// An encoding that the bytes suggest, in words; or nothing.
        hint: &'static str,
        /// The remedy.
        remedy: String,
    },
    /// A row that can't be used; the reason says what to do.
    #[error("{path}:{line}: {reason}")]
    Row {
        /// The file.
        path: PathBuf,
        /// The line, or in Parquet the row, counted from 1.
        line: u64,
        /// Description of the fault, and the remedy.
        reason: String,
    },
    /// A fault after which the rows that follow can't be found.
    #[error("{path}:{line}: {reason}")]
    Syntax {
        /// The file.
        path: PathBuf,
        /// The line, counted from 1.
        line: u64,
        /// Description of the fault, and the remedy.
        reason: String,
    },
    /// A table has no such column.
    #[error(
        "{path}: no column {column:?} in the header, which has {columns}; rename the column, or name it by the option for it that --help \
             lists{hint}"
    )]
    NoColumn {
        /// The file.
        path: PathBuf,
        /// The column that was expected.
        column: String,
        /// The existing columns.
        columns: String,
        /// Probable cause; empty if unknown.
        hint: &'static str,
    },
    /// A table has a column twice.
    #[error("{path}: more than one column is named {column:?}; rename or remove all but one")]
    DuplicateColumn {
        /// The file.
        path: PathBuf,
        /// The column.
        column: String,
    },
    /// More text in one piece than is read here.
    #[error(
        "{path}:{line}: {what} is longer than {megabytes} MiB; check that it is text, or split it into several"
    )]
    TooLong {
        /// The file.
        path: PathBuf,
        /// The line it begins in, counted from 1.
        line: u64,
        /// A line, a row, a document.
        what: &'static str,
        /// The limit in MiB.
        megabytes: u64,
    },
    /// A compressed file unpacks to far more than any text.
    #[error(
        "{path}: unpacks to more than {times} times its size, as no text does; check where the file is from"
    )]
    Bomb {
        /// The file.
        path: PathBuf,
        /// The limit.
        times: u64,
    },
    /// A compressed file is damaged.
    #[error("{path}: not a whole gzip file ({source}); download or compress it again")]
    Gzip {
        /// The file.
        path: PathBuf,
        /// The decompressor's error.
        source: std::io::Error,
    },
    /// A compressed file is damaged.
    #[error("{path}: not a whole Zstandard file ({source}); download or compress it again")]
    Zstd {
        /// The file.
        path: PathBuf,
        /// The decompressor's error.
        source: std::io::Error,
    },
    /// A compressed file asks for more memory than is given to one.
    #[error(
        "{path}: compressed with a Zstandard window of more than 128 MiB; compress it again without --long or with --long=27 \
         (`zstd -dc --long=31 FILE | zstd -o NEW`)"
    )]
    ZstdWindow {
        /// The file.
        path: PathBuf,
    },
    /// A Parquet file is damaged, or of a kind that is not read here.
    #[error("{path}: not a Parquet file that can be read ({reason}); download or write it again")]
    Parquet {
        /// The file.
        path: PathBuf,
        /// The reader's error.
        reason: String,
    },
    /// An MDS index or shard is damaged, or of a kind that is not read here.
    #[error("{path}: not MDS data that can be read ({reason}); download or convert it again")]
    Mds {
        /// The index or shard.
        path: PathBuf,
        /// Description of the fault.
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
        /// Description of the fault.
        reason: String,
    },
}

impl FormatError {
    /// Returns true if the error concerns a single row, so that the rows after it can be read.
    pub fn is_of_a_row(&self) -> bool {
        matches!(
            self,
            Self::NotUtf8 { .. } | Self::Row { .. } | Self::BadSample { .. }
        )
    }
}
