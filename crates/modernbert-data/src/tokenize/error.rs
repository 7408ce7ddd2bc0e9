//! Why no folder of shards was made.

use std::path::PathBuf;

use modernbert_files::tokenizer::TokenizerError;

use crate::corpus::CorpusError;
use crate::shard::ShardError;

/// Why no folder was made.
#[derive(Debug, thiserror::Error)]
pub enum TokenizeFolderError {
    /// A source can't be read.
    #[error(transparent)]
    Corpus(#[from] CorpusError),
    /// The tokenizer is unusable.
    #[error(transparent)]
    Tokenizer(#[from] TokenizerError),
    /// A document could not be tokenized.
    #[error("{document}: {source}")]
    Document {
        /// The document's name.
        document: String,
        /// What is wrong.
        source: TokenizerError,
    },
    /// A shard could not be written.
    #[error(transparent)]
    Shard(#[from] ShardError),
    /// The folder or its index could not be written.
    #[error("{path}: can't be written ({source}); choose a folder you may write to with room left", path = path.display())]
    Write {
        /// The folder or file.
        path: PathBuf,
        /// What the system said.
        source: std::io::Error,
    },
    /// There is a folder already.
    #[error("{path}: there are shards already; choose another folder, or pass --overwrite", path = path.display())]
    Exists {
        /// The folder.
        path: PathBuf,
    },
    /// A source gave nothing.
    #[error(
        "source {name}: no document of {min_length} tokens or more; add text, or lower --min-length"
    )]
    NoSamples {
        /// The source.
        name: String,
        /// The least number of tokens.
        min_length: usize,
    },
    /// Nothing was held out.
    #[error(
        "source {name}: none of its {documents} documents fell into the held-out share of {fraction}; raise --eval-fraction, or set it \
         to 0 and evaluate on text of its own"
    )]
    NoEval {
        /// The source.
        name: String,
        /// Its documents.
        documents: u64,
        /// The share.
        fraction: f64,
    },
    /// The held-out share is none.
    #[error("--eval-fraction {0}: give a share of at least 0 and below 1")]
    Fraction(f64),
    /// Threads can't be started.
    #[error("{threads} threads can't be started: {reason}")]
    Threads {
        /// How many.
        threads: usize,
        /// What the pool said.
        reason: String,
    },
}
