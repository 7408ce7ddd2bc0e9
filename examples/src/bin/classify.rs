//! Classifies texts or pairs of texts.
//!
//! ```sh
//! cargo run --release -p modernbert-examples --bin classify -- --model runs/glue/rte --input pairs.jsonl --json
//! ```

#![recursion_limit = "256"]

use clap::Parser;
use modernbert::{Prediction, TextClassifier};
use modernbert_cli::main_with;
use modernbert_examples::args::ModelArgs;
use modernbert_examples::input::InputArgs;
use modernbert_examples::output::{Lines, check_out};
use modernbert_examples::progress::Meter;
use serde_json::{Value, json};
use std::cell::RefCell;
use std::collections::VecDeque;
use std::path::PathBuf;
use std::process::ExitCode;

/// Classifies texts or pairs of texts.
#[derive(Parser)]
struct Args {
    #[command(flatten)]
    input: InputArgs,
    #[command(flatten)]
    model: ModelArgs,
    /// Labels per text, best first; by default 1, and all of them in JSON.
    #[arg(long, value_name = "N")]
    top: Option<usize>,
    /// Write JSON lines to this file instead of standard output.
    #[arg(long, value_name = "FILE")]
    out: Option<PathBuf>,
    /// Print JSON lines.
    #[arg(long)]
    json: bool,
}

fn main() -> ExitCode {
    let args = Args::parse();
    main_with(|| run(&args))
}

fn run(args: &Args) -> anyhow::Result<()> {
    check_out(
        args.out.as_deref(),
        &args.model.model,
        args.input.input.as_deref(),
    )?;
    anyhow::ensure!(
        args.top != Some(0),
        "--top is 0; ask for at least one label"
    );
    let records = args.input.records()?;
    let (loader, device) = args.model.loader()?;
    let classifier = TextClassifier::load(loader)?;
    let mut lines = Lines::new(args.out.as_deref())?;
    let json = args.json || args.out.is_some();

    let meter = RefCell::new(Meter::new("classify"));
    // The stream reads ahead by a window; the beginnings of the lines are kept here until their predictions come.
    let heads = RefCell::new(VecDeque::new());
    let inputs = records.map(|record| {
        record.map(|record| {
            let shown: String = record.input.text.chars().take(60).collect();
            heads.borrow_mut().push_back((record.id, shown));
            record.input
        })
    });
    let predictions = classifier.stream(inputs, |now| meter.borrow_mut().update(now));
    for (index, prediction) in predictions.enumerate() {
        let prediction: Prediction = prediction?;
        meter.borrow_mut().count_truncated(prediction.truncated);
        let (id, shown) = heads.borrow_mut().pop_front().unwrap_or_default();
        let names = classifier.labels();
        let line = if json {
            as_json(index, id, &prediction, names, args.top).to_string()
        } else {
            for_people(&shown, &prediction, names, args.top.unwrap_or(1))
        };
        lines.line(&line)?;
    }
    lines.finish()?;
    meter
        .borrow()
        .finish(&args.model.ran_on(&device), classifier.max_length());
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
    format!("{}  {text:?}", labels.join("  "))
}
