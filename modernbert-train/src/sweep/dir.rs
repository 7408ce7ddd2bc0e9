//! The folder of a sweep.

use modernbert::checkpoint::write_atomically;
use modernbert::lock::{FolderLock, LOCK_FILE, is_locked};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use toml::{Table, Value};

use super::expand::run_name;
use super::{Grid, PlannedRun, SweepError};
use crate::recipe::Recipe;
use crate::run_dir::{HISTORY_FILE, RECIPE_FILE, sha256_of};

const PLAN_FILE: &str = "plan.json";
const GRID_FILE: &str = "grid.toml";
const FAILED_FILE: &str = "failed.json";
const RECIPES: &str = "recipes";
const RUNS: &str = "runs";
const LOGS: &str = "logs";

/// Content of `plan.json`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Plan {
    format: u32,
    /// Version of the program.
    program: String,
    /// The grid's path as given.
    pub(super) grid: String,
    /// The rows, the first of which is compared with.
    pub(super) rows: Vec<PlanRow>,
    /// The seeds.
    pub(super) seeds: Vec<u64>,
    /// SHA-256 of the recipe of each run, by its name.
    runs: BTreeMap<String, String>,
}

/// A row of the plan.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct PlanRow {
    pub(super) name: String,
    /// Values by dotted key.
    pub(super) settings: BTreeMap<String, String>,
}

/// Runs that a continued sweep did not have before.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct NewRuns {
    /// True if the folder had a sweep.
    pub continued: bool,
    /// Names of the runs that are new in it.
    pub names: Vec<String>,
}

/// State of a run.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum RunStatus {
    /// It is not begun.
    Waiting,
    /// It has begun, and no process works on it.
    Incomplete,
    /// A process works on it.
    Running,
    /// It has ended with its model.
    Finished,
    /// It has failed, with the reason.
    Failed(String),
}

/// The folder of a sweep; locked if this process runs it.
pub struct SweepDir {
    root: PathBuf,
    pub(super) plan: Plan,
    _lock: Option<FolderLock>,
}

impl SweepDir {
    /// Makes or continues the folder of a sweep and writes its plan and recipes.
    ///
    /// # Errors
    /// A folder with anything else, or with the sweep of another grid: a run that is missing in this one or has another recipe; a sweep that
    /// another process works on; an error of the operating system.
    pub fn open(
        root: &Path,
        grid: &Grid,
        runs: &[PlannedRun],
    ) -> Result<(Self, NewRuns), SweepError> {
        check_contents(root)?;
        modernbert::output::make_folder(root).map_err(SweepError::io(root))?;
        let lock = FolderLock::acquire(root)?;
        let before = match root.join(PLAN_FILE).exists() {
            true => Some(read_plan(root)?),
            false => None,
        };
        let mut texts = BTreeMap::new();
        for run in runs {
            texts.insert(run.name.clone(), run.recipe.to_toml()?);
        }
        let mut new = NewRuns::default();
        if let Some(before) = &before {
            new.continued = true;
            check_same(root, before, grid, &texts)?;
            let is_new = |run: &&PlannedRun| !before.runs.contains_key(&run.name);
            new.names = runs
                .iter()
                .filter(is_new)
                .map(|run| run.name.clone())
                .collect();
        }
        let row = |row: &super::Row| PlanRow {
            name: row.name.clone(),
            settings: row
                .settings
                .iter()
                .map(|one| (one.key.clone(), one.value.clone()))
                .collect(),
        };
        let plan = Plan {
            format: 1,
            program: format!("modernbert-train {}", env!("CARGO_PKG_VERSION")),
            grid: grid.name.clone(),
            rows: grid.rows.iter().map(row).collect(),
            seeds: grid.seeds.clone(),
            runs: texts
                .iter()
                .map(|(name, text)| (name.clone(), sha256_of(text)))
                .collect(),
        };
        let dir = Self {
            root: root.to_path_buf(),
            plan,
            _lock: Some(lock),
        };
        // The plan first: without it, the folder's other files would be the user's.
        dir.write(PLAN_FILE, &to_json(root, &dir.plan)?)?;
        dir.write(GRID_FILE, grid.text.as_bytes())?;
        for folder in [RECIPES, RUNS, LOGS] {
            let path = root.join(folder);
            std::fs::create_dir_all(&path).map_err(SweepError::io(&path))?;
        }
        for (name, text) in &texts {
            dir.check_run(name, text)?;
            let path = dir.recipe_of(name);
            write_atomically(&path, text.as_bytes()).map_err(SweepError::io(&path))?;
        }
        Ok((dir, new))
    }

