//! Guesses masked tokens.
//!
//! ```sh
//! cargo run --release -p modernbert-examples --bin fill-mask -- --model runs/demo "pub fn [MASK](&self) -> usize"
//! ```

#![recursion_limit = "256"]

use clap::Parser;
use modernbert::inference::fill_mask;
use modernbert::model::MaskedLm;
use modernbert::tokenizer::Tokenizer;
use modernbert_cli::main_with;
use modernbert_examples::args::SourceArgs;
use std::process::ExitCode;

/// Guesses masked tokens.
#[derive(Parser)]
struct Args {
    /// Text with one or more mask tokens, as in "The capital of France is `[MASK]`."
    text: String,
    #[command(flatten)]
    model: SourceArgs,
    /// Guesses per mask.
    #[arg(long, default_value_t = 5)]
    top: usize,
    /// One JSON object instead of a table.
    #[arg(long)]
    json: bool,
}

fn main() -> ExitCode {
    let args = Args::parse();
    main_with(|| {
        anyhow::ensure!(args.top > 0, "--top is 0; ask for at least one guess");
        let (device, precision) = args.model.device()?;
        let folder = args.model.folder()?;
        let model = MaskedLm::from_folder(&folder, &device.device)?.with_precision(precision);
        let tokenizer = Tokenizer::from_folder(&folder)?;
        let masks = fill_mask(&model, &tokenizer, &args.text, args.top)?;
        if args.json {
            let masks: Vec<_> = masks
                .iter()
                .map(|candidates| {
                    candidates
                        .iter()
                        .map(|c| serde_json::json!({"id": c.id, "token": c.token, "probability": c.probability}))
                        .collect::<Vec<_>>()
                })
                .collect();
            println!(
                "{}",
                serde_json::json!({"text": args.text, "device": device.name, "masks": masks})
            );
            return Ok(());
        }
        for (i, candidates) in masks.iter().enumerate() {
            println!("mask {} of {}", i + 1, masks.len());
            for candidate in candidates {
                println!(
                    "  {:>6.2} %  {:?}",
                    100.0 * candidate.probability,
                    candidate.token
                );
            }
        }
        Ok(())
    })
}
