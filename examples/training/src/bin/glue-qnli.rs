//! QNLI: does the sentence answer the question? Scored by accuracy.
//!
//! ```sh
//! cargo run --release -p modernbert-training-examples --bin glue-qnli -- --model runs/demo --data GLUE --out runs/qnli
//! ```

#![recursion_limit = "256"]

use clap::Parser;
use modernbert_cli::main_with;
use modernbert_glue::metrics::classification::accuracy;
use modernbert_glue::task::Task;
use modernbert_train::finetune::{DevScore, FinetuneOptions, classes};
use modernbert_training_examples::finetuning::{GlueArgs, Session, names};

/// QNLI: does the sentence answer the question? Scored by accuracy.
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
    let data = args.load(Task::Qnli)?;
    // A row is a question, a sentence of Wikipedia and a class: 0 if the answer is in the sentence.
    let train = session.encode(&data.train.texts())?;
    let dev = session.encode(&data.dev[0].texts())?;

    // The paper's settings for base models (arXiv 2412.13663, table 6).
    let options = FinetuneOptions {
        epochs: 2,
        learning_rate: 8e-5,
        weight_decay: 5e-6,
        batch_size: 64,
        patience: Some(3),
        label: "glue-qnli".to_string(),
        ..FinetuneOptions::default()
    };
    let truth = data.dev[0].classes();
    let score = move |outputs: &[Vec<f32>]| {
        let predicted = classes(outputs);
        let accuracy = accuracy(&truth, &predicted).ok_or("no predictions")?;
        Ok(DevScore::of("accuracy", accuracy))
    };
    let labels = names(&["entailment", "not_entailment"]);
    let finetuned = session.finetune(&labels, train, dev, options, score)?;
    session.write_classes(&labels, &data.dev[..1], &finetuned.outputs)
}
