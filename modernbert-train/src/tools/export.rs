//! A checkpoint as a model folder.

use modernbert::atomic::{copy_atomically, write_atomically};
use modernbert::card::ModelCard;
use modernbert::checkpoint::{
    CONFIG_FILE, TensorFiles, WEIGHTS_FILE, int8_config, open_checked, write_int8,
};
use modernbert::config::Family;
use modernbert::output::{OutputCheck, OutputError, StagedFolder};
use modernbert::sentences::{self, SentenceSettings};
use modernbert::tokenizer;
use std::path::{Path, PathBuf};

use super::ToolError;
use super::card::write_card;
use crate::optim::StoredTensor;
use crate::run_dir::{recipe_of_run, run_of_checkpoint};
use crate::snapshot::{
    CheckpointManifest, OPTIMIZER_FILE, RunState, SnapshotError, read_state, read_tensors, verify,
    write_tensors,
};

/// Copies weights, config and tokenizer of a checkpoint into the new folder `out`, which Hugging Face's libraries then read, and writes the
/// model card beside them. The weights are the averages where the run evaluates these (`ema.evaluate`). With `int8`, the matrices of the layers are
/// stored in int8 ([`write_int8`]).
///
/// # Errors
/// A damaged checkpoint, or one outside of a run; a folder that is not empty or can't be written.
pub fn export(checkpoint: &Path, out: &Path, int8: bool) -> Result<(), ToolError> {
    let run = check_model_folder(out, "OUT", &[checkpoint.to_path_buf()])?;
    verify(checkpoint)?;
    let staged = StagedFolder::create(out)?;
    copy_tokenizer(&run, staged.path())?;
    copy(
        &checkpoint.join(CONFIG_FILE),
        &staged.path().join(CONFIG_FILE),
    )?;
    let weights = staged.path().join(WEIGHTS_FILE);
    if evaluates_average(checkpoint, &run) {
        write_tensors(&weights, &evaluated_weights(checkpoint, &run)?)?;
    } else {
        copy(&checkpoint.join(WEIGHTS_FILE), &weights)?;
    }
    if int8 {
        let files = TensorFiles::open(&weights)?;
        write_int8(&files, &weights)?;
        describe_int8(&staged.path().join(CONFIG_FILE))?;
    }
    write_card(checkpoint, &run, 1, staged.path(), out)?;
    Ok(staged.commit(WEIGHTS_FILE)?)
}

/// Writes the model in the folder `model` to the new folder `out`, the matrices of its layers in int8 ([`write_int8`]), with its tokenizer, its files of
/// sentence-transformers and a model card. Returns the number of matrices.
///
/// # Errors
/// A folder without a model, weights that are in int8 already or not finite; a folder that is not empty or can't be written.
pub fn export_model_int8(model: &Path, out: &Path) -> Result<usize, ToolError> {
    let (config, files) = open_checked(model)?;
    if config.family != Family::ModernBert {
        return Err(ToolError::Int8Family {
            model: model.to_path_buf(),
            model_type: config.family.model_type(),
        });
    }
    OutputCheck::folder(out)
        .of_argument("OUT")
        .inputs([model.to_path_buf()])
        .needs(config.encoder_parameters())
        .check()?;
    let staged = StagedFolder::create(out)?;
    for name in tokenizer::FILES {
        copy(&model.join(name), &staged.path().join(name))?;
    }
    let of_modules = SentenceSettings::files_of_modules(model)?;
    let optional = OPTIONAL_FILES.iter().map(PathBuf::from);
    for name in optional.chain(of_modules) {
        let (from, to) = (model.join(&name), staged.path().join(&name));
        if from.is_file() && !to.exists() {
            if let Some(parent) = to.parent() {
                std::fs::create_dir_all(parent).map_err(OutputError::write(parent))?;
            }
            copy(&from, &to)?;
        }
    }
    let config_path = staged.path().join(CONFIG_FILE);
    copy(&model.join(CONFIG_FILE), &config_path)?;
    describe_int8(&config_path)?;
    let count = write_int8(&files, &staged.path().join(WEIGHTS_FILE))?;
    let name = model.file_name().unwrap_or(model.as_os_str());
    let card = ModelCard {
        training: format!(
            "The model `{}` with the matrices of its layers in int8, one scale per output.",
            name.to_string_lossy()
        ),
        ..ModelCard::named_after(out)
    };
    card.write(&config, staged.path())
        .map_err(OutputError::write(out))?;
    staged.commit(WEIGHTS_FILE)?;
    Ok(count)
}

