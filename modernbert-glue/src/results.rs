//! `results.json`: scores, sizes of the data, and baselines.
//!
//! ```json
//! {"rte": {"metrics": {"accuracy": 0.61}, "spread": {"accuracy": 0.02}, "start": "mnli", "baseline": {"accuracy": 0.527},
//!          "train_rows": 2490, "dev_rows": 277, "partial": false,
//!          "seeds": [{"seed": 42, "metrics": {"accuracy": 0.61}}, …], "notes": [], "failed": []}}
//! ```
//!
//! `metrics` is the mean over `seeds` and `spread` the standard deviation (n - 1), a score that does not exist is `null`, as is
//! the spread of a single run. `notes` are remarks about the data, `failed` the reasons why a seed has no score. Tables for people are
//! [`Results::text_table`] and [`Results::markdown_table`].

use std::collections::BTreeMap;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use modernbert::atomic::write_atomically;
use modernbert::output::write_remedy;
use serde::{Deserialize, Serialize};

use crate::data::TaskData;
use crate::metrics::Metrics;
use crate::task::Task;

mod render;

/// The name of the file in its folder.
pub const FILE_NAME: &str = "results.json";

/// Reason why results could not be read or written.
#[derive(Debug, thiserror::Error)]
pub enum ResultsError {
    /// The file can't be read.
    #[error("{path}: cannot be read ({source}); check that it is a file and that you may read it")]
    Read {
        /// The file.
        path: PathBuf,
        /// Error of the operating system.
        source: io::Error,
    },
    /// The file has other content.
    #[error("{path}: not a results file ({source}); move it away, it is not overwritten")]
    Json {
        /// The file.
        path: PathBuf,
        /// The JSON error, with its line.
        source: serde_json::Error,
    },
    /// The file can't be written.
    #[error(
        "{path}: cannot be written ({source}); {remedy}",
        path = path.display(),
        remedy = write_remedy(source, "check the free space on the disk and that you may write there")
    )]
    Write {
        /// The file.
        path: PathBuf,
        /// Error of the operating system.
        source: io::Error,
    },
}

/// One finetuning run.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SeedResult {
    /// The seed of the run.
    pub seed: u64,
    /// Its dev scores.
    pub metrics: Metrics,
}

/// All runs of one task.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct TaskResult {
    /// Mean dev scores over the seeds.
    pub metrics: Metrics,
    /// Standard deviation over the seeds.
    #[serde(default)]
    pub spread: Metrics,
    /// Start of the runs: `pretrained`, `random`, `mnli` or `random+mnli`.
    #[serde(default)]
    pub start: String,
    /// Dev scores of a constant prediction.
    pub baseline: Metrics,
    /// Rows trained on.
    pub train_rows: usize,
    /// Rows scored.
    pub dev_rows: usize,
    /// True if the data have fewer rows than the official release.
    pub partial: bool,
    /// The runs.
    pub seeds: Vec<SeedResult>,
    /// Notes about the data, for a person.
    #[serde(default)]
    pub notes: Vec<String>,
    /// Seeds without a score, and why.
    #[serde(default)]
    pub failed: Vec<String>,
}

impl TaskResult {
    /// Sums up the runs of a task; row counts are those of the current data.
    pub fn new(data: &TaskData, baseline: Metrics, seeds: Vec<SeedResult>) -> Self {
        Self {
            metrics: Metrics::mean(seeds.iter().map(|run| &run.metrics)),
            spread: Metrics::spread(seeds.iter().map(|run| &run.metrics)),
            start: String::new(),
            notes: Vec::new(),
            failed: Vec::new(),
            baseline,
            train_rows: data.train.examples.len(),
            dev_rows: data.dev_rows(),
            partial: data.partial(),
            seeds,
        }
    }
}

/// The results of several tasks, in the paper's order.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Results {
    /// One entry per task that was run.
    pub tasks: BTreeMap<Task, TaskResult>,
}

impl Results {
    /// Reads `results.json` of a folder; none when there is no such file.
    pub fn read(folder: &Path) -> Result<Option<Self>, ResultsError> {
        let path = folder.join(FILE_NAME);
        let text = match modernbert::read::text(&path) {
            Ok(text) => text,
            Err(source) if source.kind() == io::ErrorKind::NotFound => return Ok(None),
            Err(source) => return Err(ResultsError::Read { path, source }),
        };
        modernbert::json::parse(text.as_bytes())
            .map(Some)
            .map_err(|source| ResultsError::Json { path, source })
    }

    /// Writes these results into `results.json` of a folder, made where missing, and returns what the file holds then.
    ///
    /// Tasks of an existing file that are not among these are kept. The file is replaced in one step: a reader sees the
    /// old one or the new one, and a crash leaves one of them.
    pub fn write(&self, folder: &Path) -> Result<Self, ResultsError> {
        let path = folder.join(FILE_NAME);
        let mut all = Self::read(folder)?.unwrap_or_default();
        all.tasks.extend(
            self.tasks
                .iter()
                .map(|(task, result)| (*task, result.clone())),
        );
        let mut text = serde_json::to_string_pretty(&all).map_err(|source| ResultsError::Json {
            path: path.clone(),
            source,
        })?;
        text.push('\n');
        fs::create_dir_all(folder)
            .and_then(|()| write_atomically(&path, text.as_bytes()))
            .map_err(|source| ResultsError::Write { path, source })?;
        Ok(all)
    }

    /// The mean of the main metrics over the paper's eight tasks; none unless all eight are there and defined.
    pub fn average(&self) -> Option<f64> {
        let score = |task: &Task| self.tasks.get(task)?.metrics.get(task.main_metric().name());
        let sum: Option<f64> = Task::PAPER.iter().map(score).sum();
        sum.map(|sum| sum / Task::PAPER.len() as f64)
    }

    /// A table for a terminal, one line per score, at most 100 characters wide.
    pub fn text_table(&self) -> String {
        render::text(self)
    }

    /// The same table in Markdown.
    pub fn markdown_table(&self) -> String {
        render::markdown(self)
    }
}

#[cfg(test)]
mod tests;
