//! All tasks and seeds of a command, in two rounds; a failure ends only its own run.

use modernbert::checkpoint::{CONFIG_FILE, WEIGHTS_FILE};
use modernbert::tokenizer;
use modernbert_cli::text::human_seconds;
use modernbert_train::engine::Progress;
use modernbert_train::finetune::JobClock;
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Instant;

use super::record::RunRecord;
use super::{
    Keep, MODEL_FOLDER, MnliStart, Pretrained, Run, RunError, RunOptions, TaskSequences, run_seed,
    seed_folder,
};
use crate::results::{Results, SeedResult, TaskResult};
use crate::task::Task;

/// Result of a job.
#[derive(Default)]
pub struct JobReport {
    /// The results of its tasks.
    pub results: Results,
    /// Reason why a task, or a seed of it, has none.
    pub failures: Vec<(Task, String)>,
    /// Existing runs that were kept.
    pub kept: usize,
    /// Runs that were made.
    pub made: usize,
    /// True if the job was interrupted; the same command resumes it.
    pub interrupted: bool,
}

struct Job<'a> {
    pretrained: &'a Pretrained,
    options: &'a RunOptions,
    out: &'a Path,
    clock: Arc<JobClock>,
    runs: usize,
    begun: usize,
    report: JobReport,
}

/// Runs tasks with every seed, the ones that start from MNLI last, and keeps `results.json` in `out` up to date.
///
/// Runs that `out` holds with the same settings are kept as they are. A task or seed that fails is reported; the others
/// continue.
///
/// # Errors
/// A results file that can't be written or has other content; other errors are in the report.
pub fn run_job(
    tasks: &[Task],
    data: &Path,
    pretrained: &Pretrained,
    options: &RunOptions,
    out: &Path,
) -> Result<JobReport, RunError> {
    // A results file that can't be read is an error before the hours of work, not after.
    Results::read(out)?;
    let mut report = JobReport::default();
    let max_length = options
        .max_length
        .min(pretrained.config().max_position_embeddings);
    let mut options = options.clone();
    options.max_length = max_length;
    let mut prepared = BTreeMap::new();
    for &task in tasks {
        let tokenizer = pretrained.tokenizer();
        match TaskSequences::new(task, data, tokenizer, max_length, options.max_rows) {
            Ok(ready) => {
                let rows = (ready.train.len(), ready.dev.len());
                note(
                    &options,
                    &format!("{task}: {} training rows, {} dev rows", rows.0, rows.1),
                );
                for line in &ready.notes {
                    note(&options, &format!("{task}: {line}"));
                }
                prepared.insert(task, ready);
            }
            Err(error) => fail(&options, &mut report, task, &error.to_string()),
        }
    }
    let mut job = Job {
        pretrained,
        options: &options,
        out,
        clock: Arc::new(JobClock::new(0)),
        runs: prepared.len() * options.seeds.len(),
        begun: 0,
        report,
    };
    job.plan(&prepared);
    let from_mnli = |task: &Task| options.mnli != MnliStart::Off && task.starts_from().is_some();
    let (second, first): (Vec<Task>, Vec<Task>) =
        tasks.iter().copied().partition(|task| from_mnli(task));
    for &task in &first {
        if let Some(prepared) = prepared.get(&task) {
            job.task(prepared, None)?;
        }
    }
    let mnli = if second.is_empty() || job.report.interrupted {
        None
    } else {
        job.mnli()
    };
    for &task in &second {
        if let Some(prepared) = prepared.get(&task) {
            job.task(prepared, mnli.as_deref())?;
        }
    }
    if options.keep == Keep::None && !job.report.interrupted {
        for &task in tasks {
            job.prune(task, None);
        }
    }
    Ok(job.report)
}

