//! `modernbert-glue predict`.

use clap::Args;
use modernbert::output::OutputCheck;
use modernbert_cli::counter::Counter;
use modernbert_cli::text::{counted, shown};
use modernbert_cli::{DeviceArgs, describe};
use modernbert_glue::data::{DataSource, GlueDataError};
use modernbert_glue::run::RunError;
use modernbert_glue::submission::{find_model, is_own_folder, predict_task};
use std::path::PathBuf;

use super::common::{failed, make_folder, print, tasks};

#[derive(Args)]
pub(crate) struct PredictArgs {
    /// Predicts with the models in the folder of this run.
    #[arg(long, value_name = "RUN")]
    run: PathBuf,
    /// Reads the test sets from this folder or data set of the Hub.
    #[arg(long, value_name = "FOLDER|NAME")]
    data: String,
    /// Writes CoLA.tsv, MNLI-m.tsv, … to this folder.
    #[arg(long, value_name = "FOLDER")]
    out: PathBuf,
    /// Predicts these tasks, separated by commas, also ax (with MNLI's model); by default all for which the run has a model.
    #[arg(long, value_name = "TASKS", default_value = "all")]
    task: String,
    #[command(flatten)]
    device: DeviceArgs,
}

pub(crate) fn run(args: &PredictArgs) -> anyhow::Result<()> {
    let wanted = tasks(&args.task, false)?;
    let mut models = Vec::new();
    for task in wanted {
        match find_model(&args.run, task) {
            Some(model) => models.push((task, model)),
            None if args.task == "all" => print(&format!("{task}: no model in this run, left out")),
            None => anyhow::bail!(
                "{task}: {} has no finetuned model for it; run it there with --keep best",
                args.run.display()
            ),
        }
    }
    anyhow::ensure!(
        !models.is_empty(),
        "{}: no finetuned model there; give the --out folder of a run that kept its models",
        args.run.display()
    );
    OutputCheck::folder(&args.out)
        .inputs([&args.run, &PathBuf::from(&args.data)])
        .replaces(is_own_folder)
        .check()?;
    let device = args.device.select()?;
    print(&describe(&device, "as in the run"));
    let tasks: Vec<_> = models.iter().map(|(task, _)| *task).collect();
    let data = DataSource::parse(&args.data).resolve(&tasks)?;
    make_folder(&args.out)?;
    let (mut failures, mut files) = (Vec::new(), 0);
    for (task, model) in &models {
        let mut counter: Option<(String, Counter)> = None;
        let mut see = |split: &str, done: usize, total: usize| {
            let label = format!("{task} {split}");
            if counter.as_ref().is_none_or(|(known, _)| *known != label) {
                counter = Some((label.clone(), Counter::new(label, total)));
            }
            if let Some((_, counter)) = &mut counter {
                counter.update(done);
            }
        };
        let predicted = predict_task(*task, &data, model, &device.device, &args.out, &mut see);
        drop(counter);
        match predicted {
            Ok(written) => {
                for file in &written {
                    files += 1;
                    let partial = if file.partial {
                        ", fewer than the official test set"
                    } else {
                        ""
                    };
                    print(&format!(
                        "{task}: {}{partial}, {} truncated, model of seed {} -> {}",
                        counted(file.rows, "row", "rows"),
                        counted(file.truncated, "input", "inputs"),
                        model.record.settings.seed,
                        shown(&file.path)
                    ));
                }
                let official = task.test_splits().len();
                if written.len() < official {
                    print(&format!(
                        "{task}: {} of {official} test sets found",
                        written.len()
                    ));
                }
            }
            // By default tasks without a test set are skipped.
            Err(RunError::Data(
                error @ (GlueDataError::NoFile { .. } | GlueDataError::NoTaskFolder { .. }),
            )) if args.task == "all" => print(&format!("{task}: left out: {error}")),
            Err(error) => {
                print(&format!("{task}: failed: {error}"));
                failures.push((*task, error.to_string()));
            }
        }
    }
    anyhow::ensure!(
        files > 0 || !failures.is_empty(),
        "{}: no test set of a task with a model in {}; get the test files with the official GLUE download or from the Hub (nyu-mll/glue)",
        args.data,
        args.run.display()
    );
    print(&format!(
        "predict: files={files} failed={} out={}",
        failures.len(),
        shown(&args.out)
    ));
    failed(&failures, models.len())
}
