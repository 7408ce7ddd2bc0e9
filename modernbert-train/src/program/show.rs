//! Commands that look at runs and checkpoints, or make something of them.

use anyhow::bail;
use clap::Args;
use modernbert_cli::DIFFERENT;
use modernbert_cli::text::counted;
use modernbert_train::tools::{
    Against, Quantity, average, best_checkpoints, checkpoint_at, diff, export, inspect, lines,
    plot_runs,
};
use std::path::PathBuf;
use std::process::ExitCode;

use super::print;

pub(crate) const AVERAGE_HELP: &str = "\
  modernbert-train average runs/a/checkpoints/step-00001000 runs/a/checkpoints/step-00002000 --out model
  modernbert-train average --run runs/a --best 3 --with-last --out model
      the published base model: the three best checkpoints of the decay phase and the last (train with checkpoint.keep_best)
  modernbert-train average --run runs/a --best 1 --out model
      the published large model: the best checkpoint alone";

#[derive(Args)]
pub(crate) struct Diff {
    /// A run's folder (its newest checkpoint is compared) or a checkpoint.
    a: PathBuf,
    /// The other one.
    b: PathBuf,
    /// One JSON object instead of lines.
    #[arg(long)]
    json: bool,
}

impl Diff {
    pub(crate) fn run(self) -> anyhow::Result<ExitCode> {
        let found = diff(&self.a, &self.b)?;
        if self.json {
            print(&serde_json::to_string(&found)?);
        } else if found.identical() {
            print(&format!(
                "identical: {} tensors of weights, {} of optimizer state, {} rows of the log",
                found.weights, found.optimizer, found.rows
            ));
        } else {
            for line in &found.differences {
                print(&format!("differs: {line}"));
            }
        }
        Ok(if found.identical() {
            ExitCode::SUCCESS
        } else {
            ExitCode::from(DIFFERENT)
        })
    }
}

#[derive(Args)]
pub(crate) struct Average {
    /// The checkpoints.
    checkpoints: Vec<PathBuf>,
    /// Chooses among the checkpoints of this run instead.
    #[arg(long, value_name = "RUN", conflicts_with = "checkpoints")]
    run: Option<PathBuf>,
    /// So many of the run's checkpoints, by held-out loss.
    #[arg(long, value_name = "COUNT", default_value_t = 0, requires = "run")]
    best: usize,
    /// And its newest one.
    #[arg(long, requires = "run")]
    with_last: bool,
    /// Folder for the model.
    #[arg(long, value_name = "FOLDER")]
    out: PathBuf,
}

impl Average {
    pub(crate) fn run(self) -> anyhow::Result<ExitCode> {
        let checkpoints = match &self.run {
            None => self.checkpoints.clone(),
            Some(run) => {
                if self.best == 0 && !self.with_last {
                    bail!("--run needs --best COUNT, --with-last, or both");
                }
                let chosen = best_checkpoints(run, self.best, self.with_last)?;
                for (path, step, loss) in &chosen {
                    let loss = loss.map_or("not evaluated".to_string(), |loss| {
                        format!("held-out loss {loss:.4}")
                    });
                    print(&format!("step {step}: {loss} ({})", path.display()));
                }
                chosen.into_iter().map(|(path, ..)| path).collect()
            }
        };
        average(&checkpoints, &self.out)?;
        print(&format!(
            "average: checkpoints={} out={}",
            checkpoints.len(),
            self.out.display()
        ));
        Ok(ExitCode::SUCCESS)
    }
}

#[derive(Args)]
pub(crate) struct Export {
    /// A checkpoint, or a run's folder: then its newest one.
    checkpoint: PathBuf,
    /// Folder for the model.
    out: PathBuf,
}

impl Export {
    pub(crate) fn run(self) -> anyhow::Result<ExitCode> {
        let checkpoint = checkpoint_at(&self.checkpoint)?;
        export(&checkpoint, &self.out)?;
        print(&format!(
            "export: checkpoint={} out={}",
            checkpoint.display(),
            self.out.display()
        ));
        Ok(ExitCode::SUCCESS)
    }
}

#[derive(Args)]
pub(crate) struct Inspect {
    /// A recipe (file or name), a run's folder, a checkpoint, a .tokens shard, or a folder of them.
    path: PathBuf,
    /// One JSON object instead of lines.
    #[arg(long)]
    json: bool,
}

impl Inspect {
    pub(crate) fn run(self) -> anyhow::Result<ExitCode> {
        let found = inspect(&self.path)?;
        if self.json {
            print(&found.to_string());
        } else {
            for line in lines(&found) {
                print(&line);
            }
        }
        Ok(ExitCode::SUCCESS)
    }
}

#[derive(Args)]
pub(crate) struct Plot {
    /// Folders of runs, or metrics.jsonl files.
    #[arg(required = true)]
    runs: Vec<PathBuf>,
    /// The picture.
    #[arg(long, value_name = "FILE", default_value = "curves.png")]
    out: PathBuf,
    /// What to draw.
    #[arg(long, value_enum, default_value_t)]
    quantity: Quantity,
    /// What to draw it against.
    #[arg(long, value_enum, default_value_t)]
    against: Against,
}

impl Plot {
    pub(crate) fn run(self) -> anyhow::Result<ExitCode> {
        let drawn = plot_runs(&self.runs, self.quantity, self.against, &self.out)?;
        if drawn.left_out > 0 {
            print(&format!(
                "{} not finite, or absurdly large, and left out",
                counted(drawn.left_out as u64, "point is", "points are")
            ));
        }
        print(&format!(
            "plot: runs={} points={} out={}",
            self.runs.len(),
            drawn.points,
            self.out.display()
        ));
        Ok(ExitCode::SUCCESS)
    }
}
