//! The folder of a run: its files, its lock, its checkpoints.
//!
//! | name | content |
//! |---|---|
//! | `recipe.toml` | the resolved recipe; its hash is in `run.json` |
//! | `run.json` | format, hashes of recipe, token shards and finished model |
//! | `lock` | held by the process that works on the run |
//! | `history.jsonl` | times at which the run was begun, resumed, interrupted and finished |
//! | `shards/` | token shards |
//! | `checkpoints/step-NNNNNNNN/` | see [`crate::snapshot`]; `aside-…` are checkpoints newer than the one that a resume started from |
//! | `metrics.jsonl`, `loss.png` | the log, and its plot at the end |
//! | `positions.jsonl` | held-out loss by position, a line at the end of each phase |
//! | `model.safetensors`, `config.json`, `tokenizer*.json` | the finished model |

mod checkpoints;
mod error;
mod info;
mod log;
mod put_model;
#[cfg(test)]
mod tests;
mod written_files;

pub(crate) use checkpoints::own_checkpoints;
pub use checkpoints::{Choice, ChoiceError, StoredCheckpoint, list_checkpoints, run_of_checkpoint};
pub use error::RunDirError;
pub use info::RunInfo;
pub(crate) use info::sha256_of;
pub use log::LogNotes;
pub(crate) use log::{check_logs, cut_log};
pub(crate) use put_model::{check_places, put_model};

use modernbert::atomic::open_append;
use modernbert::lock::{FolderLock, LockError};
use serde_json::json;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};

use crate::recipe::{CheckpointRecipe, Recipe};
use crate::snapshot::{self, FileHash, RunState, Warnings, write_snapshot};
use written_files::Contents;

/// Log of a run.
pub const METRICS_FILE: &str = "metrics.jsonl";
/// Picture of the loss.
pub const PICTURE_FILE: &str = "loss.png";
/// The recipe with every default and override written out.
pub const RECIPE_FILE: &str = "recipe.toml";
/// Hashes of recipe and shards.
pub const INFO_FILE: &str = "run.json";
/// Events of the run, with their times.
pub const HISTORY_FILE: &str = "history.jsonl";
/// Held-out loss by position, a line at the end of each phase.
pub const POSITIONS_FILE: &str = "positions.jsonl";
/// Folder of token shards.
pub const SHARDS: &str = "shards";
pub(crate) const CHECKPOINTS: &str = "checkpoints";

/// The error for a path whose recipe can't be read: most often it is another path than that of a run.
fn no_recipe(root: &Path, path: &Path, error: std::io::Error) -> RunDirError {
    use std::io::ErrorKind::{NotADirectory, NotFound};
    if !matches!(error.kind(), NotFound | NotADirectory) {
        return RunDirError::io(path)(error);
    }
    let not_run = |what, remedy| RunDirError::NotRun {
        path: root.to_path_buf(),
        what,
        remedy,
    };
    if root.is_file() {
        return not_run("a file", "name the folder of a run".to_owned());
    }
    if root.join(crate::snapshot::STATE_FILE).is_file() {
        let run = root.parent().and_then(Path::parent);
        let run = run.map_or("RUN".to_owned(), |run| run.display().to_string());
        let step = root.file_name().unwrap_or_default().to_string_lossy();
        return not_run(
            "a checkpoint",
            format!("name its run: `modernbert-train resume {run} --from {step}`"),
        );
    }
    if root.join(modernbert::checkpoint::CONFIG_FILE).is_file() {
        let remedy = format!(
            "train on with `modernbert-train run RECIPE --from {} --out RUN`",
            root.display()
        );
        return not_run("a model, not a run", remedy);
    }
    RunDirError::NoRun(root.to_path_buf())
}

/// The recipe a run was begun with. Paths in it are as the run resolved them.
///
/// # Errors
/// A folder without a recipe, or one that can't be read.
pub fn recipe_of_run(root: &Path) -> Result<Recipe, RunDirError> {
    let path = root.join(RECIPE_FILE);
    let text = match modernbert::read::text(&path) {
        Ok(text) => text,
        Err(error) => return Err(no_recipe(root, &path, error)),
    };
    Ok(Recipe::from_str(&text, &path.display().to_string())?)
}