/// Files of a model folder that not every folder has: roles of special tokens, sentence embeddings, the projection of a multi-vector model.
const OPTIONAL_FILES: [&str; 8] = [
    "special_tokens_map.json",
    "added_tokens.json",
    sentences::LENGTH_FILE,
    sentences::PROMPTS_FILE,
    sentences::POOLING_FILE,
    "1_Dense/config.json",
    "1_Dense/model.safetensors",
    sentences::MODULES_FILE,
];

/// Adds the description of int8 weights to a config file.
fn describe_int8(path: &Path) -> Result<(), ToolError> {
    let text = std::fs::read_to_string(path).map_err(ToolError::read(path))?;
    // The config was read before; what is no object can't get here.
    let text = int8_config(&text).unwrap_or(text);
    Ok(write_atomically(path, text.as_bytes()).map_err(OutputError::write(path))?)
}

/// Returns true if the held-out losses of the checkpoint, which is one of `run`, are those of the averaged weights.
pub(super) fn evaluates_average(checkpoint: &Path, run: &Path) -> bool {
    let phase = || {
        let state: RunState = read_state(checkpoint).ok()?;
        recipe_of_run(run)
            .ok()?
            .phases()
            .ok()?
            .into_iter()
            .nth(state.phase)
    };
    let settings = phase().and_then(|phase| phase.recipe.average());
    settings.is_some_and(|settings| settings.evaluate)
}

/// The weights of a checkpoint of `run` whose held-out loss is in the log: its averages where the run evaluates these.
pub(super) fn evaluated_weights(
    checkpoint: &Path,
    run: &Path,
) -> Result<Vec<StoredTensor>, ToolError> {
    let mut weights = read_tensors(&checkpoint.join(WEIGHTS_FILE))?;
    if !evaluates_average(checkpoint, run) {
        return Ok(weights);
    }
    let path = checkpoint.join(OPTIMIZER_FILE);
    let files = TensorFiles::open(&path).map_err(SnapshotError::from)?;
    for weight in &mut weights {
        let name = format!("{}.average", weight.name);
        let found = files.read(&name).map_err(SnapshotError::from)?;
        match found {
            Some((shape, values)) if shape == weight.shape => weight.values = values,
            _ => return Err(ToolError::NoAverage { path, name }),
        }
    }
    Ok(weights)
}

/// Checks that a model can be written to `out`: new, outside the checkpoints and their runs, with enough disk space for the weights. Returns
/// the run of the first checkpoint.
pub(super) fn check_model_folder(
    out: &Path,
    argument: &'static str,
    checkpoints: &[PathBuf],
) -> Result<PathBuf, ToolError> {
    let Some(first) = checkpoints.first() else {
        return Err(ToolError::NoCheckpoints);
    };
    let manifest = CheckpointManifest::read(first)?;
    let weights = manifest.files.get(WEIGHTS_FILE);
    let mut inputs = checkpoints.to_vec();
    for checkpoint in checkpoints {
        inputs.extend(run_of_checkpoint(checkpoint));
    }
    OutputCheck::folder(out)
        .of_argument(argument)
        .inputs(inputs)
        .needs(weights.map_or(0, |weights| weights.bytes))
        .check()?;
    Ok(run_of_checkpoint(first)?)
}

/// Copies the tokenizer of a run's folder.
pub(super) fn copy_tokenizer(run: &Path, out: &Path) -> Result<(), ToolError> {
    for name in tokenizer::FILES {
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
