//! The files in a checkpoint's folder that the program wrote; only these are ever removed.

use std::collections::BTreeSet;
use std::fs::{read_dir, remove_dir, remove_file, symlink_metadata};
use std::path::{Path, PathBuf};
use std::sync::Mutex;

use modernbert::atomic::is_unfinished;
use modernbert::checkpoint::{CONFIG_FILE, WEIGHTS_FILE};

use super::write::TEMPORARY;
use super::{
    CheckpointManifest, MANIFEST_FILE, OPTIMIZER_FILE, STATE_FILE, SnapshotError, hash_file,
};

/// Folder of the best weights in a checkpoint of a run of one phase.
pub(crate) const BEST: &str = "best";
/// Folder of a finished model that is being written, beside the checkpoints.
pub(crate) const STAGED_MODEL: &str = ".writing-model";
/// Outputs of the best weights in a checkpoint of a finetuning.
pub(crate) const BEST_OUTPUTS: &str = "best.safetensors";

/// The files and folders of a checkpoint, in an order in which they can be removed: an interrupted removal leaves the manifest.
#[derive(Debug, Default)]
pub(crate) struct CheckpointFiles {
    pub(crate) files: Vec<PathBuf>,
    pub(crate) folders: Vec<PathBuf>,
}

impl CheckpointFiles {
    /// Lists the content of a checkpoint's folder. A folder with a temporary name may be incomplete: it needs no manifest, and its files are
    /// known by their names alone.
    ///
    /// # Errors
    /// [`SnapshotError::Foreign`] for the first entry that no manifest lists or that was changed since; a folder that can't be read.
    pub(crate) fn of(folder: &Path) -> Result<Self, SnapshotError> {
        let name = folder.file_name().unwrap_or_default().to_string_lossy();
        let data = symlink_metadata(folder).map_err(SnapshotError::io(folder))?;
        if !data.is_dir() {
            return Err(SnapshotError::foreign(folder, "it is no folder"));
        }
        let is_partial = name.starts_with(TEMPORARY);
        let manifest = match CheckpointManifest::read(folder) {
            Ok(manifest) => Some(manifest),
            Err(_) if is_partial => None,
            Err(error) => {
                let reason = format!("its manifest: {error}");
                return Err(SnapshotError::foreign(folder, reason));
            }
        };
        let mut parts = Self::default();
        parts.list(folder, folder, (manifest.as_ref(), is_partial))?;
        parts
            .files
            .sort_by_key(|path| path.ends_with(MANIFEST_FILE));
        Ok(parts)
    }

    fn list(
        &mut self,
        root: &Path,
        folder: &Path,
        (manifest, is_partial): (Option<&CheckpointManifest>, bool),
    ) -> Result<(), SnapshotError> {
        let read = read_dir(folder).map_err(SnapshotError::io(folder))?;
        for entry in read {
            let path = entry.map_err(SnapshotError::io(folder))?.path();
            let data = symlink_metadata(&path).map_err(SnapshotError::io(&path))?;
            let name = name_in(root, &path);
            let is_model = root.ends_with(STAGED_MODEL);
            if data.is_dir() && (name == BEST || is_model) {
                self.list(root, &path, (manifest, is_partial))?;
                continue;
            }
            let listed = manifest.and_then(|manifest| manifest.files.get(&name));
            let is_own = match listed {
                Some(_) if is_partial => true,
                Some(written) => {
                    if data.is_file()
                        && (data.len() != written.bytes || hash_file(&path)? != *written)
                    {
                        let reason = "it was changed since the run wrote it";
                        return Err(SnapshotError::foreign(path, reason));
                    }
                    true
                }
                None => {
                    // A model has files that depend on its kind.
                    let partial = is_model || is_partial && is_name_of_checkpoint(&name);
                    let last = path.file_name().and_then(|name| name.to_str());
                    partial || name == MANIFEST_FILE || last.is_some_and(is_unfinished)
                }
            };
            if !is_own || !data.is_file() {
                return Err(SnapshotError::foreign(
                    path,
                    "it is no file of the checkpoint",
                ));
            }
            self.files.push(path);
        }
        self.folders.push(folder.to_path_buf());
        Ok(())
    }

    /// Removes the listed files, then the folders. A folder with other files by now is kept, and is an error.
    pub(crate) fn remove(self) -> Result<(), SnapshotError> {
        for path in &self.files {
            remove_file(path).map_err(SnapshotError::io(path))?;
        }
        for path in &self.folders {
            remove_dir(path).map_err(SnapshotError::io(path))?;
        }
        Ok(())
    }
}

/// Files of a checkpoint whose manifest is not written yet, or is lost.
fn is_name_of_checkpoint(name: &str) -> bool {
    let of_best = name
        .strip_prefix(BEST)
        .and_then(|rest| rest.strip_prefix('/'));
    match of_best {
        Some(rest) => [CONFIG_FILE, WEIGHTS_FILE].contains(&rest),
        None => [
            CONFIG_FILE,
            WEIGHTS_FILE,
            OPTIMIZER_FILE,
            STATE_FILE,
            BEST_OUTPUTS,
        ]
        .contains(&name),
    }
}

/// `path` as seen from `root`, with `/` on every system, as manifests have it.
fn name_in(root: &Path, path: &Path) -> String {
    let inside = path.strip_prefix(root).unwrap_or(path);
    let parts: Vec<_> = inside.iter().map(|part| part.to_string_lossy()).collect();
    parts.join("/")
}

/// Warnings of a run about files and folders that it did not remove, each given once.
#[derive(Debug, Default)]
pub(crate) struct Warnings {
    known: Mutex<(BTreeSet<String>, Vec<String>)>,
}

impl Warnings {
    pub(crate) fn add(&self, text: impl Into<String>) {
        let text = text.into();
        if let Ok(mut known) = self.known.lock()
            && known.0.insert(text.clone())
        {
            known.1.push(text);
        }
    }

    /// Takes the warnings since the last call.
    pub(crate) fn take(&self) -> Vec<String> {
        let known = self.known.lock();
        known.map_or(Vec::new(), |mut known| std::mem::take(&mut known.1))
    }
}
