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
use serde::{Deserialize, Serialize};
use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use crate::optim::NamedOptimizer;
use crate::run_dir::{
    self, CHECKPOINTS, LogNotes, METRICS_FILE, RunDirError, check_logs, check_places,
    checkpoint_place, cut_log, list_checkpoints, lock_folder, own_checkpoints,
};
use crate::snapshot::{
    BEST, Content, FileHash, RunState, Snapshot, SnapshotError, Warnings, discard, recover,
    write_checkpoint,
};

/// Checkpoints that are kept.
const KEPT: usize = 2;

/// Folder and intervals of a run's checkpoints.
#[derive(Clone, Debug, PartialEq)]
pub struct Saving {
    /// The run's folder.
    pub folder: PathBuf,
    /// Steps between checkpoints; `None` saves none by steps, and none at the end of the run unless an earlier one is there.
    pub every_steps: Option<u64>,
    /// Time between checkpoints. An interruption is saved in any case.
    pub every: Duration,
    /// True if the run continues from the newest checkpoint in the folder, if there is one.
    pub resume: bool,
    /// Further information of the caller that decides the run besides data and settings, such as the model's name: a checkpoint with another
    /// identity is refused.
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

/// Reason why a run can't use its folder.
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
        match error {
            RunDirError::NotWritten(path) => Self::NotWritten { path },
            other => Self::Folder(Box::new(other)),
        }
    }
}

/// Returns true if the folder of a run has checkpoints.
///
/// # Errors
/// A folder that can't be read.
pub fn has_checkpoints(folder: &Path) -> Result<bool, RunDirError> {
    Ok(!list_checkpoints(folder)?.is_empty())
}

/// Returns true if a run may continue in a folder that is not empty: one with checkpoints, or one with only the log of a run that
/// ended before its first checkpoint. Any other file in the folder is not this run's and would be replaced by the model.
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

/// Hashes of the files that a run wrote beside its checkpoints, in the folder of these.
const WRITTEN: &str = "written.json";

/// Hashes of the files that a run wrote beside its checkpoints: `written.json` in their folder.
#[derive(Debug, Default, Serialize, Deserialize)]
#[serde(default)]
struct Written {
    /// Files of the model, by their names in the run's folder.
    files: BTreeMap<String, FileHash>,
    /// Files that are being put there.
    next: BTreeMap<String, FileHash>,
    logs: Option<LogNotes>,
}

impl Written {
    /// What is noted; nothing where nothing is.
    ///
    /// # Errors
    /// A file that can't be read or understood.
    fn read(folder: &Path) -> Result<Self, RunDirError> {
        let path = folder.join(CHECKPOINTS).join(WRITTEN);
        match modernbert::read::bytes(&path) {
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(Self::default()),
            Err(error) => Err(RunDirError::io(&path)(error)),
            Ok(text) => modernbert::json::parse(&text).map_err(|error| RunDirError::Info {
                path,
                reason: error.to_string(),
            }),
        }
    }

    /// Writes a change. Without checkpoints there is nothing to resume, and nothing is noted.
    fn change(folder: &Path, change: impl FnOnce(&mut Self)) -> Result<(), RunDirError> {
        let checkpoints = folder.join(CHECKPOINTS);
        if !checkpoints.is_dir() {
            return Ok(());
        }
        let mut written = Self::read(folder)?;
        change(&mut written);
        let path = checkpoints.join(WRITTEN);
        let text = serde_json::to_vec_pretty(&written).unwrap_or_default();
        let written = write_atomically(&path, &text);
        written.map_err(|source| RunDirError::Make { path, source })
    }

    fn knows(&self, name: &str, hash: &FileHash) -> bool {
        self.files.get(name) == Some(hash) || self.next.get(name) == Some(hash)
    }
}

/// Writes the model of a run with `fill` and puts it into the run's folder: complete, or not at all. [`check_written`] recognizes its files.
///
/// # Errors
/// Those of `fill`; a file that would be replaced and that the run did not write; an error of the operating system.
pub fn put_model<E: From<RunDirError>>(
    folder: &Path,
    fill: impl FnOnce(&Path) -> Result<(), E>,
) -> Result<(), E> {
    let is_resumable = folder.join(CHECKPOINTS).is_dir();
    run_dir::put_model(folder, fill, |files| {
        let written = Written::read(folder)?;
        check_places(folder, files.keys(), |name, hash| written.knows(name, hash))?;
        if is_resumable {
            Written::change(folder, |written| written.next.clone_from(files))?;
        }
        Ok(())
    })?;
    Ok(Written::change(folder, |written| {
        written.files.append(&mut written.next);
    })?)
}

