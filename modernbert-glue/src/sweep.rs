//! The paper's sweep over learning rate, weight decay and epochs, resumable run by run.
//!
//! Source: Warner et al. 2024, Appendix E.1: every combination of learning rate {1e-5, 3e-5, 5e-5, 8e-5}, weight decay
//! {1e-6, 5e-6, 8e-6, 1e-5} and epochs ({1, 2, 3} for SST-2, MNLI and RTE, {2, 5, 10} for the others).

use modernbert::checkpoint::write_atomically;
use modernbert_train::finetune::JobClock;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use crate::run::{
    MnliStart, Pretrained, Run, RunError, RunOptions, RunRecord, TaskSequences, Tuned, run_seed,
};
use crate::task::Task;
use crate::task::paper::{SWEEP_LEARNING_RATES, SWEEP_WEIGHT_DECAYS};

/// Name of the file with the results of a sweep.
pub const FILE_NAME: &str = "sweep.json";

/// The combinations of a sweep; an empty list takes the paper's values.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Grid {
    /// Peak learning rates.
    pub learning_rates: Vec<f64>,
    /// Weight decays.
    pub weight_decays: Vec<f64>,
    /// Passes over the training set.
    pub epochs: Vec<usize>,
}

impl Grid {
    /// Every combination for a task; the paper's learning rates are multiplied by `scale`, see
    /// [`Pretrained::learning_rate_scale`].
    pub fn combinations(&self, task: Task, scale: f64) -> Vec<Tuned> {
        let or = |values: &[f64], paper: &[f64], scale: f64| match values {
            [] => paper.iter().map(|value| value * scale).collect(),
            values => values.to_vec(),
        };
        let rates: Vec<f64> = or(&self.learning_rates, &SWEEP_LEARNING_RATES, scale);
        let decays: Vec<f64> = or(&self.weight_decays, &SWEEP_WEIGHT_DECAYS, 1.0);
        let epochs = match &self.epochs[..] {
            [] => task.sweep_epochs().to_vec(),
            epochs => epochs.to_vec(),
        };
        let mut all = Vec::new();
        for &epochs in &epochs {
            for &learning_rate in &rates {
                for &weight_decay in &decays {
                    all.push(Tuned {
                        learning_rate,
                        weight_decay,
                        epochs,
                    });
                }
            }
        }
        all
    }
}

/// One combination and the mean main score over the seeds.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SweepRow {
    /// The combination.
    pub settings: Tuned,
    /// Mean main score; `None` where it does not exist or a seed failed.
    pub score: Option<f64>,
    /// The main score of each seed.
    pub seeds: Vec<Option<f64>>,
}

/// Result of a sweep for a task.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct TaskSweep {
    /// The combination with the best score, the earlier of equals; none if every run failed.
    pub best: Option<Tuned>,
    /// All of them, in order.
    pub rows: Vec<SweepRow>,
}

/// Results of a sweep by task.
pub type Sweep = BTreeMap<Task, TaskSweep>;

/// Outcome of a sweep command.
pub struct SweepReport {
    /// Results by task.
    pub sweep: Sweep,
    /// Tasks that failed, with the reason.
    pub failures: Vec<(Task, String)>,
    /// Existing runs that were kept.
    pub kept: usize,
    /// Runs that were made.
    pub made: usize,
    /// True if the sweep was interrupted; the same command resumes it.
    pub interrupted: bool,
}

/// The sweep in a folder; none if there is none.
///
/// # Errors
/// A file that can't be read or is malformed.
pub fn read_sweep(folder: &Path) -> Result<Option<Sweep>, RunError> {
    let path = folder.join(FILE_NAME);
    let text = match modernbert::read::text(&path) {
        Ok(text) => text,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(None),
        Err(source) => return Err(RunError::Io { path, source }),
    };
    let reason = |error: serde_json::Error| RunError::Record {
        path,
        reason: error.to_string(),
    };
    modernbert::json::parse(text.as_bytes())
        .map(Some)
        .map_err(reason)
}

