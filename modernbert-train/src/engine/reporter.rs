//! Output of a training run: burn-train's dashboard, lines of text, `metrics.jsonl`.

use burn::train::Interrupter;
use burn::train::logger::TrainingProgressLogger;
use burn::train::renderer::MetricsRenderer;
use std::time::{Duration, Instant};

use super::cadence::ProgressUnit;
use super::dashboard::Dashboard;
use super::log::{LogRow, MetricsLog};
use super::progress::Progress;
use super::series::{Columns, Series};
use super::task::{Evaluation, Task};
use modernbert_cli::text::{human_count, human_seconds};

/// Text added to every line, such as the progress of a job of several runs.
pub type Suffix = Box<dyn Fn() -> String>;

/// Settings of a [`Reporter`].
pub struct ReporterOptions {
    /// Display of progress.
    pub progress: Progress,
    /// Title of the dashboard.
    pub title: String,
    /// Beginning of every line; empty for none.
    pub prefix: String,
    /// End of every line.
    pub suffix: Option<Suffix>,
    /// ProgressUnit of the run's length.
    pub unit: ProgressUnit,
    /// Number of evaluations, which the dashboard counts as epochs.
    pub evaluations: u64,
    /// Least time between two lines of text; it does not delay rows of the log.
    pub line_every: Duration,
    /// The metrics log, if the run has a folder.
    pub log: Option<MetricsLog>,
    /// True if the peak of the device, and with it MFU, is known.
    pub has_mfu: bool,
    /// True if loss spikes are skipped.
    pub skips_spikes: bool,
}

/// The only output of a loop.
pub struct Reporter {
    options: ReporterOptions,
    dashboard: Option<Dashboard>,
    train: Vec<Series>,
    eval: Vec<Series>,
    last_line: Option<Instant>,
    /// Finished evaluations and the current one; burn-train's epochs.
    epoch: usize,
    /// Items of the current evaluation. An evaluation of nothing has neither row nor line.
    evaluated: usize,
    /// Warnings that wait for the end of the dashboard.
    waiting: Vec<String>,
}

impl Reporter {
    /// A reporter for the task `T`. The dashboard, if there is one, owns the screen until the training ends or this value is dropped, and
    /// its keys stop `interrupter`.
    pub fn new<T: Task>(options: ReporterOptions, interrupter: &Interrupter) -> Self {
        let columns = Columns {
            accuracy: T::COUNTS_CORRECT,
            score: T::SCORED,
            mfu: options.has_mfu,
            spikes: options.skips_spikes,
        };
        let mut options = options;
        if options.progress == Progress::Dashboard && !super::terminal::is_drawable() {
            options.progress = Progress::Lines;
        }
        let dashboard = options.progress == Progress::Dashboard;
        Self {
            dashboard: dashboard.then(|| Dashboard::new(interrupter.clone())),
            train: Series::all(columns),
            eval: Series::all(columns),
            last_line: None,
            epoch: 1,
            evaluated: 0,
            waiting: Vec::new(),
            options,
        }
    }

    /// Begins a training of `total` units.
    pub(super) fn begin(&mut self, total: u64) {
        let (epochs, title) = (
            self.options.evaluations as usize,
            self.options.title.clone(),
        );
        let definitions: Vec<_> = self.train.iter().map(Series::definition).collect();
        self.draw(|renderer| {
            for definition in definitions {
                renderer.register_metric(definition);
            }
            renderer.start(epochs, 1, None, Some(&title));
        });
        self.start_split("train", total as usize, 0);
        // The first line is due when the interval has passed once.
        self.last_line = Some(Instant::now());
    }

    /// Records and shows a row of the training log, whose loss is a mean over `weight` items.
    pub(super) fn train(
        &mut self,
        row: &LogRow,
        weight: u64,
        (seen, total): (u64, u64),
    ) -> std::io::Result<()> {
        self.record(row)?;
        let every = self.options.line_every;
        if self.last_line.is_none_or(|last| last.elapsed() >= every) {
            self.last_line = Some(Instant::now());
            self.line(&self.train_line(row, seen, total));
        }
        let states: Vec<_> = self
            .train
            .iter_mut()
            .filter_map(|series| series.update(row, weight))
            .collect();
        self.draw(|renderer| {
            for state in states {
                renderer.update_train(state);
            }
            renderer.log_event_training("Iteration".to_string());
        });
        self.update_split(seen.min(total) as usize);
        Ok(())
    }

    /// Begins an evaluation over `items` batches or sequences.
    pub(super) fn begin_evaluation(&mut self, items: usize) {
        self.train.iter_mut().for_each(Series::reset);
        self.eval.iter_mut().for_each(Series::reset);
        self.end_split();
        self.start_split("valid", items, 0);
        self.evaluated = items;
    }

