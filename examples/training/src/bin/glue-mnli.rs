//! MNLI: does the hypothesis follow from the premise, contradict the premise, or neither? Scored by accuracy on two dev sets: texts of the
//! same kinds as in training (matched) and of other kinds (mismatched).
//!
//! ```sh
//! cargo run --release -p modernbert-training-examples --bin glue-mnli -- --model runs/demo --data GLUE --out runs/mnli
//! ```
//!
//! The paper starts RTE, MRPC and STS-B from the model that this program saves.

#![recursion_limit = "256"]

use clap::Parser;
use modernbert_cli::main_with;
use modernbert_glue::metrics::classification::accuracy;
use modernbert_glue::task::Task;
use modernbert_train::finetune::{DevScore, FinetuneOptions, classes};
use modernbert_training_examples::finetuning::{GlueArgs, Session, names};

/// MNLI: does the hypothesis follow from the premise, contradict it, or neither?
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
    let data = args.load(Task::Mnli)?;
    let train = session.encode(&data.train.texts())?;
    // One list of both dev sets, the matched one first; the mismatched one may be missing.
    let mut dev = Vec::new();
    let mut sets = Vec::new();
    for split in &data.dev {
        dev.extend(session.encode(&split.texts())?);
        sets.push((split.name, split.classes()));
    }

    // The paper's settings for base models (arXiv 2412.13663, table 6).
    let options = FinetuneOptions {
        epochs: 1,
        learning_rate: 5e-5,
        weight_decay: 5e-6,
        batch_size: 64,
        evaluate_every: Some(2000),
        patience: Some(3),
        label: "glue-mnli".to_string(),
        ..FinetuneOptions::default()
    };
    let score = move |outputs: &[Vec<f32>]| {
        let predicted = classes(outputs);
        let (mut from, mut metrics) = (0, Vec::new());
        for (name, truth) in &sets {
            let to = from + truth.len();
            metrics.push((name.to_string(), accuracy(truth, &predicted[from..to])));
            from = to;
        }
        // The weights with the best mean over the sets are kept.
        let sum: Option<f64> = metrics.iter().map(|(_, value)| *value).sum();
        Ok(DevScore {
            main: sum.map(|sum| sum / metrics.len() as f64),
            metrics,
        })
    };
    let labels = names(&["entailment", "neutral", "contradiction"]);
    let finetuned = session.finetune(&labels, train, dev, options, score)?;
    session.write_classes(&labels, &data.dev, &finetuned.outputs)
}