/// Refuses files of a model in a run's folder that the run did not write or that were changed since: the model of the resumed run would
/// replace them.
///
/// # Errors
/// The first such file.
pub fn check_written(folder: &Path) -> Result<(), SavingError> {
    let written = Written::read(folder)?;
    let mut names: BTreeSet<String> = model_files(folder).into_iter().collect();
    names.extend(written.files.keys().cloned());
    check_places(folder, names.iter(), |name, hash| written.knows(name, hash))?;
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

/// Removes the checkpoints in the folder of a run whose finished model has been written. Returns a warning for each that is kept because it holds
/// something that the run did not write.
///
/// # Errors
/// A folder that can't be read or changed.
pub fn remove_checkpoints(folder: &Path) -> Result<Vec<String>, RunDirError> {
    // A missing one is as good.
    let _ = std::fs::remove_file(folder.join(CHECKPOINTS).join(WRITTEN));
    let mut warnings = Vec::new();
    for one in own_checkpoints(folder)? {
        warnings.extend(discard(&one.path)?);
    }
    let parent = checkpoint_place(folder, 0);
    let parent = parent.parent().unwrap_or(folder);
    recover(parent)?;
    // Other files in the folder are the user's, and the folder stays.
    let _ = std::fs::remove_dir(parent);
    Ok(warnings)
}

/// A locked folder of a run.
pub struct RunFolder {
    saving: Saving,
    fingerprint: String,
    config: ModernBertConfig,
    warnings: Warnings,
    /// True once the logs are those of this process, and no change of the user's.
    keeps_logs: AtomicBool,
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
        modernbert::output::make_folder(&saving.folder).map_err(|source| RunDirError::Make {
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
            warnings: Warnings::default(),
            keeps_logs: AtomicBool::new(false),
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
    /// Checkpoints, and resuming was not asked for; a checkpoint of another run; a damaged one; a log that was changed.
    pub fn resume<R>(
        &self,
        read: impl FnOnce(&Snapshot) -> Result<R, SnapshotError>,
    ) -> Result<Option<R>, SavingError> {
        let root = &self.saving.folder;
        let Some(newest) = list_checkpoints(root)?.pop() else {
            self.cut_logs(0)?;
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
        self.cut_logs(newest.step)?;
        read(&snapshot).map(Some).map_err(damaged)
    }

    /// Cuts the logs back to `step`, unless they were changed.
    fn cut_logs(&self, step: u64) -> Result<(), RunDirError> {
        let root = self.root();
        check_logs(root, Written::read(root)?.logs.as_ref())?;
        cut_log(root, step, |notes| {
            Written::change(root, |written| written.logs = Some(notes))
        })?;
        self.keeps_logs.store(true, Ordering::Relaxed);
        Ok(())
    }

    fn note_logs(&self, complete: bool) -> Result<(), RunDirError> {
        if !self.keeps_logs.load(Ordering::Relaxed) {
            return Ok(());
        }
        let notes = LogNotes::of(self.root(), complete)?;
        Written::change(self.root(), |written| written.logs = Some(notes))
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
        let place = checkpoint_place(root, state.step);
        let warning = write_checkpoint(&place, &content, written)?;
        if let Some(warning) = warning {
            self.warnings.add(warning);
        }
        self.note_logs(false)?;
        let all = own_checkpoints(root)?;
        for old in all.iter().rev().skip(KEPT) {
            if let Some(warning) = discard(&old.path)? {
                self.warnings.add(warning);
            }
        }
        Ok(())
    }

    /// Takes the warnings since the last call: checkpoints that were kept because they hold something that the run did not write.
    pub fn warnings(&self) -> Vec<String> {
        self.warnings.take()
    }
}

impl Drop for RunFolder {
    fn drop(&mut self) {
        // Without this note a resume would treat rows that somebody adds as rows of the run.
        let _ = self.note_logs(true);
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
    let files = files.in_family(model.encoder().config(), M::HEAD)?;
    Ok(load(model.clone(), &files, &[])?.0)
}