    /// The folder of a sweep, to read it, also while another process works on it.
    ///
    /// # Errors
    /// A folder without a sweep.
    pub fn read(root: &Path) -> Result<Self, SweepError> {
        if !root.is_dir() {
            return Err(SweepError::folder(root, "there is no such folder"));
        }
        Ok(Self {
            root: root.to_path_buf(),
            plan: read_plan(root)?,
            _lock: None,
        })
    }

    /// The folder.
    pub fn root(&self) -> &Path {
        &self.root
    }

    /// The recipe file of a run.
    pub fn recipe_of(&self, run: &str) -> PathBuf {
        self.root.join(RECIPES).join(format!("{run}.toml"))
    }

    /// The folder of a run.
    pub fn run(&self, run: &str) -> PathBuf {
        self.root.join(RUNS).join(run)
    }

    /// The file with what a run has printed.
    pub fn log_of(&self, run: &str) -> PathBuf {
        self.root.join(LOGS).join(format!("{run}.log"))
    }

    pub(super) fn run_name(&self, row: usize, seed: u64) -> String {
        run_name(&self.plan.rows[row].name, seed)
    }

    /// The state of a run.
    pub fn status(&self, run: &str) -> RunStatus {
        let folder = self.run(run);
        if is_finished(&folder) {
            return RunStatus::Finished;
        }
        if is_locked(&folder) == Some(true) {
            return RunStatus::Running;
        }
        if let Some(reason) = self.failures().remove(run) {
            return RunStatus::Failed(reason);
        }
        match folder.join(RECIPE_FILE).is_file() {
            true => RunStatus::Incomplete,
            false => RunStatus::Waiting,
        }
    }

    /// The reason of each failed run.
    fn failures(&self) -> BTreeMap<String, String> {
        let text = modernbert::read::bytes(&self.root.join(FAILED_FILE));
        let found = text
            .ok()
            .and_then(|text| serde_json::from_slice(&text).ok());
        found.unwrap_or_default()
    }

    /// Records the failure of a run, or removes its record.
    ///
    /// # Errors
    /// An error of the operating system.
    pub fn set_failure(&self, run: &str, reason: Option<&str>) -> Result<(), SweepError> {
        let mut failures = self.failures();
        let before = failures.clone();
        match reason {
            Some(reason) => failures.insert(run.to_owned(), reason.to_owned()),
            None => failures.remove(run),
        };
        if failures == before {
            return Ok(());
        }
        self.write(FAILED_FILE, &to_json(&self.root, &failures)?)
    }

    /// Writes a file of the sweep.
    pub(super) fn write(&self, name: &str, content: &[u8]) -> Result<(), SweepError> {
        let path = self.root.join(name);
        write_atomically(&path, content).map_err(SweepError::io(&path))
    }

    /// Refuses a run's folder that has another recipe than the plan.
    fn check_run(&self, run: &str, recipe: &str) -> Result<(), SweepError> {
        let folder = self.run(run);
        let path = folder.join(RECIPE_FILE);
        match modernbert::read::text(&path) {
            Ok(found) if found == recipe => Ok(()),
            Ok(found) => Err(SweepError::folder(
                &folder,
                format!(
                    "the run has another recipe than the grid ({}); move it away, and it is begun again",
                    difference(&found, recipe)
                ),
            )),
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(()),
            Err(error) => Err(SweepError::io(&path)(error)),
        }
    }
}

pub(super) fn to_json(root: &Path, value: &impl Serialize) -> Result<Vec<u8>, SweepError> {
    let mut text = serde_json::to_vec_pretty(value)
        .map_err(|error| SweepError::folder(root, error.to_string()))?;
    text.push(b'\n');
    Ok(text)
}

