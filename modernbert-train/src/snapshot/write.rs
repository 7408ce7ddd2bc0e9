//! Writing a checkpoint so that it appears complete or not at all.

use modernbert::checkpoint::{F32Tensor, WEIGHTS_FILE, save, write_safetensors};
use modernbert::config::ModernBertConfig;
use modernbert::model::Architecture;
use modernbert::model::MaskedLm;
use serde::Serialize;
use std::fs::File;
use std::path::{Path, PathBuf};

use super::manifest::CheckpointManifest;
use super::written_files::CheckpointFiles;
use super::{MANIFEST_FILE, OPTIMIZER_FILE, RunState, STATE_FILE, SnapshotError};
use crate::optim::{NamedOptimizer, StoredTensor};

/// Prefix of checkpoints that are being written; one that remains after a crash is incomplete and is removed.
pub(crate) const TEMPORARY: &str = ".writing-";
/// Prefix of a checkpoint while another one replaces it.
pub(crate) const REPLACED: &str = ".replaced-";

/// Prefix of checkpoints that were renamed: newer than the one that a resume began from, or replaced while they contained a file of the user.
pub(crate) const ASIDE: &str = "aside-";

/// A free name with that prefix for the folder `name`.
pub(crate) fn aside(parent: &Path, name: &str) -> PathBuf {
    let places = (0..u64::MAX).map(|n| parent.join(format!("{ASIDE}{n}-{name}")));
    let mut free = places.filter(|place| std::fs::symlink_metadata(place).is_err());
    free.next().unwrap_or_else(|| parent.join(name))
}

/// The content of a checkpoint.
pub(crate) struct Content<'a, M, S> {
    /// The model.
    pub(crate) model: &'a M,
    /// Its config.
    pub(crate) config: &'a ModernBertConfig,
    /// The optimizer with the moments of the model's parameters.
    pub(crate) optimizer: &'a NamedOptimizer,
    /// Position, counts and sums, as JSON.
    pub(crate) state: &'a S,
}

/// Writes the checkpoint folder `place` of a pretraining run, replacing an existing one. Returns a warning as [`write_checkpoint`] does.
///
/// # Errors
/// As [`write_checkpoint`].
pub(crate) fn write_snapshot(
    place: &Path,
    model: &MaskedLm,
    optimizer: &NamedOptimizer,
    state: &RunState,
) -> Result<Option<String>, SnapshotError> {
    let content = Content {
        model,
        config: model.model.config(),
        optimizer,
        state,
    };
    write_checkpoint(place, &content, |_| Ok(Vec::new()))
}

/// Writes the checkpoint folder `place`, replacing an existing one. `more` writes further files into the folder it is given and returns
/// their names relative to that folder. An existing one that holds anything else is renamed, and a warning returned.
///
/// # Errors
/// An error of the operating system (a full disk, a write-protected folder), a device that can't be read. The incomplete folder is removed
/// then, and an existing checkpoint is not changed.
pub(crate) fn write_checkpoint<M: Architecture, S: Serialize>(
    place: &Path,
    content: &Content<'_, M, S>,
    more: impl FnOnce(&Path) -> Result<Vec<String>, SnapshotError>,
) -> Result<Option<String>, SnapshotError> {
    let parent = place.parent().unwrap_or(Path::new("."));
    std::fs::create_dir_all(parent).map_err(SnapshotError::io(parent))?;
    let name = place.file_name().unwrap_or_default().to_string_lossy();
    let temporary = parent.join(format!("{TEMPORARY}{name}"));
    let replaced = parent.join(format!("{REPLACED}{name}"));
    remove(&temporary)?;
    set_aside(&replaced, &name)?;
    let written = fill(&temporary, content, more)
        .and_then(|()| replace_folder(&temporary, place, &replaced))
        .and_then(|()| synchronize(parent));
    if let Err(error) = written {
        let _ = remove(&temporary);
        return Err(error);
    }
    set_aside(&replaced, &name)
}

/// Removes a checkpoint that was replaced. One that holds anything else is renamed, and a warning returned.
fn set_aside(replaced: &Path, name: &str) -> Result<Option<String>, SnapshotError> {
    match remove(replaced) {
        Err(SnapshotError::Foreign { path, reason }) => {
            let place = aside(replaced.parent().unwrap_or(Path::new(".")), name);
            std::fs::rename(replaced, &place).map_err(SnapshotError::io(&place))?;
            let file = path.strip_prefix(replaced).unwrap_or(&path);
            Ok(Some(format!(
                "{}: kept where {name} was written again, for {}: {reason}",
                place.display(),
                file.display()
            )))
        }
        other => other.map(|()| None),
    }
}

/// Renames `temporary` to `place`. An existing folder is renamed to `replaced` first: between the two renames there is no folder at `place`,
/// but complete ones under the other two names, which [`recover`] renames back.
fn replace_folder(temporary: &Path, place: &Path, replaced: &Path) -> Result<(), SnapshotError> {
    match std::fs::rename(place, replaced) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
            return Err(SnapshotError::io(place)(error));
        }
        _ => {}
    }
    std::fs::rename(temporary, place).map_err(SnapshotError::io(place))
}

