//! STS-B: how similar are two sentences, from 0 to 5? A regression, scored by the correlations of Spearman and Pearson.
//!
//! ```sh
//! cargo run --release -p modernbert-training-examples --bin glue-stsb -- --model runs/demo --data GLUE --out runs/stsb
//! ```
//!
//! The paper starts this task from a model finetuned on MNLI: pass the folder that `glue-mnli` saved as `--model`.

#![recursion_limit = "256"]

use clap::Parser;
use modernbert_cli::main_with;
use modernbert_glue::metrics::correlation::{pearson, spearman};
use modernbert_glue::task::Task;
use modernbert_train::finetune::{DevScore, FinetuneOptions, scores};
use modernbert_training_examples::finetuning::{GlueArgs, Session};

/// STS-B: how similar are two sentences, from 0 to 5?
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
    // In f32, as by the authors: a mean squared error of scores up to 5 needs more precision than bf16 has.
    let session = Session::open(&args.finetune, &[&args.data])?.in_f32();
    let data = args.load(Task::Stsb)?;
    // A row is two sentences and a number.
    let train = session.encode(&data.train.texts())?;
    let dev = session.encode(&data.dev[0].texts())?;

    // The paper's settings for base models (arXiv 2412.13663, table 6).
    let options = FinetuneOptions {
        epochs: 10,
        learning_rate: 8e-5,
        weight_decay: 5e-6,
        batch_size: 64,
        patience: Some(3),
        label: "glue-stsb".to_string(),
        ..FinetuneOptions::default()
    };
    let truth = data.dev[0].scores();
    let score = move |outputs: &[Vec<f32>]| {
        // One output and no labels: the loss is a mean squared error.
        let predicted = scores(outputs);
        let spearman = spearman(&truth, &predicted);
        Ok(DevScore {
            main: spearman,
            metrics: vec![
                ("spearman".to_string(), spearman),
                ("pearson".to_string(), pearson(&truth, &predicted)),
            ],
        })
    };
    let finetuned = session.finetune(&[], train, dev, options, score)?;
    session.write_scores(&data.dev[0], &finetuned.outputs)
}
