//! Errors of pretraining runs.

use modernbert::LoadError;
use modernbert::checkpoint::CheckpointError;
use modernbert::checkpoint::tiling::TilingError;
use modernbert::config::ConfigError;
use modernbert::tokenizer::TokenizerError;
use modernbert_cli::plot::PlotError;
use std::path::{Path, PathBuf};

use crate::by_position::PositionError;
use crate::corpus::CorpusError;
use crate::loader::LoaderError;
use crate::mask::MaskError;
use crate::recipe::RecipeError;
use crate::run_dir::RunDirError;
use crate::shard::{ShardError, TokenizeError};
use crate::snapshot::SnapshotError;
use crate::tokenize::FolderError;

/// Reason why a pretraining run failed.
#[derive(Debug, thiserror::Error)]
pub enum PretrainError {
    /// Settings or files that do not fit; the message names the place and the remedy.
    #[error("{0}")]
    Invalid(String),
    /// A file or folder that the operating system refuses.
    #[error("{path}: {what} ({source})", path = path.display())]
    Io {
        /// The file or folder.
        path: PathBuf,
        /// The operation that failed.
        what: &'static str,
        /// The system's error.
        source: std::io::Error,
    },
    /// Another rank failed or could not be reached.
    #[error(transparent)]
    Ranks(#[from] ranks::RankError),
    /// A message between ranks that can't be read.
    #[error("ranks of different versions: {0}")]
    Message(#[from] serde_json::Error),
    /// Training failed; the message names the step and the last checkpoint.
    #[error("training stopped at step {step}: {reason}{rest}")]
    Training {
        /// Optimizer steps done.
        step: u64,
        /// The loop's error.
        reason: String,
        /// The last checkpoint, and the command that resumes the run.
        rest: String,
    },
    /// The smaller model for a tiled initialization.
    #[error("model.tile_from = {path}: {source}", path = path.display())]
    Tiling {
        /// Its folder.
        path: PathBuf,
        /// Description of the conflict.
        source: Box<TilingError>,
    },
    /// The published model that the run continues.
    #[error("model.from = {from}: {source}")]
    Published {
        /// Its folder, or its name on the Hugging Face Hub.
        from: String,
        /// Reason why it can't be used.
        source: Box<LoadError>,
    },
    /// The picture of the loss.
    #[error("the picture of the loss can't be drawn: {0}")]
    Picture(#[source] LossPlotError),
    /// The recipe.
    #[error(transparent)]
    Recipe(Box<RecipeError>),
    /// The run's folder.
    #[error(transparent)]
    RunDir(Box<RunDirError>),
    /// A checkpoint.
    #[error(transparent)]
    Snapshot(Box<SnapshotError>),
    /// The model's config.
    #[error(transparent)]
    Config(Box<ConfigError>),
    /// The model's files.
    #[error(transparent)]
    Checkpoint(Box<CheckpointError>),
    /// The tokenizer.
    #[error(transparent)]
    Tokenizer(Box<TokenizerError>),
    /// The text.
    #[error(transparent)]
    Corpus(Box<CorpusError>),
    /// A token shard.
    #[error(transparent)]
    Shard(Box<ShardError>),
    /// Tokenizing the corpus.
    #[error(transparent)]
    Tokenize(Box<TokenizeError>),
    /// A folder of token shards.
    #[error(transparent)]
    Folder(Box<FolderError>),
    /// The data loader.
    #[error(transparent)]
    Loader(Box<LoaderError>),
    /// Masking.
    #[error(transparent)]
    Mask(#[from] MaskError),
    /// The loss by position.
    #[error(transparent)]
    Position(#[from] PositionError),
}

/// Errors of other modules are boxed: they contain several paths and texts, and every result would have their size.
macro_rules! boxed {
    ($($variant:ident($error:ty),)*) => {
        $(impl From<$error> for PretrainError {
            fn from(error: $error) -> Self {
                Self::$variant(Box::new(error))
            }
        })*
    };
}

boxed! {
    Recipe(RecipeError),
    RunDir(RunDirError),
    Snapshot(SnapshotError),
    Config(ConfigError),
    Checkpoint(CheckpointError),
    Tokenizer(TokenizerError),
    Corpus(CorpusError),
    Shard(ShardError),
    Tokenize(TokenizeError),
    Folder(FolderError),
    Loader(LoaderError),
}

/// Reason why the loss can't be drawn.
#[derive(Debug, thiserror::Error)]
pub enum LossPlotError {
    /// The log can't be read.
    #[error(transparent)]
    Log(#[from] std::io::Error),
    /// The picture can't be written.
    #[error(transparent)]
    Plot(#[from] PlotError),
}

impl PretrainError {
    /// A file operation on `path` that failed.
    pub(super) fn io(
        path: impl AsRef<Path>,
        what: &'static str,
    ) -> impl FnOnce(std::io::Error) -> Self {
        let path = path.as_ref().to_path_buf();
        move |source| Self::Io { path, what, source }
    }
}

/// Settings or files that do not fit: `PLACE: what is wrong; what to do`.
pub(super) fn invalid<T>(message: impl Into<String>) -> Result<T> {
    Err(PretrainError::Invalid(message.into()))
}

/// A result of pretraining.
pub(super) type Result<T, E = PretrainError> = std::result::Result<T, E>;
