//! Finetuning from each checkpoint of a pretraining run, its scores joined to the run's step, tokens and loss.
//!
//! A folder of these scores holds `scores.jsonl` (a [`CheckpointScore`] a line), `scores.png` (the run's losses and the scores over its tokens)
//! and `step-N/` (N has eight digits): `checkpoint.json`, the state of the checkpoint; `model/`, its copy, which a run may remove meanwhile and which is removed
//! after the finetuning; `job/`, the job's folder as [`run_job`] writes it.

use modernbert::atomic::write_atomically;
use modernbert::card::CARD_FILE;
use modernbert::checkpoint::{CONFIG_FILE, WEIGHTS_FILE};
use modernbert::tokenizer;
use modernbert_cli::plot::{Panel, PlotError, Series, plot_panels};
use modernbert_train::engine::read_log;
use modernbert_train::run_dir::{METRICS_FILE, RunDirError, StoredCheckpoint, list_checkpoints};
use modernbert_train::snapshot::{RunState, SnapshotError, read_state};
use modernbert_train::tools::{ToolError, export};
use serde::{Deserialize, Serialize};
use std::collections::BTreeSet;
use std::io;
use std::path::{Path, PathBuf};

use crate::metrics::Metrics;
use crate::run::{
    JobReport, MODEL_FOLDER, MnliStart, Pretrained, RUN_FILE, RunError, RunOptions, run_job,
    seed_folder,
};
use crate::task::Task;

/// Name of the file of scores.
pub const SCORES_FILE: &str = "scores.jsonl";
/// Name of the picture.
pub const PICTURE_FILE: &str = "scores.png";
/// Prefix of the folder of a checkpoint; the step follows.
const PREFIX: &str = "step-";
/// Names in the folder of a checkpoint.
const STATE_FILE: &str = "checkpoint.json";
const MODEL: &str = "model";
const JOB: &str = "job";

