//! QQP: do two questions of Quora ask the same? Scored by accuracy and F1.
//!
//! ```sh
//! cargo run --release -p modernbert-training-examples --bin glue-qqp -- --model runs/demo --data GLUE --out runs/qqp
//! ```
//!
//! The official file has a few rows that are broken over several lines; they are left out, and their lines are printed.
#![recursion_limit = "256"]

use clap::Parser;
use modernbert_cli::main_with;
use modernbert_glue::metrics::classification::{accuracy, f1};
use modernbert_glue::task::Task;
use modernbert_train::finetune::{DevScore, FinetuneOptions, classes};
use modernbert_training_examples::finetuning::{GlueArgs, Session, names};

/// QQP: do two questions of Quora ask the same? Scored by accuracy and F1.
#[derive(Parser)]
#[command(version)]
struct Args {
    #[command(flatten)]
    glue: GlueArgs,
}

fn main() -> std::process::ExitCode {
    main_with(|| run(&modernbert_cli::parse::<Args>().glue))
}

fn run(args: &GlueArgs) -> anyhow::Result<()> {
    let session = Session::open(&args.finetune, &[&args.data])?;
    let data = args.load(Task::Qqp)?;
    // A row is two questions and a class: 1 if they ask the same.
    let train = session.encode(&data.train.texts())?;
    let dev = session.encode(&data.dev[0].texts())?;

    // The paper's settings for base models (arXiv 2412.13663, table 6).
    let options = FinetuneOptions {
        epochs: 10,
        learning_rate: 5e-5,
        weight_decay: 5e-6,
        batch_size: 64,
        patience: Some(3),
        label: "glue-qqp".to_string(),
        ..FinetuneOptions::default()
    };
    let truth = data.dev[0].classes();
    let score = move |outputs: &[Vec<f32>]| {
        let predicted = classes(outputs);
        Ok(DevScore {
            main: accuracy(&truth, &predicted),
            metrics: vec![
                ("accuracy".to_string(), accuracy(&truth, &predicted)),
                ("f1".to_string(), f1(&truth, &predicted)),
            ],
        })
    };
    let labels = names(&["not_duplicate", "duplicate"]);
    let finetuned = session.finetune(&labels, train, dev, options, score)?;
    session.write_classes(&labels, &data.dev[..1], &finetuned.outputs)
}
