//! `modernbert-glue watch`.

use anyhow::bail;
use clap::Args;
use modernbert::checkpoint::{WEIGHTS_FILE, read_config};
use modernbert::config::ModernBertConfig;
use modernbert::lock::is_locked;
use modernbert::output::OutputCheck;
use modernbert::tokenizer::{self, Tokenizer};
use modernbert_cli::text::shown;
use modernbert_glue::data::TaskData;
use modernbert_glue::run::{Keep, MnliStart, RunOptions};
use modernbert_glue::task::Task;
use modernbert_glue::watch::{is_scores_folder, read_scores, score, unscored};
use modernbert_train::run_dir::{RECIPE_FILE, list_checkpoints, recipe_of_run};
use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::{Duration, Instant};

use super::common::{JobArgs, check_mnli, ended, failed, print, tasks};
use super::run::SettingArgs;

#[derive(Args)]
pub(crate) struct WatchArgs {
    /// Finetunes from the checkpoints of this pretraining run, and ends with it; finetuned models are not kept.
    run: PathBuf,
    #[command(flatten)]
    job: JobArgs,
    #[command(flatten)]
    settings: SettingArgs,
    /// Looks for new checkpoints at this interval, in seconds.
    #[arg(long, value_name = "SECONDS", default_value_t = 30, value_parser = clap::value_parser!(u64).range(1..=86_400))]
    every: u64,
    /// Scores the existing checkpoints and ends, instead of waiting for the end of the run.
    #[arg(long)]
    once: bool,
}

pub(crate) fn run(args: &WatchArgs) -> anyhow::Result<ExitCode> {
    let started = Instant::now();
    let (job, run) = (&args.job, &args.run);
    let tasks = tasks(&job.task, true)?;
    let mut options = job.options()?;
    args.settings.set(&mut options)?;
    options.keep = Keep::None;
    if !run.join(RECIPE_FILE).is_file() {
        bail!(
            "{}: no pretraining run is there (it has no {RECIPE_FILE}); give the --out of `modernbert-train run`",
            run.display()
        );
    }
    OutputCheck::folder(&job.out)
        .inputs([PathBuf::from(&job.data), run.clone()])
        .replaces(is_scores_folder)
        .check()?;
    if let MnliStart::Folder(folder) = &options.mnli {
        check_mnli(folder, config_of(run)?.as_ref(), "the run's")?;
    }
    if let Some(config) = config_of(run)? {
        job.check_length(&config)?;
    }
    let data = job.folder(&tasks)?;
    // The first checkpoint may be hours away.
    for &task in &tasks {
        TaskData::load(&data, task)?;
    }
    let _lock = job.make_out()?;
    let mut watch = Watch {
        args,
        tasks,
        options,
        data,
        tried: BTreeSet::new(),
        failures: Vec::new(),
    };
    let end = watch.until_end()?;
    print(&format!(
        "watch: checkpoints={} failed={} seconds={:.0} out={}",
        watch.tried.len() - watch.failures.len(),
        watch.failures.len(),
        started.elapsed().as_secs_f64(),
        shown(&job.out)
    ));
    watch.report(&end)?;
    Ok(ended(matches!(end, End::Interrupted), &job.out))
}

/// The config of a run's model; `None` before the run's first checkpoint, while its tokenizer is not trained.
fn config_of(run: &Path) -> anyhow::Result<Option<ModernBertConfig>> {
    if let Some(newest) = list_checkpoints(run)?.last() {
        return Ok(Some(read_config(&newest.path)?));
    }
    if !run.join(tokenizer::FILES[0]).is_file() {
        return Ok(None);
    }
    let vocab_size = Tokenizer::from_folder(run)?.vocab_size();
    let phases = recipe_of_run(run)?.phases()?;
    let first = phases.first().map(|phase| &phase.recipe.model);
    Ok(first.map(|model| model.config(vocab_size)).transpose()?)
}

/// Reason why nothing more is scored.
enum End {
    /// The run is finished, or `--once` was given.
    Done,
    /// A signal.
    Interrupted,
    /// No process works on the run any more, and the run has no model.
    Abandoned,
}

struct Watch<'a> {
    args: &'a WatchArgs,
    tasks: Vec<Task>,
    options: RunOptions,
    data: PathBuf,
    /// Steps of the checkpoints that this process has finetuned from.
    tried: BTreeSet<u64>,
    /// Those of them without all scores, and why.
    failures: Vec<(u64, String)>,
}

