//! Curves of one or several runs in one plot.

use modernbert::output::OutputCheck;
use std::path::{Path, PathBuf};

use super::ToolError;
use crate::engine::{LogRow, read_log};
use crate::run_dir::METRICS_FILE;
use modernbert_cli::plot::{Series, is_own_picture, plot_curves};

/// A quantity to draw.
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
    /// Model FLOP utilization in percent.
    Mfu,
    /// Tokens of a step, padding included.
    Batch,
    /// Share of the rows that is not padding, in percent.
    Packing,
}

/// The horizontal axis.
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
            Self::Loss => row.loss,
            Self::Accuracy => row.masked_accuracy.map(|share| 100.0 * share),
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
            Self::Loss => ("Masked language modeling loss", "loss (nats)"),
            Self::Accuracy => ("Masked accuracy", "accuracy (%)"),
            Self::Lr => ("Learning rate", "learning rate"),
            Self::GradNorm => ("Gradient norm", "norm"),
            Self::Speed => ("Training speed", "tokens per second"),
            Self::Mfu => ("Model FLOP utilization", "MFU (%)"),
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

/// Points of a plot.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Drawn {
    /// Points in it.
    pub points: usize,
    /// Number of points that are left out because they are not finite or too large to be drawn.
    pub left_out: usize,
}

/// Draws a quantity of the logs of several runs into the PNG `out`. An older picture of this program is replaced, no other file.
///
/// # Errors
/// A place that can't be written or is inside of a run; a run without a log, a log that can't be read, nothing to draw.
pub fn plot_runs(
    runs: &[PathBuf],
    quantity: Quantity,
    against: Against,
    out: &Path,
) -> Result<Drawn, ToolError> {
    OutputCheck::file(out)
        .inputs(runs)
        .replaces(is_own_picture)
        .check()?;
    let ending = out.extension().and_then(|ending| ending.to_str());
    if !ending.is_some_and(|ending| ending.eq_ignore_ascii_case("png")) {
        return Err(ToolError::Ending(out.to_path_buf()));
    }
    let names = short_names(runs);
    let mut series = Vec::new();
    for (run, name) in runs.iter().zip(names) {
        let log = if run.is_file() {
            run.clone()
        } else {
            run.join(METRICS_FILE)
        };
        let rows = read_log(&log).map_err(|source| ToolError::Log { path: log, source })?;
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
    let all: usize = series.iter().map(|one| one.points.len()).sum();
    let (title, y) = quantity.words();
    if all == 0 {
        return Err(ToolError::NoQuantity { quantity: y });
    }
    let points = series.iter().map(|one| one.drawable().len()).sum();
    let x = match against {
        Against::Tokens => "tokens",
        Against::Steps => "steps",
    };
    plot_curves(out, title, &series, x, y, &[])?;
    Ok(Drawn {
        points,
        left_out: all - points,
    })
}

/// The last part of each path, or the whole path where several runs have the same last part.
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