/// Runs every combination of `grid` on every task with every seed and keeps `sweep.json` in `out` up to date; runs that `out`
/// holds are kept, so that the same command resumes an interrupted sweep.
///
/// # Errors
/// A `sweep.json` that can't be read or written; other errors are in the report.
pub fn run_sweep(
    tasks: &[Task],
    data: &Path,
    pretrained: &Pretrained,
    options: &RunOptions,
    grid: &Grid,
    out: &Path,
) -> Result<SweepReport, RunError> {
    let mut report = SweepReport {
        sweep: read_sweep(out)?.unwrap_or_default(),
        failures: Vec::new(),
        kept: 0,
        made: 0,
        interrupted: false,
    };
    let limit = pretrained.config().max_position_embeddings;
    let mut options = options.clone();
    options.max_length = options.max_length.min(limit);
    options.tuned.clear();
    for &task in tasks {
        let tokenizer = pretrained.tokenizer();
        let prepared =
            TaskSequences::new(task, data, tokenizer, options.max_length, options.max_rows);
        let prepared = match prepared {
            Ok(prepared) => prepared,
            Err(error) => {
                report.failures.push((task, error.to_string()));
                continue;
            }
        };
        for line in &prepared.notes {
            options.progress.note(&format!("{task}: {line}"));
        }
        let combinations = grid.combinations(task, pretrained.learning_rate_scale());
        let mut runs = Combinations {
            prepared: &prepared,
            pretrained,
            options: options.clone(),
            out,
            clock: Arc::new(JobClock::new(0)),
            report: &mut report,
        };
        let rows = runs.all(&combinations);
        if report.interrupted {
            break;
        }
        report.sweep.insert(
            task,
            TaskSweep {
                best: best(&rows),
                rows,
            },
        );
        write(out, &report.sweep)?;
    }
    Ok(report)
}

struct Combinations<'a> {
    prepared: &'a TaskSequences,
    pretrained: &'a Pretrained,
    options: RunOptions,
    out: &'a Path,
    clock: Arc<JobClock>,
    report: &'a mut SweepReport,
}

impl Combinations<'_> {
    fn all(&mut self, combinations: &[Tuned]) -> Vec<SweepRow> {
        let mut work = 0;
        for tuned in combinations {
            self.set(*tuned);
            if let Ok(options) = self.run(0).finetune_options() {
                let once = options.cost_in_tokens(&self.prepared.train, &self.prepared.dev);
                work += once * self.options.seeds.len() as u64;
            }
        }
        self.clock = Arc::new(JobClock::new(work));
        let mut rows = Vec::new();
        for (i, &tuned) in combinations.iter().enumerate() {
            self.set(tuned);
            let seeds = self.options.seeds.clone();
            let scores: Vec<Option<f64>> =
                seeds.iter().map(|&seed| self.seed(tuned, seed)).collect();
            if self.report.interrupted {
                break;
            }
            let sum: Option<f64> = scores.iter().copied().sum();
            let score = sum.map(|sum| sum / scores.len() as f64);
            self.options.progress.note(&format!(
                "{}: {} of {}: {}: {}",
                self.prepared.data.task,
                i + 1,
                combinations.len(),
                name(&tuned),
                score.map_or("no score".to_string(), |score| format!(
                    "{:.2}",
                    100.0 * score
                ))
            ));
            rows.push(SweepRow {
                settings: tuned,
                score,
                seeds: scores,
            });
        }
        rows
    }

    fn set(&mut self, tuned: Tuned) {
        let task = self.prepared.data.task;
        self.options.tuned = BTreeMap::from([(task, tuned)]);
    }

    fn run(&self, seed: u64) -> Run<'_> {
        let task = self.prepared.data.task;
        let mnli = match &self.options.mnli {
            MnliStart::Folder(folder) if task.starts_from().is_some() => Some(folder.as_path()),
            _ => None,
        };
        let tuned = self.options.tuned.get(&task).map(name).unwrap_or_default();
        Run {
            prepared: self.prepared,
            pretrained: self.pretrained,
            options: &self.options,
            seed,
            mnli,
            label: format!("{task} {tuned} seed {seed}"),
            clock: Some(self.clock.clone()),
        }
    }

    /// The main score of one run; a failure is noted and has none.
    fn seed(&mut self, tuned: Tuned, seed: u64) -> Option<f64> {
        let task = self.prepared.data.task;
        if self.report.interrupted {
            return None;
        }
        let folder = self.folder(&tuned, seed);
        let run = self.run(seed);
        let found = if self.options.again {
            Ok(None)
        } else {
            run.settings()
                .and_then(|settings| RunRecord::matching(&folder, task, &settings))
        };
        let made = match found {
            Ok(Some(record)) => {
                if let Ok(options) = run.finetune_options() {
                    let work = options.cost_in_tokens(&self.prepared.train, &self.prepared.dev);
                    self.clock.drop_work(work);
                }
                self.report.kept += 1;
                return record.main_score();
            }
            Ok(None) => run_seed(&run, &folder, false),
            Err(error) => Err(error),
        };
        match made {
            Ok(record) => {
                self.report.made += 1;
                record.main_score()
            }
            Err(error @ RunError::Interrupted { .. }) => {
                self.options.progress.note(&error.to_string());
                self.report.interrupted = true;
                None
            }
            Err(error) => {
                let message = format!("{} seed {seed}: {error}", name(&tuned));
                self.options
                    .progress
                    .note(&format!("{task}: failed: {message}"));
                self.report.failures.push((task, message));
                None
            }
        }
    }

    fn folder(&self, tuned: &Tuned, seed: u64) -> PathBuf {
        let task = self.prepared.data.task.name();
        let combination = name(tuned).replace(' ', "_");
        let folder = self.out.join("sweep").join(task).join(combination);
        folder.join(format!("seed-{seed}"))
    }
}

