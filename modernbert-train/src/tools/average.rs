//! The mean of several checkpoints' weights.

use anyhow::{Context, Result, bail};
use modernbert::checkpoint::{CONFIG_FILE, WEIGHTS_FILE, write_atomically};
use std::path::{Path, PathBuf};

use super::export::copy_tokenizer;
use crate::optim::StoredTensor;
use crate::pretrain::run_of_checkpoint;
use crate::run_dir::list_checkpoints;
use crate::snapshot::{read_state, read_tensors, verify, write_tensors};

/// Writes the uniform mean of the checkpoints' weights as a model folder. The sum is taken in f64 and rounded once: the mean of equal
/// checkpoints is that checkpoint, bit for bit.
///
/// The published base model is the mean of the last checkpoint of its decay phase and of the three best ones (paper, appendix A).
///
/// # Errors
/// No checkpoint, a damaged one, models of different shapes or rotary bases, a folder that can't be written.
pub fn average(checkpoints: &[PathBuf], out: &Path) -> Result<()> {
    let Some((first, others)) = checkpoints.split_first() else {
        bail!("name the checkpoints to average");
    };
    verify(first)?;
    let config = std::fs::read(first.join(CONFIG_FILE))
        .with_context(|| format!("{}: can't be read", first.join(CONFIG_FILE).display()))?;
    let mut tensors = read_tensors(&first.join(WEIGHTS_FILE))?;
    let mut sums: Vec<Vec<f64>> = tensors
        .iter()
        .map(|tensor| tensor.values.iter().map(|&x| f64::from(x)).collect())
        .collect();
    for other in others {
        verify(other)?;
        if std::fs::read(other.join(CONFIG_FILE)).ok().as_ref() != Some(&config) {
            bail!(
                "{}: its {CONFIG_FILE} differs from that of {}; average checkpoints of one phase of one run",
                other.display(),
                first.display()
            );
        }
        let found = read_tensors(&other.join(WEIGHTS_FILE))?;
        let same = |(a, b): (&StoredTensor, &StoredTensor)| a.name == b.name && a.shape == b.shape;
        if found.len() != tensors.len() || !found.iter().zip(&tensors).all(same) {
            bail!(
                "{}: it has other tensors than {}",
                other.display(),
                first.display()
            );
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
    std::fs::create_dir_all(out)
        .with_context(|| format!("{}: can't be made; give --out another one", out.display()))?;
    copy_tokenizer(&run_of_checkpoint(first)?, out)?;
    let written = write_atomically(&out.join(CONFIG_FILE), &config);
    written.with_context(|| format!("{}: can't be written", out.display()))?;
    let temporary = out.join(format!(".{WEIGHTS_FILE}.{}", std::process::id()));
    let placed = write_tensors(&temporary, &tensors)
        .map_err(anyhow::Error::from)
        .and_then(|()| Ok(std::fs::rename(&temporary, out.join(WEIGHTS_FILE))?));
    if placed.is_err() {
        let _ = std::fs::remove_file(&temporary);
    }
    placed.with_context(|| format!("{}: can't be written", out.join(WEIGHTS_FILE).display()))
}

/// The `best` checkpoints of a run by held-out loss, and its newest one if `with_last`; each with its step and loss. Checkpoints that
/// were not evaluated when they were saved can't be among the best.
///
/// # Errors
/// Fewer evaluated checkpoints than asked for.
pub fn best_checkpoints(
    run: &Path,
    best: usize,
    with_last: bool,
) -> Result<Vec<(PathBuf, u64, Option<f64>)>> {
    let found = list_checkpoints(run)?;
    let mut all = Vec::with_capacity(found.len());
    for one in found {
        let loss = read_state(&one.path)?.own_eval_loss();
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
    ranked.sort_by(|a, b| a.2.unwrap_or(f64::NAN).total_cmp(&b.2.unwrap_or(f64::NAN)));
    if ranked.len() < best {
        bail!(
            "{}: {} of its checkpoints were evaluated when they were saved{}, {best} are wanted; train with checkpoint.keep_best and \
             checkpoint.every_steps, or name the checkpoints",
            run.display(),
            ranked.len(),
            if with_last {
                " beside the last one"
            } else {
                ""
            },
        );
    }
    ranked.truncate(best);
    ranked.extend(last);
    Ok(ranked)
}
