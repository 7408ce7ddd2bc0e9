//! The efficiency tables of the ModernBERT paper, for this project's encoders; `scripts/efficiency` adds the PyTorch peers.
//!
//! ```text
//! cargo run --release -p modernbert-benches --no-default-features --features cuda --bin efficiency -- measure --results rows.jsonl
//! cargo run --release -p modernbert-benches --bin efficiency -- report rows.jsonl --out efficiency
//! ```
//!
//! `measure` appends lines to a file and skips measurements that the file already has, so that the same command continues an interrupted measurement.

mod measure;
mod report;

use clap::{Parser, Subcommand};
use modernbert_cli::main_with;

#[derive(Parser)]
#[command(
    version,
    about = "Measures encoders as the ModernBERT paper does: throughput, largest batch, memory, latency."
)]
struct Args {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Measures this project's encoders.
    Measure(measure::MeasureArgs),
    /// Writes tables and pictures of measurements, with the paper's figures beside them.
    Report(report::ReportArgs),
}

fn main() -> std::process::ExitCode {
    main_with(|| match Args::parse().command {
        Command::Measure(args) => measure::run(&args),
        Command::Report(args) => report::run(&args),
    })
}
