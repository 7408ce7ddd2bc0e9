//! Errors of the loader.

use std::sync::Arc;

use packed_layout::LayoutError;

use crate::mask::MaskError;
use crate::pack::PackError;
use crate::shard::ShardError;

impl From<ShardError> for LoaderError {
    fn from(error: ShardError) -> Self {
        Self::Shard(Arc::new(error))
    }
}

/// An error of the loader; each names a remedy.
#[derive(Debug, thiserror::Error)]
pub enum LoaderError {
    /// The shard is empty.
    #[error("{place} holds no samples; give the corpus more text")]
    Empty {
        /// The shard, or the source of a mixture.
        place: String,
    },
    /// An evaluation of so few tokens that no sample fits in.
    #[error(
        "{place}: no sample has {} or fewer; raise run.eval_tokens",
        modernbert_files::wording::counted(*tokens, "token", "tokens")
    )]
    TooFewTokens {
        /// The shard, or the source of a mixture.
        place: String,
        /// Tokens of an evaluation.
        tokens: usize,
    },
    /// There is no source.
    #[error("a stream needs at least one source; name the shards to train on")]
    NoSources,
    /// A proportion is invalid.
    #[error("{place}: the proportion is {proportion}; give a number above 0")]
    Proportion {
        /// The source.
        place: String,
        /// Its proportion.
        proportion: f64,
    },
    /// A rank that is not below the number of ranks.
    #[error("rank {rank} of {ranks}: count ranks from 0, below their number")]
    Rank {
        /// The rank.
        rank: usize,
        /// Their number.
        ranks: usize,
    },
    /// A sample doesn't fit, or the packer's settings don't.
    #[error(transparent)]
    Pack(#[from] PackError),
    /// A shard became shorter while it was in use.
    #[error(transparent)]
    Shard(#[from] Arc<ShardError>),
    /// Masking failed.
    #[error(transparent)]
    Mask(#[from] MaskError),
    /// A row's boundaries contradict each other.
    #[error(transparent)]
    Layout(#[from] LayoutError),
    /// A position belongs to other data.
    #[error(
        "{place}: not the data this run was started with (its SHA-256 was {was} and is {is}); restore the old shards, or start \
         a new run"
    )]
    Changed {
        /// The shard, or the source where the number of shards differs.
        place: String,
        /// Hash then.
        was: String,
        /// Hash now.
        is: String,
    },
    /// A position belongs to other settings.
    #[error(
        "{setting} is {is} and was {was} when the run was saved; a run continues with the settings it began with: restore it, or \
         start a new run"
    )]
    Settings {
        /// The setting.
        setting: &'static str,
        /// Its value then.
        was: String,
        /// Its value now.
        is: String,
    },
    /// A position contradicts itself.
    #[error("the saved data position can't be used ({0}); take an older checkpoint")]
    Position(String),
    /// The packer ended, which an endless stream must not.
    #[error("the packer ended before the run did; this is a defect of the program")]
    Ended,
    /// A loader thread ended early.
    #[error("a loader thread stopped: {0}")]
    Thread(String),
}
