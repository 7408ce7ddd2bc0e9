//! The folder of a run: what is in it, who may write to it, which checkpoints it holds.
//!
//! | name | content |
//! |---|---|
//! | `recipe.toml` | the resolved recipe; its hash is in `run.json` |
//! | `run.json` | format, hashes of recipe and token shards |
//! | `lock` | held by the process that works on the run |
//! | `history.jsonl` | when the run was begun, resumed, interrupted, finished |
//! | `shards/` | token shards |
//! | `checkpoints/step-NNNNNNNN/` | see [`crate::snapshot`]; `aside-…` are checkpoints a later resume went back behind |
//! | `metrics.jsonl`, `loss.png` | the log, and its picture at the end |
//! | `positions.jsonl` | held-out loss by position, a line at the end of each phase |
//! | `model.safetensors`, `config.json`, `tokenizer*.json` | the finished model |

mod checkpoints;
mod error;
mod info;
mod log;
#[cfg(test)]
mod tests;

pub use checkpoints::{Choice, StoredCheckpoint, list_checkpoints};
pub use error::RunDirError;
pub use info::{RunInfo, sha256_of};
pub use log::cut_log;

use serde_json::json;
use std::fs::{File, TryLockError};
use std::io::Write;
use std::path::{Path, PathBuf};

use crate::recipe::{CheckpointRecipe, Recipe};
use crate::snapshot::{self, RunState, write_snapshot};

/// Log of a run.
pub const METRICS_FILE: &str = "metrics.jsonl";
/// Picture of the loss.
pub const PICTURE_FILE: &str = "loss.png";
/// The recipe with every default and override written out.
pub const RECIPE_FILE: &str = "recipe.toml";
/// Hashes of recipe and shards.
pub const INFO_FILE: &str = "run.json";
/// What happened to the run, and when.
pub const HISTORY_FILE: &str = "history.jsonl";
/// Held-out loss by position, a line at the end of each phase.
pub const POSITIONS_FILE: &str = "positions.jsonl";
const LOCK_FILE: &str = "lock";
const CHECKPOINTS: &str = "checkpoints";

/// A run's folder, locked by this process for as long as the value lives.
pub struct RunDir {
    root: PathBuf,
    _lock: File,
}

impl RunDir {
    /// Makes the folder of a new run, or empties that of an older one, and writes its recipe.
    ///
    /// An older run that has checkpoints is only replaced when `restart` allows it.
    ///
    /// # Errors
    /// A folder that can't be made or written, that another process works on, or that holds a run.
    pub fn create(root: &Path, recipe: &Recipe, restart: bool) -> Result<Self, RunDirError> {
        let made = std::fs::create_dir_all(root);
        made.map_err(|source| RunDirError::Make {
            path: root.to_path_buf(),
            source,
        })?;
        let dir = Self::lock(root)?;
        let found = list_checkpoints(root)?;
        if let Some(last) = found.last().filter(|_| !restart) {
            return Err(RunDirError::HoldsRun {
                path: root.to_path_buf(),
                step: last.step,
            });
        }
        dir.remove_older_run()?;
        let text = recipe.to_toml()?;
        dir.write(RECIPE_FILE, text.as_bytes())?;
        RunInfo::new(&text).write(root)?;
        dir.note("begun", json!({}))?;
        Ok(dir)
    }

