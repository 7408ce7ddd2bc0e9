//! `modernbert-train`: pretraining from the command line.

#![recursion_limit = "256"]

use anyhow::{Context, bail};
use burn::train::Interrupter;
use clap::{Args, Parser, Subcommand};
use modernbert_train::cli::{DeviceArgs, describe, main_with};
use modernbert_train::pretrain::{PretrainOptions, PretrainSummary, masked_lines, pretrain};
use modernbert_train::recipe::Recipe;
use modernbert_train::trainer::Progress;
use std::path::PathBuf;
use std::process::ExitCode;

/// Pretrains ModernBERT encoders.
#[derive(Parser)]
#[command(version, about, long_about = None)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Trains a small model within minutes on text that is on this machine anyway, and shows what it learned.
    Demo {
        /// Text to train on instead of the cargo registry's sources: files or folders of .txt, .md, .rs, .jsonl, .jsonl.gz.
        #[arg(long, value_name = "PATH")]
        corpus: Vec<PathBuf>,
        #[command(flatten)]
        run: RunArgs,
    },
    /// Runs a recipe: corpus, tokenizer, training, model folder.
    Run {
        /// The recipe, a TOML file; see modernbert-train/recipes.
        recipe: PathBuf,
        #[command(flatten)]
        run: RunArgs,
    },
}

#[derive(Args)]
struct RunArgs {
    /// Folder for the model, its log and its picture.
    #[arg(long, value_name = "FOLDER")]
    out: PathBuf,
    /// Replaces one setting of the recipe, as in --set optimizer.learning_rate=1e-3; may be repeated.
    #[arg(long = "set", value_name = "KEY=VALUE")]
    overrides: Vec<String>,
    #[command(flatten)]
    device: DeviceArgs,
    /// Dtype of matrix products: f32 or bf16; by default the recipe's.
    #[arg(long)]
    dtype: Option<String>,
    /// Peak of the device in TFLOP/s at that dtype; with it, MFU is shown.
    #[arg(long, value_name = "TFLOPS")]
    peak_tflops: Option<f64>,
    /// Plain lines even on a terminal.
    #[arg(long)]
    lines: bool,
}

const DEMO: &str = include_str!("../recipes/demo.toml");

fn main() -> ExitCode {
    let cli = Cli::parse();
    main_with(|| match cli.command {
        Command::Demo { corpus, run } => demo(&corpus, &run),
        Command::Run { recipe, run } => {
            let recipe = Recipe::from_file(&recipe)?;
            let summary = execute(&recipe, &run)?;
            finish("run", &summary, &run)
        }
    })
}

fn demo(corpus: &[PathBuf], run: &RunArgs) -> anyhow::Result<()> {
    let mut recipe = Recipe::from_str(DEMO, "the demo's recipe")?;
    if !corpus.is_empty() {
        recipe.data.corpus = modernbert_train::recipe::Corpus::Paths(corpus.to_vec());
    }
    let summary = execute(&recipe, run)?;
    finish("demo", &summary, run)
}

fn execute(recipe: &Recipe, run: &RunArgs) -> anyhow::Result<PretrainSummary> {
    if let Some(peak) = run
        .peak_tflops
        .filter(|peak| !(*peak > 0.0 && peak.is_finite()))
    {
        bail!("--peak-tflops is {peak}; give the device's peak, above 0, or leave it out");
    }
    let mut overrides = run.overrides.clone();
    if let Some(dtype) = &run.dtype {
        overrides.push(format!("run.precision=\"{dtype}\""));
    }
    let recipe = recipe.with_overrides(&overrides)?;
    let device = run.device.select()?;
    let progress = if run.lines {
        Progress::Lines
    } else {
        Progress::detect()
    };
    print(&describe(&device, recipe.run.precision.name()));
    let options = PretrainOptions {
        out: run.out.clone(),
        device,
        progress,
        peak_tflops: run.peak_tflops,
        interrupter: Interrupter::new(),
    };
    pretrain(&recipe, options)
}

/// Shows a few guesses on held-out text, then the line that programs read.
fn finish(name: &str, summary: &PretrainSummary, run: &RunArgs) -> anyhow::Result<()> {
    let prepared = &summary.prepared;
    let lines = masked_lines(
        &summary.model,
        &prepared.tokenizer,
        &prepared.eval_documents,
        5,
    )
    .context("the model can't be tried on held-out text")?;
    for line in lines {
        print(&line.text);
        let guesses: Vec<String> = line
            .guesses
            .iter()
            .map(|guess| format!("{:?} {:.0} %", guess.token, 100.0 * guess.probability))
            .collect();
        print(&format!(
            "    was {:?}; guesses {}",
            line.truth,
            guesses.join(", ")
        ));
    }
    let training = &summary.training;
    let last = training.last_evaluation.clone().unwrap_or_default();
    print(&format!(
        "{name}: loss_start={:.4} loss_end={:.4} unigram_loss={:.4} top1={:.4} unigram_top1={:.4} tok_s={:.0} seconds={:.0} out={}",
        training.first_loss.unwrap_or(f64::NAN),
        last.loss,
        summary.unigram.loss,
        last.masked_accuracy,
        summary.unigram.top1,
        training.tok_s,
        summary.seconds,
        run.out.display()
    ));
    Ok(())
}

#[allow(clippy::print_stdout)] // a program's output
fn print(text: &str) {
    println!("{text}");
}