/// A run's folder, locked by this process for as long as the value lives. In a process that follows another rank's run it is not locked,
/// and nothing is written.
pub struct RunDir {
    root: PathBuf,
    /// `None` in a process that follows.
    lock: Option<FolderLock>,
    warnings: Warnings,
    /// True once the logs are those of this process, and no change of the user's.
    keeps_logs: AtomicBool,
}

impl RunDir {
    /// Creates the folder of a new run and writes its recipe.
    ///
    /// The folder may be missing, empty, or contain a run of this program. A run that has checkpoints or a model is only replaced if
    /// `restart` is true, and only files listed in `run.json` and the checkpoints' manifests are removed.
    ///
    /// # Errors
    /// A folder that can't be made or written, that another process works on, that holds a run, or that holds anything else.
    pub fn create(root: &Path, recipe: &Recipe, restart: bool) -> Result<Self, RunDirError> {
        Self::create_from(root, recipe, restart, None)
    }

    /// [`Self::create`] of a run that starts from a checkpoint of another run. `run.json` names it from the beginning: until the run has a checkpoint of its
    /// own, it cannot be resumed.
    ///
    /// # Errors
    /// As [`Self::create`].
    pub fn create_from(
        root: &Path,
        recipe: &Recipe,
        restart: bool,
        checkpoint: Option<&Path>,
    ) -> Result<Self, RunDirError> {
        // Checked before anything is written: not even a lock is made in another program's folder.
        if root.is_dir() {
            Self::replaceable(root, restart)?;
        }
        let made = modernbert::output::make_folder(root);
        made.map_err(|source| RunDirError::Make {
            path: root.to_path_buf(),
            source,
        })?;
        let dir = Self::lock(root)?;
        Self::replaceable(root, restart)?.remove()?;
        let text = recipe.to_toml()?;
        // The recipe's hash first: a recipe without it would be treated as the user's file.
        let mut info = RunInfo::new(&text);
        info.started_from = checkpoint.map(|path| path.display().to_string());
        info.write(root)?;
        dir.write(RECIPE_FILE, text.as_bytes())?;
        dir.note("begun", json!({}))?;
        Ok(dir)
    }

    /// Returns the files of a run that a new run in the folder would remove.
    fn replaceable(root: &Path, restart: bool) -> Result<Contents, RunDirError> {
        let step = list_checkpoints(root)?.last().map(|last| last.step);
        let contents = Contents::of(root)?;
        let finished = root.join(modernbert::checkpoint::WEIGHTS_FILE).exists();
        match step {
            Some(step) if !restart => Err(RunDirError::HoldsRun {
                path: root.to_path_buf(),
                step,
            }),
            None if finished && !restart => Err(RunDirError::HoldsModel(root.to_path_buf())),
            _ => Ok(contents),
        }
    }

    /// Opens the folder of an existing run, and removes incomplete files that a crash may have left.
    ///
    /// # Errors
    /// No run in the folder; a recipe that was changed; another process at work on it.
    pub fn open(root: &Path) -> Result<(Self, Recipe, RunInfo), RunDirError> {
        let path = root.join(RECIPE_FILE);
        let text = match modernbert::read::text(&path) {
            Ok(text) => text,
            Err(error) => return Err(no_recipe(root, &path, error)),
        };
        let dir = Self::lock(root)?;
        // A run killed between its recipe and run.json has done nothing yet.
        let info = RunInfo::read(root)?.unwrap_or_else(|| RunInfo::new(&text));
        if sha256_of(&text) != info.recipe_sha256 {
            return Err(RunDirError::RecipeChanged(path));
        }
        let recipe = Recipe::from_str(&text, &path.display().to_string())?;
        snapshot::recover(&root.join(CHECKPOINTS))?;
        Ok((dir, recipe, info))
    }

