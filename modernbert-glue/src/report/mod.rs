//! Comparison of runs with the paper's numbers and with each other.
//!
//! [`JobView::open`] reads a job's folder, [`markdown`] makes the report, [`pictures`] its PNG files. Scores are times
//! 100 with one decimal, as in the paper; a spread is the standard deviation over the seeds (n - 1). Differences
//! of two jobs have Welch's t-test.

mod picture;
mod table;
mod welch;

#[cfg(test)]
mod tests;

pub use picture::{PICTURES, PlotError, pictures};
pub use table::{is_own_page, markdown};
pub use welch::{Welch, holm, welch};

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use crate::results::{Results, TaskResult};
use crate::run::{RUN_FILE, RunError, RunRecord};
use crate::task::Task;

/// A job's folder as it was read.
pub struct JobView {
    /// Name in tables: the folder's.
    pub name: String,
    /// The folder.
    pub folder: PathBuf,
    /// Its results.
    pub results: Results,
    /// The finished runs of each task that belong to its results, by seed.
    pub records: BTreeMap<Task, Vec<RunRecord>>,
}

/// Reason why a folder can't be reported on.
#[derive(Debug, thiserror::Error)]
pub enum ReportError {
    /// There are no results.
    #[error("{}: no results.json there; give the --out folder of a run", .0.display())]
    NoResults(PathBuf),
    /// Results that can't be read.
    #[error(transparent)]
    Results(#[from] crate::results::ResultsError),
    /// A record that can't be read.
    #[error(transparent)]
    Run(#[from] RunError),
}

impl JobView {
    /// Reads `results.json` and the records of its runs.
    ///
    /// # Errors
    /// No results, or malformed files.
    pub fn open(folder: &Path) -> Result<Self, ReportError> {
        let results = Results::read(folder)?;
        let results = results.ok_or_else(|| ReportError::NoResults(folder.to_path_buf()))?;
        let mut records = BTreeMap::new();
        for (&task, result) in &results.tasks {
            let mut of_task = Vec::new();
            for run in &result.seeds {
                let place = crate::run::seed_folder(folder, task, run.seed);
                let record = RunRecord::read(&place)?.ok_or_else(|| RunError::Record {
                    path: place.join(RUN_FILE),
                    reason: "it is not there, although results.json counts it".to_string(),
                })?;
                of_task.push(record);
            }
            records.insert(task, of_task);
        }
        let name = folder.file_name().unwrap_or(folder.as_os_str());
        Ok(Self {
            name: name.to_string_lossy().into_owned(),
            folder: folder.to_path_buf(),
            results,
            records,
        })
    }

    fn result(&self, task: Task) -> Option<&TaskResult> {
        self.results.tasks.get(&task)
    }
}

/// Names jobs whose folders have the same name by the folder's path.
pub fn distinguish(views: &mut [JobView]) {
    let names: Vec<String> = views.iter().map(|view| view.name.clone()).collect();
    for view in views.iter_mut() {
        if names.iter().filter(|name| **name == view.name).count() > 1 {
            view.name = view.folder.display().to_string();
        }
    }
}

/// The values of one score over the seeds of a task, where all of them have it.
fn seed_values(result: &TaskResult, metric: &str) -> Option<Vec<f64>> {
    result
        .seeds
        .iter()
        .map(|run| run.metrics.get(metric))
        .collect()
}

/// Tasks that any of the jobs has, in the paper's order.
fn tasks_of<'a>(views: impl Iterator<Item = &'a JobView> + Clone) -> Vec<Task> {
    let has = |task: &Task| views.clone().any(|view| view.result(*task).is_some());
    Task::ALL.into_iter().filter(has).collect()
}
