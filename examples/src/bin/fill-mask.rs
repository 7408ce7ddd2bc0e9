//! Predicts masked tokens.
//!
//! ```sh
//! cargo run --release -p modernbert-examples --bin fill-mask -- --model runs/demo "pub fn [MASK](&self) -> usize"
//! ```

#![recursion_limit = "256"]

use clap::Parser;
use modernbert::MaskFiller;
use modernbert_cli::main_with;
use modernbert_examples::args::ModelArgs;
use modernbert_examples::output::Lines;
use serde_json::{Value, json};
use std::process::ExitCode;

/// Predicts masked tokens.
#[derive(Parser)]
#[command(version)]
struct Args {
    /// Fills the mask tokens of this text, as in "The capital of France is `[MASK]`."
    text: String,
    #[command(flatten)]
    model: ModelArgs,
    /// Prints this many predictions per mask.
    #[arg(long, default_value_t = 5)]
    top: usize,
    /// Prints one JSON object instead of a table.
    #[arg(long)]
    json: bool,
}

fn main() -> ExitCode {
    let args: Args = modernbert_cli::parse();
    main_with(|| run(&args))
}

fn run(args: &Args) -> anyhow::Result<()> {
    anyhow::ensure!(args.top > 0, "--top is 0; ask for at least one prediction");
    let (loader, device) = args.model.loader()?;
    let masks = MaskFiller::load(loader)?.fill(&args.text, args.top)?;
    let mut lines = Lines::new(None)?;
    if args.json {
        let masks: Vec<Vec<Value>> = masks
            .iter()
            .map(|candidates| {
                let candidates = candidates.iter();
                candidates
                    .map(|c| json!({"id": c.id, "token": c.token, "probability": c.probability}))
                    .collect()
            })
            .collect();
        let all = json!({"text": args.text, "device": device, "masks": masks});
        lines.line(&all.to_string())?;
        return lines.commit();
    }
    for (i, candidates) in masks.iter().enumerate() {
        lines.line(&format!("mask {} of {}", i + 1, masks.len()))?;
        for candidate in candidates {
            let percent = 100.0 * candidate.probability;
            lines.line(&format!("  {percent:>6.2} %  {:?}", candidate.token))?;
        }
    }
    lines.commit()
}
