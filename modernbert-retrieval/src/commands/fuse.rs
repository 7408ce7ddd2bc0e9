//! `modernbert-retrieval fuse`.

use std::path::PathBuf;

use anyhow::bail;
use clap::Args;
use modernbert_cli::text::{counted, shown};
use modernbert_files::atomic::write_new;
use modernbert_files::output::{OutputCheck, OutputError, named_twice};
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
    // Rankings compare scores in f32: beyond these bounds different scores would become equal there.
    if !(0.0..=1e6).contains(&args.k) {
        bail!("--k is {}; give 0 to 1000000", args.k);
    }
    let is_weight = |weight: &f64| *weight == 0.0 || (1e-6..=1e6).contains(weight);
    if let Some(weight) = args.weights.iter().find(|weight| !is_weight(weight)) {
        bail!("--weights has {weight}; give 0, or 1e-6 to 1e6");
    }
    if !args.weights.is_empty() && args.weights.iter().all(|&weight| weight == 0.0) {
        bail!("--weights are all 0; give a run that counts a weight above 0");
    }
    if args.top == 0 {
        bail!("--top is 0; it is 1 or more");
    }
    if !args.weights.is_empty() && args.weights.len() != args.runs.len() {
        bail!(
            "--weights has {} numbers for {} runs; give one per run",
            args.weights.len(),
            args.runs.len()
        );
    }
    if let Some(run) = named_twice(&args.runs) {
        bail!(
            "{}: this run is named twice, so that it would count twice; name it once, with a weight",
            run.display()
        );
    }
    OutputCheck::file(&args.out)
        .trec_run()
        .inputs(&args.runs)
        .check()?;
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
    write_new(&args.out, &fused.text(&args.out)?).map_err(OutputError::write(&args.out))?;
    print(&format!(
        "written: {} ({})",
        shown(&args.out),
        counted(fused.queries.len(), "query", "queries")
    ));
    Ok(())
}
