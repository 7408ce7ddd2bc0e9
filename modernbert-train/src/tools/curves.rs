//! Curves of one or several runs in one picture.

use anyhow::{Context, Result, bail};
use std::path::{Path, PathBuf};

use crate::run_dir::METRICS_FILE;
use crate::trainer::{LogRow, read_log};
use modernbert_cli::plot::{Series, plot_curves};

/// What is drawn.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, clap::ValueEnum)]
pub enum Quantity {
    /// Cross-entropy in nats, of training and held out.
    #[default]
    Loss,
    /// Masked accuracy in percent, of training and held out.
    Accuracy,
    /// Learning rate.
    Lr,
    /// Norm of the gradient.
    GradNorm,
    /// Tokens per second.
    Speed,
    /// Model FLOP utilisation in percent.
    Mfu,
    /// Tokens of a step, padding included.
    Batch,
    /// Share of the rows that is not padding, in percent.
    Packing,
}

/// What it is drawn against.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, clap::ValueEnum)]
pub enum Against {
    /// Tokens seen.
    #[default]
    Tokens,
    /// Optimizer steps.
    Steps,
}

impl Quantity {
    fn of(self, row: &LogRow) -> Option<f64> {
        match self {
            Self::Loss => Some(row.loss),
            Self::Accuracy => Some(100.0 * row.masked_accuracy),
            Self::Lr => row.lr,
            Self::GradNorm => row.grad_norm,
            Self::Speed => row.tok_s,
            Self::Mfu => row.mfu.map(|share| 100.0 * share),
            Self::Batch => row.batch_tokens.map(|tokens| tokens as f64),
            Self::Packing => row.packing.map(|share| 100.0 * share),
        }
    }

    fn words(self) -> (&'static str, &'static str) {
        match self {
            Self::Loss => ("Masked language modelling loss", "loss (nats)"),
            Self::Accuracy => ("Masked accuracy", "accuracy (%)"),
            Self::Lr => ("Learning rate", "learning rate"),
            Self::GradNorm => ("Gradient norm", "norm"),
            Self::Speed => ("Training speed", "tokens per second"),
            Self::Mfu => ("Model FLOP utilisation", "MFU (%)"),
            Self::Batch => ("Batch size", "tokens per step"),
            Self::Packing => ("Packing efficiency", "not padding (%)"),
        }
    }

    fn is_noisy(self) -> bool {
        matches!(
            self,
            Self::Loss | Self::Accuracy | Self::GradNorm | Self::Speed | Self::Mfu
        )
    }
}

/// Draws a quantity of the logs of several runs into the PNG `out`. Returns how many points were drawn.
///
/// # Errors
/// A run without a log, a log that can't be read, nothing to draw.
pub fn plot_runs(
    runs: &[PathBuf],
    quantity: Quantity,
    against: Against,
    out: &Path,
) -> Result<usize> {
    let names = short_names(runs);
    let mut series = Vec::new();
    for (run, name) in runs.iter().zip(names) {
        let log = if run.is_file() {
            run.clone()
        } else {
            run.join(METRICS_FILE)
        };
        let rows = read_log(&log)
            .with_context(|| format!("{}: no log of a run can be read here", log.display()))?;
        for split in ["train", "eval"] {
            let points: Vec<(f64, f64)> = rows
                .iter()
                .filter(|row| row.split == split)
                .filter_map(|row| {
                    let x = match against {
                        Against::Tokens => row.tokens,
                        Against::Steps => row.step,
                    };
                    Some((x as f64, quantity.of(row)?))
                })
                .collect();
            if points.is_empty() {
                continue;
            }
            let label = match split {
                "eval" => format!("{name} held out"),
                _ => name.clone(),
            };
            let one = Series::new(label, points);
            series.push(if split == "train" && quantity.is_noisy() {
                one.smoothed(0.8)
            } else {
                one
            });
        }
    }
    let points = series.iter().map(|one| one.points.len()).sum();
    if points == 0 {
        bail!("none of the logs has this quantity; see the keys of their rows");
    }
    let (title, y) = quantity.words();
    let x = match against {
        Against::Tokens => "tokens",
        Against::Steps => "steps",
    };
    plot_curves(out, title, &series, x, y, &[])?;
    Ok(points)
}

/// The last part of each path, or all of it where several runs end alike.
fn short_names(runs: &[PathBuf]) -> Vec<String> {
    let last = |path: &PathBuf| {
        let name = path.file_name().unwrap_or(path.as_os_str());
        name.to_string_lossy().into_owned()
    };
    let short: Vec<String> = runs.iter().map(last).collect();
    let unique: std::collections::BTreeSet<&String> = short.iter().collect();
    if unique.len() == short.len() {
        short
    } else {
        runs.iter().map(|path| path.display().to_string()).collect()
    }
}
