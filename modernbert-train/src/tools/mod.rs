//! Tools for runs and checkpoints: compare, average, export, describe, draw.

mod average;
mod card;
mod curves;
mod diff;
mod error;
mod export;
mod inspect;
mod inspect_data;
mod scaling;
#[cfg(test)]
mod tests;

pub use average::{average, best_checkpoints};
pub use curves::{Against, Drawn, Quantity, plot_runs};
pub use diff::{Difference, diff};
pub use error::ToolError;
pub use export::{export, export_model_int8};
pub use inspect::{inspect, lines};
pub use scaling::{Cluster, Link, StepPrediction, predict};

use std::path::{Path, PathBuf};

use crate::run_dir::{RECIPE_FILE, list_checkpoints};
use crate::snapshot::MANIFEST_FILE;

/// A checkpoint by its own folder, or by that of its run: then the newest.
///
/// # Errors
/// A folder that is neither.
pub fn checkpoint_at(path: &Path) -> Result<PathBuf, ToolError> {
    if path.join(MANIFEST_FILE).is_file() {
        return Ok(path.to_path_buf());
    }
    if !path.is_dir() {
        return Err(ToolError::NoFolder(path.to_path_buf()));
    }
    match list_checkpoints(path)?.pop() {
        Some(newest) => Ok(newest.path),
        None if path.join(RECIPE_FILE).is_file() => {
            Err(ToolError::NoCheckpointYet(path.to_path_buf()))
        }
        None => Err(ToolError::NeitherRunNorCheckpoint(path.to_path_buf())),
    }
}