    /// Opens the folder of a run that was begun before, and tidies what a crash may have left.
    ///
    /// # Errors
    /// No run in the folder; a recipe that was changed; another process at work on it.
    pub fn open(root: &Path) -> Result<(Self, Recipe, RunInfo), RunDirError> {
        let path = root.join(RECIPE_FILE);
        let text = match std::fs::read_to_string(&path) {
            Ok(text) => text,
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => {
                return Err(RunDirError::NoRun(root.to_path_buf()));
            }
            Err(error) => return Err(RunDirError::io(&path)(error)),
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
        let path = root.join(LOCK_FILE);
        let mut options = File::options();
        let opened = options
            .create(true)
            .truncate(false)
            .read(true)
            .write(true)
            .open(&path);
        let mut file = opened.map_err(RunDirError::io(&path))?;
        match file.try_lock() {
            Err(TryLockError::WouldBlock) => {
                let owner = std::fs::read_to_string(&path).unwrap_or_default();
                return Err(RunDirError::Locked {
                    path: root.to_path_buf(),
                    owner: owner.trim().to_string(),
                });
            }
            // Some network file systems have no locks; two processes on one run are then the user's to avoid.
            Err(TryLockError::Error(_)) | Ok(()) => {}
        }
        let written = file
            .set_len(0)
            .and_then(|()| writeln!(file, "{}", std::process::id()));
        written.map_err(RunDirError::io(&path))?;
        Ok(Self {
            root: root.to_path_buf(),
            _lock: file,
        })
    }

    /// The folder.
    pub fn root(&self) -> &Path {
        &self.root
    }

    /// A run's folder may hold an older run: nothing of it must outlive the start of a new one.
    fn remove_older_run(&self) -> Result<(), RunDirError> {
        let files = [
            modernbert::checkpoint::WEIGHTS_FILE,
            PICTURE_FILE,
            METRICS_FILE,
            POSITIONS_FILE,
            INFO_FILE,
            RECIPE_FILE,
            HISTORY_FILE,
        ];
        let gone = |path: &Path, result: std::io::Result<()>| match result {
            Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
                Err(RunDirError::io(path)(error))
            }
            _ => Ok(()),
        };
        for name in files {
            let path = self.root.join(name);
            gone(&path, std::fs::remove_file(&path))?;
        }
        let path = self.root.join(CHECKPOINTS);
        gone(&path, std::fs::remove_dir_all(&path))
    }

    fn write(&self, name: &str, content: &[u8]) -> Result<(), RunDirError> {
        let path = self.root.join(name);
        modernbert::checkpoint::write_atomically(&path, content).map_err(RunDirError::io(&path))
    }

    /// Adds a line to the run's history.
    ///
    /// # Errors
    /// What the operating system refuses.
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
    /// What the operating system refuses.
    pub fn append(&self, name: &str, row: &serde_json::Value) -> Result<(), RunDirError> {
        let path = self.root.join(name);
        let file = File::options().create(true).append(true).open(&path);
        file.and_then(|mut file| file.write_all(format!("{row}\n").as_bytes()))
            .map_err(RunDirError::io(&path))
    }

    /// Whether a file of lines of JSON has one of this step.
    pub fn has_row(&self, name: &str, step: u64) -> bool {
        let text = std::fs::read_to_string(self.root.join(name)).unwrap_or_default();
        let step_of = |line: &str| -> Option<u64> {
            let row: serde_json::Value = serde_json::from_str(line).ok()?;
            row.get("step")?.as_u64()
        };
        text.lines().any(|line| step_of(line) == Some(step))
    }

    /// Saves a checkpoint under its step, then drops old ones by the recipe's rule. Gives its folder.
    ///
    /// # Errors
    /// What the operating system refuses; the older checkpoints are then all still there.
    pub fn save(
        &self,
        model: &modernbert::model::MaskedLm,
        optimizer: &crate::optim::NamedStableAdamW,
        state: &RunState,
        rule: &CheckpointRecipe,
    ) -> Result<PathBuf, RunDirError> {
        let place = self.checkpoint_path(state.step);
        write_snapshot(&place, model, optimizer, state)?;
        checkpoints::retain(&self.root, rule)?;
        Ok(place)
    }

    /// Where the checkpoint of a step lies.
    pub fn checkpoint_path(&self, step: u64) -> PathBuf {
        self.root
            .join(CHECKPOINTS)
            .join(format!("{}{step:08}", checkpoints::PREFIX))
    }

    /// Moves checkpoints of later steps out of the way, when the run goes back behind them. They stay as `aside-…`.
    ///
    /// # Errors
    /// What the operating system refuses.
    pub fn set_aside_after(&self, step: u64) -> Result<usize, RunDirError> {
        checkpoints::set_aside_after(&self.root, step)
    }
}
