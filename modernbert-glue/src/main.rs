//! `modernbert-glue`: finetuning on GLUE from the command line.

#![recursion_limit = "256"]

use anyhow::{Context, bail};
use burn::train::Interrupter;
use clap::{Args, Parser, Subcommand};
use modernbert::model::Precision;
use modernbert_glue::results::Results;
use modernbert_glue::run::{Pretrained, RunOptions, TaskRun, run_task};
use modernbert_glue::task::Task;
use modernbert_train::cli::{DeviceArgs, describe, main_with};
use modernbert_train::trainer::{Progress, human_seconds};
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Instant;

/// Finetunes ModernBERT on GLUE.
#[derive(Parser)]
#[command(version, about, long_about = None)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Finetunes a pretrained model on each task and scores it on the dev sets.
    Run(RunArgs),
}

#[derive(Args)]
struct RunArgs {
    /// Tasks, separated by commas: cola, sst2, mrpc, stsb, qqp, mnli, qnli, rte, wnli; or all.
    #[arg(long, value_name = "TASKS")]
    task: String,
    /// Folder that holds CoLA, RTE, … as GLUE distributes them.
    #[arg(long, value_name = "FOLDER")]
    data: PathBuf,
    /// Folder of the pretrained model: config.json, model.safetensors, tokenizer.json.
    #[arg(long, value_name = "FOLDER")]
    model: PathBuf,
    /// Folder for results.json.
    #[arg(long, value_name = "FOLDER")]
    out: PathBuf,
    /// Number of runs per task, each from its own seed.
    #[arg(long, default_value_t = 1)]
    seeds: usize,
    /// Passes over the training set; by default the paper's number for the task.
    #[arg(long)]
    epochs: Option<usize>,
    /// Sequences of a step; by default the paper's 64.
    #[arg(long)]
    batch_size: Option<usize>,
    /// Peak learning rate; by default the paper's for the task, times 768 / width for narrower models.
    #[arg(long)]
    learning_rate: Option<f64>,
    /// Decoupled weight decay; by default the paper's for the task.
    #[arg(long)]
    weight_decay: Option<f64>,
    /// Longest input in tokens; what is longer is cut and counted.
    #[arg(long, default_value_t = 256)]
    max_length: usize,
    /// Share of the steps in which the learning rate rises.
    #[arg(long, default_value_t = 0.06)]
    warmup: f64,
    /// Only the first so many rows of each set; results then say that the set is partial.
    #[arg(long)]
    max_rows: Option<usize>,
    #[command(flatten)]
    device: DeviceArgs,
    /// Dtype of matrix products: f32 or bf16.
    #[arg(long, default_value = "f32")]
    dtype: String,
    /// Plain lines even on a terminal.
    #[arg(long)]
    lines: bool,
}

/// Seeds of the authors' evaluations, in their order, then consecutive numbers.
const SEEDS: [u64; 4] = [1618, 42, 6033, 3145];

fn main() -> ExitCode {
    let cli = Cli::parse();
    main_with(|| match cli.command {
        Command::Run(args) => run(&args),
    })
}

