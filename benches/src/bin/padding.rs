//! Speed of the packed encoder compared with the same weights on padded rows.
//!
//! ```text
//! cargo run --release -p modernbert-benches --bin padding -- --device flex --sets ragged
//! ```
//!
//! Each pass computes the same documents in three layouts: packed throughout; packed, but repadded for attention in every layer (as in
//! MosaicBERT); padded throughout. Weights are random; attention on padded rows is dense.

#![recursion_limit = "256"]

use anyhow::ensure;
use burn::tensor::Tensor;
use clap::Parser;
use modernbert::batch::PackedBatch;
use modernbert::config::ModernBertConfig;
use modernbert::model::{ModernBert, initialize};
use modernbert_benches::lengths::select;
use modernbert_benches::padded::{PaddedEncoder, PaddingStrategy};
use modernbert_benches::row::median;
use modernbert_cli::{DeviceArgs, describe, main_with};
use std::time::Instant;

/// Compares the packed encoder with two padded encoders of the same weights, in f32.
#[derive(Parser)]
#[command(version)]
struct Args {
    #[command(flatten)]
    device: DeviceArgs,
    /// Uses the shape of this preset: base, large or another one.
    #[arg(long, default_value = "base")]
    shape: String,
    /// Measures these sets or groups of sets of benches/lengths.json, separated by commas.
    #[arg(long, value_delimiter = ',', default_value = "cpu")]
    sets: Vec<String>,
    /// Uses only this many first documents of each set.
    #[arg(long, value_parser = clap::value_parser!(u32).range(1..))]
    documents: Option<u32>,
    /// Times this many passes, after one to warm up, and prints their median.
    #[arg(long, default_value_t = 3, value_parser = clap::value_parser!(u32).range(1..))]
    runs: u32,
    /// Allows this absolute difference between the results. Attention on padded rows uses Burn's matmul, which computes in TF32 on
    /// NVIDIA GPUs: use 2e-2 there.
    #[arg(long, default_value_t = 1e-4)]
    tolerance: f32,
}

fn main() -> std::process::ExitCode {
    main_with(|| run(&Args::parse()))
}

fn run(args: &Args) -> anyhow::Result<()> {
    let named = args.device.select()?;
    let device = &named.device;
    let config = ModernBertConfig::preset(&args.shape)?;
    let model = initialize(ModernBert::new(&config, device)?, &config, 0);
    let padded = PaddedEncoder::new(&model)?;
    println!("{}", describe(&named, "f32"));
    println!(
        "{:<14} {:>9} {:>9} {:>14} {:>15} {:>13} {:>10} {:>9}",
        "set",
        "tokens",
        "padding",
        "packed tok/s",
        "per layer tok/s",
        "padded tok/s",
        "per layer",
        "padded"
    );
    for mut set in select(&args.sets)? {
        if let Some(documents) = args.documents {
            set.lengths.truncate(documents as usize);
        }
        let mut slots = 0;
        let batches: Vec<PackedBatch> = set
            .batches()
            .map(|lengths| {
                slots += lengths.len() * lengths.iter().max().copied().unwrap_or(0);
                let id = |i: usize| 100 + (i * 7919 % 15_900) as u32;
                let texts: Vec<Vec<u32>> =
                    lengths.iter().map(|&n| (0..n).map(id).collect()).collect();
                Ok(PackedBatch::from_sequences(&texts, device)?)
            })
            .collect::<anyhow::Result<_>>()?;
        let forward = |batch: &PackedBatch, way: Option<PaddingStrategy>| match way {
            None => Ok(model.forward(batch)),
            Some(way) => padded.forward(batch, way),
        };
        let pass = |way: Option<PaddingStrategy>| -> anyhow::Result<f64> {
            device.sync()?;
            let start = Instant::now();
            for batch in &batches {
                drop(forward(batch, way)?);
            }
            device.sync()?;
            Ok(start.elapsed().as_secs_f64())
        };
        let ways = [
            None,
            Some(PaddingStrategy::PerLayer),
            Some(PaddingStrategy::Padded),
        ];
        let mut times = [const { Vec::new() }; 3];
        // The first round warms up and compares. The layouts alternate, so that other load on the machine affects all of them.
        for way in [PaddingStrategy::PerLayer, PaddingStrategy::Padded] {
            for batch in &batches {
                let gap = distance(model.forward(batch), padded.forward(batch, way)?)?;
                ensure!(
                    gap <= args.tolerance,
                    "set {}: {way:?} differs from the packed encoder by {gap:e}, allowed {:e}",
                    set.name,
                    args.tolerance
                );
            }
        }
        for _ in 0..args.runs {
            for (way, times) in ways.iter().zip(&mut times) {
                times.push(pass(*way)?);
            }
        }
        let tokens = set.tokens() as f64;
        let [packed, layer, rows] = times.map(|times| tokens / median(times));
        println!(
            "{:<14} {:>9} {:>8.1}% {packed:>14.0} {layer:>15.0} {rows:>13.0} {:>9.2}x {:>8.2}x",
            set.name,
            set.tokens(),
            100.0 * (1.0 - tokens / slots as f64),
            packed / layer,
            packed / rows,
        );
    }
    Ok(())
}

/// Returns the largest difference of two tensors; infinite if a value is NaN.
fn distance(a: Tensor<2>, b: Tensor<2>) -> anyhow::Result<f32> {
    let values: Vec<f32> = (a - b)
        .abs()
        .try_into_data()
        .map_err(|error| anyhow::anyhow!("cannot read from the device: {error}"))?
        .try_to_vec()
        .map_err(|error| anyhow::anyhow!("cannot read from the device: {error:?}"))?;
    Ok(values.into_iter().fold(0.0, |max, x| {
        if x.is_nan() {
            f32::INFINITY
        } else {
            max.max(x)
        }
    }))
}
