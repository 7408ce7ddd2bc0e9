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
    #[error("{path}: not a kind of text that is read here; pass a file that ends in {endings}", endings = super::source::endings())]
    Ending {
        /// The file.
        path: PathBuf,
    },
    /// There is no text.
    #[error(
        "{path}: no documents found; pass a file or folder with text in files that end in {endings} ({skipped} files \
         with other endings were skipped)", endings = super::source::endings()
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
        "{path}:{line}: the row has no \"text\" string; rename the field that holds the text to \"text\""
    )]
    NoText {
        /// The file.
        path: PathBuf,
        /// The line, counted from 1.
        line: usize,
    },
    /// A compressed file is damaged.
    #[error("{path}: not a whole gzip file ({source}); download or compress it again")]
    Gzip {
        /// The file.
        path: PathBuf,
        /// What the decompressor said.
        source: std::io::Error,
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
