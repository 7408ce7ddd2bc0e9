//! A folder of results that appears complete.

use std::path::{Path, PathBuf};
use tempfile::TempDir;

use super::OutputError;
use super::usable::{check_usable, make_folder};
use crate::atomic::{PREFIX, folder_of};

/// A folder that is filled under a random name in the same parent folder, and renamed when it is complete. Dropped before that, it is removed.
#[derive(Debug)]
pub struct StagedFolder {
    target: PathBuf,
    staging: TempDir,
}

impl StagedFolder {
    /// Begins the folder `target`, which is missing or empty; see [`OutputCheck::folder`](super::OutputCheck::folder).
    ///
    /// # Errors
    /// Folders above it that can't be made or written.
    pub fn create(target: &Path) -> Result<Self, OutputError> {
        // An existing folder may be a mount point, which can't be replaced by renaming: it is filled from a folder inside it.
        let beside = if target.is_dir() {
            target
        } else {
            folder_of(target)
        };
        let begin = || {
            make_folder(beside)?;
            let mut builder = tempfile::Builder::new();
            builder.prefix(PREFIX);
            #[cfg(unix)]
            {
                use std::os::unix::fs::PermissionsExt;
                builder.permissions(std::fs::Permissions::from_mode(0o777));
            }
            let staging = builder.tempdir_in(beside)?;
            check_usable(staging.path())?;
            Ok(staging)
        };
        let staging = begin().map_err(OutputError::write(target))?;
        Ok(Self {
            target: target.to_path_buf(),
            staging,
        })
    }

    /// The folder to fill.
    pub fn path(&self) -> &Path {
        self.staging.path()
    }

    /// Gives the folder its name. In an existing folder the entries are moved one by one, with the entry `last` at the end: a folder
    /// that has that entry is complete.
    ///
    /// # Errors
    /// An error of the operating system, also about a folder that is no longer empty.
    pub fn commit(self, last: &str) -> Result<(), OutputError> {
        let failed = |source| OutputError::Write {
            path: self.target.clone(),
            source,
        };
        if !self.target.is_dir() {
            // Renaming replaces only an empty folder.
            std::fs::rename(self.staging.path(), &self.target).map_err(failed)?;
            // The temporary name no longer exists: nothing is left to remove.
            let _ = self.staging.keep();
            return Ok(());
        }
        let entries = std::fs::read_dir(self.staging.path()).map_err(failed)?;
        let mut names = Vec::new();
        for entry in entries {
            names.push(entry.map_err(failed)?.file_name());
        }
        names.sort_by_key(|name| (name == last, name.clone()));
        for name in names {
            let to = self.target.join(&name);
            if std::fs::symlink_metadata(&to).is_ok() {
                return Err(OutputError::Exists {
                    path: to,
                    remedy: "it appeared while the results were made; give --out another folder"
                        .to_string(),
                });
            }
            std::fs::rename(self.staging.path().join(&name), &to).map_err(failed)?;
        }
        Ok(())
    }
}
