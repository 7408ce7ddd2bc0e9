//! Putting a finished model into the folder of a run.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

use modernbert::checkpoint::WEIGHTS_FILE;

use super::{CHECKPOINTS, RunDirError};
use crate::snapshot::{
    CheckpointFiles, FileHash, STAGED_MODEL, SnapshotError, hash_file, synchronize,
};

/// Writes a model with `fill` into a temporary folder, then renames its files into the folder of the run, the weights last: a process that
/// is killed leaves the weights complete or not at all. `note` receives lengths and hashes of the files, by their names in the folder, before
/// the first is renamed; it refuses what must not be replaced.
///
/// # Errors
/// Those of `fill` and `note`; an error of the operating system.
pub(crate) fn put_model<E: From<RunDirError>>(
    root: &Path,
    fill: impl FnOnce(&Path) -> Result<(), E>,
    note: impl FnOnce(&BTreeMap<String, FileHash>) -> Result<(), E>,
) -> Result<(), E> {
    let parent = root.join(CHECKPOINTS);
    let staged = parent.join(STAGED_MODEL);
    let failed = |path: &Path| RunDirError::io(path.to_path_buf());
    if staged.exists() {
        remove(&staged)?;
    }
    fs::create_dir_all(&staged).map_err(failed(&staged))?;
    let put = || -> Result<(), E> {
        fill(&staged)?;
        let mut names = names(&staged).map_err(failed(&staged))?;
        names.sort_by_key(|name| (name.as_path() == Path::new(WEIGHTS_FILE), name.clone()));
        let mut hashes = BTreeMap::new();
        for name in &names {
            let path = staged.join(name);
            synchronize(&path).map_err(RunDirError::from)?;
            let hash = hash_file(&path).map_err(RunDirError::from)?;
            hashes.insert(name.to_string_lossy().replace('\\', "/"), hash);
        }
        note(&hashes)?;
        for name in &names {
            let to = root.join(name);
            if let Some(folder) = to.parent() {
                fs::create_dir_all(folder).map_err(failed(folder))?;
            }
            fs::rename(staged.join(name), &to).map_err(failed(&to))?;
        }
        Ok(synchronize(root).map_err(RunDirError::from)?)
    };
    let result = put();
    let removed = remove(&staged);
    // Fails where there are checkpoints.
    let _ = fs::remove_dir(&parent);
    result?;
    Ok(removed?)
}

fn remove(staged: &Path) -> Result<(), RunDirError> {
    Ok(CheckpointFiles::of(staged).and_then(CheckpointFiles::remove)?)
}

/// The files in a folder and the folders in it, relative to it.
fn names(folder: &Path) -> std::io::Result<Vec<PathBuf>> {
    let (mut names, mut pending) = (Vec::new(), vec![PathBuf::new()]);
    while let Some(inside) = pending.pop() {
        for entry in fs::read_dir(folder.join(&inside))? {
            let entry = entry?;
            let name = inside.join(entry.file_name());
            match entry.file_type()?.is_dir() {
                true => pending.push(name),
                false => names.push(name),
            }
        }
    }
    Ok(names)
}

/// Refuses files at the paths of `hashes` that `is_own` does not accept by name and hash.
///
/// # Errors
/// The first such file; one that can't be read.
pub(crate) fn check_places<'a>(
    root: &Path,
    names: impl Iterator<Item = &'a String>,
    is_own: impl Fn(&str, &FileHash) -> bool,
) -> Result<(), RunDirError> {
    for name in names {
        let path = root.join(name);
        let data = match fs::symlink_metadata(&path) {
            Ok(data) => data,
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => continue,
            Err(error) => return Err(RunDirError::io(&path)(error)),
        };
        let hash = match data.is_file() {
            true => {
                Some(hash_file(&path).map_err(|error: SnapshotError| RunDirError::from(error))?)
            }
            false => None,
        };
        if !hash.is_some_and(|hash| is_own(name, &hash)) {
            return Err(RunDirError::NotWritten(path));
        }
    }
    Ok(())
}
