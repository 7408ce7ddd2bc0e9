//! The folder of a run that can be resumed: `metrics.jsonl`, `lock`, `checkpoints/step-NNNNNNNN/`, as in finetuning.
//!
//! A checkpoint has the files of every [snapshot](modernbert_train::snapshot) and, after an evaluation, `best/` with the best weights.

use modernbert::checkpoint::{CONFIG_FILE, TensorFiles, WEIGHTS_FILE, load, save};
use modernbert::config::ModernBertConfig;
use modernbert::lock::FolderLock;
use modernbert_train::finetune::Saving;
use modernbert_train::optim::NamedOptimizer;
use modernbert_train::run_dir::{
    RunDirError, checkpoint_place, cut_log, list_checkpoints, lock_folder,
};
use modernbert_train::snapshot::{
    Content, RunState, Snapshot, SnapshotError, discard, read_state, recover, write_checkpoint,
};
use serde::{Deserialize, Serialize};
use std::path::{Path, PathBuf};

use super::embedder::Embedder;
use super::error::TrainError;
use super::task::{EvaluationPoint, History};

/// Checkpoints that are kept.
const KEPT: usize = 2;
/// Folder of the best weights in a checkpoint.
const BEST: &str = "best";

/// A locked folder of a run.
pub(super) struct RunFolder {
    saving: Saving,
    fingerprint: String,
    config: ModernBertConfig,
    _lock: FolderLock,
}

/// A run as its newest checkpoint has it.
pub(super) struct Resumed {
    pub(super) model: Embedder,
    pub(super) optimizer: NamedOptimizer,
    pub(super) state: RunState,
    pub(super) history: History,
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

impl RunFolder {
    /// Locks the folder; `fingerprint` decides which checkpoints belong to the run.
    pub(super) fn open(
        saving: Saving,
        fingerprint: String,
        config: ModernBertConfig,
    ) -> Result<Self, TrainError> {
        std::fs::create_dir_all(&saving.folder).map_err(|source| RunDirError::Make {
            path: saving.folder.clone(),
            source,
        })?;
        let lock = lock_folder(&saving.folder)?;
        if let Some(parent) = checkpoint_place(&saving.folder, 0).parent() {
            recover(parent).map_err(RunDirError::from)?;
        }
        Ok(Self {
            saving,
            fingerprint,
            config,
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
    pub(super) fn resume(
        &self,
        model: &Embedder,
        optimizer: NamedOptimizer,
    ) -> Result<Option<Resumed>, TrainError> {
        let root = &self.saving.folder;
        let Some(newest) = list_checkpoints(root)?.pop() else {
            cut_log(root, 0)?;
            return Ok(None);
        };
        if !self.saving.resume {
            return Err(TrainError::HoldsCheckpoints {
                path: root.clone(),
                step: newest.step,
            });
        }
        let damaged = |error: SnapshotError| TrainError::Damaged(Box::new(error));
        let snapshot = Snapshot::open(&newest.path).map_err(damaged)?;
        if snapshot.state.recipe_sha256 != self.fingerprint {
            return Err(TrainError::OtherRun { path: newest.path });
        }
        cut_log(root, newest.step)?;
        let resumed = read(&snapshot, model, optimizer);
        resumed.map(Some).map_err(damaged)
    }

    /// Writes the checkpoint of `state.step`, then drops all but the newest.
    pub(super) fn save(
        &self,
        model: &Embedder,
        optimizer: &NamedOptimizer,
        state: &RunState,
        history: &History,
    ) -> Result<(), RunDirError> {
        let root = &self.saving.folder;
        let before = list_checkpoints(root)?;
        if state.phase_done && self.saving.every_steps.is_none() && before.is_empty() {
            return Ok(());
        }
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
        let stored = StoredState {
            run: RunState {
                recipe_sha256: self.fingerprint.clone(),
                ..state.clone()
            },
            evaluations: history.evaluations.iter().map(point).collect(),
            best: history.best.as_ref().map(|(_, index)| *index),
        };
        let content = Content {
            model,
            config: &self.config,
            optimizer,
            state: &stored,
        };
        let best = |folder: &Path| -> Result<Vec<String>, SnapshotError> {
            let Some((best, _)) = &history.best else {
                return Ok(Vec::new());
            };
            save(best, &self.config, &folder.join(BEST))?;
            Ok(vec![
                format!("{BEST}/{CONFIG_FILE}"),
                format!("{BEST}/{WEIGHTS_FILE}"),
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

fn read(
    snapshot: &Snapshot,
    model: &Embedder,
    mut optimizer: NamedOptimizer,
) -> Result<Resumed, SnapshotError> {
    let stored: StoredState = read_state(&snapshot.path)?;
    let filled = |folder: &Path| -> Result<Embedder, SnapshotError> {
        let files = TensorFiles::open(&folder.join(WEIGHTS_FILE))?;
        Ok(load(model.clone(), &files, &[])?.0)
    };
    let weights = filled(&snapshot.path)?;
    snapshot.restore_optimizer(&weights, &mut optimizer)?;
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
        Some(index) => Some((filled(&snapshot.path.join(BEST))?, index)),
        None => None,
    };
    Ok(Resumed {
        model: weights,
        optimizer,
        state: stored.run,
        history: History {
            best,
            evaluations: stored.evaluations.into_iter().map(point).collect(),
        },
    })
}
