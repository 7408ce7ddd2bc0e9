//! The files in a folder that a run wrote; only these are ever removed.

use std::collections::BTreeSet;
use std::ffi::OsStr;
use std::fs::{Metadata, symlink_metadata};
use std::path::{Path, PathBuf};

use super::checkpoints::PREFIX;
use super::log::{check_logs, is_rows, read};
use super::{
    CHECKPOINTS, HISTORY_FILE, INFO_FILE, METRICS_FILE, PICTURE_FILE, POSITIONS_FILE, RECIPE_FILE,
    RunDirError, RunInfo, SHARDS, sha256_of,
};
use crate::shard::Shard;
use crate::snapshot::{ASIDE, CheckpointFiles, REPLACED, SnapshotError, TEMPORARY, hash_file, hex};
use modernbert::atomic::{PendingFile, is_unfinished};
use modernbert::checkpoint::{CONFIG_FILE, WEIGHTS_FILE};
use modernbert::lock::LOCK_FILE;

/// The list of folders of token shards, which `run.json` lists with its hash.
pub(super) const FOLDERS_FILE: &str = "shards/folders.json";

/// Files of a model that `run.json` lists with their hashes.
pub(super) const MODEL_FILES: [&str; 4] = [
    CONFIG_FILE,
    WEIGHTS_FILE,
    "tokenizer.json",
    "tokenizer_config.json",
];

/// The files and folders of a run, in an order in which they can be removed.
#[derive(Debug, Default)]
pub(super) struct Contents {
    files: Vec<PathBuf>,
    folders: Vec<PathBuf>,
}

impl Contents {
    /// Lists the files and folders that the run wrote.
    ///
    /// # Errors
    /// The first entry that no run of this program wrote, or that was changed since; a folder that can't be read.
    pub(super) fn of(root: &Path) -> Result<Self, RunDirError> {
        let mut contents = Self::default();
        let entries = entries(root)?;
        if entries.iter().all(|(path, _)| is(path, LOCK_FILE)) {
            return Ok(contents);
        }
        let foreign = |path: &Path, reason: &str| RunDirError::foreign(root, path, reason);
        let info = match symlink_metadata(root.join(INFO_FILE)) {
            Ok(data) if data.is_file() => RunInfo::read(root)?,
            _ => None,
        };
        let Some(info) = info.filter(RunInfo::is_ours) else {
            let other = entries.iter().find(|(path, _)| !is(path, LOCK_FILE));
            let path = other.map_or(root, |(path, _)| path.as_path());
            return Err(foreign(path, "the folder holds no run"));
        };
        for (path, data) in &entries {
            let name = path.file_name().and_then(OsStr::to_str).unwrap_or_default();
            if data.is_dir() {
                match name {
                    SHARDS => contents.shards(root, path, &info)?,
                    CHECKPOINTS => contents.checkpoints(root, path)?,
                    _ => return Err(foreign(path, "no run makes such a folder")),
                }
                continue;
            }
            if !data.is_file() {
                return Err(foreign(path, "a run makes files and folders alone"));
            }
            let changed = || foreign(path, "it was changed since the run wrote it");
            match name {
                LOCK_FILE => continue,
                INFO_FILE => {}
                HISTORY_FILE => {
                    let history = read(root, name)?.unwrap_or_default();
                    if !is_rows(&history, "event") {
                        return Err(changed());
                    }
                }
                METRICS_FILE | POSITIONS_FILE => {
                    check_logs(root, info.logs.as_ref()).map_err(|error| match error {
                        RunDirError::NotWritten(path) => {
                            foreign(&path, "it was changed since the run wrote it")
                        }
                        other => other,
                    })?;
                }
                RECIPE_FILE => {
                    let text = modernbert::read::text(path).unwrap_or_default();
                    if sha256_of(&text) != info.recipe_sha256 {
                        return Err(changed());
                    }
                }
                PICTURE_FILE => {
                    if !modernbert_cli::plot::is_own_picture(path) {
                        return Err(changed());
                    }
                }
                // A run that was killed while it prepared its data has listed nothing yet.
                "tokenizer.json" | "tokenizer_config.json" if info.files.is_empty() => {}
                name if MODEL_FILES.contains(&name) => {
                    if !info.wrote(name, &hash_file(path)?) {
                        return Err(changed());
                    }
                }
                name if is_unfinished(name) => {}
                _ => return Err(foreign(path, "no run makes such a file")),
            }
            contents.files.push(path.clone());
        }
        // Last, so that an interrupted removal still leaves a run.
        contents.files.sort_by_key(|path| is(path, INFO_FILE));
        Ok(contents)
    }

