//! A folder of results that appears complete.

use std::path::{Path, PathBuf};
use tempfile::TempDir;

use super::OutputError;
use crate::atomic::folder_of;

/// A folder that is filled beside its place, under a random name, and renamed when it is complete. Dropped before that, it is removed.
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
        // A folder that is there may be a mount point, which can't be renamed over: it is filled from a folder inside of it.
        let beside = if target.is_dir() {
            target
        } else {
            folder_of(target)
        };
        let begin = || {
            std::fs::create_dir_all(beside)?;
            let mut builder = tempfile::Builder::new();
            builder.prefix(".partial-");
            #[cfg(unix)]
            {
                use std::os::unix::fs::PermissionsExt;
                builder.permissions(std::fs::Permissions::from_mode(0o777));
            }
            builder.tempdir_in(beside)
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

    /// Gives the folder its name. In a folder that was there before, the entries are moved one by one, `last` as the last of them: a folder
    /// that has it is complete.
    ///
    /// # Errors
    /// What the operating system refuses, among it a place that was taken in the meantime.
    pub fn publish(self, last: &str) -> Result<(), OutputError> {
        let failed = |source| OutputError::Write {
            path: self.target.clone(),
            source,
        };
        if !self.target.is_dir() {
            // Renaming replaces an empty folder at most.
            std::fs::rename(self.staging.path(), &self.target).map_err(failed)?;
            // The name is gone: nothing is left to remove.
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
