//! A folder of token shards, opened and checked.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::index::{INDEX_FILE, Index, ShardIndexError, SplitEntry, hex};
use crate::loader::DataSource;
use crate::shard::{Check, Cut, Shard, ShardError, TokenizerHash};
use modernbert_files::tokenizer::{Tokenizer, TokenizerError};

/// Reason why a folder can't be used.
#[derive(Debug, thiserror::Error)]
pub enum FolderError {
    /// There is no index, or it can't be read.
    #[error(
        "{path}: can't be read ({source}); pass a folder that `modernbert-train tokenize` wrote to its end",
        path = path.display()
    )]
    Read {
        /// The index.
        path: PathBuf,
        /// The system's error.
        source: std::io::Error,
    },
    /// The index is malformed or inconsistent.
    #[error("{path}: not a valid index of token shards ({reason}); make the folder again", path = path.display())]
    Index {
        /// The index.
        path: PathBuf,
        /// The fault.
        reason: ShardIndexError,
    },
    /// The tokenizer in the folder is not the one of the index.
    #[error(
        "{path}: the tokenizer in this folder is not the one that the shards were made with; copy the folder again, or make it again",
        path = path.display()
    )]
    OtherTokenizer {
        /// The index.
        path: PathBuf,
    },
    /// A shard's counts differ from the index.
    #[error(
        "{path}: contains {actual} {what}, the folder's index lists {expected}; the index was changed, make the folder again",
        path = path.display()
    )]
    Count {
        /// The shard.
        path: PathBuf,
        /// Samples or tokens.
        what: &'static str,
        /// Count in the shard.
        actual: u64,
        /// Count in the index.
        expected: u64,
    },
    /// A shard was changed or replaced.
    #[error(
        "{path}: its SHA-256 is {actual}, the folder's index lists {expected}; the shard was changed or replaced, make it again",
        path = path.display()
    )]
    Changed {
        /// The shard.
        path: PathBuf,
        /// Hash in the shard.
        actual: String,
        /// Hash in the index.
        expected: String,
    },
    /// A shard can't be used.
    #[error(transparent)]
    Shard(#[from] ShardError),
    /// The folder's tokenizer can't be used.
    #[error(transparent)]
    Tokenizer(#[from] TokenizerError),
}

/// A folder of token shards, opened.
#[derive(Debug)]
pub struct TokenFolder {
    /// Its index.
    pub index: Index,
    /// The tokenizer it was made with.
    pub tokenizer: Tokenizer,
    train: Vec<Vec<Arc<Shard>>>,
    eval: Vec<Vec<Arc<Shard>>>,
}

impl TokenFolder {
    /// Opens a folder and compares every shard with the index; with [`Check::Whole`] also every token with its shard's hash.
    ///
    /// # Errors
    /// A folder without an index or tokenizer, an index that contradicts itself or names files outside of the folder, a shard that is
    /// missing, damaged, replaced, of other counts, or made with another tokenizer.
    pub fn open(folder: &Path, check: Check) -> Result<Self, FolderError> {
        let path = folder.join(INDEX_FILE);
        let text = modernbert_files::read::text(&path).map_err(|source| FolderError::Read {
            path: path.clone(),
            source,
        })?;
        let index = Index::parse(&text).map_err(|reason| FolderError::Index {
            path: path.clone(),
            reason,
        })?;
        let tokenizer = Tokenizer::from_folder(folder)?;
        let hash = TokenizerHash::of(&tokenizer)?;
        if hex(&hash.0) != index.tokenizer {
            return Err(FolderError::OtherTokenizer { path });
        }
        let open = |split: &SplitEntry| -> Result<Vec<Arc<Shard>>, FolderError> {
            let shards = split.shards.iter().map(|entry| {
                let shard = Shard::open_with(folder.join(&entry.file), check)?;
                shard.expect_tokenizer(hash)?;
                let actual = hex(&shard.sha256());
                if actual != entry.sha256 {
                    return Err(FolderError::Changed {
                        path: shard.path().into(),
                        actual,
                        expected: entry.sha256.clone(),
                    });
                }
                for (what, actual, expected) in [
                    ("samples", shard.len() as u64, entry.samples),
                    ("tokens", shard.tokens() as u64, entry.tokens),
                ] {
                    if actual != expected {
                        return Err(FolderError::Count {
                            path: shard.path().into(),
                            what,
                            actual,
                            expected,
                        });
                    }
                }
                Ok(Arc::new(shard))
            });
            shards.collect()
        };
        let train = index.sources.iter().map(|source| open(&source.train));
        let eval = index.sources.iter().map(|source| open(&source.eval));
        Ok(Self {
            train: train.collect::<Result<_, _>>()?,
            eval: eval.collect::<Result<_, _>>()?,
            index,
            tokenizer,
        })
    }

    /// The sources to train on, with samples cut for a phase; for [`crate::loader::TrainStream::of_sources`].
    pub fn train_sources(&self, cut: Cut) -> Vec<DataSource> {
        let sources = self.index.sources.iter().zip(&self.train);
        sources
            .map(|(entry, shards)| {
                DataSource::new(&entry.name, entry.proportion, shards.iter().cloned(), cut)
            })
            .collect()
    }

    /// The held-out documents of every source that has some, with samples cut for a phase.
    pub fn eval_sources(&self, cut: Cut) -> Vec<DataSource> {
        let sources = self.index.sources.iter().zip(&self.eval);
        sources
            .map(|(entry, shards)| {
                DataSource::new(&entry.name, entry.proportion, shards.iter().cloned(), cut)
            })
            .filter(|source| !source.samples.is_empty())
            .collect()
    }
}
