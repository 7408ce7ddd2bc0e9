//! `run.json`: settings and result of a run.

use modernbert::checkpoint::write_atomically;
use serde::{Deserialize, Serialize};
use std::io;
use std::path::{Path, PathBuf};

use super::{RUN_FILE, RunError};
use crate::metrics::Metrics;
use crate::task::Task;

/// Everything that decides the result of one run on one build.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RunSettings {
    /// `pretrained`, `random`, or `mnli` and `random+mnli` for a model of either kind that was finetuned on MNLI first.
    pub start: String,
    /// SHA-256 of the weights it started from; of the config's text where they were random.
    pub start_sha256: String,
    /// Seed of the initialization and of the order of samples.
    pub seed: u64,
    /// Passes over the training set.
    pub epochs: usize,
    /// Sequences of a step.
    pub batch_size: usize,
    /// Peak learning rate.
    pub learning_rate: f64,
    /// Decoupled weight decay.
    pub weight_decay: f64,
    /// Share of the steps in which the learning rate rises.
    pub warmup: f64,
    /// Dropout after the attention output projection; absent where the model's config decides.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub attention_output_dropout: Option<f64>,
    /// Longest input in tokens.
    pub max_length: usize,
    /// Steps between evaluations on the dev set.
    pub evaluate_every: usize,
    /// Evaluations without a better score after which training stops.
    pub patience: Option<usize>,
    /// Dtype of matrix multiplications and attention.
    pub precision: String,
    /// SHA-256 of the sequences and targets of both sets: depends on the data and on the tokenizer.
    #[serde(default)]
    pub data_sha256: String,
    /// Rows trained on.
    pub train_rows: usize,
    /// Rows scored.
    pub dev_rows: usize,
}

impl RunSettings {
    /// Differences from other settings, in words; empty if there are none.
    pub fn differences(&self, other: &Self) -> String {
        let fields = |settings: &Self| serde_json::to_value(settings).unwrap_or_default();
        let (mine, theirs) = (fields(self), fields(other));
        let names = mine.as_object().into_iter().flatten().map(|(name, _)| name);
        names
            .filter(|name| mine[*name] != theirs[*name])
            .map(|name| format!("{name} {} instead of {}", mine[name], theirs[name]))
            .collect::<Vec<_>>()
            .join(", ")
    }
}

/// One evaluation on the dev sets during training.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct EvaluationRecord {
    /// Optimizer steps done.
    pub step: usize,
    /// The scores.
    pub metrics: Metrics,
}

/// A finished run.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RunRecord {
    /// The task.
    pub task: Task,
    /// The model as it was named.
    pub model: String,
    /// Settings of the run.
    pub settings: RunSettings,
    /// Scores of the best weights.
    pub metrics: Metrics,
    /// The step at which they were reached.
    pub best_step: usize,
    /// Steps done.
    pub steps: usize,
    /// Steps planned without early stopping.
    pub planned_steps: usize,
    /// Every evaluation.
    pub evaluations: Vec<EvaluationRecord>,
    /// Steps done and the mean loss of the steps since the entry before.
    pub losses: Vec<(usize, f64)>,
    /// Device.
    pub device: String,
    /// Seconds of training, without evaluations.
    pub train_seconds: f64,
    /// Seconds of evaluations.
    pub eval_seconds: f64,
    /// Sequences scored in that time.
    pub evaluated: usize,
}

/// The folder of one run in the folder of a job.
pub fn seed_folder(out: &Path, task: Task, seed: u64) -> PathBuf {
    out.join("runs")
        .join(task.name())
        .join(format!("seed-{seed}"))
}

impl RunRecord {
    /// The record in a run's folder; none if the run was not finished.
    ///
    /// # Errors
    /// A file that can't be read or is malformed.
    pub fn read(folder: &Path) -> Result<Option<Self>, RunError> {
        let path = folder.join(RUN_FILE);
        let text = match modernbert::read::text(&path) {
            Ok(text) => text,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            Err(source) => return Err(RunError::Io { path, source }),
        };
        let reason = |reason: String| RunError::Record {
            path: path.clone(),
            reason,
        };
        let record: Self =
            modernbert::json::parse(text.as_bytes()).map_err(|error| reason(error.to_string()))?;
        let scores = record.task.metrics().iter().map(|metric| metric.name());
        for name in scores {
            let score = record.metrics.get(name).unwrap_or(0.0);
            if !(-1.0..=1.0).contains(&score) {
                return Err(reason(format!(
                    "{name} is {score}, and scores are from -1 to 1"
                )));
            }
        }
        Ok(Some(record))
    }

    /// The record of a finished run of `task` with exactly these settings; none if there is no finished run.
    ///
    /// # Errors
    /// A finished run of another task or with other settings.
    pub fn matching(
        folder: &Path,
        task: Task,
        settings: &RunSettings,
    ) -> Result<Option<Self>, RunError> {
        let Some(record) = Self::read(folder)? else {
            return Ok(None);
        };
        if record.task != task {
            return Err(RunError::Record {
                path: folder.join(RUN_FILE),
                reason: format!("it is of {}, and the folder is of {task}", record.task),
            });
        }
        // Numbers that are read from text may differ in the last digit, so both are converted to text and back.
        let text = serde_json::to_string(settings).unwrap_or_default();
        let wanted = serde_json::from_str(&text).unwrap_or_else(|_| settings.clone());
        let differences = record.settings.differences(&wanted);
        if differences.is_empty() {
            return Ok(Some(record));
        }
        Err(RunError::OtherSettings {
            path: folder.join(RUN_FILE),
            differences,
        })
    }

    /// Writes the record; a run that has one is finished.
    ///
    /// # Errors
    /// An error of the operating system.
    pub fn write(&self, folder: &Path) -> Result<(), RunError> {
        let path = folder.join(RUN_FILE);
        let write = || {
            std::fs::create_dir_all(folder)?;
            let mut text = serde_json::to_string(self)?;
            text.push('\n');
            write_atomically(&path, text.as_bytes())
        };
        write().map_err(|source| RunError::Io {
            path: path.clone(),
            source,
        })
    }

    /// The task's main score; `None` where it does not exist.
    pub fn main_score(&self) -> Option<f64> {
        self.metrics.get(self.task.main_metric().name())
    }
}
