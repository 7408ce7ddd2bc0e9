//! A folder of token shards and its index.

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use modernbert_files::tokenizer::{Tokenizer, TokenizerError};
use serde::{Deserialize, Serialize};

use crate::loader::Source;
use crate::shard::{Check, Cut, Shard, ShardError, TokenizerHash};

/// The name of the file that says what a folder holds; it is written last, so that a folder with one is whole.
pub const INDEX_FILE: &str = "shards.json";
const FORMAT: &str = "modernbert token shards";
const VERSION: u32 = 1;

/// What a folder holds.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Index {
    /// What kind of file this is.
    pub format: String,
    /// Version of its layout.
    pub version: u32,
    /// SHA-256 of the tokenizer, which lies beside.
    pub tokenizer: String,
    /// Share of the documents that was held out, by the hash of their content.
    pub eval_fraction: f64,
    /// Seed of that choice.
    pub seed: u64,
    /// How documents were cut; `None` if they are whole.
    pub cut: Option<Cut>,
    /// The sources, in the order of the mixture.
    pub sources: Vec<SourceEntry>,
}

/// A source of a folder.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SourceEntry {
    /// Its name.
    pub name: String,
    /// The terms of its text.
    pub licence: String,
    /// Its share of the tokens that are trained on.
    pub proportion: f64,
    /// Rows that could not be read and were passed over, as asked.
    pub unreadable: u64,
    /// What is trained on.
    pub train: SideEntry,
    /// What is held out.
    pub eval: SideEntry,
}

/// One side of a source.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SideEntry {
    /// Documents.
    pub documents: u64,
    /// Documents that were too short to be kept.
    pub too_short: u64,
    /// Samples: documents, or pieces of them.
    pub samples: u64,
    /// Tokens of them.
    pub tokens: u64,
    /// Its shards, in order.
    pub shards: Vec<ShardEntry>,
}

/// A shard of a folder.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ShardEntry {
    /// Its file, as seen from the folder, with `/` on every system.
    pub file: String,
    /// Samples in it.
    pub samples: u64,
    /// Tokens in it.
    pub tokens: u64,
    /// SHA-256 of its content.
    pub sha256: String,
}

/// Why a folder can't be used.
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
        /// What the system said.
        source: std::io::Error,
    },
    /// The index is something else.
    #[error("{path}: not an index of token shards ({reason}); make the folder again", path = path.display())]
    Index {
        /// The index.
        path: PathBuf,
        /// What is wrong.
        reason: String,
    },
    /// A shard is not the one that was written.
    #[error(
        "{path}: its SHA-256 is {actual} and the folder's index says {expected}; the shard was changed or replaced, make it again",
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
    /// What it holds.
    pub index: Index,
    /// The tokenizer it was made with.
    pub tokenizer: Tokenizer,
    train: Vec<Vec<Arc<Shard>>>,
    eval: Vec<Vec<Arc<Shard>>>,
}

pub(super) fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

impl Index {
    pub(super) fn new(
        tokenizer: TokenizerHash,
        eval_fraction: f64,
        seed: u64,
        cut: Option<Cut>,
    ) -> Self {
        Self {
            format: FORMAT.into(),
            version: VERSION,
            tokenizer: hex(&tokenizer.0),
            eval_fraction,
            seed,
            cut,
            sources: Vec::new(),
        }
    }
}

impl TokenFolder {
    /// Opens a folder and holds every shard to the index; with [`Check::Whole`] also every token to its shard's hash.
    ///
    /// # Errors
    /// A folder without an index or tokenizer, a shard that is missing, damaged, replaced, or made with another tokenizer.
    pub fn open(folder: &Path, check: Check) -> Result<Self, FolderError> {
        let path = folder.join(INDEX_FILE);
        let text = fs::read_to_string(&path).map_err(|source| FolderError::Read {
            path: path.clone(),
            source,
        })?;
        let wrong = |reason: String| FolderError::Index {
            path: path.clone(),
            reason,
        };
        let index: Index = serde_json::from_str(&text).map_err(|error| wrong(error.to_string()))?;
        if index.format != FORMAT || index.version != VERSION {
            return Err(wrong(format!(
                "{:?}, version {}",
                index.format, index.version
            )));
        }
        let tokenizer = Tokenizer::from_folder(folder)?;
        let hash = TokenizerHash::of(&tokenizer)?;
        if hex(&hash.0) != index.tokenizer {
            return Err(wrong("the tokenizer beside it is another one".into()));
        }
        let open = |side: &SideEntry| -> Result<Vec<Arc<Shard>>, FolderError> {
            let shards = side.shards.iter().map(|entry| {
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
    pub fn train_sources(&self, cut: Cut) -> Vec<Source> {
        let sources = self.index.sources.iter().zip(&self.train);
        sources
            .map(|(entry, shards)| {
                Source::new(&entry.name, entry.proportion, shards.iter().cloned(), cut)
            })
            .collect()
    }

    /// The held-out documents of every source that has some, with samples cut for a phase.
    pub fn eval_sources(&self, cut: Cut) -> Vec<Source> {
        let sources = self.index.sources.iter().zip(&self.eval);
        sources
            .map(|(entry, shards)| {
                Source::new(&entry.name, entry.proportion, shards.iter().cloned(), cut)
            })
            .filter(|source| !source.samples.is_empty())
            .collect()
    }
}
