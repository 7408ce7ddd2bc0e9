//! Finetunes on a task of SuperGLUE, from the benchmark's JSON lines: BoolQ, CB, COPA, MultiRC or WiC.
//!
//! ```sh
//! cargo run --release -p modernbert-training-examples --bin superglue -- --task boolq --model runs/demo --data SuperGLUE --out runs/boolq
//! ```

#![recursion_limit = "256"]

use clap::Parser;
use modernbert_cli::{main_with, say};
use modernbert_glue::superglue::{PairSet, SuperTask, read_choices, read_pairs};
use modernbert_train::finetune::{FinetuneOptions, classes};
use modernbert_training_examples::finetuning::{FinetuneArgs, Session, TaskHead, names};
use serde_json::json;
use std::path::PathBuf;

/// Finetunes on a task of SuperGLUE.
#[derive(Parser)]
#[command(version)]
struct Args {
    /// Finetunes on this task.
    #[arg(long, value_parser = ["boolq", "cb", "copa", "multirc", "wic"])]
    task: String,
    /// Reads SuperGLUE's data from this folder: folders BoolQ, CB, … as distributed, with train.jsonl and val.jsonl in each.
    #[arg(long, value_name = "FOLDER")]
    data: PathBuf,
    #[command(flatten)]
    finetune: FinetuneArgs,
}

/// Default longest input in tokens; large, because passages are long.
const MAX_LENGTH: usize = 512;

fn main() -> std::process::ExitCode {
    main_with(|| run(&modernbert_cli::parse::<Args>()))
}

fn run(args: &Args) -> anyhow::Result<()> {
    let Some(task) = SuperTask::named(&args.task) else {
        anyhow::bail!("--task is {}; give a task of SuperGLUE", args.task);
    };
    let session = Session::open(&args.finetune, &[&args.data])?.with_max_length(MAX_LENGTH);
    let options = FinetuneOptions {
        epochs: 10,
        patience: Some(3),
        label: format!("superglue-{}", args.task),
        ..FinetuneOptions::default()
    };
    let say_examples = |train: usize, dev: usize| {
        let official = task.official_examples();
        say(&format!(
            "{}: {train} of {} examples to train on, {dev} of {} to score on",
            task.name(),
            official.0,
            official.1
        ));
    };
    if task == SuperTask::Copa {
        let data = read_choices(&args.data)?;
        say_examples(data.train.rows.len(), data.dev.rows.len());
        let train = session.encode_choices(&data.train)?;
        let dev = session.encode_choices(&data.dev)?;
        let truth: Vec<usize> = dev.iter().map(|sample| sample.label as usize).collect();
        let score = move |outputs: &[Vec<f32>]| Ok(task.score(&truth, &classes(outputs), &[]));
        let finetuned = session.train(&TaskHead::choices(), train, dev, options, score)?;
        let rows = data.dev.rows.iter().zip(classes(&finetuned.outputs));
        return session.write_predictions(rows.map(
            |(row, choice)| json!({"line": row.line, "label": row.label, "prediction": choice}),
        ));
    }
    let data = read_pairs(&args.data, task)?;
    say_examples(data.train.len(), data.dev.len());
    let train = session.encode(&PairSet::texts(&data.train))?;
    let dev = session.encode(&PairSet::texts(&data.dev))?;
    let truth: Vec<usize> = data.dev.iter().map(|row| row.class).collect();
    let groups: Vec<usize> = data.dev.iter().map(|row| row.group).collect();
    let score = move |outputs: &[Vec<f32>]| Ok(task.score(&truth, &classes(outputs), &groups));
    let labels = task.labels();
    let finetuned = session.finetune(&names(labels), train, dev, options, score)?;
    let rows = data.dev.iter().zip(classes(&finetuned.outputs));
    session.write_predictions(rows.map(|(row, class)| {
        json!({"line": row.line, "label": labels[row.class], "prediction": labels[class]})
    }))
}
