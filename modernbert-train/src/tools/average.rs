//! The mean of several checkpoints' weights.

use modernbert::atomic::write_atomically;
use modernbert::checkpoint::{CONFIG_FILE, WEIGHTS_FILE};
use modernbert::output::{OutputError, StagedFolder, named_twice};
use modernbert::tokenizer;
use serde_json::Value;
use std::path::{Path, PathBuf};

use super::ToolError;
use super::card::write_card;
use super::export::{check_model_folder, copy_tokenizer, evaluated_weights};
use crate::optim::StoredTensor;
use crate::run_dir::{list_checkpoints, run_of_checkpoint};
use crate::snapshot::{SnapshotError, read_state, verify, write_tensors};

/// A checkpoint with its step and held-out loss.
type Rated = (PathBuf, u64, Option<f64>);

/// Writes the uniform mean of the checkpoints' weights as a model folder. The sum is taken in f64 and rounded once: the mean of
/// checkpoints with equal weights has these weights, bit for bit. Of a run that evaluates averaged weights (`ema.evaluate`) the averages are taken.
///
/// The published base model is the mean of the last checkpoint of its decay phase and of the three best ones (paper, appendix A).
///
/// # Errors
/// No checkpoint, one named twice, a damaged one, models of different shapes, rotary bases or tokenizers, a folder that is not empty or can't be written.
pub fn average(checkpoints: &[PathBuf], out: &Path) -> Result<(), ToolError> {
    let Some((first, others)) = checkpoints.split_first() else {
        return Err(ToolError::NoCheckpoints);
    };
    let run = check_model_folder(out, "--out", checkpoints)?;
    if let Some(path) = named_twice(checkpoints) {
        return Err(ToolError::Twice(path.to_path_buf()));
    }
    verify(first)?;
    let config_path = first.join(CONFIG_FILE);
    let config = modernbert::read::bytes(&config_path).map_err(ToolError::read(&config_path))?;
    let tokenizer = tokenizer_of(&run)?;
    let mut tensors = evaluated_weights(first, &run)?;
    let mut sums: Vec<Vec<f64>> = tensors
        .iter()
        .map(|tensor| tensor.values.iter().map(|&x| f64::from(x)).collect())
        .collect();
    for other in others {
        verify(other)?;
        let differ = |what| ToolError::Differ {
            other: other.clone(),
            first: first.clone(),
            what,
        };
        if modernbert::read::bytes(&other.join(CONFIG_FILE))
            .ok()
            .as_ref()
            != Some(&config)
        {
            return Err(differ("sizes or rotary bases (config.json)"));
        }
        let its_run = run_of_checkpoint(other)?;
        // One token's embedding would be averaged with another's.
        if tokenizer_of(&its_run)? != tokenizer {
            return Err(differ("tokens (tokenizer.json of the run)"));
        }
        let found = evaluated_weights(other, &its_run)?;
        let same = |(a, b): (&StoredTensor, &StoredTensor)| a.name == b.name && a.shape == b.shape;
        if found.len() != tensors.len() || !found.iter().zip(&tensors).all(same) {
            return Err(differ("tensors"));
        }
        for (sum, tensor) in sums.iter_mut().zip(&found) {
            for (sum, &x) in sum.iter_mut().zip(&tensor.values) {
                *sum += f64::from(x);
            }
        }
    }
    let count = checkpoints.len() as f64;
    for (tensor, sum) in tensors.iter_mut().zip(sums) {
        tensor.values = sum.iter().map(|&x| (x / count) as f32).collect();
    }
    let staged = StagedFolder::create(out)?;
    copy_tokenizer(&run, staged.path())?;
    let config_path = staged.path().join(CONFIG_FILE);
    write_atomically(&config_path, &config).map_err(OutputError::write(out))?;
    write_tensors(&staged.path().join(WEIGHTS_FILE), &tensors)?;
    write_card(first, &run, checkpoints.len(), staged.path(), out)?;
    Ok(staged.commit(WEIGHTS_FILE)?)
}

/// The tokenizer of a run as its library reads it: two files of one tokenizer can differ in their white space.
fn tokenizer_of(run: &Path) -> Result<Value, ToolError> {
    let path = run.join(tokenizer::FILES[0]);
    let bytes = modernbert::read::bytes(&path).map_err(ToolError::read(&path))?;
    // A damaged file differs from every other one but its copies.
    Ok(serde_json::from_slice(&bytes)
        .unwrap_or_else(|_| Value::from(String::from_utf8_lossy(&bytes).into_owned())))
}

/// The `best` checkpoints of a run's last phase by held-out loss, and its newest one if `with_last`; each with its step and loss. Checkpoints that
/// were not evaluated when they were saved, or whose loss is not finite, are never among the best.
///
/// # Errors
/// Fewer evaluated checkpoints than asked for; a checkpoint with the step of another.
pub fn best_checkpoints(run: &Path, best: usize, with_last: bool) -> Result<Vec<Rated>, ToolError> {
    let found = list_checkpoints(run)?;
    let mut all = Vec::with_capacity(found.len());
    let mut phase = 0;
    for one in found {
        let state: crate::snapshot::RunState = read_state(&one.path)?;
        if state.step != one.step {
            return Err(SnapshotError::Renamed {
                path: one.path,
                step: state.step,
            }
            .into());
        }
        // A non-finite loss is never among the best.
        let loss = state.own_eval_loss().filter(|loss| loss.is_finite());
        // Checkpoints are in the order of their steps, and so are the phases.
        if state.phase != phase {
            all.clear();
            phase = state.phase;
        }
        all.push((one.path, one.step, loss));
    }
    let last = all.last().cloned().filter(|_| with_last);
    let mut ranked: Vec<_> = all
        .into_iter()
        .filter(|(path, _, loss)| {
            let is_last = last.as_ref().is_some_and(|last| last.0 == *path);
            loss.is_some() && !is_last
        })
        .collect();
    let loss = |rated: &Rated| rated.2.unwrap_or(f64::INFINITY);
    ranked.sort_by(|a, b| loss(a).total_cmp(&loss(b)));
    if ranked.len() < best {
        return Err(ToolError::TooFew {
            run: run.to_path_buf(),
            found: ranked.len(),
            wanted: best,
            with_last,
        });
    }
    ranked.truncate(best);
    ranked.extend(last);
    Ok(ranked)
}
