//! `shards.json`, the index of a folder of token shards.

use std::collections::HashSet;
use std::path::{Component, Path};

use serde::{Deserialize, Serialize};

use crate::mixture::PROPORTION_SLACK;
use crate::shard::{Cut, TokenizerHash};

/// Name of the index; it is written last, so that a folder with an index is complete.
pub const INDEX_FILE: &str = "shards.json";
const FORMAT: &str = "modernbert token shards";
const VERSION: u32 = 1;

/// The content of a folder.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Index {
    /// The kind of the file.
    pub format: String,
    /// Version of its layout.
    pub version: u32,
    /// SHA-256 of the tokenizer, which is in the same folder.
    pub tokenizer: String,
    /// Share of the documents that was held out, by the hash of their content.
    pub eval_fraction: f64,
    /// Seed of that choice.
    pub seed: u64,
    /// Rule that cut the documents; `None` if they are whole.
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
    /// Rows that could not be read and were skipped.
    pub unreadable: u64,
    /// The documents to train on.
    pub train: SplitEntry,
    /// The held-out documents.
    pub eval: SplitEntry,
}

/// One split of a source: training or held-out.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SplitEntry {
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
    /// Its file, relative to the folder, with `/` on every system.
    pub file: String,
    /// Samples in it.
    pub samples: u64,
    /// Tokens in it.
    pub tokens: u64,
    /// SHA-256 of its content.
    pub sha256: String,
}

/// Reason why an index is invalid.
#[derive(Debug, thiserror::Error)]
pub enum ShardIndexError {
    /// It is not JSON, or has other fields.
    #[error("{0}")]
    Json(#[from] serde_json::Error),
    /// It is of another format or version.
    #[error("{format:?}, version {version}")]
    Format {
        /// Its format.
        format: String,
        /// Its version.
        version: u32,
    },
    /// A file outside the folder.
    #[error("the shard {0:?} is outside the folder")]
    Outside(String),
    /// A shard or a source is listed twice.
    #[error("{0:?} is listed twice")]
    Twice(String),
    /// A setting out of its range.
    #[error("{setting} is {value}")]
    Setting {
        /// The setting.
        setting: &'static str,
        /// Its value.
        value: f64,
    },
    /// Sums that don't add up.
    #[error("source {source_name}: the {split} split has {total} {what}, and its shards {sum}")]
    Sum {
        /// The source.
        source_name: String,
        /// `train` or `eval`.
        split: &'static str,
        /// Samples or tokens.
        what: &'static str,
        /// The count of the split.
        total: u64,
        /// The sum over its shards.
        sum: u64,
    },
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

    /// Reads an index and makes all checks that need no shard.
    ///
    /// # Errors
    /// Text that is no index of this version, or one that contradicts itself or names files outside of its folder.
    pub fn parse(text: &str) -> Result<Self, ShardIndexError> {
        let index: Self = modernbert_files::json::parse(text.as_bytes())?;
        if index.format != FORMAT || index.version != VERSION {
            return Err(ShardIndexError::Format {
                format: index.format,
                version: index.version,
            });
        }
        let setting = |setting, value: f64, fits: bool| match fits {
            true => Ok(()),
            false => Err(ShardIndexError::Setting { setting, value }),
        };
        let fraction = index.eval_fraction;
        setting("eval_fraction", fraction, (0.0..1.0).contains(&fraction))?;
        let shortest = index.cut.map_or(3, |cut| cut.max_length);
        setting("cut.max_length", shortest as f64, shortest >= 3)?;
        let sum: f64 = index.sources.iter().map(|source| source.proportion).sum();
        let fits = (sum - 1.0).abs() <= PROPORTION_SLACK;
        setting("the sum of the proportions", sum, fits)?;
        let mut names = HashSet::new();
        for source in &index.sources {
            let share = source.proportion;
            setting("a proportion", share, share > 0.0)?;
            if !names.insert(&source.name) {
                return Err(ShardIndexError::Twice(source.name.clone()));
            }
        }
        let mut files = HashSet::new();
        for shard in index.shards() {
            let mut parts = Path::new(&shard.file).components();
            let is_inside = parts.all(|part| matches!(part, Component::Normal(_)));
            if shard.file.is_empty() || !is_inside {
                return Err(ShardIndexError::Outside(shard.file.clone()));
            }
            if !files.insert(&shard.file) {
                return Err(ShardIndexError::Twice(shard.file.clone()));
            }
        }
        for source in &index.sources {
            for (split, entry) in [("train", &source.train), ("eval", &source.eval)] {
                let sum = |count: fn(&ShardEntry) -> u64| {
                    let counts = entry.shards.iter().map(count);
                    counts.fold(0, u64::saturating_add)
                };
                for (what, total, sum) in [
                    ("samples", entry.samples, sum(|shard| shard.samples)),
                    ("tokens", entry.tokens, sum(|shard| shard.tokens)),
                ] {
                    if total != sum {
                        return Err(ShardIndexError::Sum {
                            source_name: source.name.clone(),
                            split,
                            what,
                            total,
                            sum,
                        });
                    }
                }
            }
        }
        Ok(index)
    }

    /// All shards.
    pub(super) fn shards(&self) -> impl Iterator<Item = &ShardEntry> {
        let sources = self.sources.iter();
        sources.flat_map(|source| source.train.shards.iter().chain(&source.eval.shards))
    }
}

pub(super) fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}
