//! The folder of a run of one phase that can be resumed: `metrics.jsonl`, `lock`, `checkpoints/step-NNNNNNNN/`. Finetuning and the training of
//! retrieval models use it.
//!
//! A checkpoint has the files of every [snapshot](crate::snapshot) and, once an evaluation had a score, `best/` with the best weights. Its
//! `state.json` is that of the training loop with what the kind of training adds.

use modernbert::atomic::{is_unfinished, write_atomically};
use modernbert::checkpoint::{CONFIG_FILE, TensorFiles, WEIGHTS_FILE, load, save};
use modernbert::config::ModernBertConfig;
use modernbert::lock::{FolderLock, LOCK_FILE};
use modernbert::model::Architecture;
use serde::Serialize;
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::time::Duration;

use crate::optim::NamedOptimizer;
use crate::run_dir::{
    CHECKPOINTS, METRICS_FILE, RunDirError, checkpoint_place, cut_log, list_checkpoints,
    lock_folder,
};
use crate::snapshot::{
    Content, RunState, Snapshot, SnapshotError, discard, hash_file, recover, write_checkpoint,
};

/// Checkpoints that are kept.
const KEPT: usize = 2;
/// Folder of the best weights in a checkpoint.
const BEST: &str = "best";

/// Where and when a run is saved.
#[derive(Clone, Debug, PartialEq)]
pub struct Saving {
    /// The run's folder.
    pub folder: PathBuf,
    /// Steps between checkpoints; `None` saves none by steps, and none at the end of the run unless an earlier one is there.
    pub every_steps: Option<u64>,
    /// Time between checkpoints. An interruption is saved in any case.
    pub every: Duration,
    /// True if the run goes on from the newest checkpoint in the folder, if there is one.
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

/// Why a run can't use its folder.
#[derive(Debug, thiserror::Error)]
pub enum SavingError {
    /// The folder has checkpoints, and resuming was not asked for.
    #[error(
        "{path} holds checkpoints up to step {step}; go on with --resume, or give another folder", path = path.display()
    )]
    HoldsCheckpoints {
        /// The folder.
        path: PathBuf,
        /// Step of the newest.
        step: u64,
    },
    /// A checkpoint of other data, another model or other settings.
    #[error(
        "{path}: this checkpoint was made with other data, another model or other settings; repeat the command it was made with, or give \
         another folder", path = path.display()
    )]
    OtherRun {
        /// The checkpoint.
        path: PathBuf,
    },
    /// The newest checkpoint is damaged.
    #[error("{0}; delete this checkpoint to go on from the one before it")]
    Damaged(#[source] Box<SnapshotError>),
    /// A file that the resumed run would replace.
    #[error(
        "{path}: the run that is resumed did not write this file, or it was changed since; it would be replaced: move it away", path = path.display()
    )]
    NotWritten {
        /// The file.
        path: PathBuf,
    },
    /// The folder can't be read or written.
    #[error(transparent)]
    Folder(Box<RunDirError>),
}

impl From<RunDirError> for SavingError {
    fn from(error: RunDirError) -> Self {
        Self::Folder(Box::new(error))
    }
}

/// Returns true if the folder of a run has checkpoints.
///
/// # Errors
/// A folder that can't be read.
pub fn has_checkpoints(folder: &Path) -> Result<bool, RunDirError> {
    Ok(!list_checkpoints(folder)?.is_empty())
}

/// Returns true if a run may go on in a folder that is not empty: one with checkpoints, or one with nothing but the log of a run that
/// ended before its first checkpoint. Anything else in it is not this run's and would be replaced by the model.
pub fn is_resumable(folder: &Path) -> bool {
    if has_checkpoints(folder).is_ok_and(|has| has) {
        return true;
    }
    let own =
        |name: &str| [LOCK_FILE, METRICS_FILE, CHECKPOINTS].contains(&name) || is_unfinished(name);
    let Ok(mut entries) = std::fs::read_dir(folder) else {
        return false;
    };
    entries.all(|entry| entry.is_ok_and(|entry| entry.file_name().to_str().is_some_and(own)))
}

