//! The folder of a finetuning that can be resumed: `metrics.jsonl`, `lock`, `checkpoints/step-NNNNNNNN/`.
//!
//! A checkpoint has the files of every [snapshot](crate::snapshot) and, once an evaluation had a score, `best/` with the best weights and
//! `best.safetensors` with their outputs for the dev examples. Its `state.json` is that of the training loop with the run's evaluations
//! and losses.

use burn::tensor::Device;
use modernbert::checkpoint::{TensorFiles, WEIGHTS_FILE, load, save};
use modernbert::config::ModernBertConfig;
use modernbert::lock::FolderLock;
use modernbert::model::Architecture;
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};
use std::path::{Path, PathBuf};
use std::time::Duration;

use super::example::Example;
use super::run::{Evaluation, Score};
use super::task::{Best, History};
use super::{FinetuneError, FinetuneOptions};
use crate::optim::{NamedOptimizer, StoredTensor};
use crate::run_dir::{RunDirError, checkpoint_place, cut_log, list_checkpoints, lock_folder};
use crate::snapshot::{
    Content, RunState, Snapshot, SnapshotError, discard, hex, read_state, read_tensors, recover,
    write_checkpoint, write_tensors,
};

/// Checkpoints that are kept.
const KEPT: usize = 2;
/// Folder of the best weights in a checkpoint.
const BEST: &str = "best";
/// Outputs of the best weights in a checkpoint.
const BEST_OUTPUTS: &str = "best.safetensors";

/// Where and when a finetuning is saved.
#[derive(Clone, Debug, PartialEq)]
pub struct Saving {
    /// The run's folder.
    pub folder: PathBuf,
    /// Steps between checkpoints; `None` saves none by steps, and none at the end of the run unless an earlier one is there.
    pub every_steps: Option<u64>,
    /// Time between checkpoints. An interruption is saved in any case.
    pub every: Duration,
    /// Whether the run goes on from the newest checkpoint in the folder, if there is one.
    pub resume: bool,
    /// What the caller knows beyond data and settings to decide the run, such as the model's name: a checkpoint with another identity is
    /// refused.
    pub identity: String,
}

impl Saving {
    /// A run in `folder`, saved every 15 minutes.
    pub fn new(folder: impl Into<PathBuf>) -> Self {
        Self {
            folder: folder.into(),
            every_steps: None,
            every: Duration::from_secs(15 * 60),
            resume: false,
            identity: String::new(),
        }
    }
}

/// Whether the folder of a finetuning has checkpoints.
///
/// # Errors
/// A folder that can't be read.
pub fn has_checkpoints(folder: &Path) -> Result<bool, FinetuneError> {
    Ok(!list_checkpoints(folder)?.is_empty())
}

/// Removes the checkpoints in the folder of a finetuning, whose finished model has been written.
///
/// # Errors
/// A folder that can't be read or changed.
pub fn remove_checkpoints(folder: &Path) -> Result<(), FinetuneError> {
    for one in list_checkpoints(folder)? {
        discard(&one.path).map_err(RunDirError::from)?;
    }
    let parent = checkpoint_place(folder, 0);
    let parent = parent.parent().unwrap_or(folder);
    recover(parent).map_err(RunDirError::from)?;
    // Whatever else is in there is not ours and keeps the folder.
    let _ = std::fs::remove_dir(parent);
    Ok(())
}

/// A locked folder of a run.
pub(super) struct Folder {
    saving: Saving,
    fingerprint: String,
    config: ModernBertConfig,
    /// Number of outputs for each dev example.
    widths: Vec<usize>,
    _lock: FolderLock,
}

/// A run as its newest checkpoint has it.
pub(super) struct Resumed<M> {
    pub(super) model: M,
    pub(super) optimizer: NamedOptimizer,
    pub(super) state: RunState,
    pub(super) history: History<M>,
}

impl Folder {
    /// Locks the folder; `fingerprint` decides which checkpoints belong to the run.
    pub(super) fn open<E: Example>(
        saving: Saving,
        fingerprint: String,
        model: &E::Model,
        dev: &[E],
    ) -> Result<Self, FinetuneError> {
        std::fs::create_dir_all(&saving.folder).map_err(|source| RunDirError::Make {
            path: saving.folder.clone(),
            source,
        })?;
        let lock = lock_folder(&saving.folder)?;
        let first = checkpoint_place(&saving.folder, 0);
        if let Some(parent) = first.parent() {
            recover(parent).map_err(RunDirError::from)?;
        }
        let outputs = E::outputs(model);
        let mut config = model.encoder().config().clone();
        config.num_labels = Some(outputs);
        Ok(Self {
            saving,
            fingerprint,
            config,
            widths: dev.iter().map(|example| example.width(outputs)).collect(),
            _lock: lock,
        })
    }

