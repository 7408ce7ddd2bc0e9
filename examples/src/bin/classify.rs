//! Classifies texts or pairs of texts.
//!
//! ```sh
//! cargo run --release -p modernbert-examples --bin classify -- --model runs/glue/rte --input pairs.jsonl --json
//! ```

#![recursion_limit = "256"]

use clap::Parser;
use modernbert::inference::{BatchOptions, Input};
use modernbert::{Prediction, TextClassifier};
use modernbert_cli::main_with;
use modernbert_examples::args::ModelArgs;
use modernbert_examples::input::InputArgs;
use modernbert_examples::output::{Lines, check_lines_out};
use modernbert_examples::progress::Meter;
use serde_json::{Value, json};
use std::path::PathBuf;
use std::process::ExitCode;

/// Classifies texts or pairs of texts.
#[derive(Parser)]
#[command(version)]
struct Args {
    #[command(flatten)]
    input: InputArgs,
    #[command(flatten)]
    model: ModelArgs,
    /// Prints this many labels per text, best first; by default 1, and all labels in JSON.
    #[arg(long, value_name = "N")]
    top: Option<usize>,
    /// Writes JSON lines to this file instead of standard output.
    #[arg(long, value_name = "FILE")]
    out: Option<PathBuf>,
    /// Prints JSON lines.
    #[arg(long)]
    json: bool,
}

fn main() -> ExitCode {
    let args: Args = modernbert_cli::parse();
    main_with(|| run(&args))
}

fn run(args: &Args) -> anyhow::Result<()> {
    check_lines_out(
        args.out.as_deref(),
        &args.model.model,
        args.input.input.as_deref(),
    )?;
    anyhow::ensure!(
        args.top != Some(0),
        "--top is 0; ask for at least one label"
    );
    let windows = args.input.windows(BatchOptions::default().window)?;
    if args.out.is_some() {
        args.input.check()?;
    }
    let (loader, device) = args.model.loader()?;
    let classifier = TextClassifier::load(loader)?;
    let mut lines = Lines::new(args.out.as_deref())?;
    let json = args.json || args.out.is_some();

    let mut meter = Meter::new("classify");
    let mut index = 0;
    for window in windows {
        let (ids, inputs): (Vec<Option<Value>>, Vec<Input>) =
            window?.into_iter().map(|r| (r.id, r.input)).unzip();
        let before = meter.now();
        let predictions = classifier
            .classify_with(&inputs, &mut |now| meter.update(before.then(now)))
            .map_err(|error| error.after(before.done))?;
        let names = classifier.labels();
        for ((prediction, id), input) in predictions.iter().zip(ids).zip(&inputs) {
            meter.count_truncated(prediction.truncated);
            let line = if json {
                as_json(index, id, prediction, names, args.top).to_string()
            } else {
                for_people(&input.text, prediction, names, args.top.unwrap_or(1))
            };
            lines.line(&line)?;
            index += 1;
        }
        lines.flush()?;
    }
    lines.commit()?;
    meter.finish(&args.model.ran_on(&device), classifier.max_length());
    Ok(())
}

fn as_json(
    index: usize,
    id: Option<Value>,
    prediction: &Prediction,
    names: &[String],
    top: Option<usize>,
) -> Value {
    let ranking = prediction.ranking();
    let labels: Vec<Value> = ranking
        .iter()
        .take(top.unwrap_or(usize::MAX))
        .map(|&i| json!({"label": names[i], "score": prediction.scores[i]}))
        .collect();
    let mut object = json!({
        "index": index,
        "tokens": prediction.tokens,
        "truncated": prediction.truncated,
        "labels": labels,
    });
    if let Some(id) = id {
        object["id"] = id;
    }
    object
}

fn for_people(text: &str, prediction: &Prediction, names: &[String], top: usize) -> String {
    let ranking = prediction.ranking();
    let labels = ranking.iter().take(top);
    let labels: Vec<String> = labels
        .map(|&i| format!("{} {:.4}", names[i], prediction.scores[i]))
        .collect();
    let shown: String = text.chars().take(60).collect();
    format!("{}  {shown:?}", labels.join("  "))
}