/// Hashes of the files that a run wrote beside its checkpoints, in their folder.
const WRITTEN: &str = "written.json";

/// Notes the files of the model that a run has just written into its folder, so that [`check_written`] knows them. Without checkpoints there is
/// nothing to resume, and nothing is noted.
///
/// # Errors
/// A file that can't be read; a folder that can't be written.
pub fn note_written(folder: &Path) -> Result<(), SavingError> {
    let checkpoints = folder.join(CHECKPOINTS);
    if !checkpoints.is_dir() {
        return Ok(());
    }
    let mut hashes = BTreeMap::new();
    for name in model_files(folder) {
        let hash = hash_file(&folder.join(&name)).map_err(RunDirError::from)?;
        hashes.insert(name, hash.sha256);
    }
    let path = checkpoints.join(WRITTEN);
    let text = serde_json::to_vec_pretty(&hashes).unwrap_or_default();
    let written = write_atomically(&path, &text);
    written.map_err(|source| RunDirError::Make { path, source }.into())
}

/// Refuses files of a model in a run's folder that the run did not write or that were changed since: the model of the resumed run would
/// replace them.
///
/// # Errors
/// The first such file.
pub fn check_written(folder: &Path) -> Result<(), SavingError> {
    let noted = folder.join(CHECKPOINTS).join(WRITTEN);
    let written = modernbert::read::text(&noted).unwrap_or_default();
    let written: BTreeMap<String, String> = serde_json::from_str(&written).unwrap_or_default();
    for name in model_files(folder) {
        let path = folder.join(&name);
        let hash = hash_file(&path).ok().map(|hash| hash.sha256);
        if hash.is_none() || hash.as_ref() != written.get(&name) {
            return Err(SavingError::NotWritten { path });
        }
    }
    Ok(())
}

/// Names of the JSON and safetensors files in a folder and in the folders in it, but for checkpoints.
fn model_files(folder: &Path) -> Vec<String> {
    let entries = |folder: &Path| {
        let entries = std::fs::read_dir(folder).into_iter().flatten().flatten();
        entries.map(|entry| entry.path()).collect::<Vec<_>>()
    };
    let mut paths = Vec::new();
    for path in entries(folder) {
        match path.is_dir() {
            true if path.ends_with(CHECKPOINTS) => {}
            true => paths.extend(entries(&path)),
            false => paths.push(path),
        }
    }
    let is_of_model = |path: &PathBuf| {
        let ending = path.extension().and_then(|ending| ending.to_str());
        matches!(ending, Some("json" | "safetensors"))
    };
    paths.retain(is_of_model);
    let name = |path: PathBuf| {
        let name = path.strip_prefix(folder).unwrap_or(&path);
        name.to_string_lossy().into_owned()
    };
    let mut names: Vec<String> = paths.into_iter().map(name).collect();
    names.sort();
    names
}

/// Removes the checkpoints in the folder of a run whose finished model has been written.
///
/// # Errors
/// A folder that can't be read or changed.
pub fn remove_checkpoints(folder: &Path) -> Result<(), RunDirError> {
    // A missing one is as good.
    let _ = std::fs::remove_file(folder.join(CHECKPOINTS).join(WRITTEN));
    for one in list_checkpoints(folder)? {
        discard(&one.path)?;
    }
    let parent = checkpoint_place(folder, 0);
    let parent = parent.parent().unwrap_or(folder);
    recover(parent)?;
    // Whatever else is in there is not ours and keeps the folder.
    let _ = std::fs::remove_dir(parent);
    Ok(())
}

/// A locked folder of a run.
pub struct RunFolder {
    saving: Saving,
    fingerprint: String,
    config: ModernBertConfig,
    _lock: FolderLock,
}