    /// The folder of the log.
    pub(super) fn root(&self) -> &Path {
        &self.saving.folder
    }

    /// The checkpoint of a step.
    pub(super) fn checkpoint(&self, step: u64) -> Option<PathBuf> {
        let place = checkpoint_place(&self.saving.folder, step);
        place.is_dir().then_some(place)
    }

    /// The run as its newest checkpoint has it; `None` where it begins. The log is cut back to the checkpoint.
    pub(super) fn resume<E: Example>(
        &self,
        model: &E::Model,
        optimizer: NamedOptimizer,
    ) -> Result<Option<Resumed<E::Model>>, FinetuneError> {
        let root = &self.saving.folder;
        let newest = list_checkpoints(root)?.pop();
        let Some(newest) = newest else {
            cut_log(root, 0)?;
            return Ok(None);
        };
        if !self.saving.resume {
            return Err(FinetuneError::HoldsCheckpoints {
                path: root.clone(),
                step: newest.step,
            });
        }
        let damaged = |error: SnapshotError| FinetuneError::Damaged(Box::new(error));
        let snapshot = Snapshot::open(&newest.path).map_err(damaged)?;
        if snapshot.state.recipe_sha256 != self.fingerprint {
            return Err(FinetuneError::OtherRun { path: newest.path });
        }
        cut_log(root, newest.step)?;
        let resumed = self.read(&snapshot, model, optimizer);
        resumed.map(Some).map_err(damaged)
    }

    fn read<M: Architecture>(
        &self,
        snapshot: &Snapshot,
        model: &M,
        mut optimizer: NamedOptimizer,
    ) -> Result<Resumed<M>, SnapshotError> {
        let stored: StoredState = read_state(&snapshot.path)?;
        let filled = |folder: &Path| -> Result<M, SnapshotError> {
            let files = TensorFiles::open(&folder.join(WEIGHTS_FILE))?;
            Ok(load(model.clone(), &files, &[])?.0)
        };
        let weights = filled(&snapshot.path)?;
        snapshot.restore_optimizer(&weights, &mut optimizer)?;
        let mut history = History::from(stored.finetune.clone());
        if let Some(index) = stored.finetune.best {
            let evaluation = history.evaluations.get(index).cloned();
            let outputs = read_tensors(&snapshot.path.join(BEST_OUTPUTS))?;
            let values = outputs.into_iter().next().map(|tensor| tensor.values);
            let values = values.unwrap_or_default();
            if values.len() != self.widths.iter().sum::<usize>() {
                return Err(SnapshotError::damaged(
                    &snapshot.path,
                    "its outputs are not those of the dev set",
                ));
            }
            let mut rest = values.as_slice();
            let rows = self.widths.iter().map(|&width| {
                let (row, later) = rest.split_at(width);
                rest = later;
                row.to_vec()
            });
            history.best = Some(Best {
                model: filled(&snapshot.path.join(BEST))?,
                outputs: rows.collect(),
                evaluation: evaluation.ok_or_else(|| {
                    SnapshotError::damaged(&snapshot.path, "its best evaluation is not listed")
                })?,
            });
        }
        Ok(Resumed {
            model: weights,
            optimizer,
            state: stored.run,
            history,
        })
    }

    /// Writes the checkpoint of `state.step`, then drops all but the newest.
    pub(super) fn save<M: Architecture>(
        &self,
        model: &M,
        optimizer: &NamedOptimizer,
        state: &RunState,
        history: &History<M>,
    ) -> Result<(), RunDirError> {
        let root = &self.saving.folder;
        let before = list_checkpoints(root)?;
        if state.phase_done && self.saving.every_steps.is_none() && before.is_empty() {
            return Ok(());
        }
        let stored = StoredState {
            run: RunState {
                recipe_sha256: self.fingerprint.clone(),
                ..state.clone()
            },
            finetune: history.into(),
        };
        let content = Content {
            model,
            config: &self.config,
            optimizer,
            state: &stored,
        };
        let best = |folder: &Path| -> Result<Vec<String>, SnapshotError> {
            let Some(best) = &history.best else {
                return Ok(Vec::new());
            };
            save(&best.model, &self.config, &folder.join(BEST))?;
            let values = best.outputs.concat();
            let outputs = StoredTensor {
                name: "outputs".to_string(),
                shape: vec![values.len()],
                values,
            };
            write_tensors(&folder.join(BEST_OUTPUTS), &[outputs])?;
            let config = modernbert::checkpoint::CONFIG_FILE;
            Ok(vec![
                format!("{BEST}/{config}"),
                format!("{BEST}/{WEIGHTS_FILE}"),
                BEST_OUTPUTS.to_string(),
            ])
        };
        write_checkpoint(&checkpoint_place(root, state.step), &content, best)?;
        let all = list_checkpoints(root)?;
        for old in all.iter().rev().skip(KEPT) {
            discard(&old.path)?;
        }
        Ok(())
    }
}

