use modernbert::checkpoint::CheckpointError;
use modernbert::config::ConfigError;
use modernbert::output::OutputError;
use modernbert::sentences::SentencesError;
use modernbert_cli::plot::PlotError;
use std::path::PathBuf;

use crate::recipe::RecipeError;
use crate::run_dir::RunDirError;
use crate::shard::ShardError;
use crate::snapshot::SnapshotError;
use crate::tokenize::FolderError;

/// Reason why a run or checkpoint can't be compared, averaged, exported, described or drawn.
#[derive(Debug, thiserror::Error)]
pub enum ToolError {
    /// Files of sentence-transformers that can't be read.
    #[error(transparent)]
    Sentences(#[from] SentencesError),
    /// A model of a family whose weights are not stored in int8.
    #[error(
        "{model}: its model_type is {model_type}, whose weights are not stored in int8; name a ModernBERT",
        model = model.display()
    )]
    Int8Family {
        /// The folder.
        model: PathBuf,
        /// The model type.
        model_type: &'static str,
    },
    /// Nothing to average.
    #[error("no checkpoint is named; name the checkpoints to average, or a run with --run")]
    NoCheckpoints,
    /// A checkpoint that would count twice.
    #[error("{path}: this checkpoint is named twice, so that it would count twice; name it once", path = .0.display())]
    Twice(PathBuf),
    /// Checkpoints that don't belong together.
    #[error(
        "{other}: its {what} differ from those of {first}; average checkpoints of one phase of one run",
        other = other.display(), first = first.display()
    )]
    Differ {
        /// The checkpoint.
        other: PathBuf,
        /// The one it is compared with.
        first: PathBuf,
        /// Description of the difference.
        what: &'static str,
    },
    /// Too few checkpoints have a held-out loss.
    #[error(
        "{run}: {found} of its last phase's checkpoints have a held-out loss{beside}, {wanted} are needed; train with checkpoint.keep_best and \
         checkpoint.every_steps, or name the checkpoints", run = run.display(), beside = if *with_last { " beside the last one" } else { "" }
    )]
    TooFew {
        /// The run.
        run: PathBuf,
        /// Checkpoints with a loss.
        found: usize,
        /// Checkpoints needed.
        wanted: usize,
        /// True if the last one is taken in any case.
        with_last: bool,
    },
    /// A checkpoint without the averaged weights that its run evaluates.
    #[error(
        "{path}: there is no {name}, and the run's recipe evaluates averaged weights (ema.evaluate); name a checkpoint of a later step",
        path = path.display()
    )]
    NoAverage {
        /// The file of the optimizer's state.
        path: PathBuf,
        /// The tensor.
        name: String,
    },
    /// There is no such folder.
    #[error("{}: there is no such folder", .0.display())]
    NoFolder(PathBuf),
    /// A run without a checkpoint.
    #[error("{}: this run has no checkpoint yet", .0.display())]
    NoCheckpointYet(PathBuf),
    /// A folder that is neither a run nor a checkpoint.
    #[error(
        "{}: this is neither a run nor a checkpoint (a folder such as RUN/checkpoints/step-00000100)", .0.display()
    )]
    NeitherRunNorCheckpoint(PathBuf),
    /// A folder without anything that can be described.
    #[error(
        "{}: nothing to describe: no recipe.toml (a run), no manifest.json (a checkpoint), no shards.json or .tokens file (shards)",
        .0.display()
    )]
    Nothing(PathBuf),
    /// A picture of another format than is drawn.
    #[error("{}: the picture is a PNG; give --out a name that ends in .png", .0.display())]
    Ending(PathBuf),
    /// A log that can't be read.
    #[error("{path}: not a log of a run ({source}); name a run's folder or its metrics.jsonl", path = path.display())]
    Log {
        /// The log.
        path: PathBuf,
        /// Description of the fault.
        source: std::io::Error,
    },
    /// A file of another kind.
    #[error(
        "{}: not a recipe ({reason}); inspect describes a recipe (.toml or the name of a built-in one), a run, a checkpoint, a .tokens shard, or a folder of shards", path.display()
    )]
    NotInspected {
        /// The file.
        path: PathBuf,
        /// Why it is no recipe.
        reason: String,
    },
    /// Logs without the quantity.
    #[error(
        "none of the logs has {quantity}: a run that has just begun has no whole row yet; name the log of a run that has trained, or choose a quantity (--quantity) that is a key of \
         the rows"
    )]
    NoQuantity {
        /// The quantity.
        quantity: &'static str,
    },
    /// A file or folder that can't be read.
    #[error("{path}: can't be read ({source})", path = path.display())]
    Read {
        /// The file or folder.
        path: PathBuf,
        /// Error of the operating system.
        source: std::io::Error,
    },
    /// The place for results.
    #[error(transparent)]
    Output(#[from] OutputError),
    /// A checkpoint.
    #[error("{0}{remedy}", remedy = remedy_of(.0))]
    Snapshot(Box<SnapshotError>),
    /// A run's folder.
    #[error(transparent)]
    RunDir(Box<RunDirError>),
    /// A recipe.
    #[error(transparent)]
    Recipe(#[from] RecipeError),
    /// A model's files.
    #[error(transparent)]
    Checkpoint(#[from] CheckpointError),
    /// A model's config.
    #[error(transparent)]
    Config(#[from] ConfigError),
    /// A shard.
    #[error(transparent)]
    Shard(#[from] ShardError),
    /// A folder of shards.
    #[error(transparent)]
    Folder(#[from] FolderError),
    /// The picture.
    #[error(transparent)]
    Plot(#[from] PlotError),
}

/// The remedy for a damaged checkpoint; empty for errors that say it.
fn remedy_of(error: &SnapshotError) -> &'static str {
    match error {
        SnapshotError::Damaged { .. } => "; take another checkpoint, or copy this one again",
        _ => "",
    }
}

impl From<SnapshotError> for ToolError {
    fn from(error: SnapshotError) -> Self {
        Self::Snapshot(Box::new(error))
    }
}

impl From<RunDirError> for ToolError {
    fn from(error: RunDirError) -> Self {
        Self::RunDir(Box::new(error))
    }
}

impl ToolError {
    /// A file or folder that could not be read, for `map_err`.
    pub(super) fn read(path: impl Into<PathBuf>) -> impl FnOnce(std::io::Error) -> Self {
        let path = path.into();
        move |source| Self::Read { path, source }
    }
}