    fn shards(&mut self, root: &Path, folder: &Path, info: &RunInfo) -> Result<(), RunDirError> {
        for (path, data) in entries(folder)? {
            let name = path.strip_prefix(root).unwrap_or(&path);
            let ours = match info.shards.get(&name.display().to_string()) {
                Some(hash) => Shard::open(&path).is_ok_and(|shard| hex(&shard.sha256()) == *hash),
                None if name == Path::new(FOLDERS_FILE) => {
                    // Not listed by earlier versions, nor before the data is ready.
                    let listed = info.files.contains_key(FOLDERS_FILE);
                    !listed || data.is_file() && info.wrote(FOLDERS_FILE, &hash_file(&path)?)
                }
                None => is_partial(&path) || info.shards.is_empty() && Shard::open(&path).is_ok(),
            };
            if !ours || !data.is_file() {
                return Err(RunDirError::foreign(
                    root,
                    &path,
                    "it is no shard of the run",
                ));
            }
            self.files.push(path);
        }
        self.folders.push(folder.to_path_buf());
        Ok(())
    }

    fn checkpoints(&mut self, root: &Path, folder: &Path) -> Result<(), RunDirError> {
        for (path, data) in entries(folder)? {
            let name = path.file_name().and_then(OsStr::to_str).unwrap_or_default();
            let known = [PREFIX, ASIDE, TEMPORARY, REPLACED];
            if !data.is_dir() || !known.iter().any(|prefix| name.starts_with(prefix)) {
                return Err(RunDirError::foreign(root, &path, "it is no checkpoint"));
            }
            let parts = CheckpointFiles::of(&path).map_err(|error| match error {
                SnapshotError::Foreign { path, reason } => {
                    RunDirError::foreign(root, &path, &reason)
                }
                other => other.into(),
            })?;
            self.files.extend(parts.files);
            self.folders.extend(parts.folders);
        }
        self.folders.push(folder.to_path_buf());
        Ok(())
    }

    /// Removes the listed files. A folder that contains other files by now is kept.
    ///
    /// # Errors
    /// A folder that can't be written, before anything is removed; an error of the operating system.
    pub(super) fn remove(&self) -> Result<(), RunDirError> {
        let paths = self.files.iter().chain(&self.folders);
        let parents: BTreeSet<&Path> = paths.filter_map(|path| path.parent()).collect();
        for folder in parents {
            PendingFile::create(&folder.join("x")).map_err(RunDirError::io(folder))?;
        }
        for path in &self.files {
            std::fs::remove_file(path).map_err(RunDirError::io(path))?;
        }
        for path in &self.folders {
            std::fs::remove_dir(path).map_err(RunDirError::io(path))?;
        }
        Ok(())
    }
}

fn is(path: &Path, name: &str) -> bool {
    path.file_name() == Some(OsStr::new(name))
}

fn is_partial(path: &Path) -> bool {
    let name = path.file_name().and_then(OsStr::to_str);
    name.is_some_and(is_unfinished)
}

/// The entries of a folder, links not followed, by name.
fn entries(folder: &Path) -> Result<Vec<(PathBuf, Metadata)>, RunDirError> {
    let read = std::fs::read_dir(folder).map_err(RunDirError::io(folder))?;
    let mut entries = Vec::new();
    for entry in read {
        let path = entry.map_err(RunDirError::io(folder))?.path();
        let data = symlink_metadata(&path).map_err(RunDirError::io(&path))?;
        entries.push((path, data));
    }
    entries.sort_by(|(a, _), (b, _)| a.cmp(b));
    Ok(entries)
}
