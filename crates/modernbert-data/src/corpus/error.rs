//! Errors of a corpus.

use std::path::PathBuf;

use crate::formats::FormatError;

/// An error of a corpus; each names the file, the line if there is one, and what to do.
#[derive(Debug, thiserror::Error)]
pub enum CorpusError {
    /// A file can't be read.
    #[error(transparent)]
    Format(#[from] FormatError),
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
    /// Tokens where text is wanted.
    #[error(
        "{path}: contains tokens and no text; make shards of it with `modernbert-train tokenize`"
    )]
    Tokens {
        /// The file or folder.
        path: PathBuf,
    },
    /// There is neither a registry nor a source tree.
    #[error(
        "no cargo registry and no sources of this project were found; pass a file or folder of text instead"
    )]
    NoRegistry,
    /// There is too little text to hold some of it out.
    #[error(
        "a corpus of {bytes} bytes is too small to hold some of it out for evaluation; pass more text"
    )]
    TooSmall {
        /// Its size.
        bytes: usize,
    },
    /// The share for evaluation is invalid.
    #[error("an evaluation share of {0} is not between 0 and 1; 0.05 is a good one")]
    Fraction(f64),
}
