//! Checkpoints of the training of a retrieval model, in the folder of a [run that can be resumed](modernbert_train::saving).

use modernbert_train::optim::NamedOptimizer;
use modernbert_train::run_dir::RunDirError;
use modernbert_train::saving::{RunFolder, restored, restored_best};
use modernbert_train::snapshot::{RunState, Snapshot, SnapshotError, read_state};
use serde::{Deserialize, Serialize};

use super::embedder::Embedder;
use super::task::{EvaluationPoint, TaskHistory};

/// A run as its newest checkpoint has it.
pub(super) struct Resumed {
    pub(super) model: Embedder,
    pub(super) optimizer: NamedOptimizer,
    pub(super) state: RunState,
    pub(super) history: TaskHistory,
}

/// `state.json`: the loop's state, and what the run has gathered. Scores are stored as the bits of their f64.
#[derive(Clone, Debug, Serialize, Deserialize)]
struct StoredState {
    #[serde(flatten)]
    run: RunState,
    evaluations: Vec<StoredPoint>,
    best: Option<usize>,
}

#[derive(Clone, Debug, Serialize, Deserialize)]
struct StoredPoint {
    step: u64,
    sets: Vec<(String, u64)>,
    mean: u64,
}

/// Writes the checkpoint of `state.step`.
pub(super) fn save(
    folder: &RunFolder,
    (model, optimizer): (&Embedder, &NamedOptimizer),
    state: &RunState,
    history: &TaskHistory,
) -> Result<(), RunDirError> {
    let bits = |value: f64| value.to_bits();
    let point = |point: &EvaluationPoint| StoredPoint {
        step: point.step,
        sets: point
            .sets
            .iter()
            .map(|(name, score)| (name.clone(), bits(*score)))
            .collect(),
        mean: bits(point.mean),
    };
    let stored = |run| StoredState {
        run,
        evaluations: history.evaluations.iter().map(point).collect(),
        best: history.best.as_ref().map(|(_, index)| *index),
    };
    let best = history.best.as_ref().map(|(best, _)| best);
    folder.save((model, optimizer), state, stored, best, |_| Ok(Vec::new()))
}

/// Reads a checkpoint into `model` and `optimizer`.
pub(super) fn read(
    snapshot: &Snapshot,
    model: &Embedder,
    mut optimizer: NamedOptimizer,
) -> Result<Resumed, SnapshotError> {
    let stored: StoredState = read_state(&snapshot.path)?;
    let weights = restored(snapshot, model, &mut optimizer)?;
    let value = f64::from_bits;
    let point = |point: StoredPoint| EvaluationPoint {
        step: point.step,
        sets: point
            .sets
            .into_iter()
            .map(|(name, bits)| (name, value(bits)))
            .collect(),
        mean: value(point.mean),
    };
    let best = match stored.best {
        Some(index) => Some((restored_best(snapshot, model)?, index)),
        None => None,
    };
    Ok(Resumed {
        model: weights,
        optimizer,
        state: stored.run,
        history: TaskHistory {
            best,
            evaluations: stored.evaluations.into_iter().map(point).collect(),
        },
    })
}
