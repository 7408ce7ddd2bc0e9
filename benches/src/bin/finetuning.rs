//! Speed of finetuning and scoring, compared with transformers on the same sequences.
//!
//! ```text
//! cargo run --release -p modernbert-benches --bin finetuning -- --device flex --shape base --steps 20 --peer VENV/bin/python
//! ```
//!
//! Weights and ids are random, which does not change the time. Lengths are distributed around a mean of 40 tokens, as in GLUE. Batches
//! contain sequences of similar length; this program packs them, the peer pads them to the longest. `--peer` runs
//! `benches/peers/finetune.py` with the same settings afterwards and prints the ratio.

use anyhow::{Context, bail};
use clap::Parser;
use modernbert::config::ModernBertConfig;
use modernbert::model::{Precision, SequenceClassifier, initialize};
use modernbert_cli::{DeviceArgs, describe, main_with};
use modernbert_train::engine::Progress;
use modernbert_train::finetune::{DevScore, FinetuneOptions, Finetuning, Sample, Target, predict};
use serde::{Deserialize, Serialize};
use std::path::PathBuf;
use std::process::Command;
use std::time::Instant;

/// Measures optimizer steps per second and scored sequences per second of a classifier.
#[derive(Parser)]
#[command(version)]
struct Args {
    #[command(flatten)]
    device: DeviceArgs,
    /// Computes GEMMs and attention in this dtype: f32, bf16 or f16.
    #[arg(long, default_value = "f32")]
    dtype: Precision,
    /// Uses the shape of this preset: base, large or another one.
    #[arg(long, default_value = "base")]
    shape: String,
    /// Uses this many sequences per step.
    #[arg(long, default_value_t = 64, value_parser = clap::value_parser!(u32).range(1..))]
    batch: u32,
    /// Uses sequences of this mean length, in tokens.
    #[arg(long, default_value_t = 40, value_parser = clap::value_parser!(u32).range(8..))]
    mean: u32,
    /// Truncates sequences to this many tokens.
    #[arg(long, default_value_t = 256, value_parser = clap::value_parser!(u32).range(8..))]
    longest: u32,
    /// Times this many steps.
    #[arg(long, default_value_t = 100, value_parser = clap::value_parser!(u32).range(1..))]
    steps: u32,
    /// Runs this many untimed steps before.
    #[arg(long, default_value_t = 10)]
    warm_up: u32,
    /// Scores this many sequences.
    #[arg(long, default_value_t = 4096, value_parser = clap::value_parser!(u32).range(1..))]
    eval_sequences: u32,
    /// Measures the same with this Python interpreter, which needs torch and transformers.
    #[arg(long, value_name = "PYTHON")]
    peer: Option<PathBuf>,
    /// Runs the peer on this device, in torch's notation; by default cuda for `--device cuda` and cpu otherwise.
    #[arg(long)]
    peer_device: Option<String>,
}

/// One measurement; the peer prints the same fields.
#[derive(Clone, Debug, Serialize, Deserialize)]
struct Row {
    program: String,
    device: String,
    dtype: String,
    shape: String,
    batch: u32,
    steps_s: f64,
    train_tok_s: f64,
    eval_sequences_s: f64,
}

fn main() -> std::process::ExitCode {
    main_with(|| run(&Args::parse()))
}

