//! `modernbert-glue run`.

use clap::{Args, ValueEnum};
use modernbert_cli::text::shown;
use modernbert_glue::run::{Keep, MnliStart, Pretrained, RunOptions, run_job};
use modernbert_glue::sweep::read_sweep;
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Instant;

use super::common::{
    JobArgs, ModelArgs, at_most, check_decay, check_mnli, check_rate, ended, failed, positive,
    print, tasks,
};

#[derive(Args)]
pub(crate) struct RunArgs {
    #[command(flatten)]
    job: JobArgs,
    #[command(flatten)]
    model: ModelArgs,
    #[command(flatten)]
    settings: SettingArgs,
    /// Uses the best settings of a sweep instead of the paper's.
    #[arg(long, value_name = "FOLDER")]
    sweep: Option<PathBuf>,
    /// Keeps these finetuned models: of every seed, of the best seed of each task, or none.
    #[arg(long, value_enum, default_value_t = KeepArg::Best)]
    keep: KeepArg,
}

/// Hyperparameters in place of the paper's.
#[derive(Args)]
pub(crate) struct SettingArgs {
    /// Trains for this many epochs; the paper's number for the task by default.
    #[arg(long)]
    epochs: Option<usize>,
    /// Trains at this peak learning rate; by default the paper's for the task, times 768 / width for narrower models.
    #[arg(long)]
    learning_rate: Option<f64>,
    /// Uses this decoupled weight decay; the paper's for the task by default.
    #[arg(long)]
    weight_decay: Option<f64>,
}

impl SettingArgs {
    /// Sets them in `options`.
    ///
    /// # Errors
    /// A value out of its range.
    pub(crate) fn set(&self, options: &mut RunOptions) -> anyhow::Result<()> {
        positive("--epochs", self.epochs)?;
        at_most("--epochs", self.epochs, 10_000)?;
        check_rate(self.learning_rate)?;
        check_decay(self.weight_decay)?;
        options.epochs = self.epochs;
        options.learning_rate = self.learning_rate;
        options.weight_decay = self.weight_decay;
        Ok(())
    }
}

#[derive(Clone, Copy, ValueEnum)]
enum KeepArg {
    All,
    Best,
    None,
}

pub(crate) fn run(args: &RunArgs) -> anyhow::Result<ExitCode> {
    let started = Instant::now();
    let job = &args.job;
    let tasks = tasks(&job.task, true)?;
    let mut options = job.options()?;
    args.settings.set(&mut options)?;
    options.keep = match args.keep {
        KeepArg::All => Keep::All,
        KeepArg::Best => Keep::Best,
        KeepArg::None => Keep::None,
    };
    if let Some(folder) = &args.sweep {
        let sweep = read_sweep(folder)?;
        let sweep =
            sweep.ok_or_else(|| anyhow::anyhow!("{}: no sweep.json there", folder.display()))?;
        let best = sweep
            .into_iter()
            .filter_map(|(task, found)| Some((task, found.best?)));
        options.tuned = best.collect();
        for task in tasks.iter().filter(|t| !options.tuned.contains_key(t)) {
            print(&format!(
                "{task}: not in the sweep, the paper's settings are used"
            ));
        }
    }
    job.check_out(&args.model.model)?;
    let pretrained = Pretrained::open(&args.model.model)?;
    job.check_length(pretrained.config())?;
    if let MnliStart::Folder(folder) = &options.mnli {
        check_mnli(folder, Some(pretrained.config()), "--model")?;
    }
    let data = job.folder(&tasks)?;
    let _lock = job.make_out()?;
    let report = run_job(&tasks, &data, &pretrained, &options, &job.out)?;
    let results = report.results;
    if !results.tasks.is_empty() {
        print("");
        print(&results.text_table());
    }
    let scored = results.tasks.values().filter(|r| !r.seeds.is_empty());
    let mut lost: Vec<_> = report.failures.iter().map(|(task, _)| *task).collect();
    lost.dedup();
    print(&format!(
        "glue: tasks={} failed={} runs={} kept={} seconds={:.0} out={}",
        scored.count(),
        lost.len(),
        report.made,
        report.kept,
        started.elapsed().as_secs_f64(),
        shown(&job.out)
    ));
    failed(&report.failures, tasks.len())?;
    Ok(ended(report.interrupted, &job.out))
}
