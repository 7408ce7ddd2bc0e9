//! A checkpoint as a model folder.

use modernbert::atomic::copy_atomically;
use modernbert::checkpoint::{CONFIG_FILE, WEIGHTS_FILE};
use modernbert::output::{OutputCheck, OutputError, StagedFolder};
use std::path::{Path, PathBuf};

use super::ToolError;
use super::card::write_card;
use crate::run_dir::run_of_checkpoint;
use crate::snapshot::{Manifest, verify};

const TOKENIZER_FILES: [&str; 2] = ["tokenizer.json", "tokenizer_config.json"];

/// Copies weights, config and tokenizer of a checkpoint into the new folder `out`, which Hugging Face's libraries then read, and writes the
/// model card beside them.
///
/// # Errors
/// A damaged checkpoint, or one outside of a run; a folder that is not empty or can't be written.
pub fn export(checkpoint: &Path, out: &Path) -> Result<(), ToolError> {
    let run = check_model_folder(out, &[checkpoint.to_path_buf()])?;
    verify(checkpoint)?;
    let staged = StagedFolder::create(out)?;
    copy_tokenizer(&run, staged.path())?;
    for name in [CONFIG_FILE, WEIGHTS_FILE] {
        copy(&checkpoint.join(name), &staged.path().join(name))?;
    }
    write_card(checkpoint, &run, 1, staged.path(), out)?;
    Ok(staged.publish(WEIGHTS_FILE)?)
}

/// Checks that a model can be written to `out`: new, outside the checkpoints and their runs, with enough disk space for the weights. Returns
/// the run of the first checkpoint.
pub(super) fn check_model_folder(
    out: &Path,
    checkpoints: &[PathBuf],
) -> Result<PathBuf, ToolError> {
    let Some(first) = checkpoints.first() else {
        return Err(ToolError::NoCheckpoints);
    };
    let manifest = Manifest::read(first)?;
    let weights = manifest.files.get(WEIGHTS_FILE);
    let mut inputs = checkpoints.to_vec();
    for checkpoint in checkpoints {
        inputs.extend(run_of_checkpoint(checkpoint));
    }
    OutputCheck::folder(out)
        .inputs(inputs)
        .needs(weights.map_or(0, |weights| weights.bytes))
        .check()?;
    Ok(run_of_checkpoint(first)?)
}

/// Copies the tokenizer of a run's folder.
pub(super) fn copy_tokenizer(run: &Path, out: &Path) -> Result<(), ToolError> {
    for name in TOKENIZER_FILES {
        copy(&run.join(name), &out.join(name))?;
    }
    Ok(())
}

fn copy(from: &Path, to: &Path) -> Result<(), ToolError> {
    if let Err(error) = std::fs::File::open(from) {
        return Err(ToolError::read(from)(error));
    }
    Ok(copy_atomically(from, to).map_err(OutputError::write(to))?)
}