    /// Records and shows an evaluation; `next` is the total of the training if it continues.
    pub(super) fn evaluated(
        &mut self,
        row: &LogRow,
        evaluation: &Evaluation,
        (seen, total): (u64, u64),
        better: bool,
        next: Option<u64>,
    ) -> std::io::Result<()> {
        if self.evaluated > 0 {
            self.record(row)?;
            self.line(&self.eval_line(row, evaluation, total, better));
        }
        let (items, epoch) = (evaluation.items, self.epoch);
        self.epoch += 1;
        let states: Vec<_> = self
            .eval
            .iter_mut()
            .filter_map(|series| series.update(row, items as u64))
            .collect();
        self.draw(|renderer| {
            for state in states {
                renderer.update_valid(state);
            }
        });
        self.update_split(items);
        self.end_split();
        self.draw(|renderer| renderer.update_epoch(epoch));
        if let Some(total) = next {
            self.start_split("train", total as usize, seen.min(total) as usize);
        }
        Ok(())
    }

    /// Restores the screen.
    pub(super) fn end(&mut self) {
        self.draw(|renderer| TrainingProgressLogger::end(renderer));
        self.dashboard = None;
        for warning in std::mem::take(&mut self.waiting) {
            self.options.progress.note(&warning);
        }
    }

    /// Prints a warning, at the end if the dashboard owns the screen.
    pub(super) fn warn(&mut self, warning: String) {
        let warning = format!("warning: {warning}");
        match self.dashboard {
            Some(_) => self.waiting.push(warning),
            None => self.line(&warning),
        }
    }

    /// Waits until the rows of the log are on the disk.
    pub(super) fn synchronize(&self) -> std::io::Result<()> {
        match &self.options.log {
            Some(log) => log.synchronize(),
            None => Ok(()),
        }
    }

    /// Prints a line, unless the dashboard owns the screen.
    pub(super) fn line(&self, text: &str) {
        let suffix = self.options.suffix.as_ref().map(|suffix| suffix());
        let prefix = &self.options.prefix;
        let space = if prefix.is_empty() { "" } else { " " };
        let suffix = suffix.unwrap_or_default();
        self.options
            .progress
            .line(&format!("{prefix}{space}{text}{suffix}"));
    }

    fn record(&mut self, row: &LogRow) -> std::io::Result<()> {
        match &mut self.options.log {
            Some(log) => log.append(row),
            None => Ok(()),
        }
    }

    fn draw(&self, draw: impl FnOnce(&mut dyn MetricsRenderer)) {
        if let Some(dashboard) = &self.dashboard {
            dashboard.draw(draw);
        }
    }

    fn end_split(&self) {
        if let Some(dashboard) = &self.dashboard {
            dashboard.end_split();
        }
    }

    fn start_split(&self, name: &str, total: usize, items: usize) {
        if let Some(dashboard) = &self.dashboard {
            dashboard.start_split(name, total, items);
        }
    }

    fn update_split(&self, items: usize) {
        if let Some(dashboard) = &self.dashboard {
            dashboard.update_split(items);
        }
    }

    fn train_line(&self, row: &LogRow, seen: u64, total: u64) -> String {
        let percent = |share: Option<f64>| 100.0 * share.unwrap_or(0.0);
        let position = match self.options.unit {
            ProgressUnit::Tokens => format!(
                "train step {:>6}  tokens {:>8} of {}",
                row.step,
                human_count(seen),
                human_count(total)
            ),
            ProgressUnit::Steps => format!("train step {:>5} of {total}", row.step),
        };
        let accuracy = row.masked_accuracy;
        let accuracy = accuracy.map_or(String::new(), |a| format!("  accuracy {:.1} %", 100.0 * a));
        let mfu = row.mfu;
        let mfu = mfu.map_or(String::new(), |mfu| format!("  mfu {:.1} %", 100.0 * mfu));
        format!(
            "{position}  loss {}{accuracy}  lr {:.2e}  norm {:.2}  batch {}  packed {:.1} %  {:>7} tok/s  wait {:.1} %{mfu}  left {}",
            defined(row.loss),
            row.lr.unwrap_or(0.0),
            row.grad_norm.unwrap_or(0.0),
            human_count(row.batch_tokens.unwrap_or(0)),
            percent(row.packing),
            human_count(row.tok_s.unwrap_or(0.0) as u64),
            percent(row.data_wait),
            human_seconds(row.seconds_left.unwrap_or(0.0)),
        )
    }

    fn eval_line(&self, row: &LogRow, found: &Evaluation, total: u64, better: bool) -> String {
        let mut line = match self.options.unit {
            ProgressUnit::Tokens => format!(
                "eval  step {:>6}  tokens {:>8}",
                row.step,
                human_count(row.tokens)
            ),
            ProgressUnit::Steps => format!("eval  step {:>5} of {total}", row.step),
        };
        // A task with scores alone has no loss.
        if found.loss.is_some() || found.metrics.is_empty() {
            line += &format!("  loss {}", defined(found.loss));
        }
        if let Some(accuracy) = found.accuracy {
            line += &format!("  accuracy {:.1} %", 100.0 * accuracy);
        }
        for (name, value) in &found.metrics {
            line += &format!("  {name} {}", defined(*value));
        }
        if better {
            line += "  (best)";
        }
        line
    }
}

/// Four digits of a number, or `undefined`.
fn defined(value: Option<f64>) -> String {
    value.map_or("undefined".to_string(), |value| format!("{value:.4}"))
}
