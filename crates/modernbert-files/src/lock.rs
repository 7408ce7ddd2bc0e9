//! Locks of folders: one process at a time works in a folder.

use std::fs::{File, TryLockError};
use std::io::{Read, Seek, Write};
use std::path::{Path, PathBuf};

use crate::atomic::open_update;
use crate::output::space_remedy;

/// Name of the file that is locked.
pub const LOCK_FILE: &str = "lock";

/// Length of a lock file at most.
const MOST_BYTES: u64 = 20;

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
    /// The file of that name holds something else.
    #[error("{path}: it is not the lock of a program; nothing is replaced: move it away, or use another folder", path = .0.display())]
    Foreign(PathBuf),
    /// The lock file can't be opened or written.
    #[error("{path}: {source}{remedy}", path = path.display(), remedy = space_remedy(source))]
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
    /// Another process holds the lock; a lock file that is a symbolic link, holds anything but a process id, or can't be written.
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
        let mut locked = file.try_lock();
        // `is_locked` of another process holds the lock for an instant.
        for _ in 0..5 {
            if !matches!(locked, Err(TryLockError::WouldBlock)) {
                break;
            }
            std::thread::sleep(std::time::Duration::from_millis(10));
            locked = file.try_lock();
        }
        match locked {
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
        // A process id and a line feed; nothing if a process was killed in between.
        let mut content = Vec::new();
        let read = (&mut file).take(MOST_BYTES + 1).read_to_end(&mut content);
        read.map_err(broken)?;
        let number = content.strip_suffix(b"\n").unwrap_or(&content);
        if content.len() as u64 > MOST_BYTES || !number.iter().all(u8::is_ascii_digit) {
            return Err(LockError::Foreign(path));
        }
        file.rewind().map_err(broken)?;
        file.set_len(0)
            .and_then(|()| writeln!(file, "{}", std::process::id()))
            .map_err(broken)?;
        Ok(Self { _file: file })
    }
}

/// Returns true if a process holds the lock of `folder`, and `None` where that is not known: a lock file that can't be read, a file system
/// without locks. Without a lock file none does.
pub fn is_locked(folder: &Path) -> Option<bool> {
    let file = match File::open(folder.join(LOCK_FILE)) {
        Ok(file) => file,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Some(false),
        Err(_) => return None,
    };
    match file.try_lock_shared() {
        Ok(()) => Some(false),
        Err(TryLockError::WouldBlock) => Some(true),
        Err(TryLockError::Error(_)) => None,
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;

    #[test]
    fn the_second_is_refused_until_the_first_is_gone() {
        let folder = tempfile::tempdir().unwrap();
        assert_eq!(is_locked(folder.path()), Some(false));
        let first = FolderLock::acquire(folder.path()).unwrap();
        assert_eq!(is_locked(folder.path()), Some(true));
        let message = FolderLock::acquire(folder.path()).unwrap_err().to_string();
        assert!(
            message.contains("another process")
                && message.contains(&std::process::id().to_string()),
            "{message}"
        );
        drop(first);
        assert_eq!(is_locked(folder.path()), Some(false));
        FolderLock::acquire(folder.path()).unwrap();
    }

    #[test]
    fn a_file_of_that_name_with_another_content_is_kept() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join(LOCK_FILE);
        for precious in ["precious", "12 monkeys", "123456789012345678901\n", "\n\n"] {
            std::fs::write(&path, precious).unwrap();
            let message = FolderLock::acquire(folder.path()).unwrap_err().to_string();
            assert!(message.contains("move it away"), "{message}");
            assert_eq!(std::fs::read_to_string(&path).unwrap(), precious);
        }
        for own in ["", "4294967295\n", "12"] {
            std::fs::write(&path, own).unwrap();
            FolderLock::acquire(folder.path()).unwrap();
            let id = format!("{}\n", std::process::id());
            assert_eq!(std::fs::read_to_string(&path).unwrap(), id);
        }
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
