//! What one does with runs and checkpoints beside training: compare, average, export, describe, draw.

mod average;
mod curves;
mod diff;
mod export;
mod inspect;
mod inspect_data;
#[cfg(test)]
mod tests;

pub use average::{average, best_checkpoints};
pub use curves::{Against, Quantity, plot_runs};
pub use diff::{Difference, diff};
pub use export::export;
pub use inspect::{inspect, lines};

use anyhow::{Context, Result, bail};
use std::path::{Path, PathBuf};

use crate::run_dir::{RECIPE_FILE, list_checkpoints};
use crate::snapshot::MANIFEST_FILE;

/// A checkpoint by its own folder, or by that of its run: then the newest.
///
/// # Errors
/// A folder that is neither.
pub fn checkpoint_at(path: &Path) -> Result<PathBuf> {
    if path.join(MANIFEST_FILE).is_file() {
        return Ok(path.to_path_buf());
    }
    if !path.is_dir() {
        bail!("{}: there is no such folder", path.display());
    }
    let found = list_checkpoints(path)?;
    let newest = found.last().map(|one| one.path.clone());
    newest.with_context(|| {
        let what = if path.join(RECIPE_FILE).is_file() {
            "this run has no checkpoint yet"
        } else {
            "this is neither a run nor a checkpoint (a folder such as RUN/checkpoints/step-00000100)"
        };
        format!("{}: {what}", path.display())
    })
}
