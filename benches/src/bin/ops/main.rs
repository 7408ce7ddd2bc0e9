//! Speed of the memory-bound ops in isolation, relative to the bandwidth of a copy measured in the same run.
//!
//! ```text
//! cargo run --release -p modernbert-benches --no-default-features --features cuda --bin ops -- --dtype bf16 --json rows.json
//! ```
//!
//! Every op is checked against Burn's tensor operations or host arithmetic before it is timed. GB/s count the minimal memory
//! traffic: each input and output tensor once. `share` is their ratio to the copy's bandwidth.

mod cases;
mod check;
mod measure;

use std::path::PathBuf;

use anyhow::Context;
use clap::Parser;
use modernbert::config::ModernBertConfig;
use modernbert::model::Precision;
use modernbert_benches::row::heading;
use modernbert_cli::{DeviceArgs, describe, main_with};

use cases::BatchSizes;
use measure::Meter;

/// Measures the memory-bound ops: milliseconds, GB/s and their share of the copy bandwidth.
#[derive(Parser)]
#[command(version)]
struct Args {
    #[command(flatten)]
    device: DeviceArgs,
    /// Computes in this dtype: bf16, f16 or f32.
    #[arg(long, default_value = "bf16")]
    dtype: Precision,
    /// Measures these model presets, separated by commas.
    #[arg(long, value_delimiter = ',', default_value = "base,large")]
    shapes: Vec<String>,
    /// Uses batches of this many tokens.
    #[arg(long, default_value_t = 65_536, value_parser = clap::value_parser!(u32).range(64..))]
    tokens: u32,
    /// Measures only ops whose name contains this.
    #[arg(long)]
    only: Option<String>,
    /// Makes this many calls per run; a run ends with a synchronization.
    #[arg(long, default_value_t = 20, value_parser = clap::value_parser!(u32).range(1..))]
    calls: u32,
    /// Times this many runs and prints their median.
    #[arg(long, default_value_t = 5, value_parser = clap::value_parser!(u32).range(1..))]
    runs: u32,
    /// Measures the decoder with its loss too; most of its time is in GEMMs.
    #[arg(long)]
    decoder: bool,
    /// Writes the rows to this file too, as a JSON list.
    #[arg(long, value_name = "FILE")]
    json: Option<PathBuf>,
}

fn main() -> std::process::ExitCode {
    main_with(|| run(&Args::parse()))
}

fn run(args: &Args) -> anyhow::Result<()> {
    let named = args.device.select_for_training()?;
    println!("{}", describe(&named, args.dtype.name()));
    let mut meter = Meter::new(&named.device, args.calls, args.runs, args.only.clone());
    println!(
        "copy bandwidth {:.0} GB/s (row gather in order {:.0}, multiplication by a scalar {:.0})",
        meter.copy_gbs(),
        meter.gather_gbs,
        meter.multiply_gbs
    );
    println!("{}  {:>6}", heading(), "share");
    for name in &args.shapes {
        let config = ModernBertConfig::preset(name)?;
        let shape = BatchSizes::new(name, &config, args.tokens as usize, args.dtype.dtype());
        cases::norms(&mut meter, &shape)?;
        cases::geglu(&mut meter, &shape)?;
        cases::gather_rows(&mut meter, &shape)?;
        cases::losses(&mut meter, &shape)?;
        if args.decoder {
            cases::decoder(&mut meter, &shape)?;
        }
        cases::optimizer(&mut meter, &shape)?;
    }
    if let Some(path) = &args.json {
        let text = serde_json::to_string_pretty(&meter.rows)?;
        std::fs::write(path, text + "\n")
            .with_context(|| format!("can't write {}", path.display()))?;
    }
    Ok(())
}