/// Reason why a checkpoint has no score.
#[derive(Debug, thiserror::Error)]
pub enum WatchError {
    /// The run's folder.
    #[error(transparent)]
    Run(#[from] RunDirError),
    /// A checkpoint's files.
    #[error(transparent)]
    Snapshot(#[from] SnapshotError),
    /// The copy of a checkpoint.
    #[error(transparent)]
    Export(#[from] ToolError),
    /// Finetuning.
    #[error(transparent)]
    Finetune(#[from] RunError),
    /// The picture.
    #[error(transparent)]
    Plot(#[from] PlotError),
    /// A line of another content.
    #[error("{}:{line}: not a score of a checkpoint ({source}); move the file away", path.display())]
    Line {
        /// The file.
        path: PathBuf,
        /// Its line, from 1.
        line: usize,
        /// The JSON error.
        source: serde_json::Error,
    },
    /// A file that can't be read or written.
    #[error("{}: {source}; check the free disk space and your permissions", path.display())]
    Io {
        /// The file.
        path: PathBuf,
        /// Error of the operating system.
        source: io::Error,
    },
}

impl WatchError {
    /// Returns true if only this checkpoint has no score, and false if no other one could have one either: files of the scores that can't be
    /// read or written.
    pub fn is_of_checkpoint(&self) -> bool {
        matches!(
            self,
            Self::Snapshot(_) | Self::Export(_) | Self::Finetune(_)
        )
    }
}

/// Position of a checkpoint in its run.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct CheckpointState {
    /// Optimizer steps of the run.
    pub step: u64,
    /// Tokens of the run, padding not counted.
    pub tokens: u64,
    /// Phase of the run.
    pub phase: String,
    /// Held-out loss of the last evaluation at or before that step.
    pub eval_loss: Option<f64>,
}

/// Scores of a task from one checkpoint.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct CheckpointScore {
    /// The checkpoint.
    #[serde(flatten)]
    pub checkpoint: CheckpointState,
    /// The task.
    pub task: Task,
    /// Mean dev scores over the seeds.
    pub metrics: Metrics,
    /// Standard deviation over the seeds.
    pub spread: Metrics,
    /// Number of seeds.
    pub seeds: usize,
    /// True if data were missing; see [`TaskResult`](crate::results::TaskResult).
    pub partial: bool,
}

/// The scores in `out`, in the order in which they were made; none if there is no file yet.
///
/// # Errors
/// A file that can't be read, or that has other content.
pub fn read_scores(out: &Path) -> Result<Vec<CheckpointScore>, WatchError> {
    let path = out.join(SCORES_FILE);
    if !path.is_file() {
        return Ok(Vec::new());
    }
    let text = modernbert::read::text(&path).map_err(|source| WatchError::Io {
        path: path.clone(),
        source,
    })?;
    let row = |(i, line): (usize, &str)| {
        modernbert::json::parse(line.as_bytes()).map_err(|source| WatchError::Line {
            path: path.clone(),
            line: i + 1,
            source,
        })
    };
    text.lines().enumerate().map(row).collect()
}

/// Checkpoints of `run` without a score of one of `tasks` over at least `seeds` seeds in `out`, the oldest first; also those that the run has
/// removed since and whose copy is in `out`. With `again` those that have scores too.
///
/// # Errors
/// A folder or scores that can't be read.
pub fn unscored(
    run: &Path,
    tasks: &[Task],
    seeds: usize,
    again: bool,
    out: &Path,
) -> Result<Vec<StoredCheckpoint>, WatchError> {
    let scores = read_scores(out)?;
    let is_scored = |step: u64| {
        let has = |task: &Task| {
            let of_step = scores.iter().filter(|row| row.checkpoint.step == step);
            let mut of_task = of_step.filter(|row| row.task == *task);
            of_task.any(|row| row.seeds >= seeds)
        };
        !again && tasks.iter().all(has)
    };
    let mut found = list_checkpoints(run)?;
    let known: BTreeSet<u64> = found.iter().map(|one| one.step).collect();
    let entries = std::fs::read_dir(out).into_iter().flatten().flatten();
    found.extend(entries.filter_map(|entry| {
        let name = entry.file_name().to_string_lossy().into_owned();
        let step = name.strip_prefix(PREFIX)?.parse().ok()?;
        let path = entry.path();
        let is_copy = path.join(MODEL).join(WEIGHTS_FILE).is_file();
        (is_copy && !known.contains(&step)).then_some(StoredCheckpoint { step, path })
    }));
    found.retain(|one| !is_scored(one.step));
    found.sort_by_key(|one| one.step);
    Ok(found)
}

/// Finetunes `tasks` from a checkpoint of `run`, appends their scores to `scores.jsonl` and draws `scores.png`. The copy of the checkpoint is
/// removed, except after an interruption or a failure, from which the same call continues. Returns `None` for a checkpoint that the run has
/// removed meanwhile.
///
/// # Errors
/// A damaged checkpoint; scores or a copy that can't be written; see [`run_job`]. Failures of tasks are in the report.
pub fn score(
    checkpoint: &StoredCheckpoint,
    run: &Path,
    tasks: &[Task],
    data: &Path,
    options: &RunOptions,
    out: &Path,
) -> Result<Option<JobReport>, WatchError> {
    let folder = out.join(format!("{PREFIX}{:08}", checkpoint.step));
    let Some(state) = copied(checkpoint, &folder)? else {
        return Ok(None);
    };
    let model = folder.join(MODEL);
    let pretrained = Pretrained::open(&model.to_string_lossy())?;
    let job = folder.join(JOB);
    let mut options = options.clone();
    options.again |= lacks_mnli(tasks, &options, &job);
    let report = run_job(tasks, data, &pretrained, &options, &job)?;
    if report.interrupted {
        return Ok(Some(report));
    }
    let mut scores = read_scores(out)?;
    for (&task, result) in &report.results.tasks {
        // A task without all of its seeds has no score yet, and is repeated.
        let has_failed = report.failures.iter().any(|(failed, _)| *failed == task);
        if result.seeds.is_empty() || has_failed {
            continue;
        }
        let row = CheckpointScore {
            checkpoint: state.clone(),
            task,
            metrics: result.metrics.clone(),
            spread: result.spread.clone(),
            seeds: result.seeds.len(),
            partial: result.partial,
        };
        scores.retain(|old| (old.checkpoint.step, old.task) != (state.step, task));
        scores.push(row);
    }
    write_scores(out, &scores)?;
    picture(run, &scores, &out.join(PICTURE_FILE))?;
    if report.failures.is_empty() {
        remove_copy(&model);
    }
    Ok(Some(report))
}

/// Returns true if a task starts from the job's best model of MNLI and a finished run of MNLI has no model any more, as after a complete job. All runs
/// of the job are then made again: of the runs that are left another one may be the best, and without any the task would start from the
/// pretrained model.
fn lacks_mnli(tasks: &[Task], options: &RunOptions, job: &Path) -> bool {
    let starts_there = tasks.iter().any(|task| task.starts_from().is_some());
    let has_lost = |&seed: &u64| {
        let folder = seed_folder(job, Task::Mnli, seed);
        let model = folder.join(MODEL_FOLDER).join(WEIGHTS_FILE);
        folder.join(RUN_FILE).is_file() && !model.is_file()
    };
    options.mnli == MnliStart::Auto
        && starts_there
        && tasks.contains(&Task::Mnli)
        && options.seeds.iter().any(has_lost)
}

/// The state of a checkpoint whose copy is in `folder`, made now if it is not there; `None` for a checkpoint that was removed.
fn copied(
    checkpoint: &StoredCheckpoint,
    folder: &Path,
) -> Result<Option<CheckpointState>, WatchError> {
    let path = folder.join(STATE_FILE);
    let io = |path: &Path| {
        let path = path.to_path_buf();
        move |source| WatchError::Io { path, source }
    };
    let model = folder.join(MODEL);
    if !model.join(WEIGHTS_FILE).is_file() {
        let made = read_state::<RunState>(&checkpoint.path)
            .map_err(WatchError::from)
            .and_then(|state| {
                std::fs::create_dir_all(folder).map_err(io(folder))?;
                let state = CheckpointState {
                    step: state.step,
                    tokens: state.tokens,
                    phase: state.phase_name,
                    eval_loss: state.eval_loss,
                };
                let text = serde_json::to_vec(&state).map_err(|error| io(&path)(error.into()))?;
                write_atomically(&path, &text).map_err(io(&path))?;
                Ok(export(&checkpoint.path, &model, false)?)
            });
        if let Err(error) = made {
            // A run keeps its newest checkpoints alone.
            return match checkpoint.path.is_dir() {
                true => Err(error),
                false => Ok(None),
            };
        }
    }
    let text = modernbert::read::text(&path).map_err(io(&path))?;
    let state = modernbert::json::parse(text.as_bytes()).map_err(|source| WatchError::Line {
        path,
        line: 1,
        source,
    })?;
    Ok(Some(state))
}

fn write_scores(out: &Path, scores: &[CheckpointScore]) -> Result<(), WatchError> {
    let path = out.join(SCORES_FILE);
    let io = |source| WatchError::Io {
        path: path.clone(),
        source,
    };
    let mut text = Vec::new();
    for row in scores {
        serde_json::to_writer(&mut text, row).map_err(|error| io(error.into()))?;
        text.push(b'\n');
    }
    write_atomically(&path, &text).map_err(io)
}

/// Removes what an export writes, and the folder if nothing else is in it. A copy that can't be removed only takes disk space.
fn remove_copy(model: &Path) {
    let files = [WEIGHTS_FILE, CONFIG_FILE, CARD_FILE].into_iter();
    for name in files.chain(tokenizer::FILES) {
        let _ = std::fs::remove_file(model.join(name));
    }
    let _ = std::fs::remove_dir(model);
}

/// Draws the run's losses and the main scores of each task over the tokens of the run into `path`.
///
/// # Errors
/// A log that can't be read; a file that can't be written.
fn picture(run: &Path, scores: &[CheckpointScore], path: &Path) -> Result<(), WatchError> {
    let log = run.join(METRICS_FILE);
    let rows = read_log(&log).map_err(|source| WatchError::Io { path: log, source })?;
    let losses = |split: &str, name: &str| {
        let of_split = rows.iter().filter(|row| row.split == split);
        let points = of_split.filter_map(|row| Some((row.tokens as f64, row.loss?)));
        Series::new(name, points.collect())
    };
    let mut panels = vec![Panel {
        title: "loss of the run".to_owned(),
        series: vec![losses("train", "training"), losses("eval", "held out")],
    }];
    let tasks: BTreeSet<Task> = scores.iter().map(|row| row.task).collect();
    for task in tasks {
        let metric = task.main_metric().name();
        let mut points: Vec<(f64, f64)> = scores
            .iter()
            .filter(|row| row.task == task)
            .filter_map(|row| Some((row.checkpoint.tokens as f64, row.metrics.get(metric)?)))
            .collect();
        points.sort_by(|a, b| a.0.total_cmp(&b.0));
        panels.push(Panel {
            title: format!("{task}: {metric}"),
            series: vec![Series::new(task.name(), points)],
        });
    }
    Ok(plot_panels(
        path,
        "Scores of the run's checkpoints",
        &panels,
        "tokens of the run",
    )?)
}

/// Returns true if a folder has the files of scores alone.
pub fn is_scores_folder(folder: &Path) -> bool {
    let entries = std::fs::read_dir(folder).into_iter().flatten().flatten();
    let mut names = entries.map(|entry| entry.file_name().to_string_lossy().into_owned());
    names.all(|name| {
        let of_step = name.strip_prefix(PREFIX);
        let is_step = of_step.is_some_and(|step| step.parse::<u64>().is_ok());
        is_step || [SCORES_FILE, PICTURE_FILE, modernbert::lock::LOCK_FILE].contains(&name.as_str())
    })
}
