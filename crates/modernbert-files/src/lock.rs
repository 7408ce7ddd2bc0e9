//! Locks of folders: one process at a time works in a folder.

use std::fs::{File, TryLockError};
use std::io::Write;
use std::path::{Path, PathBuf};

use crate::atomic::open_update;

/// Name of the file that is locked.
pub const LOCK_FILE: &str = "lock";

/// Reason why a folder can't be locked.
#[derive(Debug, thiserror::Error)]
pub enum LockError {
    /// Another process holds the lock.
    #[error(
        "{path}: another process works in this folder (process {owner}); wait for it, end it, or use another folder",
        path = path.display()
    )]
    Held {
        /// The folder.
        path: PathBuf,
        /// Its process id, as that process wrote it.
        owner: String,
    },
    /// The lock file can't be opened or written.
    #[error("{path}: {source}", path = path.display())]
    Io {
        /// The lock file.
        path: PathBuf,
        /// Error of the operating system.
        source: std::io::Error,
    },
}

/// The lock of a folder, held by this process for as long as the value lives. The system frees it when the process ends.
#[derive(Debug)]
pub struct FolderLock {
    _file: File,
}

impl FolderLock {
    /// Locks `folder`, which must exist, by its file `lock`.
    ///
    /// # Errors
    /// Another process holds the lock; a lock file that is a symbolic link or can't be written.
    pub fn acquire(folder: &Path) -> Result<Self, LockError> {
        Self::lock(folder, false)
    }

    /// As [`Self::acquire`], where two processes would damage each other's files: a file system without locks is an error.
    ///
    /// # Errors
    /// As [`Self::acquire`]; a file system without locks.
    pub fn acquire_strictly(folder: &Path) -> Result<Self, LockError> {
        Self::lock(folder, true)
    }

    fn lock(folder: &Path, strictly: bool) -> Result<Self, LockError> {
        let path = folder.join(LOCK_FILE);
        let broken = |source| LockError::Io {
            path: path.clone(),
            source,
        };
        let mut file = open_update(&path).map_err(broken)?;
        match file.try_lock() {
            Err(TryLockError::WouldBlock) => {
                let owner = std::fs::read_to_string(&path).unwrap_or_default();
                return Err(LockError::Held {
                    path: folder.to_path_buf(),
                    owner: owner.trim().chars().take(20).collect(),
                });
            }
            Err(TryLockError::Error(source)) if strictly => return Err(broken(source)),
            // Some network file systems have no locks; there the user must not start two processes in one folder.
            Err(TryLockError::Error(_)) | Ok(()) => {}
        }
        file.set_len(0)
            .and_then(|()| writeln!(file, "{}", std::process::id()))
            .map_err(broken)?;
        Ok(Self { _file: file })
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;

    #[test]
    fn the_second_is_refused_until_the_first_is_gone() {
        let folder = tempfile::tempdir().unwrap();
        let first = FolderLock::acquire(folder.path()).unwrap();
        let message = FolderLock::acquire(folder.path()).unwrap_err().to_string();
        assert!(
            message.contains("another process")
                && message.contains(&std::process::id().to_string()),
            "{message}"
        );
        drop(first);
        FolderLock::acquire(folder.path()).unwrap();
    }

    #[cfg(unix)]
    #[test]
    fn a_lock_that_is_a_link_is_refused() {
        let folder = tempfile::tempdir().unwrap();
        let precious = folder.path().join("precious");
        std::fs::write(&precious, "precious").unwrap();
        std::os::unix::fs::symlink(&precious, folder.path().join(LOCK_FILE)).unwrap();
        assert!(FolderLock::acquire(folder.path()).is_err());
        assert_eq!(std::fs::read_to_string(&precious).unwrap(), "precious");
    }
}
