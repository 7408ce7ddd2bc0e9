use std::path::{Path, PathBuf};

use crate::recipe::RecipeError;
use crate::snapshot::{SnapshotError, remedy};

/// Reason why a run's folder can't be used.
#[derive(Debug, thiserror::Error)]
pub enum RunDirError {
    /// The folder can't be made.
    #[error("{path}: the run's folder can't be made ({source}); give --out another one", path = path.display())]
    Make {
        /// The folder.
        path: PathBuf,
        /// Error of the operating system.
        source: std::io::Error,
    },
    /// The operating system refused.
    #[error("{path}: {source}{remedy}", path = path.display(), remedy = remedy(source))]
    Io {
        /// The file or folder.
        path: PathBuf,
        /// Error of the operating system.
        source: std::io::Error,
    },
    /// The folder holds a run with checkpoints already.
    #[error(
        "{path} holds a run at step {step}; resume it (`modernbert-train resume {path}`), give --out another \
         folder, or pass --restart to delete it and start again", path = path.display()
    )]
    HoldsRun {
        /// The folder.
        path: PathBuf,
        /// Step of its newest checkpoint.
        step: u64,
    },
    /// The folder holds a finished model whose checkpoints are gone.
    #[error(
        "{path} holds the model of a finished run; give --out another folder, or pass --restart to delete that run and start again",
        path = .0.display()
    )]
    HoldsModel(PathBuf),
    /// The folder holds something that the run didn't write.
    #[error(
        "{path}: the folder holds {entry}, and {reason}; nothing is removed: give --out another folder, or move {entry} away",
        path = path.display(), entry = entry.display()
    )]
    Foreign {
        /// The folder.
        path: PathBuf,
        /// The entry, relative to the folder.
        entry: PathBuf,
        /// Reason why that is none of a run's files.
        reason: String,
    },
    /// A file that would be replaced.
    #[error(
        "{path}: the run did not write this file, or it was changed since; it would be replaced: move it away", path = .0.display()
    )]
    NotWritten(PathBuf),
    /// The lock is a file of something else.
    #[error("{path}: it is not the lock of a run; nothing is replaced: move it away, or use another folder", path = .0.display())]
    NoLock(PathBuf),
    /// Another process holds the folder's lock.
    #[error(
        "{path}: another process works on this run (process {owner}); wait for it, end it, or use another folder",
        path = path.display()
    )]
    Locked {
        /// The folder.
        path: PathBuf,
        /// Its process id, as it wrote it.
        owner: String,
    },
    /// No run was begun in the folder.
    #[error(
        "{path} holds no run (it has no recipe.toml); begin one with `modernbert-train run RECIPE --out {path}`",
        path = .0.display()
    )]
    NoRun(PathBuf),
    /// A path inside of a run, or another file, in place of a run's folder.
    #[error("{} is {what}; {remedy}", .path.display())]
    NotRun {
        /// The path.
        path: PathBuf,
        /// What is there.
        what: &'static str,
        /// What to name in its place.
        remedy: String,
    },
    /// There is no such folder.
    #[error("{}: there is no such folder", .0.display())]
    NoFolder(PathBuf),
    /// A checkpoint that is not in a run's folder.
    #[error(
        "{}: it is not in a run's folder (RUN/checkpoints/step-…), whose recipe and tokenizer are needed", .0.display()
    )]
    OutsideRun(PathBuf),
    /// The recipe isn't the one the run was begun with.
    #[error(
        "{path}: the recipe was changed since the run was begun; restore it, or begin another run from a checkpoint with \
         `modernbert-train rollback CHECKPOINT --out FOLDER --set key=value`", path = .0.display()
    )]
    RecipeChanged(PathBuf),
    /// A shard isn't the one the run was begun with.
    #[error(
        "{path}: this shard was changed since the run was begun ({reason}); restore the old one, or begin another run",
        path = path.display()
    )]
    ShardChanged {
        /// The shard.
        path: PathBuf,
        /// Description of the difference.
        reason: String,
    },
    /// `run.json` or `checkpoints/written.json` can't be understood.
    #[error("{path}: damaged: {reason}; restore the file, or begin another run in another folder", path = path.display())]
    Info {
        /// The file.
        path: PathBuf,
        /// Description of the fault.
        reason: String,
    },
    /// The chosen checkpoint doesn't exist.
    #[error("{path} has no {wanted}; its checkpoints are: {known}", path = path.display())]
    NoSuchCheckpoint {
        /// The run's folder.
        path: PathBuf,
        /// The choice, in words.
        wanted: String,
        /// The existing ones.
        known: String,
    },
    /// The newest checkpoint is damaged.
    #[error("{source}. {hint}")]
    Damaged {
        /// The damaged file.
        source: Box<SnapshotError>,
        /// Remedy.
        hint: String,
    },
    /// A checkpoint can't be written or read.
    #[error(transparent)]
    Snapshot(Box<SnapshotError>),
    /// The recipe can't be read.
    #[error(transparent)]
    Recipe(#[from] RecipeError),
}

impl From<SnapshotError> for RunDirError {
    fn from(error: SnapshotError) -> Self {
        Self::Snapshot(Box::new(error))
    }
}

impl RunDirError {
    pub(super) fn foreign(root: &Path, entry: &Path, reason: &str) -> Self {
        Self::Foreign {
            path: root.to_path_buf(),
            entry: entry.strip_prefix(root).unwrap_or(entry).to_path_buf(),
            reason: reason.to_string(),
        }
    }

    pub(crate) fn io(path: impl AsRef<Path>) -> impl FnOnce(std::io::Error) -> Self {
        let path = path.as_ref().to_path_buf();
        move |source| Self::Io { path, source }
    }
}
