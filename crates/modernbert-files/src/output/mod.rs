//! Places for results: checked before the work, written completely or not at all.
//!
//! Every program with an `--out` calls [`OutputCheck`] before it computes anything, and writes through
//! [`PendingFile`](crate::atomic::PendingFile) or [`StagedFolder`] after it. Other content of the path is an error and is never replaced.

mod check;
mod space;
mod staged;
#[cfg(test)]
mod tests;
mod usable;

pub use check::{FileId, OutputCheck, named_twice, nearest_existing, overlap};
pub(crate) use space::file_remedy;
pub use space::{free_bytes, space_remedy, write_remedy};
pub use staged::StagedFolder;
pub use usable::make_folder;

use std::path::PathBuf;

use crate::wording::size;

/// Reason why nothing can be written at a place.
#[derive(Debug, thiserror::Error)]
pub enum OutputError {
    /// Any of the faults below, of a path that another argument than `--out` names.
    #[error("{0}")]
    Argument(String),
    /// There is a file already.
    #[error("{path}: the file exists already; {remedy}", path = path.display())]
    Exists {
        /// The file.
        path: PathBuf,
        /// Remedy.
        remedy: String,
    },
    /// A folder that is not empty.
    #[error("{path}: the folder is not empty (it holds {found}); {remedy}", path = path.display())]
    NotEmpty {
        /// The folder.
        path: PathBuf,
        /// One of its entries.
        found: String,
        /// The remedy.
        remedy: String,
    },
    /// A run that is to be resumed is not there.
    #[error("{path}: there is no run in it; leave --resume out to begin one", path = path.display())]
    NoRun {
        /// The folder.
        path: PathBuf,
    },
    /// A file name with the ending of another format.
    #[error("{path}: --out takes a file that ends in {wanted}; give it another name", path = path.display())]
    Ending {
        /// The file.
        path: PathBuf,
        /// The endings, in words.
        wanted: &'static str,
    },
    /// The output path is an input.
    #[error("{path}: --out is the same as the input {input}; give --out another place", path = path.display(), input = input.display())]
    IsInput {
        /// The output path.
        path: PathBuf,
        /// The input.
        input: PathBuf,
    },
    /// The output path is inside an input.
    #[error("{path}: --out is inside the input {input}; give --out a place outside of it", path = path.display(), input = input.display())]
    InsideInput {
        /// The output path.
        path: PathBuf,
        /// The input.
        input: PathBuf,
    },
    /// The output path contains an input.
    #[error("{path}: --out contains the input {input}; give --out another folder", path = path.display(), input = input.display())]
    ContainsInput {
        /// The output path.
        path: PathBuf,
        /// The input.
        input: PathBuf,
    },
    /// The output path belongs to a checkpoint, whose files are hashed.
    #[error("{path}: --out is inside the checkpoint {folder}; give --out a place outside of it", path = path.display(), folder = folder.display())]
    InsideCheckpoint {
        /// The output path.
        path: PathBuf,
        /// The checkpoint.
        folder: PathBuf,
    },
    /// An entry of another kind.
    #[error("{path}: --out is {what}; give --out {wanted}", path = path.display())]
    Kind {
        /// The output path.
        path: PathBuf,
        /// Kind of the existing entry.
        what: &'static str,
        /// Kind of entry that is expected.
        wanted: &'static str,
    },
    /// The folder of a file is missing.
    #[error("{path}: there is no folder {folder}; make it, or give --out another place", path = path.display(), folder = folder.display())]
    NoFolder {
        /// The file.
        path: PathBuf,
        /// Its folder.
        folder: PathBuf,
    },
    /// The folder can't be written to.
    #[error("{path}: can't be written ({source}); give --out a place you may write to", path = path.display())]
    Unwritable {
        /// The output path.
        path: PathBuf,
        /// Error of the operating system.
        source: std::io::Error,
    },
    /// The disk is too full.
    #[error(
        "{path}: {needed} are needed and {free} are free on the disk; free some space, or give --out a place on another disk",
        path = path.display(), needed = size(*needed), free = size(*free)
    )]
    Space {
        /// The output path.
        path: PathBuf,
        /// Bytes that will be written.
        needed: u64,
        /// Bytes that are free.
        free: u64,
    },
    /// Writing failed after the check.
    #[error("{path}: can't be written ({source}){remedy}", path = path.display(), remedy = space_remedy(source))]
    Write {
        /// The output path.
        path: PathBuf,
        /// Error of the operating system.
        source: std::io::Error,
    },
}

impl OutputError {
    /// A write to `path` that failed.
    pub fn write(path: impl Into<PathBuf>) -> impl FnOnce(std::io::Error) -> Self {
        let path = path.into();
        move |source| Self::Write { path, source }
    }
}
