use modernbert::LoadError;
use modernbert::checkpoint::CheckpointError;
use std::path::{Path, PathBuf};

use crate::optim::MomentsError;

/// Reason why a checkpoint can't be written or read.
#[derive(Debug, thiserror::Error)]
pub enum SnapshotError {
    /// The operating system refused.
    #[error("{path}: {source}{remedy}", path = path.display(), remedy = remedy(source))]
    Io {
        /// The file or folder.
        path: PathBuf,
        /// Error of the operating system.
        source: std::io::Error,
    },
    /// The path is no checkpoint.
    #[error(
        "{path} is no checkpoint (it has no {file}); give a folder such as RUN/checkpoints/step-00000100",
        path = .path.display(), file = super::MANIFEST_FILE
    )]
    NotOne {
        /// The path.
        path: PathBuf,
    },
    /// A file was changed after it was written.
    #[error("{path}: damaged: {reason}", path = path.display())]
    Damaged {
        /// The file.
        path: PathBuf,
        /// Description of the difference.
        reason: String,
    },
    /// The folder's name has another step than its state.
    #[error(
        "{path}: this is the checkpoint of step {step}, copied or renamed; rename the folder to step-{step:08}, or remove it",
        path = path.display()
    )]
    Renamed {
        /// The folder.
        path: PathBuf,
        /// Its step.
        step: u64,
    },
    /// The checkpoint was written by a newer program.
    #[error("{path}: format {found}, this program knows {known}; use the program that wrote it, or a newer one", path = path.display())]
    Format {
        /// The file.
        path: PathBuf,
        /// The format found.
        found: u32,
        /// The newest format known.
        known: u32,
    },
    /// Something in a folder that is to be removed or replaced, which the program did not write.
    #[error("{path}: {reason}; nothing is removed: move it away", path = path.display())]
    Foreign {
        /// The file or folder.
        path: PathBuf,
        /// Reason why that is none of the program's files.
        reason: String,
    },
    /// Weights or config can't be written or read.
    #[error(transparent)]
    Model(#[from] CheckpointError),
    /// The model can't be loaded.
    #[error(transparent)]
    Load(#[from] LoadError),
    /// The optimizer's state can't be written or read.
    #[error(transparent)]
    Moments(#[from] MomentsError),
}

impl SnapshotError {
    /// The error of a file operation on `path`.
    pub(crate) fn io(path: impl AsRef<Path>) -> impl FnOnce(std::io::Error) -> Self {
        let path = path.as_ref().to_path_buf();
        move |source| Self::Io { path, source }
    }

    pub(crate) fn foreign(path: impl AsRef<Path>, reason: impl ToString) -> Self {
        Self::Foreign {
            path: path.as_ref().to_path_buf(),
            reason: reason.to_string(),
        }
    }

    pub(crate) fn damaged(path: impl AsRef<Path>, reason: impl ToString) -> Self {
        Self::Damaged {
            path: path.as_ref().to_path_buf(),
            reason: reason.to_string(),
        }
    }
}

/// Remedy for an error of a full or write-protected disk.
pub(crate) fn remedy(error: &std::io::Error) -> &'static str {
    use std::io::ErrorKind as Kind;
    match error.kind() {
        Kind::StorageFull | Kind::QuotaExceeded => "; free some space, then resume the run",
        Kind::FileTooLarge => {
            "; raise the limit on the size of files (`ulimit -f`), then resume the run"
        }
        Kind::ReadOnlyFilesystem | Kind::PermissionDenied => {
            "; change the permissions of the file or its folder, or use another place"
        }
        _ => "",
    }
}