impl RunFolder {
    /// Locks the folder; `fingerprint` decides which checkpoints belong to the run, `config` is written into each.
    ///
    /// # Errors
    /// A folder that can't be made, or that another process works in.
    pub fn open(
        saving: Saving,
        fingerprint: String,
        config: ModernBertConfig,
    ) -> Result<Self, SavingError> {
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
    pub fn root(&self) -> &Path {
        &self.saving.folder
    }

    /// The checkpoint of a step; `None` where there is none.
    pub fn checkpoint(&self, step: u64) -> Option<PathBuf> {
        let place = checkpoint_place(&self.saving.folder, step);
        place.is_dir().then_some(place)
    }

    /// The run as `read` takes it from the newest checkpoint; `None` where it begins. The log is cut back to the checkpoint.
    ///
    /// # Errors
    /// Checkpoints, and resuming was not asked for; a checkpoint of another run; a damaged one.
    pub fn resume<R>(
        &self,
        read: impl FnOnce(&Snapshot) -> Result<R, SnapshotError>,
    ) -> Result<Option<R>, SavingError> {
        let root = &self.saving.folder;
        let Some(newest) = list_checkpoints(root)?.pop() else {
            cut_log(root, 0)?;
            return Ok(None);
        };
        if !self.saving.resume {
            return Err(SavingError::HoldsCheckpoints {
                path: root.clone(),
                step: newest.step,
            });
        }
        let damaged = |error: SnapshotError| SavingError::Damaged(Box::new(error));
        let snapshot = Snapshot::open(&newest.path).map_err(damaged)?;
        if snapshot.state.recipe_sha256 != self.fingerprint {
            return Err(SavingError::OtherRun { path: newest.path });
        }
        cut_log(root, newest.step)?;
        read(&snapshot).map(Some).map_err(damaged)
    }

    /// Writes the checkpoint of `state.step`, then drops all but the newest two. `stored` adds to the loop's state what the kind of training
    /// has gathered; `best` are the best weights; `more` writes further files and returns their names.
    ///
    /// # Errors
    /// A folder that can't be written, a device that can't be read.
    pub fn save<M: Architecture, S: Serialize>(
        &self,
        (model, optimizer): (&M, &NamedOptimizer),
        state: &RunState,
        stored: impl FnOnce(RunState) -> S,
        best: Option<&M>,
        more: impl FnOnce(&Path) -> Result<Vec<String>, SnapshotError>,
    ) -> Result<(), RunDirError> {
        let root = &self.saving.folder;
        let before = list_checkpoints(root)?;
        if state.phase_done && self.saving.every_steps.is_none() && before.is_empty() {
            return Ok(());
        }
        let stored = stored(RunState {
            recipe_sha256: self.fingerprint.clone(),
            ..state.clone()
        });
        let content = Content {
            model,
            config: &self.config,
            optimizer,
            state: &stored,
        };
        let written = |folder: &Path| -> Result<Vec<String>, SnapshotError> {
            let Some(best) = best else {
                return more(folder);
            };
            save(best, &self.config, &folder.join(BEST))?;
            let mut names = vec![
                format!("{BEST}/{CONFIG_FILE}"),
                format!("{BEST}/{WEIGHTS_FILE}"),
            ];
            names.extend(more(folder)?);
            Ok(names)
        };
        write_checkpoint(&checkpoint_place(root, state.step), &content, written)?;
        let all = list_checkpoints(root)?;
        for old in all.iter().rev().skip(KEPT) {
            discard(&old.path)?;
        }
        Ok(())
    }
}

/// `model` with the weights of a checkpoint, and the moments of its optimizer in `optimizer`.
///
/// # Errors
/// Weights or moments that are missing or do not fit.
pub fn restored<M: Architecture>(
    snapshot: &Snapshot,
    model: &M,
    optimizer: &mut NamedOptimizer,
) -> Result<M, SnapshotError> {
    let weights = filled(model, &snapshot.path)?;
    snapshot.restore_optimizer(&weights, optimizer)?;
    Ok(weights)
}

/// `model` with the best weights of a checkpoint.
///
/// # Errors
/// Weights that are missing or do not fit.
pub fn restored_best<M: Architecture>(snapshot: &Snapshot, model: &M) -> Result<M, SnapshotError> {
    filled(model, &snapshot.path.join(BEST))
}

fn filled<M: Architecture>(model: &M, folder: &Path) -> Result<M, SnapshotError> {
    let files = TensorFiles::open(&folder.join(WEIGHTS_FILE))?;
    Ok(load(model.clone(), &files, &[])?.0)
}