impl Job<'_> {
    fn run<'r>(
        &'r self,
        prepared: &'r TaskSequences,
        seed: u64,
        mnli: Option<&'r Path>,
    ) -> Run<'r> {
        Run {
            prepared,
            pretrained: self.pretrained,
            options: self.options,
            seed,
            mnli,
            label: format!("{} seed {seed}", prepared.data.task),
            clock: Some(self.clock.clone()),
        }
    }

    /// Adds up the work of all runs; finished work is subtracted.
    fn plan(&mut self, prepared: &BTreeMap<Task, TaskSequences>) {
        let mut work = 0;
        for prepared in prepared.values() {
            for &seed in &self.options.seeds {
                let run = self.run(prepared, seed, None);
                if let Ok(options) = run.finetune_options() {
                    work += options.cost_in_tokens(&prepared.train, &prepared.dev);
                }
            }
        }
        self.clock = Arc::new(JobClock::new(work));
    }

    /// The MNLI model the second round starts from.
    fn mnli(&self) -> Option<PathBuf> {
        match &self.options.mnli {
            MnliStart::Off => None,
            MnliStart::Folder(folder) => Some(folder.clone()),
            MnliStart::Auto => {
                let best = best_model(self.out, Task::Mnli);
                if best.is_none() {
                    note(
                        self.options,
                        "no model finetuned on MNLI in this job: rte, mrpc and stsb start from the pretrained one",
                    );
                }
                best
            }
        }
    }

    fn task(&mut self, prepared: &TaskSequences, mnli: Option<&Path>) -> Result<(), RunError> {
        let task = prepared.data.task;
        if self.report.interrupted {
            return Ok(());
        }
        // Before any run: `results.json` keeps the results of the other settings.
        if let Some(error) = self.conflict(prepared, mnli) {
            fail(self.options, &mut self.report, task, &error.to_string());
            return Ok(());
        }
        let begun = Instant::now();
        let (mut records, mut failed) = (Vec::new(), Vec::new());
        for &seed in &self.options.seeds {
            self.begun += 1;
            match self.seed(prepared, seed, mnli) {
                Ok(record) => records.push(record),
                Err(error @ RunError::Interrupted { .. }) => {
                    note(self.options, &error.to_string());
                    self.report.interrupted = true;
                    return Ok(());
                }
                Err(error) => {
                    let message = error.to_string();
                    let prefix = format!("{task} seed {seed}: ");
                    let reason = message.strip_prefix(&prefix).unwrap_or(&message);
                    let reason = format!("seed {seed}: {reason}");
                    fail(self.options, &mut self.report, task, &reason);
                    failed.push(reason);
                }
            }
        }
        let seeds = records.iter().map(|record| SeedResult {
            seed: record.settings.seed,
            metrics: record.metrics.clone(),
        });
        let mut result =
            TaskResult::new(&prepared.data, prepared.baseline.clone(), seeds.collect());
        result.notes = prepared.notes.clone();
        result.failed = failed;
        if let Some(record) = records.last() {
            result.start = record.settings.start.clone();
            let settings = &record.settings;
            note(
                self.options,
                &format!(
                    "{task}: {} | from {}, {} epochs, batch {}, lr {:.1e}, wd {:.0e}, best at step {} of {} | {}",
                    result.metrics,
                    settings.start,
                    settings.epochs,
                    settings.batch_size,
                    settings.learning_rate,
                    settings.weight_decay,
                    record.best_step,
                    record.planned_steps,
                    human_seconds(begun.elapsed().as_secs_f64())
                ),
            );
        }
        self.report.results.tasks.insert(task, result);
        // Written after each task, so that a later failure loses no result.
        self.report.results.write(self.out)?;
        if self.options.keep == Keep::Best {
            // Without a defined score none is best, and none is removed.
            if let Some(best) = best_model(self.out, task) {
                self.prune(task, Some(best));
            }
        }
        Ok(())
    }

    /// The first finished run of a task with other settings, which this job would not replace.
    fn conflict(&self, prepared: &TaskSequences, mnli: Option<&Path>) -> Option<RunError> {
        if self.options.again {
            return None;
        }
        let task = prepared.data.task;
        self.options.seeds.iter().find_map(|&seed| {
            let settings = self.run(prepared, seed, mnli).settings().ok()?;
            let folder = seed_folder(self.out, task, seed);
            match RunRecord::matching(&folder, task, &settings) {
                Err(error @ RunError::OtherSettings { .. }) => Some(error),
                _ => None,
            }
        })
    }

    fn seed(
        &mut self,
        prepared: &TaskSequences,
        seed: u64,
        mnli: Option<&Path>,
    ) -> Result<RunRecord, RunError> {
        let task = prepared.data.task;
        let folder = seed_folder(self.out, task, seed);
        let mut run = self.run(prepared, seed, mnli);
        if !self.options.again {
            let settings = run.settings()?;
            if let Some(record) = RunRecord::matching(&folder, task, &settings)? {
                let work = run
                    .finetune_options()?
                    .cost_in_tokens(&prepared.train, &prepared.dev);
                self.clock.drop_work(work);
                note(
                    self.options,
                    &format!("{task}: seed {seed} is done already and kept"),
                );
                self.report.kept += 1;
                return Ok(record);
            }
        }
        // Only the dashboard's title shows the progress of the job.
        if self.options.progress == Progress::Dashboard {
            run.label = format!(
                "{} (run {} of {}, {})",
                run.label, self.begun, self.runs, self.clock
            );
        }
        note(
            self.options,
            &format!("{task}: seed {seed}, run {} of {}", self.begun, self.runs),
        );
        let keep = self.options.keep != Keep::None || task == Task::Mnli;
        let record = run_seed(&run, &folder, keep)?;
        self.report.made += 1;
        Ok(record)
    }

    /// Removes the models of a task but one.
    fn prune(&self, task: Task, but: Option<PathBuf>) {
        for &seed in &self.options.seeds {
            let model = seed_folder(self.out, task, seed).join(MODEL_FOLDER);
            if but.as_ref() == Some(&model) {
                continue;
            }
            // Only what a run writes is removed, and a model that can't be removed only takes disk space.
            let files = [CONFIG_FILE, WEIGHTS_FILE].into_iter();
            for name in files.chain(tokenizer::FILES) {
                let _ = std::fs::remove_file(model.join(name));
            }
            let _ = std::fs::remove_dir(model);
        }
    }
}