/// `state.json` of a finetuning: the loop's state, and what the run has gathered. Numbers are stored as the bits of their f64.
#[derive(Clone, Debug, Serialize, Deserialize)]
struct StoredState {
    #[serde(flatten)]
    run: RunState,
    finetune: StoredHistory,
}

#[derive(Clone, Debug, Serialize, Deserialize)]
struct StoredHistory {
    evaluations: Vec<StoredEvaluation>,
    /// Steps, and the bits of the mean loss.
    losses: Vec<(usize, u64)>,
    /// The best of the evaluations.
    best: Option<usize>,
    eval_seconds: f64,
    evaluated: usize,
    work: u64,
}

#[derive(Clone, Debug, Serialize, Deserialize)]
struct StoredEvaluation {
    step: usize,
    main: Option<u64>,
    metrics: Vec<(String, Option<u64>)>,
}

impl<M> From<&History<M>> for StoredHistory {
    fn from(history: &History<M>) -> Self {
        let bits = |value: Option<f64>| value.map(f64::to_bits);
        let evaluations = history.evaluations.iter().map(|one| StoredEvaluation {
            step: one.step,
            main: bits(one.score.main),
            metrics: one
                .score
                .metrics
                .iter()
                .map(|(name, value)| (name.clone(), bits(*value)))
                .collect(),
        });
        let best = history.best.as_ref().map(|best| best.evaluation.step);
        Self {
            evaluations: evaluations.collect(),
            losses: history
                .losses
                .iter()
                .map(|&(step, loss)| (step, loss.to_bits()))
                .collect(),
            best: best.and_then(|step| history.evaluations.iter().position(|e| e.step == step)),
            eval_seconds: history.eval_seconds,
            evaluated: history.evaluated,
            work: history.work,
        }
    }
}

impl<M> From<StoredHistory> for History<M> {
    fn from(stored: StoredHistory) -> Self {
        let value = |bits: Option<u64>| bits.map(f64::from_bits);
        let evaluations = stored.evaluations.into_iter().map(|one| Evaluation {
            step: one.step,
            score: Score {
                main: value(one.main),
                metrics: one
                    .metrics
                    .into_iter()
                    .map(|(name, bits)| (name, value(bits)))
                    .collect(),
            },
        });
        Self {
            best: None,
            evaluations: evaluations.collect(),
            losses: stored
                .losses
                .into_iter()
                .map(|(step, bits)| (step, f64::from_bits(bits)))
                .collect(),
            eval_seconds: stored.eval_seconds,
            evaluated: stored.evaluated,
            work: stored.work,
        }
    }
}

/// SHA-256 over everything that decides a run but its initial weights: settings, identity, the model's config, the examples.
pub(super) fn fingerprint<E: Example>(
    options: &FinetuneOptions,
    identity: &str,
    model: &E::Model,
    train: &[E],
    dev: &[E],
) -> String {
    let mut hash = Sha256::new();
    let settings = FinetuneOptions {
        label: String::new(),
        ..options.clone()
    };
    hash.update(format!("{settings:?}\0{identity}\0{}\0", E::outputs(model)));
    hash.update(model.encoder().config().to_json_string());
    for examples in [train, dev] {
        hash.update((examples.len() as u64).to_le_bytes());
        for example in examples {
            for ids in example.sequences() {
                hash.update((ids.len() as u64).to_le_bytes());
                ids.iter().for_each(|id| hash.update(id.to_le_bytes()));
            }
            example.hash_target(&mut hash);
        }
    }
    hex(&hash.finalize())
}

/// True if a readback from this device costs nothing, as the CPU computes at once.
pub fn is_cpu(device: &Device) -> bool {
    modernbert::device::select(Some("flex"))
        .is_ok_and(|cpu| cpu.device.inner() == device.clone().inner())
}