/// Name of a combination in folders and lines: `lr5e-5 wd1e-6 ep3`.
fn name(tuned: &Tuned) -> String {
    format!(
        "lr{:e} wd{:e} ep{}",
        tuned.learning_rate, tuned.weight_decay, tuned.epochs
    )
}

fn best(rows: &[SweepRow]) -> Option<Tuned> {
    let mut best: Option<(&SweepRow, f64)> = None;
    for row in rows {
        if let Some(score) = row.score
            && best.is_none_or(|(_, found)| score > found)
        {
            best = Some((row, score));
        }
    }
    best.map(|(row, _)| row.settings)
}

fn write(out: &Path, sweep: &Sweep) -> Result<(), RunError> {
    let path = out.join(FILE_NAME);
    let write = || {
        std::fs::create_dir_all(out)?;
        let mut text = serde_json::to_string_pretty(sweep)?;
        text.push('\n');
        write_atomically(&path, text.as_bytes())
    };
    write().map_err(|source| RunError::Io {
        path: path.clone(),
        source,
    })
}

/// The combinations of a task by falling score, in Markdown.
pub fn table(task: Task, sweep: &TaskSweep) -> String {
    let mut rows: Vec<&SweepRow> = sweep.rows.iter().collect();
    rows.sort_by(|a, b| {
        let score = |row: &SweepRow| row.score.unwrap_or(f64::NEG_INFINITY);
        score(b).total_cmp(&score(a))
    });
    let mut text = format!(
        "| {task}: {} | learning rate | weight decay | epochs | seeds |\n| ---: | ---: | ---: | ---: | --- |\n",
        task.main_metric()
    );
    let percent =
        |score: Option<f64>| score.map_or("n/a".to_string(), |s| format!("{:.2}", 100.0 * s));
    for row in rows {
        let seeds: Vec<String> = row.seeds.iter().map(|&score| percent(score)).collect();
        text += &format!(
            "| {} | {:e} | {:e} | {} | {} |\n",
            percent(row.score),
            row.settings.learning_rate,
            row.settings.weight_decay,
            row.settings.epochs,
            seeds.join(", ")
        );
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_grid_is_the_papers() {
        let all = Grid::default().combinations(Task::Rte, 1.0);
        assert_eq!(all.len(), 48);
        assert!(all.iter().all(|tuned| (1..=3).contains(&tuned.epochs)));
        let cola = Grid::default().combinations(Task::Cola, 4.0);
        assert_eq!(cola.len(), 48);
        assert_eq!(cola[0].learning_rate, 4e-5);
        assert_eq!(cola[47].epochs, 10);
        let own = Grid {
            learning_rates: vec![1e-3],
            epochs: vec![1],
            ..Grid::default()
        };
        let own = own.combinations(Task::Cola, 4.0);
        assert_eq!(own.len(), 4);
        assert_eq!(own[0].learning_rate, 1e-3);
    }

    #[test]
    fn the_best_has_the_highest_score_and_failures_have_none() {
        let row = |rate, score| SweepRow {
            settings: Tuned {
                learning_rate: rate,
                weight_decay: 1e-6,
                epochs: 1,
            },
            score,
            seeds: vec![score],
        };
        let rows = [
            row(1.0, None),
            row(2.0, Some(0.5)),
            row(3.0, Some(0.7)),
            row(4.0, Some(0.7)),
        ];
        assert_eq!(best(&rows).map(|tuned| tuned.learning_rate), Some(3.0));
        assert_eq!(best(&rows[..1]), None);
        let text = table(
            Task::Rte,
            &TaskSweep {
                best: best(&rows),
                rows: rows.to_vec(),
            },
        );
        let lines: Vec<&str> = text.lines().collect();
        assert!(lines[2].starts_with("| 70.00 | 3e0 |"), "{text}");
        assert!(lines[5].starts_with("| n/a |"), "{text}");
    }
}
