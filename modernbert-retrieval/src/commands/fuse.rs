//! `modernbert-retrieval fuse`.

use std::path::PathBuf;

use anyhow::bail;
use clap::Args;
use modernbert_files::output::OutputCheck;
use modernbert_retrieval::fusion::{RRF_K, reciprocal_rank_fusion};
use modernbert_retrieval::run::{Duplicates, Run};

use super::common::print;

#[derive(Args)]
pub(crate) struct FuseArgs {
    /// Combines these run files, two or more.
    #[arg(required = true, num_args = 2.., value_name = "FILE")]
    runs: Vec<PathBuf>,
    /// Writes the combined run to this file.
    #[arg(long, value_name = "FILE")]
    out: PathBuf,
    /// Sets the constant that is added to each rank, 0 or more.
    #[arg(long, default_value_t = RRF_K)]
    k: f64,
    /// Sets a weight per run, separated by commas; by default all are 1.
    #[arg(long, value_name = "LIST", value_delimiter = ',')]
    weights: Vec<f64>,
    /// Keeps this many documents per query.
    #[arg(long, value_name = "COUNT", default_value_t = 1000)]
    top: usize,
}

pub(crate) fn run(args: &FuseArgs) -> anyhow::Result<()> {
    let is_usable = |number: f64| number.is_finite() && number >= 0.0;
    if !is_usable(args.k) || !args.weights.iter().copied().all(is_usable) || args.top == 0 {
        bail!("--k and --weights are 0 or more, --top is 1 or more");
    }
    if !args.weights.is_empty() && args.weights.len() != args.runs.len() {
        bail!(
            "--weights has {} numbers for {} runs; give one per run",
            args.weights.len(),
            args.runs.len()
        );
    }
    OutputCheck::file(&args.out).inputs(&args.runs).check()?;
    let runs = args
        .runs
        .iter()
        .map(|path| Run::read(path, Duplicates::Refuse))
        .collect::<Result<Vec<_>, _>>()?;
    let weight = |i: usize| args.weights.get(i).copied().unwrap_or(1.0);
    let weighted: Vec<(&Run, f64)> = runs
        .iter()
        .enumerate()
        .map(|(i, run)| (run, weight(i)))
        .collect();
    let mut fused = reciprocal_rank_fusion(&weighted, args.k);
    fused.truncate(args.top);
    fused.write(&args.out)?;
    print(&format!(
        "written: {} ({} queries)",
        args.out.display(),
        fused.queries.len()
    ));
    Ok(())
}
