//! The comparison of a sweep's rows, from the logs of its runs.

use modernbert::checkpoint::read_config;
use serde::Serialize;
use std::collections::BTreeMap;
use std::path::Path;

use super::dir::to_json;
use super::{RunStatus, SweepDir, SweepError, picture, table};
use crate::engine::{LogRow, read_log};
use crate::run_dir::{METRICS_FILE, list_checkpoints, recipe_of_run};
use crate::statistics::{PairedTest, deviation, mean, paired_test};

/// Mean and deviation over seeds.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct Spread {
    /// The mean.
    pub mean: f64,
    /// The standard deviation of the sample; `None` for one value, of which it is undefined.
    pub deviation: Option<f64>,
    /// Number of values.
    pub count: usize,
}

impl Spread {
    /// Of these values; `None` without any.
    pub fn of(values: &[f64]) -> Option<Self> {
        Some(Self {
            mean: mean(values)?,
            deviation: deviation(values),
            count: values.len(),
        })
    }
}

/// The result of one run.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct SeedResult {
    /// The seed.
    pub seed: u64,
    /// Name of the run.
    pub run: String,
    /// `finished`, `running`, `incomplete`, `waiting` or `failed`.
    pub status: &'static str,
    /// Reason of a failure.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
    /// Share of the tokens that a run has seen that is not finished.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub done: Option<f64>,
    /// The last held-out loss, of a finished run.
    pub loss: Option<f64>,
    /// Steps done.
    pub steps: Option<u64>,
    /// Tokens seen.
    pub tokens: Option<u64>,
    /// Median of the logged speeds, in tokens per second.
    pub tokens_per_second: Option<f64>,
    /// Largest logged memory, in MiB.
    pub memory_mib: Option<f64>,
    /// Parameters of the model, the head of masked language modeling included.
    pub parameters: Option<u64>,
    /// Held-out losses by tokens.
    #[serde(skip)]
    pub curve: Vec<(u64, f64)>,
}

/// A row of the comparison.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct ReportRow {
    /// Its name.
    pub name: String,
    /// The settings in which it differs from the common ones, by dotted key.
    pub settings: BTreeMap<String, String>,
    /// Held-out loss at the end, over the finished runs.
    pub loss: Option<Spread>,
    /// Difference to the first row's loss within a seed, over the seeds of which both runs are finished; `None` for the first row.
    pub difference: Option<Spread>,
    /// Student's paired t-test of the differences; `None` where it is undefined.
    #[serde(serialize_with = "test_as_json")]
    pub test: Option<PairedTest>,
    /// Mean speed of the finished runs, in tokens per second.
    pub tokens_per_second: Option<f64>,
    /// Largest memory of the finished runs, in MiB.
    pub memory_mib: Option<f64>,
    /// Parameters.
    pub parameters: Option<u64>,
    /// The runs.
    pub seeds: Vec<SeedResult>,
}

#[allow(clippy::ref_option)] // serde's signature
fn test_as_json<S: serde::Serializer>(
    test: &Option<PairedTest>,
    serializer: S,
) -> Result<S::Ok, S::Error> {
    let value =
        test.map(|test| serde_json::json!({ "t": test.t, "freedom": test.freedom, "p": test.p }));
    value.serialize(serializer)
}

/// The comparison of a sweep's rows.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Report {
    /// The grid's path as given.
    pub grid: String,
    /// The rows, the first of which the others are compared with.
    pub rows: Vec<ReportRow>,
}

impl Report {
    /// Reads the runs of a sweep.
    ///
    /// # Errors
    /// A log that can't be read.
    pub fn of(dir: &SweepDir) -> Result<Self, SweepError> {
        let mut rows = Vec::new();
        for (number, row) in dir.plan.rows.iter().enumerate() {
            let seeds = dir.plan.seeds.iter().map(|&seed| {
                let run = dir.run_name(number, seed);
                seed_result(dir, seed, run)
            });
            rows.push(ReportRow::new(
                row.name.clone(),
                row.settings.clone(),
                seeds.collect::<Result<_, _>>()?,
            ));
        }
        Ok(Self::compared(dir.plan.grid.clone(), rows))
    }

    /// The rows with their differences to the first.
    pub(super) fn compared(grid: String, mut rows: Vec<ReportRow>) -> Self {
        if let Some((first, others)) = rows.split_first_mut() {
            for row in others {
                let differences = differences(first, row);
                row.difference = Spread::of(&differences);
                row.test = paired_test(&differences);
            }
        }
        Self { grid, rows }
    }

