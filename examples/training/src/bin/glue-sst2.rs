//! SST-2: is the snippet of a film review positive? Scored by accuracy.
//!
//! ```sh
//! cargo run --release -p modernbert-training-examples --bin glue-sst2 -- --model runs/demo --data GLUE --out runs/sst2
//! ```

#![recursion_limit = "256"]

use clap::Parser;
use modernbert_cli::main_with;
use modernbert_glue::metrics::classification::accuracy;
use modernbert_glue::task::Task;
use modernbert_train::finetune::{DevScore, FinetuneOptions, classes};
use modernbert_training_examples::finetuning::{GlueArgs, Session, names};

/// SST-2: is the snippet of a film review positive? Scored by accuracy.
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
    let data = args.load(Task::Sst2)?;
    // A row is a sentence and a class: 0 negative, 1 positive.
    let train = session.encode(&data.train.texts())?;
    let dev = session.encode(&data.dev[0].texts())?;

    // The paper's settings for base models (arXiv 2412.13663, table 6).
    let options = FinetuneOptions {
        epochs: 2,
        learning_rate: 8e-5,
        weight_decay: 1e-5,
        batch_size: 64,
        patience: Some(3),
        label: "glue-sst2".to_string(),
        ..FinetuneOptions::default()
    };
    let truth = data.dev[0].classes();
    let score = move |outputs: &[Vec<f32>]| {
        let predicted = classes(outputs);
        let accuracy = accuracy(&truth, &predicted).ok_or("no predictions")?;
        Ok(DevScore::of("accuracy", accuracy))
    };
    let labels = names(&["negative", "positive"]);
    let finetuned = session.finetune(&labels, train, dev, options, score)?;
    session.write_classes(&labels, &data.dev[..1], &finetuned.outputs)
}
