//! Errors of writing a folder of shards.

use std::path::PathBuf;

use modernbert_files::output::write_remedy;

use modernbert_files::tokenizer::TokenizerError;
use modernbert_files::wording::{counted, size};

use crate::corpus::CorpusError;
use crate::formats::FormatError;
use crate::shard::ShardError;

/// Reason why no folder was written; existing files are unchanged.
#[derive(Debug, thiserror::Error)]
pub enum TokenizeFolderError {
    /// A source has no documents.
    #[error(transparent)]
    Corpus(#[from] CorpusError),
    /// A source can't be read.
    #[error(transparent)]
    Format(#[from] FormatError),
    /// The tokenizer is unusable.
    #[error(transparent)]
    Tokenizer(#[from] TokenizerError),
    /// A document could not be tokenized.
    #[error("{document}: {source}")]
    Document {
        /// The document's name.
        document: String,
        /// The tokenizer's error.
        source: TokenizerError,
    },
    /// A shard could not be written.
    #[error(transparent)]
    Shard(#[from] ShardError),
    /// The folder or its index could not be written.
    #[error(
        "{path}: can't be written ({source}); {remedy}",
        path = path.display(),
        remedy = write_remedy(source, "choose a folder you may write to, on a disk with enough free space")
    )]
    Write {
        /// The folder or file.
        path: PathBuf,
        /// The system's error.
        source: std::io::Error,
    },
    /// The folder contains shards.
    #[error("{path}: contains shards; choose another folder, or pass --overwrite", path = path.display())]
    Exists {
        /// The folder.
        path: PathBuf,
    },
    /// The folder contains other files, which are never removed.
    #[error(
        "{path}: contains {file}, which is not part of a finished set of shards; choose another folder, or empty this one",
        path = path.display(), file = file.display()
    )]
    Foreign {
        /// The folder.
        path: PathBuf,
        /// The first such file or folder in it.
        file: PathBuf,
    },
    /// A file of the set in the folder was changed, and would be replaced.
    #[error(
        "{path}: was changed since it was written with the other shards of its folder; nothing is removed: move the file away, or choose \
         another folder", path = path.display()
    )]
    Changed {
        /// The file.
        path: PathBuf,
    },
    /// The folder is a file.
    #[error("{path}: not a folder; choose another name", path = path.display())]
    NotAFolder {
        /// The file.
        path: PathBuf,
    },
    /// Two paths lead to one file.
    #[error(
        "{file}: source {source_name} names this file twice, itself, by a folder that holds it or by a link: source {of} has it as {first}; \
         name it once", file = file.display(), first = first.display()
    )]
    Twice {
        /// The source.
        source_name: String,
        /// The file.
        file: PathBuf,
        /// The source that has it already.
        of: String,
        /// Its name there.
        first: PathBuf,
    },
    /// Tokens of an input that the tokenizer doesn't have.
    #[error(
        "{document}: token id {id} is not in a vocabulary of {vocab_size}; pass the tokenizer that these tokens were made with"
    )]
    TokenId {
        /// The document's name.
        document: String,
        /// The id.
        id: u32,
        /// The vocabulary.
        vocab_size: usize,
    },
    /// The disk is too full for the shards.
    #[error(
        "{path}: the shards take about {needed} and {free} are free on the disk; free some space, or give --out a folder on another disk",
        path = path.display(), needed = size(*needed), free = size(*free)
    )]
    Space {
        /// The folder.
        path: PathBuf,
        /// Bytes that will be written, an estimate from the beginning of each source.
        needed: u64,
        /// Bytes that are free.
        free: u64,
    },
    /// The caller ended the work.
    #[error("interrupted; nothing was written")]
    Interrupted,
    /// A source gave nothing.
    #[error(
        "source {name}: no document of {min_length} tokens or more{}; add text, or lower --min-length",
        if *skipped > 0 { format!(", and {} could not be read", counted(*skipped, "row", "rows")) } else { String::new() }
    )]
    NoSamples {
        /// The source.
        name: String,
        /// Rows that could not be read and were skipped.
        skipped: u64,
        /// The least number of tokens.
        min_length: usize,
    },
    /// Nothing could be held out.
    #[error(
        "source {name}: its only document is too short to hold a part of {min_length} tokens out; add text, or set --eval-fraction 0"
    )]
    NoEval {
        /// The source.
        name: String,
        /// The least number of tokens.
        min_length: usize,
    },
    /// The held-out share is invalid.
    #[error("--eval-fraction {0}: give a share of at least 0 and below 1")]
    Fraction(f64),
    /// Threads can't be started.
    #[error("{threads} threads can't be started: {reason}")]
    Threads {
        /// Their number.
        threads: usize,
        /// The pool's error.
        reason: String,
    },
}
