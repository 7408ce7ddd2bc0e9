//! `modernbert-glue watch`.

use anyhow::bail;
use clap::Args;
use modernbert::checkpoint::WEIGHTS_FILE;
use modernbert::output::OutputCheck;
use modernbert_glue::run::Keep;
use modernbert_glue::watch::{is_scores_folder, score, unscored};
use modernbert_train::run_dir::RECIPE_FILE;
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::{Duration, Instant};

use super::common::{JobArgs, ended, failed, print, tasks};
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
    let data = job.folder(&tasks)?;
    let _lock = job.make_out()?;
    let mut scored = 0;
    let mut interrupted = false;
    'runs: loop {
        // Looked up first: the last checkpoint is written before the model.
        let is_finished = run.join(WEIGHTS_FILE).is_file();
        let mut is_idle = true;
        for checkpoint in unscored(run, &tasks, &job.out)? {
            if options.interrupter.should_stop() {
                interrupted = true;
                break 'runs;
            }
            print(&format!("checkpoint of step {}:", checkpoint.step));
            let Some(report) = score(&checkpoint, run, &tasks, &data, &options, &job.out)? else {
                print("the run has removed it meanwhile; it has no score");
                continue;
            };
            if report.interrupted {
                interrupted = true;
                break 'runs;
            }
            failed(&report.failures, tasks.len())?;
            (scored, is_idle) = (scored + 1, false);
        }
        if args.once || is_finished && is_idle {
            break;
        }
        let due = Instant::now() + Duration::from_secs(if is_idle { args.every } else { 0 });
        while Instant::now() < due {
            if options.interrupter.should_stop() {
                interrupted = true;
                break 'runs;
            }
            std::thread::sleep(Duration::from_millis(100));
        }
    }
    print(&format!(
        "watch: checkpoints={scored} seconds={:.0} out={}",
        started.elapsed().as_secs_f64(),
        job.out.display()
    ));
    Ok(ended(interrupted, &job.out))
}