    /// Number of runs with this status.
    pub fn count(&self, status: &str) -> usize {
        let seeds = self.rows.iter().flat_map(|row| &row.seeds);
        seeds.filter(|seed| seed.status == status).count()
    }

    /// The table, in Markdown.
    pub fn markdown(&self) -> String {
        table::markdown(self)
    }

    /// Writes `sweep.md`, `sweep.json` and, once a run is finished, `sweep.png` into the sweep's folder.
    ///
    /// # Errors
    /// An error of the operating system; a `sweep.png` that is no picture of this program.
    pub fn write(&self, dir: &SweepDir) -> Result<(), SweepError> {
        dir.write("sweep.md", self.markdown().as_bytes())?;
        dir.write("sweep.json", &to_json(dir.root(), self)?)?;
        picture::draw(self, &dir.root().join("sweep.png"))
    }
}

impl ReportRow {
    /// A row without a comparison.
    pub(super) fn new(
        name: String,
        settings: BTreeMap<String, String>,
        seeds: Vec<SeedResult>,
    ) -> Self {
        let finished = || seeds.iter().filter(|seed| seed.status == "finished");
        let values = |of: fn(&SeedResult) -> Option<f64>| -> Vec<f64> {
            finished().filter_map(of).collect()
        };
        let memory = values(|seed| seed.memory_mib);
        Self {
            name,
            settings,
            loss: Spread::of(&values(|seed| seed.loss)),
            difference: None,
            test: None,
            tokens_per_second: mean(&values(|seed| seed.tokens_per_second)),
            memory_mib: memory.into_iter().reduce(f64::max),
            parameters: seeds.iter().find_map(|seed| seed.parameters),
            seeds,
        }
    }
}

/// The differences of two rows' losses, within a seed.
pub(super) fn differences(first: &ReportRow, row: &ReportRow) -> Vec<f64> {
    let pairs = first.seeds.iter().filter_map(|a| {
        let b = row.seeds.iter().find(|b| b.seed == a.seed)?;
        Some(b.loss? - a.loss?)
    });
    pairs.collect()
}

fn seed_result(dir: &SweepDir, seed: u64, run: String) -> Result<SeedResult, SweepError> {
    let folder = dir.run(&run);
    let (status, reason) = match dir.status(&run) {
        RunStatus::Finished => ("finished", None),
        RunStatus::Running => ("running", None),
        RunStatus::Incomplete => ("incomplete", None),
        RunStatus::Waiting => ("waiting", None),
        RunStatus::Failed(reason) => ("failed", Some(reason)),
    };
    let log = folder.join(METRICS_FILE);
    let rows = match log.exists() {
        true => read_log(&log).map_err(|error| SweepError::folder(&folder, error.to_string()))?,
        false => Vec::new(),
    };
    let of_split = |split: &'static str| rows.iter().filter(move |row| row.split == split);
    let curve: Vec<(u64, f64)> = of_split("eval")
        .filter_map(|row| Some((row.tokens, row.loss?)))
        .collect();
    let last = rows.last();
    let is_finished = status == "finished";
    let mut speeds: Vec<f64> = of_split("train").filter_map(|row| row.tok_s).collect();
    speeds.sort_by(f64::total_cmp);
    let memory = of_split("train").filter_map(|row| row.memory_mib);
    Ok(SeedResult {
        seed,
        status,
        reason,
        done: match is_finished {
            true => None,
            false => share_done(&folder, last),
        },
        loss: curve.last().map(|(_, loss)| *loss).filter(|_| is_finished),
        steps: last.map(|row| row.step),
        tokens: last.map(|row| row.tokens),
        tokens_per_second: speeds.get(speeds.len() / 2).copied(),
        memory_mib: memory.reduce(f64::max),
        parameters: parameters(&folder),
        curve,
        run,
    })
}

/// The share of its tokens that a run has seen.
fn share_done(folder: &Path, last: Option<&LogRow>) -> Option<f64> {
    let phases = recipe_of_run(folder).ok()?.phases().ok()?;
    let total: u64 = phases
        .iter()
        .map(|phase| phase.recipe.run.total_tokens)
        .fold(0, u64::saturating_add);
    Some(last?.tokens as f64 / total.max(1) as f64)
}

/// Parameters by the config of the finished model, else of the newest checkpoint.
fn parameters(folder: &Path) -> Option<u64> {
    let checkpoint = || list_checkpoints(folder).ok()?.pop().map(|one| one.path);
    let config = read_config(folder).ok();
    let config = config.or_else(|| read_config(&checkpoint()?).ok())?;
    Some(config.mlm_parameters())
}