/// Removes a checkpoint whose files are all as its manifest lists them; it is renamed first, so that a crash leaves no incomplete checkpoint. Any
/// other folder is kept as it is, and a warning returned.
///
/// # Errors
/// An error of the operating system.
pub(crate) fn discard(place: &Path) -> Result<Option<String>, SnapshotError> {
    if let Err(error) = CheckpointFiles::of(place) {
        return match error {
            SnapshotError::Foreign { path, reason } => Ok(Some(format!(
                "{}: kept, for {}: {reason}",
                place.display(),
                path.strip_prefix(place)
                    .ok()
                    .filter(|inside| !inside.as_os_str().is_empty())
                    .unwrap_or(place)
                    .display()
            ))),
            other => Err(other),
        };
    }
    let name = place.file_name().unwrap_or_default().to_string_lossy();
    let nameless = place.with_file_name(format!("{TEMPORARY}dropped-{name}"));
    remove(&nameless)?;
    std::fs::rename(place, &nameless).map_err(SnapshotError::io(place))?;
    remove(&nameless).map(|()| None)
}

/// Recovers a folder of checkpoints after a crash: incomplete ones are removed, one that was being replaced is restored.
///
/// # Errors
/// A file of the user in an incomplete checkpoint; an error of the operating system.
pub(crate) fn recover(parent: &Path) -> Result<(), SnapshotError> {
    let entries = match std::fs::read_dir(parent) {
        Ok(entries) => entries,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(()),
        Err(error) => return Err(SnapshotError::io(parent)(error)),
    };
    for entry in entries {
        let entry = entry.map_err(SnapshotError::io(parent))?;
        let name = entry.file_name().to_string_lossy().into_owned();
        if name.starts_with(TEMPORARY) {
            remove(&entry.path())?;
        } else if let Some(original) = name.strip_prefix(REPLACED) {
            let place = parent.join(original);
            if place.exists() {
                set_aside(&entry.path(), original)?;
            } else {
                std::fs::rename(entry.path(), &place).map_err(SnapshotError::io(&place))?;
            }
        }
    }
    Ok(())
}

/// Removes the folder of a checkpoint, if there is one.
///
/// # Errors
/// Anything in it that the program did not write.
fn remove(folder: &Path) -> Result<(), SnapshotError> {
    match std::fs::symlink_metadata(folder) {
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(()),
        _ => CheckpointFiles::of(folder)?.remove(),
    }
}

fn fill<M: Architecture, S: Serialize>(
    folder: &Path,
    content: &Content<'_, M, S>,
    more: impl FnOnce(&Path) -> Result<Vec<String>, SnapshotError>,
) -> Result<(), SnapshotError> {
    std::fs::create_dir(folder).map_err(SnapshotError::io(folder))?;
    save(content.model, content.config, folder)?;
    let moments = content.optimizer.moments(content.model)?;
    write_tensors(&folder.join(OPTIMIZER_FILE), &moments)?;
    write_json(&folder.join(STATE_FILE), content.state)?;
    let mut names: Vec<String> = [
        modernbert::checkpoint::CONFIG_FILE,
        WEIGHTS_FILE,
        OPTIMIZER_FILE,
        STATE_FILE,
    ]
    .map(str::to_string)
    .to_vec();
    names.extend(more(folder)?);
    let manifest = CheckpointManifest::of(folder, &names)?;
    write_json(&folder.join(MANIFEST_FILE), &manifest)?;
    for name in names.iter().map(String::as_str).chain([MANIFEST_FILE]) {
        synchronize(&folder.join(name))?;
    }
    synchronize(folder)
}

fn write_json(path: &Path, value: &impl Serialize) -> Result<(), SnapshotError> {
    let mut text = serde_json::to_vec_pretty(value)
        .map_err(|error| SnapshotError::io(path)(std::io::Error::other(error)))?;
    text.push(b'\n');
    std::fs::write(path, text).map_err(SnapshotError::io(path))
}

/// Writes tensors as a safetensors file, in f32.
///
/// # Errors
/// An error of the operating system.
pub(crate) fn write_tensors(path: &Path, tensors: &[StoredTensor]) -> Result<(), SnapshotError> {
    let bytes: Vec<Vec<u8>> = tensors
        .iter()
        .map(|tensor| tensor.values.iter().flat_map(|x| x.to_le_bytes()).collect())
        .collect();
    let views: Vec<F32Tensor<'_>> = tensors
        .iter()
        .zip(&bytes)
        .map(|(tensor, bytes)| F32Tensor {
            name: &tensor.name,
            shape: &tensor.shape,
            bytes,
        })
        .collect();
    write_safetensors(path, &views).map_err(SnapshotError::from)
}

/// Waits until a file or folder is on the disk.
pub(crate) fn synchronize(path: &Path) -> Result<(), SnapshotError> {
    // Windows opens no folders; there, renaming is synchronized by the system itself.
    if cfg!(windows) && path.is_dir() {
        return Ok(());
    }
    File::open(path)
        .and_then(|file| file.sync_all())
        .map_err(SnapshotError::io(path))
}