/// The model of the run with the best main score among the finished ones of a task in a job's folder.
pub(crate) fn best_model(out: &Path, task: Task) -> Option<PathBuf> {
    best_run(out, task).map(|(_, folder)| folder.join(MODEL_FOLDER))
}

/// The run that kept its model and has the best main score; of equals the one of the lowest seed. A run whose main score is undefined,
/// such as the correlation of constant predictions, is never the best.
pub(crate) fn best_run(out: &Path, task: Task) -> Option<(RunRecord, PathBuf)> {
    let runs = out.join("runs").join(task.name());
    let entries = std::fs::read_dir(runs).into_iter().flatten().flatten();
    let mut found: Vec<(f64, RunRecord, PathBuf)> = entries
        .map(|entry| entry.path())
        .filter(|path| path.join(MODEL_FOLDER).is_dir())
        .filter_map(|path| {
            let record = RunRecord::read(&path).ok()??;
            let score = record.main_score().filter(|_| record.task == task)?;
            Some((score, record, path))
        })
        .collect();
    found.sort_by(|(a, first, _), (b, second, _)| {
        let by_score = b.total_cmp(a);
        by_score.then(first.settings.seed.cmp(&second.settings.seed))
    });
    let (_, record, path) = found.into_iter().next()?;
    Some((record, path))
}

fn fail(options: &RunOptions, report: &mut JobReport, task: Task, message: &str) {
    // Some messages name the task themselves.
    let prefix = format!("{task}: ");
    let message = message.strip_prefix(&prefix).unwrap_or(message);
    note(options, &format!("{task}: failed: {message}"));
    report.failures.push((task, message.to_string()));
}

fn note(options: &RunOptions, text: &str) {
    options.progress.note(text);
}