    fn lock(root: &Path) -> Result<Self, RunDirError> {
        Ok(Self {
            root: root.to_path_buf(),
            lock: Some(lock_folder(root)?),
            warnings: Warnings::default(),
            keeps_logs: AtomicBool::new(false),
        })
    }

    /// The folder of a run that another process has created or opened and works on: rank 0, for the other ranks.
    ///
    /// # Errors
    /// No run in the folder: the ranks don't share a file system.
    pub fn open_as_follower(root: &Path) -> Result<(Self, Recipe), RunDirError> {
        let recipe = recipe_of_run(root)?;
        let root = root.to_path_buf();
        let dir = Self {
            root,
            lock: None,
            warnings: Warnings::default(),
            keeps_logs: AtomicBool::new(false),
        };
        Ok((dir, recipe))
    }

    /// The folder.
    pub fn root(&self) -> &Path {
        &self.root
    }

    fn write(&self, name: &str, content: &[u8]) -> Result<(), RunDirError> {
        let path = self.root.join(name);
        modernbert::checkpoint::write_atomically(&path, content).map_err(RunDirError::io(&path))
    }

    /// Adds a line to the run's history.
    ///
    /// # Errors
    /// An error of the operating system.
    pub fn note(&self, event: &str, mut what: serde_json::Value) -> Result<(), RunDirError> {
        let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH);
        if let Some(map) = what.as_object_mut() {
            map.insert("event".to_string(), event.into());
            map.insert(
                "unix_time".to_string(),
                now.unwrap_or_default().as_secs().into(),
            );
        }
        self.append(HISTORY_FILE, &what)
    }

    /// Adds a line of JSON to a file of the run.
    ///
    /// # Errors
    /// An error of the operating system.
    pub fn append(&self, name: &str, row: &serde_json::Value) -> Result<(), RunDirError> {
        if self.lock.is_none() {
            return Ok(());
        }
        let path = self.root.join(name);
        open_append(&path)
            .and_then(|mut file| file.write_all(format!("{row}\n").as_bytes()))
            .map_err(RunDirError::io(&path))
    }

    /// Changes `run.json`, where there is one and this process may write it.
    fn change_info(&self, change: impl FnOnce(&mut RunInfo)) -> Result<(), RunDirError> {
        if self.lock.is_some()
            && let Some(mut info) = RunInfo::read(&self.root)?
        {
            change(&mut info);
            info.write(&self.root)?;
        }
        Ok(())
    }

    /// Writes the finished model with `fill` and puts it in place: complete, or not at all.
    ///
    /// # Errors
    /// Those of `fill`; a file of the model that was changed since the run wrote it, which stays; an error of the operating system.
    pub fn put_model<E: From<RunDirError>>(
        &self,
        fill: impl FnOnce(&Path) -> Result<(), E>,
    ) -> Result<(), E> {
        put_model(&self.root, fill, |files| {
            let info = RunInfo::read(&self.root)?;
            let wrote = |name: &str, hash: &FileHash| {
                let info = info.as_ref();
                info.is_some_and(|info| info.wrote(name, hash))
            };
            check_places(&self.root, files.keys(), wrote)?;
            Ok(self.change_info(|info| info.announce(files))?)
        })?;
        Ok(self.change_info(RunInfo::settle)?)
    }

    /// Refuses files that a resumed run replaces and that it did not write, or that were changed since: log, tokenizer, model, plot.
    ///
    /// # Errors
    /// The first such file.
    pub fn check_written(&self, info: &RunInfo) -> Result<(), RunDirError> {
        check_logs(&self.root, info.logs.as_ref())?;
        // A run that was killed while it prepared its data has listed nothing yet.
        let is_ready = !info.shards.is_empty();
        let names = written_files::MODEL_FILES.map(str::to_owned);
        let names = names.iter().filter(|_| is_ready);
        check_places(&self.root, names, |name, hash| info.wrote(name, hash))?;
        let picture = self.root.join(PICTURE_FILE);
        if picture.exists() && !modernbert_cli::plot::is_own_picture(&picture) {
            return Err(RunDirError::NotWritten(picture));
        }
        Ok(())
    }

    /// Cuts the logs back to `step`; see [`Self::check_written`], which comes before. Returns the number of rows that were cut off.
    ///
    /// # Errors
    /// An error of the operating system.
    pub(crate) fn cut_logs(&self, step: u64) -> Result<usize, RunDirError> {
        cut_log(&self.root, step, |notes| {
            self.change_info(|info| info.logs = Some(notes))
        })
    }

    /// Notes the logs as they are now, and at the end of this process.
    ///
    /// # Errors
    /// An error of the operating system.
    pub(crate) fn keep_logs(&self) -> Result<(), RunDirError> {
        self.keeps_logs.store(true, Ordering::Relaxed);
        self.note_logs(false)
    }

    fn note_logs(&self, complete: bool) -> Result<(), RunDirError> {
        if self.lock.is_none() || !self.keeps_logs.load(Ordering::Relaxed) {
            return Ok(());
        }
        let notes = LogNotes::of(&self.root, complete)?;
        self.change_info(|info| info.logs = Some(notes))
    }

    /// Returns true if a file of lines of JSON has one of this step.
    pub fn has_row(&self, name: &str, step: u64) -> bool {
        let text = modernbert::read::text(&self.root.join(name)).unwrap_or_default();
        let step_of = |line: &str| -> Option<u64> {
            let row: serde_json::Value = serde_json::from_str(line).ok()?;
            row.get("step")?.as_u64()
        };
        text.lines().any(|line| step_of(line) == Some(step))
    }

    /// Saves a checkpoint under its step, then removes old ones by the recipe's rule. Returns its folder.
    ///
    /// # Errors
    /// An error of the operating system; all older checkpoints are kept then.
    pub fn save(
        &self,
        model: &modernbert::model::MaskedLm,
        optimizer: &crate::optim::NamedOptimizer,
        state: &RunState,
        rule: &CheckpointRecipe,
    ) -> Result<PathBuf, RunDirError> {
        let place = self.checkpoint_path(state.step);
        if self.lock.is_none() {
            return Ok(place);
        }
        if let Some(warning) = write_snapshot(&place, model, optimizer, state)? {
            self.warnings.add(warning);
        }
        self.note_logs(false)?;
        checkpoints::retain(&self.root, rule, &self.warnings)?;
        Ok(place)
    }

    /// Takes the warnings since the last call: checkpoints that were kept because they hold something that the run did not write.
    pub fn warnings(&self) -> Vec<String> {
        self.warnings.take()
    }

    /// The folder of a step's checkpoint.
    pub fn checkpoint_path(&self, step: u64) -> PathBuf {
        checkpoint_place(&self.root, step)
    }

    /// Renames checkpoints of steps after `step` to `aside-…`, when the run is resumed from an older one.
    ///
    /// # Errors
    /// An error of the operating system.
    pub fn set_aside_after(&self, step: u64) -> Result<usize, RunDirError> {
        checkpoints::set_aside_after(&self.root, step)
    }
}

impl Drop for RunDir {
    fn drop(&mut self) {
        // Without this note a resume would treat rows that somebody adds as rows of the run.
        let _ = self.note_logs(true);
    }
}

/// Locks a folder until the value is dropped: no two processes work on one run.
///
/// # Errors
/// A folder that another process holds, or that can't be written.
pub(crate) fn lock_folder(root: &Path) -> Result<FolderLock, RunDirError> {
    FolderLock::acquire(root).map_err(|error| match error {
        LockError::Held { path, owner } => RunDirError::Locked { path, owner },
        LockError::Foreign(path) => RunDirError::NoLock(path),
        LockError::Io { path, source } => RunDirError::Io { path, source },
    })
}

/// The folder of a step's checkpoint.
pub(crate) fn checkpoint_place(root: &Path, step: u64) -> PathBuf {
    root.join(CHECKPOINTS)
        .join(format!("{}{step:08}", checkpoints::PREFIX))
}
