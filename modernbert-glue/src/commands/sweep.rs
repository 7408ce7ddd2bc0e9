//! `modernbert-glue sweep`.

use clap::Args;
use modernbert_cli::text::shown;
use modernbert_glue::run::{MnliStart, Pretrained};
use modernbert_glue::sweep::{Grid, run_sweep, table};
use std::process::ExitCode;
use std::time::Instant;

use super::common::{
    JobArgs, ModelArgs, at_most, check_decay, check_mnli, check_rate, ended, failed, positive,
    print, tasks,
};

#[derive(Args)]
pub(crate) struct SweepArgs {
    #[command(flatten)]
    job: JobArgs,
    #[command(flatten)]
    model: ModelArgs,
    /// Tries these peak learning rates, separated by commas; by default the paper's 1e-5, 3e-5, 5e-5 and 8e-5, times 768 / width for
    /// narrower models.
    #[arg(long, value_delimiter = ',')]
    learning_rates: Vec<f64>,
    /// Tries these weight decays; by default the paper's 1e-6, 5e-6, 8e-6 and 1e-5.
    #[arg(long, value_delimiter = ',')]
    weight_decays: Vec<f64>,
    /// Tries these numbers of epochs; by default the paper's 1, 2, 3 for SST-2, MNLI and RTE, and 2, 5, 10 for the others.
    #[arg(long, value_delimiter = ',')]
    epochs: Vec<usize>,
}

pub(crate) fn run(args: &SweepArgs) -> anyhow::Result<ExitCode> {
    let started = Instant::now();
    let job = &args.job;
    let tasks = tasks(&job.task, true)?;
    for &epochs in &args.epochs {
        positive("--epochs", Some(epochs))?;
        at_most("--epochs", Some(epochs), 10_000)?;
    }
    for &rate in &args.learning_rates {
        check_rate(Some(rate))?;
    }
    for &decay in &args.weight_decays {
        check_decay(Some(decay))?;
    }
    let options = job.options()?;
    job.check_out(&args.model.model)?;
    let pretrained = Pretrained::open(&args.model.model)?;
    job.check_length(pretrained.config())?;
    if let MnliStart::Folder(folder) = &options.mnli {
        check_mnli(folder, Some(pretrained.config()), "--model")?;
    }
    let data = job.folder(&tasks)?;
    let _lock = job.make_out()?;
    let grid = Grid {
        learning_rates: args.learning_rates.clone(),
        weight_decays: args.weight_decays.clone(),
        epochs: args.epochs.clone(),
    };
    let report = run_sweep(&tasks, &data, &pretrained, &options, &grid, &job.out)?;
    for (task, found) in report.sweep.iter().filter(|(task, _)| tasks.contains(task)) {
        print("");
        print(&table(*task, found));
    }
    print(&format!(
        "sweep: tasks={} failed={} runs={} kept={} seconds={:.0} out={}",
        tasks.len(),
        report.failures.len(),
        report.made,
        report.kept,
        started.elapsed().as_secs_f64(),
        shown(&job.out)
    ));
    failed(&report.failures, tasks.len())?;
    Ok(ended(report.interrupted, &job.out))
}
