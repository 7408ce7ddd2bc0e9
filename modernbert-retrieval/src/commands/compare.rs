//! `modernbert-retrieval compare`.

use std::path::PathBuf;

use anyhow::bail;
use clap::Args;
use modernbert_cli::check_stdout;
use modernbert_cli::text::counted;
use modernbert_retrieval::metrics::significance::compare;
use modernbert_retrieval::metrics::{Measure, RunScores, evaluate};
use modernbert_retrieval::table::aligned;

use super::common::{MeasureArgs, SetArgs, print, run_file};

/// Most random sign patterns: a p-value is then known to 4 digits.
const MOST_SAMPLES: usize = 100_000_000;

#[derive(Args)]
pub(crate) struct CompareArgs {
    /// Takes this run file, or folder of run files, as the system to compare with.
    #[arg(value_name = "BASE")]
    base: PathBuf,
    /// Takes this run file, or folder of run files, as the new system.
    #[arg(value_name = "NEW")]
    new: PathBuf,
    /// Reads the data set in this folder; only its queries and judgments are used.
    #[arg(long, value_name = "FOLDER")]
    data: PathBuf,
    #[command(flatten)]
    set: SetArgs,
    #[command(flatten)]
    measures: MeasureArgs,
    /// Draws this many random sign patterns if there are too many to try all.
    #[arg(long, value_name = "COUNT", default_value_t = 100_000)]
    samples: usize,
    /// Sets the seed of the random sign patterns.
    #[arg(long, default_value_t = 0)]
    seed: u64,
}

pub(crate) fn run(args: &CompareArgs) -> anyhow::Result<()> {
    if !(1..=MOST_SAMPLES).contains(&args.samples) {
        bail!("--samples is {}; it is 1 to {MOST_SAMPLES}", args.samples);
    }
    check_stdout()?;
    let options = args.measures.options()?;
    for set in args.set.open(&args.data)? {
        let mut evaluations = Vec::new();
        for path in [&args.base, &args.new] {
            let Some(file) = run_file(path, &set.name) else {
                bail!("{}: no run file of {}", path.display(), set.name);
            };
            let run = args.measures.read(&file, &set.name)?;
            evaluations.push(evaluate(&run, &set.judgments, &options));
        }
        let rows = rows(args, &evaluations[0], &evaluations[1]);
        if rows.len() == 1 {
            bail!(
                "the two runs have no judged query of {} in common",
                set.name
            );
        }
        let common = rows[1][5].clone();
        print(&format!(
            "{} ({}): {common} {} in both runs\n{}",
            set.name,
            set.split,
            if common == "1" { "query" } else { "queries" },
            aligned(&rows)
        ));
        for evaluation in &evaluations {
            if evaluation.missing > 0 && !options.complete {
                print(
                    "note: judged queries that one run lacks are left out of the comparison (--complete counts them as 0)",
                );
                break;
            }
        }
    }
    Ok(())
}

fn rows(args: &CompareArgs, base: &RunScores, new: &RunScores) -> Vec<Vec<String>> {
    let header = [
        "measure",
        "base",
        "new",
        "difference",
        "p",
        "queries",
        "better",
        "worse",
        "test",
    ];
    let mut rows = vec![header.map(str::to_string).to_vec()];
    for &measure in &args.measures.measures {
        let pairs = pairs(base, new, measure);
        if pairs.is_empty() {
            continue;
        }
        let mean =
            |of: fn(&(f64, f64)) -> f64| pairs.iter().map(of).sum::<f64>() / pairs.len() as f64;
        let result = compare(&pairs, args.samples, args.seed);
        rows.push(vec![
            measure.to_string(),
            format!("{:.4}", mean(|pair| pair.0)),
            format!("{:.4}", mean(|pair| pair.1)),
            format!("{:+.4}", result.difference),
            format!("{:.5}", result.p_value),
            result.queries.to_string(),
            result.better.to_string(),
            result.worse.to_string(),
            if result.exact {
                let patterns = counted(result.patterns, "pattern", "patterns");
                format!("all {patterns}")
            } else {
                counted(result.patterns, "random pattern", "random patterns")
            },
        ]);
    }
    rows
}

/// Scores of the queries that both runs answered.
fn pairs(base: &RunScores, new: &RunScores, measure: Measure) -> Vec<(f64, f64)> {
    let (base, new) = (base.by_query(measure), new.by_query(measure));
    let both = base
        .iter()
        .filter_map(|(query, &score)| Some((score, *new.get(query)?)));
    both.collect()
}
