//! MRPC: do two sentences of the news mean the same? Scored by F1 and accuracy.
//!
//! ```sh
//! cargo run --release -p modernbert-training-examples --bin glue-mrpc -- --model runs/demo --data GLUE --out runs/mrpc
//! ```
//!
//! The paper starts this task from a model finetuned on MNLI: pass the folder that `glue-mnli` saved as `--model`.
#![recursion_limit = "256"]

use clap::Parser;
use modernbert_cli::main_with;
use modernbert_glue::metrics::classification::{accuracy, f1};
use modernbert_glue::task::Task;
use modernbert_train::finetune::{DevScore, FinetuneOptions, classes};
use modernbert_training_examples::finetuning::{GlueArgs, Session, names};

/// MRPC: do two sentences of the news mean the same? Scored by F1 and accuracy.
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
    let data = args.load(Task::Mrpc)?;
    // A row is two sentences and a class: 1 if they mean the same. Two thirds of the rows have class 1, so that F1 is scored beside accuracy.
    let train = session.encode(&data.train.texts())?;
    let dev = session.encode(&data.dev[0].texts())?;

    // The paper's settings for base models (arXiv 2412.13663, table 6).
    let options = FinetuneOptions {
        epochs: 10,
        learning_rate: 5e-5,
        weight_decay: 5e-6,
        batch_size: 64,
        patience: Some(3),
        label: "glue-mrpc".to_string(),
        ..FinetuneOptions::default()
    };
    let truth = data.dev[0].classes();
    let score = move |outputs: &[Vec<f32>]| {
        let predicted = classes(outputs);
        Ok(DevScore {
            main: f1(&truth, &predicted),
            metrics: vec![
                ("f1".to_string(), f1(&truth, &predicted)),
                ("accuracy".to_string(), accuracy(&truth, &predicted)),
            ],
        })
    };
    let labels = names(&["not_equivalent", "equivalent"]);
    let finetuned = session.finetune(&labels, train, dev, options, score)?;
    session.write_classes(&labels, &data.dev[..1], &finetuned.outputs)
}