fn run(args: &RunArgs) -> anyhow::Result<()> {
    let started = Instant::now();
    let tasks = tasks(&args.task)?;
    check(args)?;
    let pretrained = Pretrained::open(&args.model)?;
    let device = args.device.select()?;
    let precision: Precision = args.dtype.parse().map_err(anyhow::Error::msg)?;
    if !device.device.supports_dtype(precision.dtype()) {
        bail!(
            "device {} doesn't compute in {}; use --dtype f32",
            device.name,
            precision.name()
        );
    }
    print(&describe(&device, precision.name()));
    let seeds = (0..args.seeds as u64)
        .map(|i| SEEDS.get(i as usize).copied().unwrap_or(10_000 + i))
        .collect();
    let options = RunOptions {
        model: args.model.clone(),
        device,
        precision,
        seeds,
        epochs: args.epochs,
        batch_size: args.batch_size,
        learning_rate: args.learning_rate,
        weight_decay: args.weight_decay,
        max_length: args.max_length,
        warmup: args.warmup,
        max_rows: args.max_rows,
        progress: if args.lines {
            Progress::Lines
        } else {
            Progress::detect()
        },
    };
    std::fs::create_dir_all(&args.out).with_context(|| {
        format!(
            "{}: the folder can't be made; give --out another one",
            args.out.display()
        )
    })?;
    // A results file that can't be read should be known before the hours of work, not after.
    Results::read(&args.out)?;

    let (mut results, mut failures) = (Results::default(), Vec::new());
    for (i, &task) in tasks.iter().enumerate() {
        let begun = Instant::now();
        print(&format!("{task}: task {} of {}", i + 1, tasks.len()));
        // Interrupting one task from its dashboard leaves the others alone.
        match run_task(
            task,
            &args.data,
            &pretrained,
            &options,
            &args.out,
            &Interrupter::new(),
        ) {
            Ok(run) => {
                report(task, &run, begun);
                results.tasks.insert(task, run.result);
                // Written after each task, so that nothing is lost should a later one fail.
                results.write(&args.out)?;
            }
            Err(error) => {
                let message = error.to_string();
                // Some messages name the task themselves.
                let message = message
                    .strip_prefix(&format!("{task}: "))
                    .unwrap_or(&message);
                print(&format!("{task}: failed: {message}"));
                failures.push(format!("{task}: {message}"));
            }
        }
    }
    if !results.tasks.is_empty() {
        print("");
        print(&results.text_table());
    }
    print(&format!(
        "glue: tasks={} failed={} seconds={:.0} out={}",
        results.tasks.len(),
        failures.len(),
        started.elapsed().as_secs_f64(),
        args.out.display()
    ));
    if !failures.is_empty() {
        // In full once more: standard error alone must say what to do.
        bail!(
            "{} of {} tasks failed: {}",
            failures.len(),
            tasks.len(),
            failures.join("; ")
        );
    }
    Ok(())
}

fn report(task: Task, run: &TaskRun, begun: Instant) {
    let settings = &run.settings;
    let (truncated, read) = run.truncated;
    print(&format!(
        "{task}: {} | {} epochs, batch {}, lr {:.1e}, wd {:.0e}, {} of {read} inputs cut, fresh: {} | {}",
        run.result.metrics,
        settings.epochs,
        settings.batch_size,
        settings.learning_rate,
        settings.weight_decay,
        truncated,
        run.load.fresh.join(", "),
        human_seconds(begun.elapsed().as_secs_f64())
    ));
}

fn tasks(names: &str) -> anyhow::Result<Vec<Task>> {
    if names == "all" {
        return Ok(Task::ALL
            .into_iter()
            .filter(|task| task.train_split().is_some())
            .collect());
    }
    let mut tasks = Vec::new();
    for name in names
        .split(',')
        .map(str::trim)
        .filter(|name| !name.is_empty())
    {
        let task: Task = name.parse()?;
        if task.train_split().is_none() {
            bail!("{task} has no training set; name another task");
        }
        if !tasks.contains(&task) {
            tasks.push(task);
        }
    }
    if tasks.is_empty() {
        bail!("--task names no task; give for example --task cola,rte,stsb");
    }
    Ok(tasks)
}

fn check(args: &RunArgs) -> anyhow::Result<()> {
    for (name, value) in [
        ("--seeds", Some(args.seeds)),
        ("--epochs", args.epochs),
        ("--batch-size", args.batch_size),
        ("--max-rows", args.max_rows),
    ] {
        if value == Some(0) {
            bail!("{name} is 0; it must be at least 1");
        }
    }
    if args.max_length < 8 {
        bail!(
            "--max-length is {}; at least 8 tokens are needed for a pair with its special tokens",
            args.max_length
        );
    }
    if !(0.0..1.0).contains(&args.warmup) {
        bail!(
            "--warmup is {}; it is a share of the steps, from 0 up to 1",
            args.warmup
        );
    }
    if args
        .learning_rate
        .is_some_and(|rate| !(rate > 0.0 && rate.is_finite()))
    {
        bail!("--learning-rate must be above 0");
    }
    if args
        .weight_decay
        .is_some_and(|decay| !(0.0..1.0).contains(&decay))
    {
        bail!("--weight-decay is a share of the weight, from 0 up to 1");
    }
    Ok(())
}

#[allow(clippy::print_stdout)] // a program's output
fn print(text: &str) {
    println!("{text}");
}
