//! Memory and time of a training step with and without activation checkpointing, one configuration per process.
//!
//! ```sh
//! for mode in keep recompute; do cargo run --release -p modernbert-benches --bin recompute -- $mode; done
//! ```

use anyhow::bail;
use burn::module::Module;
use burn::optim::GradientsParams;
use clap::{Parser, ValueEnum};
use modernbert::batch::{Dropout, DropoutRates, PackedBatch};
use modernbert::config::ModernBertConfig;
use modernbert::model::{MaskedLm, MaskedTokens, Precision, initialize};
use modernbert_benches::usage::peak_mib;
use modernbert_cli::{DeviceArgs, main_with};
use modernbert_train::recompute::gradients;
use std::process::ExitCode;
use std::time::Instant;

/// Measures peak memory and time of a training step with or without activation checkpointing.
#[derive(Parser)]
struct Args {
    /// Saves all activations (`keep`), or only each layer's input (`recompute`).
    way: ActivationMode,
    #[command(flatten)]
    device: DeviceArgs,
    /// Uses one sequence of this many tokens.
    #[arg(long, default_value_t = 8192)]
    tokens: usize,
    /// Uses this many layers, one more than a multiple of three.
    #[arg(long, default_value_t = 7)]
    layers: usize,
    /// Uses this hidden size, a multiple of the head size 64.
    #[arg(long, default_value_t = 128)]
    hidden: usize,
    /// Uses a vocabulary of this size.
    #[arg(long, default_value_t = 4096)]
    vocab: usize,
    /// Uses this dropout rate after the attention output projection.
    #[arg(long, default_value_t = 0.1)]
    dropout: f64,
    /// Computes GEMMs and attention in bf16.
    #[arg(long)]
    bf16: bool,
    /// Runs this many steps and times the last one.
    #[arg(long, default_value_t = 2)]
    steps: u64,
}

#[derive(ValueEnum, Clone, Copy, Debug, PartialEq)]
enum ActivationMode {
    Keep,
    Recompute,
}

fn main() -> ExitCode {
    let args = Args::parse();
    main_with(|| run(&args))
}

fn run(args: &Args) -> anyhow::Result<()> {
    if args.steps == 0 || args.tokens < 8 {
        bail!("--steps must be at least 1, and --tokens at least 8");
    }
    let selected = args.device.select()?;
    let device = selected.device.clone().autodiff();
    let heads = (args.hidden / 64).max(1);
    let mut config =
        ModernBertConfig::of_shape(args.layers, args.hidden, args.hidden * 3 / 2, heads);
    config.vocab_size = args.vocab;
    config.pad_token_id = None;
    let precision = if args.bf16 {
        Precision::Bf16
    } else {
        Precision::F32
    };
    let model = initialize(MaskedLm::new(&config, &device)?, &config, 1).with_precision(precision);
    let model = model.train();
    let ids: Vec<u32> = (0..args.tokens)
        .map(|i| (i * 31 % args.vocab) as u32)
        .collect();
    let rows = (args.tokens * 3 / 10) as u32;
    let positions: Vec<u32> = (0..rows).map(|i| i * 3).collect();
    let labels: Vec<u32> = positions.iter().map(|&p| ids[p as usize]).collect();
    let masked = MaskedTokens::new(&positions, &labels, &vec![1.0; rows as usize], &device);
    let rates = DropoutRates {
        attention_output: args.dropout,
        ..DropoutRates::default()
    };
    let before = peak_mib(&selected.device);
    let (mut loss, mut ms) = (0.0, 0.0);
    for step in 0..args.steps {
        let started = Instant::now();
        let dropout = Some(Dropout {
            rates,
            seed: 1,
            batch: step,
        });
        let batch =
            PackedBatch::from_sequences(std::slice::from_ref(&ids), &device)?.with_dropout(dropout);
        let denominator = f64::from(rows);
        let (sum, grads) = match args.way {
            ActivationMode::Recompute => {
                let (output, grads) = gradients(&model, &batch, &masked, denominator);
                (output.loss_sum, grads)
            }
            ActivationMode::Keep => {
                let output = model.forward(&batch, &masked);
                let grads = (output.loss_sum.clone() / denominator).backward();
                let grads = GradientsParams::from_grads(grads, &model);
                (output.loss_sum.inner(), grads)
            }
        };
        loss = sum
            .try_into_scalar::<f32>()
            .map_err(|error| anyhow::anyhow!("{error:?}"))?
            / rows as f32;
        selected
            .device
            .sync()
            .map_err(|error| anyhow::anyhow!("{error:?}"))?;
        drop(grads);
        ms = started.elapsed().as_secs_f64() * 1e3;
        peak_mib(&selected.device);
    }
    #[allow(clippy::print_stdout)] // a program's output
    {
        println!(
            "{:?} on {} ({}): {} tokens, {} layers, hidden {}: loss {loss:.6}, {ms:.0} ms, peak {:.0} MiB ({:.0} MiB before the first step)",
            args.way,
            selected.name,
            precision.name(),
            args.tokens,
            args.layers,
            args.hidden,
            peak_mib(&selected.device).unwrap_or(f64::NAN),
            before.unwrap_or(f64::NAN),
        );
    }
    Ok(())
}
