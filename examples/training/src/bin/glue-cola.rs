//! CoLA: is the sentence acceptable English? Scored by Matthews correlation, which a constant answer leaves at 0.
//!
//! ```sh
//! cargo run --release -p modernbert-training-examples --bin glue-cola -- --model runs/demo --data GLUE --out runs/cola
//! ```

#![recursion_limit = "256"]

use clap::Parser;
use modernbert_cli::main_with;
use modernbert_glue::metrics::classification::{accuracy, matthews};
use modernbert_glue::task::Task;
use modernbert_train::finetune::{DevScore, FinetuneOptions, classes};
use modernbert_training_examples::finetuning::{GlueArgs, Session, names};

/// CoLA: is the sentence acceptable English? Scored by Matthews correlation, which a constant answer leaves at 0.
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
    let data = args.load(Task::Cola)?;
    // A row is a sentence and a class: 0 unacceptable, 1 acceptable.
    let train = session.encode(&data.train.texts())?;
    let dev = session.encode(&data.dev[0].texts())?;

    // The paper's settings for base models (arXiv 2412.13663, table 6).
    let options = FinetuneOptions {
        epochs: 5,
        learning_rate: 8e-5,
        weight_decay: 1e-6,
        batch_size: 64,
        patience: Some(3),
        label: "glue-cola".to_string(),
        ..FinetuneOptions::default()
    };
    let truth = data.dev[0].classes();
    let score = move |outputs: &[Vec<f32>]| {
        let predicted = classes(outputs);
        Ok(DevScore {
            main: matthews(&truth, &predicted),
            metrics: vec![
                ("matthews".to_string(), matthews(&truth, &predicted)),
                ("accuracy".to_string(), accuracy(&truth, &predicted)),
            ],
        })
    };
    let labels = names(&["unacceptable", "acceptable"]);
    let finetuned = session.finetune(&labels, train, dev, options, score)?;
    session.write_classes(&labels, &data.dev[..1], &finetuned.outputs)
}