impl Watch<'_> {
    /// Scores the checkpoints that are there and those that appear until the run ends.
    ///
    /// # Errors
    /// The run's folder, or scores that can't be read or written. Other failures are noted.
    fn until_end(&mut self) -> anyhow::Result<End> {
        let run = &self.args.run;
        let mut was_left = false;
        loop {
            // Looked up first, in this order: the last checkpoint is written before the model, and the model before the lock is freed.
            let is_left = is_locked(run) == Some(false);
            let is_finished = run.join(WEIGHTS_FILE).is_file();
            let Some(count) = self.score_new()? else {
                return Ok(End::Interrupted);
            };
            if self.args.once || is_finished && count == 0 {
                self.say_unreachable()?;
                return Ok(End::Done);
            }
            // Left at two looks in a row: a run that was ended may be resumed at once.
            if count == 0 && is_left && was_left {
                return Ok(End::Abandoned);
            }
            was_left = count == 0 && is_left;
            let due = Duration::from_secs(if count == 0 { self.args.every } else { 0 });
            let due = Instant::now() + due;
            while Instant::now() < due {
                if self.options.interrupter.should_stop() {
                    return Ok(End::Interrupted);
                }
                std::thread::sleep(Duration::from_millis(100));
            }
        }
    }

    /// Scores the checkpoints that have no score yet and were not tried; returns their number, or `None` after an interruption.
    fn score_new(&mut self) -> anyhow::Result<Option<usize>> {
        let (run, out) = (&self.args.run, &self.args.job.out);
        let seeds = self.options.seeds.len();
        let mut count = 0;
        for checkpoint in unscored(run, &self.tasks, seeds, self.options.again, out)? {
            let step = checkpoint.step;
            if self.tried.contains(&step) {
                continue;
            }
            if self.options.interrupter.should_stop() {
                return Ok(None);
            }
            print(&format!("checkpoint of step {step}:"));
            let (tasks, options) = (&self.tasks, &self.options);
            let failure = match score(&checkpoint, run, tasks, &self.data, options, out) {
                Ok(None) => {
                    print("the run has removed it meanwhile; it has no score");
                    continue;
                }
                Ok(Some(report)) if report.interrupted => return Ok(None),
                Ok(Some(report)) => failed(&report.failures, tasks.len()).err(),
                Err(error) if error.is_of_checkpoint() => {
                    print(&format!("failed: {error}"));
                    Some(error.into())
                }
                Err(error) => return Err(error.into()),
            };
            let failure = failure.map(|error| (step, format!("{error:#}")));
            self.failures.extend(failure);
            self.tried.insert(step);
            count += 1;
        }
        Ok(Some(count))
    }

    /// Names scores over fewer seeds than wanted whose checkpoint the run has removed.
    fn say_unreachable(&self) -> anyhow::Result<()> {
        let seeds = self.options.seeds.len();
        for row in read_scores(&self.args.job.out)? {
            let step = row.checkpoint.step;
            if row.seeds < seeds && self.tasks.contains(&row.task) && !self.tried.contains(&step) {
                print(&format!(
                    "step {step}: {} has {} of {seeds} seeds, and the run has removed the checkpoint",
                    row.task, row.seeds
                ));
            }
        }
        Ok(())
    }

    /// The error of a watch whose run has no model or some of whose checkpoints have no score.
    fn report(&self, end: &End) -> anyhow::Result<()> {
        let mut problems: Vec<String> = Vec::new();
        if matches!(end, End::Abandoned) {
            let run = shown(&self.args.run);
            problems.push(format!(
                "{run}: the run ended without a model: no process works on it, and it has no {WEIGHTS_FILE}; continue it with \
                 `modernbert-train resume {run}`, then watch it again"
            ));
        }
        if !self.failures.is_empty() {
            let lines = self.failures.iter();
            let lines: Vec<String> = lines
                .map(|(step, reason)| format!("step {step}: {reason}"))
                .collect();
            problems.push(format!(
                "{} of {} checkpoints failed: {}; the same command repeats what failed",
                self.failures.len(),
                self.tried.len(),
                lines.join("; ")
            ));
        }
        match problems.is_empty() {
            true => Ok(()),
            false => bail!("{}", problems.join("; ")),
        }
    }
}