fn read_plan(root: &Path) -> Result<Plan, SweepError> {
    let path = root.join(PLAN_FILE);
    let text = match modernbert::read::bytes(&path) {
        Ok(text) => text,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => {
            return Err(SweepError::folder(
                root,
                format!("there is no sweep in it (no {PLAN_FILE}); name the folder of a sweep"),
            ));
        }
        Err(error) => return Err(SweepError::io(&path)(error)),
    };
    let plan: Plan = modernbert::json::parse(&text).map_err(|error| {
        SweepError::folder(
            &path,
            format!("it is no plan of a sweep ({error}); use another folder"),
        )
    })?;
    let mut planned = plan.rows.iter().flat_map(|row| {
        let name = |seed: &u64| run_name(&row.name, *seed);
        plan.seeds.iter().map(name)
    });
    match planned.find(|name| !plan.runs.contains_key(name)) {
        None if !plan.rows.is_empty() => Ok(plan),
        _ => Err(SweepError::folder(
            &path,
            "rows, seeds and runs do not fit each other; use another folder",
        )),
    }
}

/// Refuses a folder that has anything but a sweep: not even a lock is made in it.
fn check_contents(root: &Path) -> Result<(), SweepError> {
    if !root.exists() || root.join(PLAN_FILE).is_file() {
        return Ok(());
    }
    let entries = std::fs::read_dir(root).map_err(SweepError::io(root))?;
    for entry in entries {
        let name = entry.map_err(SweepError::io(root))?.file_name();
        if name != LOCK_FILE {
            return Err(SweepError::folder(
                root,
                format!(
                    "the folder holds no sweep, but {}; give --out a new folder",
                    name.to_string_lossy()
                ),
            ));
        }
    }
    Ok(())
}

/// Refuses a grid that leaves out a run of the folder's sweep, or changes its recipe.
fn check_same(
    root: &Path,
    before: &Plan,
    grid: &Grid,
    texts: &BTreeMap<String, String>,
) -> Result<(), SweepError> {
    for (name, sha256) in &before.runs {
        let Some(text) = texts.get(name) else {
            return Err(SweepError::folder(
                root,
                format!(
                    "the folder has the sweep of another grid: its run {name} is not one of {}; give --out another folder, or add the row or the \
                     seed again",
                    grid.name
                ),
            ));
        };
        if sha256_of(text) != *sha256 {
            let path = root.join(RECIPES).join(format!("{name}.toml"));
            let old = modernbert::read::text(&path).unwrap_or_default();
            return Err(SweepError::folder(
                root,
                format!(
                    "the folder has the sweep of another grid: its run {name} has other settings ({}); give --out another folder",
                    difference(&old, text)
                ),
            ));
        }
    }
    Ok(())
}

/// The first setting in which two recipes differ, in words.
fn difference(before: &str, now: &str) -> String {
    let flat = |text: &str| {
        let mut found = BTreeMap::new();
        if Recipe::from_str(text, "recipe").is_ok()
            && let Ok(table) = text.parse::<Table>()
        {
            flatten(String::new(), &Value::Table(table), &mut found);
        }
        found
    };
    let (before, now) = (flat(before), flat(now));
    let mut keys = before.keys().chain(now.keys());
    let differs = keys.find(|key| before.get(*key) != now.get(*key));
    let value = |of: &BTreeMap<String, String>, key: &str| {
        of.get(key)
            .map_or_else(|| "its default".to_owned(), Clone::clone)
    };
    match differs {
        Some(key) => format!(
            "{key} was {}, and is {}",
            value(&before, key),
            value(&now, key)
        ),
        None => "its file was changed".to_owned(),
    }
}

fn flatten(key: String, value: &Value, out: &mut BTreeMap<String, String>) {
    let child = |name: &str| match key.as_str() {
        "" => name.to_owned(),
        key => format!("{key}.{name}"),
    };
    match value {
        Value::Table(inner) => {
            for (name, value) in inner {
                flatten(child(name), value, out);
            }
        }
        Value::Array(tables) if tables.iter().any(Value::is_table) => {
            for (number, table) in tables.iter().enumerate() {
                let name = table.get("name").and_then(Value::as_str);
                let name = name.map_or_else(|| number.to_string(), str::to_owned);
                flatten(child(&name), table, out);
            }
        }
        value => {
            out.insert(key, value.to_string());
        }
    }
}

/// Returns true if the last event of a run's history is its end.
fn is_finished(run: &Path) -> bool {
    let text = modernbert::read::text(&run.join(HISTORY_FILE)).unwrap_or_default();
    let event = |line: &str| -> Option<String> {
        let row: serde_json::Value = serde_json::from_str(line).ok()?;
        Some(row.get("event")?.as_str()?.to_owned())
    };
    text.lines().rev().find_map(event).as_deref() == Some("finished")
}
