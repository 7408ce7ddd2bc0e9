//! Writing a checkpoint so that it appears complete or not at all.

use modernbert::checkpoint::{F32Tensor, WEIGHTS_FILE, save, write_safetensors};
use modernbert::model::MaskedLm;
use std::fs::File;
use std::path::Path;

use super::manifest::Manifest;
use super::{MANIFEST_FILE, OPTIMIZER_FILE, RunState, STATE_FILE, SnapshotError};
use crate::optim::{NamedStableAdamW, StoredTensor};

/// Prefix of checkpoints that are being written; one that is left was cut short by a crash and is removed.
pub(crate) const TEMPORARY: &str = ".writing-";
/// Prefix of a checkpoint while another takes its place.
pub(crate) const REPLACED: &str = ".replaced-";

/// Writes the checkpoint folder `place`, replacing one that is there.
///
/// # Errors
/// What the operating system refuses (a full disk, a protected folder), or a device that can't be read. Nothing is left of the attempt
/// then, and what was there before is untouched.
pub fn write_snapshot(
    place: &Path,
    model: &MaskedLm,
    optimizer: &NamedStableAdamW,
    state: &RunState,
) -> Result<(), SnapshotError> {
    let parent = place.parent().unwrap_or(Path::new("."));
    std::fs::create_dir_all(parent).map_err(SnapshotError::io(parent))?;
    let name = place.file_name().unwrap_or_default().to_string_lossy();
    let temporary = parent.join(format!("{TEMPORARY}{name}"));
    let replaced = parent.join(format!("{REPLACED}{name}"));
    let written = remove(&temporary)
        .and_then(|()| fill(&temporary, model, optimizer, state))
        .and_then(|()| take_place(&temporary, place, &replaced))
        .and_then(|()| synchronise(parent));
    if written.is_err() {
        let _ = std::fs::remove_dir_all(&temporary);
        return written;
    }
    remove(&replaced)
}

/// Puts `temporary` at `place`. What is there moves to `replaced` first: between the two renames there is no folder at `place`, but a
/// complete one at either of the other names, which [`recover`] moves back.
fn take_place(temporary: &Path, place: &Path, replaced: &Path) -> Result<(), SnapshotError> {
    remove(replaced)?;
    match std::fs::rename(place, replaced) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
            return Err(SnapshotError::io(place)(error));
        }
        _ => {}
    }
    std::fs::rename(temporary, place).map_err(SnapshotError::io(place))
}

/// Removes a checkpoint. It loses its name first, so that a crash leaves no half of one.
///
/// # Errors
/// What the operating system refuses.
pub(crate) fn discard(place: &Path) -> Result<(), SnapshotError> {
    let name = place.file_name().unwrap_or_default().to_string_lossy();
    let nameless = place.with_file_name(format!("{TEMPORARY}dropped-{name}"));
    remove(&nameless)?;
    std::fs::rename(place, &nameless).map_err(SnapshotError::io(place))?;
    remove(&nameless)
}

/// Tidies a folder of checkpoints after a crash: what was being written is removed, what was being replaced is put back.
///
/// # Errors
/// What the operating system refuses.
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
                remove(&entry.path())?;
            } else {
                std::fs::rename(entry.path(), &place).map_err(SnapshotError::io(&place))?;
            }
        }
    }
    Ok(())
}

fn remove(folder: &Path) -> Result<(), SnapshotError> {
    match std::fs::remove_dir_all(folder) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
            Err(SnapshotError::io(folder)(error))
        }
        _ => Ok(()),
    }
}

fn fill(
    folder: &Path,
    model: &MaskedLm,
    optimizer: &NamedStableAdamW,
    state: &RunState,
) -> Result<(), SnapshotError> {
    std::fs::create_dir(folder).map_err(SnapshotError::io(folder))?;
    save(model, model.model.config(), folder)?;
    write_tensors(&folder.join(OPTIMIZER_FILE), &optimizer.moments(model)?)?;
    write_json(&folder.join(STATE_FILE), state)?;
    let names = [
        modernbert::checkpoint::CONFIG_FILE,
        WEIGHTS_FILE,
        OPTIMIZER_FILE,
        STATE_FILE,
    ];
    let manifest = Manifest::of(folder, &names)?;
    write_json(&folder.join(MANIFEST_FILE), &manifest)?;
    for name in names.into_iter().chain([MANIFEST_FILE]) {
        synchronise(&folder.join(name))?;
    }
    synchronise(folder)
}

fn write_json(path: &Path, value: &impl serde::Serialize) -> Result<(), SnapshotError> {
    let mut text = serde_json::to_vec_pretty(value)
        .map_err(|error| SnapshotError::io(path)(std::io::Error::other(error)))?;
    text.push(b'\n');
    std::fs::write(path, text).map_err(SnapshotError::io(path))
}

/// Writes tensors as a safetensors file, in f32.
///
/// # Errors
/// What the operating system refuses.
pub fn write_tensors(path: &Path, tensors: &[StoredTensor]) -> Result<(), SnapshotError> {
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
fn synchronise(path: &Path) -> Result<(), SnapshotError> {
    // Windows opens no folders; there, renaming is synchronised by the system itself.
    if cfg!(windows) && path.is_dir() {
        return Ok(());
    }
    File::open(path)
        .and_then(|file| file.sync_all())
        .map_err(SnapshotError::io(path))
}
