//! Checkpoints of a finetuning, in the folder of a [run that can be resumed](crate::saving).
//!
//! Once an evaluation had a score, a checkpoint has `best.safetensors` with the best weights' outputs for the dev examples. Its `state.json` is
//! that of the training loop with the run's evaluations and losses.

use burn::tensor::Device;
use modernbert::model::Architecture;
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};
use std::path::Path;

use super::FinetuneOptions;
use super::example::Example;
use super::run::{DevEvaluation, DevScore};
use super::task::{Best, TaskHistory};
use crate::optim::{NamedOptimizer, StoredTensor};
use crate::run_dir::RunDirError;
use crate::saving::{RunFolder, Saving, SavingError, restored, restored_best};
use crate::snapshot::{
    BEST_OUTPUTS, RunState, Snapshot, SnapshotError, hex, read_state, read_tensors, write_tensors,
};

/// A locked folder of a finetuning.
pub(super) struct Folder {
    pub(super) run: RunFolder,
    /// Number of outputs for each dev example.
    widths: Vec<usize>,
}

/// A run as its newest checkpoint has it.
pub(super) struct Resumed<M> {
    pub(super) model: M,
    pub(super) optimizer: NamedOptimizer,
    pub(super) state: RunState,
    pub(super) history: TaskHistory<M>,
}

impl Folder {
    /// Locks the folder; `fingerprint` decides which checkpoints belong to the run.
    pub(super) fn open<E: Example>(
        saving: Saving,
        fingerprint: String,
        model: &E::Model,
        dev: &[E],
    ) -> Result<Self, SavingError> {
        let outputs = E::outputs(model);
        let mut config = model.encoder().config().clone();
        config.num_labels = Some(outputs);
        Ok(Self {
            run: RunFolder::open(saving, fingerprint, config)?,
            widths: dev.iter().map(|example| example.width(outputs)).collect(),
        })
    }

    /// The run as its newest checkpoint has it; `None` where it begins. The log is cut back to the checkpoint.
    pub(super) fn resume<E: Example>(
        &self,
        model: &E::Model,
        optimizer: NamedOptimizer,
    ) -> Result<Option<Resumed<E::Model>>, SavingError> {
        self.run
            .resume(|snapshot| self.read(snapshot, model, optimizer))
    }

    fn read<M: Architecture>(
        &self,
        snapshot: &Snapshot,
        model: &M,
        mut optimizer: NamedOptimizer,
    ) -> Result<Resumed<M>, SnapshotError> {
        let stored: StoredState = read_state(&snapshot.path)?;
        let weights = restored(snapshot, model, &mut optimizer)?;
        let mut history = TaskHistory::from(stored.finetune.clone());
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
                model: restored_best(snapshot, model)?,
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
        history: &TaskHistory<M>,
    ) -> Result<(), RunDirError> {
        let stored = |run| StoredState {
            run,
            finetune: history.into(),
        };
        let best = history.best.as_ref();
        let outputs = |folder: &Path| -> Result<Vec<String>, SnapshotError> {
            let Some(best) = best else {
                return Ok(Vec::new());
            };
            let values = best.outputs.concat();
            let outputs = StoredTensor {
                name: "outputs".to_string(),
                shape: vec![values.len()],
                values,
            };
            write_tensors(&folder.join(BEST_OUTPUTS), &[outputs])?;
            Ok(vec![BEST_OUTPUTS.to_string()])
        };
        let weights = best.map(|best| &best.model);
        self.run
            .save((model, optimizer), state, stored, weights, outputs)
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

impl<M> From<&TaskHistory<M>> for StoredHistory {
    fn from(history: &TaskHistory<M>) -> Self {
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

impl<M> From<StoredHistory> for TaskHistory<M> {
    fn from(stored: StoredHistory) -> Self {
        let value = |bits: Option<u64>| bits.map(f64::from_bits);
        let evaluations = stored.evaluations.into_iter().map(|one| DevEvaluation {
            step: one.step,
            score: DevScore {
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
    hash_examples(&mut hash, train, dev);
    hex(&hash.finalize())
}

/// SHA-256 of the sequences and targets of a training and a dev set.
pub fn data_hash<E: Example>(train: &[E], dev: &[E]) -> String {
    let mut hash = Sha256::new();
    hash_examples(&mut hash, train, dev);
    hex(&hash.finalize())
}

fn hash_examples<E: Example>(hash: &mut Sha256, train: &[E], dev: &[E]) {
    for examples in [train, dev] {
        hash.update((examples.len() as u64).to_le_bytes());
        for example in examples {
            for ids in example.sequences() {
                hash.update((ids.len() as u64).to_le_bytes());
                ids.iter().for_each(|id| hash.update(id.to_le_bytes()));
            }
            example.hash_target(hash);
        }
    }
}

/// True if a readback from this device costs nothing, as the CPU computes at once.
pub fn is_cpu(device: &Device) -> bool {
    modernbert::device::select(Some("flex"))
        .is_ok_and(|cpu| cpu.device.inner() == device.clone().inner())
}