fn run(args: &Args) -> anyhow::Result<()> {
    let named = args.device.select_for_training()?;
    println!("{}", describe(&named, args.dtype.name()));
    let config = ModernBertConfig::preset(&args.shape)?;
    let model = SequenceClassifier::new(&config, 2, &named.device)?;
    let model = initialize(model, &config, 0).with_precision(args.dtype);

    // Warm-up: compiles kernels and allocates memory.
    let (warm, model) = train(args, model, args.warm_up.max(1))?;
    drop(warm);
    let (trained, model) = train(args, model, args.steps)?;
    let samples = sequences(args, args.eval_sequences as usize);
    let rows: Vec<&[u32]> = samples.iter().map(|s| s.ids.as_slice()).collect();
    predict(&model, &rows)?;
    let started = Instant::now();
    predict(&model, &rows)?;
    let row = Row {
        program: format!("modernbert {}", env!("CARGO_PKG_VERSION")),
        device: named.name.clone(),
        dtype: args.dtype.name().to_string(),
        shape: args.shape.clone(),
        batch: args.batch,
        eval_sequences_s: rows.len() as f64 / started.elapsed().as_secs_f64(),
        ..trained
    };
    println!("{}", serde_json::to_string(&row)?);
    if let Some(python) = &args.peer {
        let peer = peer(args, python, &named.name)?;
        println!("{}", serde_json::to_string(&peer)?);
        println!(
            "ratio: {:.2} in steps/s, {:.2} in scored sequences/s",
            row.steps_s / peer.steps_s,
            row.eval_sequences_s / peer.eval_sequences_s
        );
    }
    Ok(())
}

/// Trains for `steps` steps. The evaluation after the last step, of one sequence, is not timed.
fn train(
    args: &Args,
    model: SequenceClassifier,
    steps: u32,
) -> anyhow::Result<(Row, SequenceClassifier)> {
    let samples = sequences(args, (steps * args.batch) as usize);
    let tokens: usize = samples.iter().map(|sample| sample.ids.len()).sum();
    let options = FinetuneOptions {
        epochs: 1,
        batch_size: args.batch as usize,
        label: "bench".to_string(),
        ..FinetuneOptions::default()
    };
    let dev = samples[..1].to_vec();
    let mut run = Finetuning::new(samples, dev, options, |_| Ok(DevScore::of("none", 0.0)));
    run.progress = Progress::Silent;
    let finetuned = run.run(model)?;
    let row = Row {
        program: String::new(),
        device: String::new(),
        dtype: String::new(),
        shape: String::new(),
        batch: args.batch,
        steps_s: finetuned.steps as f64 / finetuned.train_seconds,
        train_tok_s: tokens as f64 / finetuned.train_seconds,
        eval_sequences_s: 0.0,
    };
    Ok((row, finetuned.model))
}

/// Returns the same sequences as `benches/peers/finetune.py`: from the upper bits of a 32-bit linear congruential generator.
fn sequences(args: &Args, count: usize) -> Vec<Sample> {
    let mut state = 1u32;
    let mut number = |below: u32| {
        state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        (state >> 8) % below
    };
    // The sum of two uniform values: most sequences are near the mean, some are short, some long.
    let lengths: Vec<u32> = (0..count)
        .map(|_| (number(args.mean) + number(args.mean) + 1).clamp(8, args.longest))
        .collect();
    lengths
        .into_iter()
        .map(|length| Sample {
            ids: (0..length).map(|_| 100 + number(15_900)).collect(),
            second: length as usize,
            target: Target::Class(number(2)),
        })
        .collect()
}

fn peer(args: &Args, python: &PathBuf, device: &str) -> anyhow::Result<Row> {
    let script = concat!(env!("CARGO_MANIFEST_DIR"), "/peers/finetune.py");
    let theirs = if device.contains("cuda") {
        "cuda"
    } else {
        "cpu"
    };
    let theirs = args.peer_device.as_deref().unwrap_or(theirs);
    let numbers = [
        ("--batch", args.batch),
        ("--mean", args.mean),
        ("--longest", args.longest),
        ("--steps", args.steps),
        ("--warm-up", args.warm_up),
        ("--eval-sequences", args.eval_sequences),
    ];
    let mut command = Command::new(python);
    command.args([script, "--device", theirs, "--dtype", args.dtype.name()]);
    command.args(["--shape", args.shape.as_str()]);
    for (name, value) in numbers {
        command.arg(name).arg(value.to_string());
    }
    let output = command
        .output()
        .with_context(|| format!("cannot start {}", python.display()))?;
    if !output.status.success() {
        bail!(
            "{script} failed: {}",
            String::from_utf8_lossy(&output.stderr)
        );
    }
    let text = String::from_utf8_lossy(&output.stdout);
    let last = text.lines().last().unwrap_or_default();
    serde_json::from_str(last).with_context(|| format!("{script} printed {last:?}"))
}
