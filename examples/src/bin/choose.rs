//! Answers multiple-choice questions.
//!
//! ```sh
//! cargo run --release -p modernbert-examples --bin choose -- --model runs/swag "She opens the door and" "walks in." "swims."
//! ```

#![recursion_limit = "256"]

use clap::Parser;
use modernbert::Chooser;
use modernbert_cli::main_with;
use modernbert_examples::args::ModelArgs;
use modernbert_examples::output::Lines;
use serde_json::json;
use std::process::ExitCode;

/// Answers multiple-choice questions.
#[derive(Parser)]
#[command(version)]
struct Args {
    /// Answers this question, or continues this beginning.
    question: String,
    /// Chooses among these answers.
    #[arg(required = true)]
    choices: Vec<String>,
    #[command(flatten)]
    model: ModelArgs,
    /// Prints one JSON object instead of a table.
    #[arg(long)]
    json: bool,
}

fn main() -> ExitCode {
    let args: Args = modernbert_cli::parse();
    main_with(|| run(&args))
}

fn run(args: &Args) -> anyhow::Result<()> {
    anyhow::ensure!(
        args.choices.len() > 1,
        "one choice only, whose probability is always 1; give two or more"
    );
    if let Some(at) = args
        .choices
        .iter()
        .position(|choice| choice.trim().is_empty())
    {
        anyhow::bail!("choice {} is empty; write it, or leave it out", at + 1);
    }
    let (loader, _) = args.model.loader()?;
    let chooser = Chooser::load(loader)?;
    let found = chooser.choose(&[(&args.question, args.choices.clone())])?;
    let Some(found) = found.into_iter().next() else {
        anyhow::bail!("no question; pass one and its choices");
    };
    let mut order: Vec<usize> = (0..args.choices.len()).collect();
    order.sort_by(|&a, &b| found.probabilities[b].total_cmp(&found.probabilities[a]));
    let mut lines = Lines::new(None)?;
    if args.json {
        let choices: Vec<_> = order
            .iter()
            .map(|&i| json!({"choice": args.choices[i], "index": i, "probability": found.probabilities[i]}))
            .collect();
        let all =
            json!({"question": args.question, "choices": choices, "truncated": found.truncated});
        lines.line(&all.to_string())?;
        return lines.commit();
    }
    for &i in &order {
        let probability = found.probabilities[i];
        lines.line(&format!("  {probability:.4}  {:?}", args.choices[i]))?;
    }
    if found.truncated {
        let length = chooser.max_length();
        lines.line(&format!("  the question was truncated to {length} tokens"))?;
    }
    lines.commit()
}
