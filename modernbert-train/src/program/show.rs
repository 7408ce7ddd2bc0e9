//! Commands on runs and checkpoints: compare, average, export, inspect, plot.

use anyhow::{Context, bail};
use clap::{Args, ValueEnum};
use modernbert::atomic::write_new;
use modernbert::checkpoint::CONFIG_FILE;
use modernbert::output::{OutputCheck, named_twice};
use modernbert_cli::text::{counted, shown};
use modernbert_cli::{DIFFERENT, check_stdout};
use modernbert_train::recipe::published::convert;
use modernbert_train::tools::{
    Against, Cluster, Link, Quantity, ToolError, average, best_checkpoints, checkpoint_at, diff,
    export, export_model_int8, inspect, lines, plot_runs, predict,
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
    /// Compares this run (its newest checkpoint) or checkpoint.
    a: PathBuf,
    /// Compares the first with this run or checkpoint.
    b: PathBuf,
    /// Prints one JSON object instead of lines.
    #[arg(long)]
    json: bool,
}

impl Diff {
    pub(crate) fn run(self) -> anyhow::Result<ExitCode> {
        check_stdout()?;
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
pub(crate) struct Convert {
    /// Reads this YAML file.
    file: PathBuf,
    /// Writes the recipe here; there must be no such file. Without it, only the report is printed.
    #[arg(long, value_name = "RECIPE")]
    out: Option<PathBuf>,
    /// Assumes that the file was written for this many GPUs.
    #[arg(long, value_name = "COUNT", default_value_t = 8)]
    gpus: u64,
}

impl Convert {
    pub(crate) fn run(self) -> anyhow::Result<ExitCode> {
        if self.out.is_none() {
            check_stdout()?;
        }
        let name = self.file.display().to_string();
        let text = modernbert::read::text(&self.file)
            .with_context(|| format!("{name}: can't be read; give the path of a YAML file"))?;
        if let Some(out) = &self.out {
            OutputCheck::file(out).inputs([&self.file]).check()?;
        }
        // YAML allows both, but the authors' files have neither form.
        if text.trim_start().starts_with(['{', '[']) {
            let blank = &text[..text.len() - text.trim_start().len()];
            let line = 1 + blank.matches('\n').count();
            bail!(
                "{name}:{line}: not one of the authors' YAML files, but JSON or TOML; give a file with lines `key: value` (a recipe in TOML needs no conversion)"
            );
        }
        let converted = convert(&text, &name, self.gpus)?;
        for key in &converted.keys {
            print(&format!(
                "{name}:{}: {}: {} -> {}",
                key.line, key.key, key.value, key.outcome
            ));
        }
        if converted.keys.is_empty() {
            bail!("{name}: there is no key in it; give one of the authors' YAML files");
        }
        let refused: Vec<_> = converted.refused().map(|key| key.key.as_str()).collect();
        if let Some(first) = refused.first() {
            // The lines above name them all.
            let all = refused.join(", ");
            let shown = if all.len() <= 500 {
                all
            } else {
                let first: String = first.chars().take(80).collect();
                format!("{} keys, of which {first} is the first", refused.len())
            };
            bail!(
                "{name}: no recipe has a counterpart of {shown}; remove the keys, or set what they mean by hand"
            );
        }
        if let Some(out) = &self.out {
            write_new(out, converted.recipe.to_toml()?.as_bytes())
                .with_context(|| format!("{}: can't be written", out.display()))?;
        }
        let keys = counted(converted.keys.len() as u64, "key", "keys");
        print(&format!("{keys} converted"));
        Ok(ExitCode::SUCCESS)
    }
}

#[derive(Args)]
pub(crate) struct Average {
    /// Averages these checkpoints.
    checkpoints: Vec<PathBuf>,
    /// Chooses among the checkpoints of this run.
    #[arg(long, value_name = "RUN", conflicts_with = "checkpoints")]
    run: Option<PathBuf>,
    /// Averages this number of the run's checkpoints, the best by held-out loss.
    // The conflict is needed too: clap requires nothing that conflicts with what is given.
    #[arg(
        long,
        value_name = "COUNT",
        default_value_t = 0,
        requires = "run",
        conflicts_with = "checkpoints"
    )]
    best: usize,
    /// Adds the newest checkpoint of the run.
    #[arg(long, requires = "run", conflicts_with = "checkpoints")]
    with_last: bool,
    /// Writes the model to this folder.
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
                    print(&format!("step {step}: {loss} ({})", shown(path)));
                }
                chosen.into_iter().map(|(path, ..)| path).collect()
            }
        };
        average(&checkpoints, &self.out)?;
        print(&format!(
            "average: checkpoints={} out={}",
            checkpoints.len(),
            shown(&self.out)
        ));
        Ok(ExitCode::SUCCESS)
    }
}

#[derive(Args)]
pub(crate) struct Export {
    /// Exports this checkpoint, or the newest one of this run; with --int8 also a model folder.
    checkpoint: PathBuf,
    /// Writes the model to this folder.
    out: PathBuf,
    /// Stores the matrices of the layers in int8, with a scale for each output; transformers reads them with the compressed-tensors package.
    #[arg(long)]
    int8: bool,
}

impl Export {
    pub(crate) fn run(self) -> anyhow::Result<ExitCode> {
        let checkpoint = match checkpoint_at(&self.checkpoint) {
            Err(ToolError::NeitherRunNorCheckpoint(model))
                if self.int8 && model.join(CONFIG_FILE).is_file() =>
            {
                let matrices = export_model_int8(&model, &self.out)?;
                print(&format!(
                    "export: model={} int8_matrices={matrices} out={}",
                    shown(&model),
                    shown(&self.out)
                ));
                return Ok(ExitCode::SUCCESS);
            }
            checkpoint => checkpoint?,
        };
        export(&checkpoint, &self.out, self.int8)?;
        print(&format!(
            "export: checkpoint={} out={}",
            shown(&checkpoint),
            shown(&self.out)
        ));
        Ok(ExitCode::SUCCESS)
    }
}

/// A link between the GPUs of a host.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum LinkArg {
    /// NVLink, as measured between two H200.
    Nvlink,
    /// PCI Express 5.0; not measured.
    Pcie,
}

#[derive(Args)]
pub(crate) struct Inspect {
    /// Describes this recipe (file or name), run, checkpoint, .tokens shard, or folder of shards.
    path: PathBuf,
    /// Predicts speed, memory of a GPU, hours and cost of a recipe on this number of GPUs.
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u64).range(1..=65_536))]
    world: Option<u64>,
    /// Assumes this number of GPUs in a host.
    #[arg(
        long,
        value_name = "N",
        default_value_t = 8,
        requires = "world",
        value_parser = clap::value_parser!(u64).range(1..=1024)
    )]
    gpus_per_node: u64,
    /// Assumes this link between the GPUs of a host.
    #[arg(long, value_enum, default_value_t = LinkArg::Nvlink, requires = "world")]
    link: LinkArg,
    /// Assumes this network between hosts, in Gbit/s for each GPU.
    #[arg(long, value_name = "GBIT", default_value_t = 400.0, requires = "world")]
    network: f64,
    /// Takes this measured speed of one GPU, in tokens per second; by default that of an H200 by the width of the model.
    #[arg(long, value_name = "SPEED", requires = "world")]
    tok_s: Option<f64>,
    /// Computes the cost from this price of a GPU for an hour.
    #[arg(long, value_name = "PRICE", requires = "world")]
    price: Option<f64>,
    /// Prints one JSON object instead of lines.
    #[arg(long)]
    json: bool,
}

impl Inspect {
    pub(crate) fn run(self) -> anyhow::Result<ExitCode> {
        check_stdout()?;
        let found = match self.cluster()? {
            Some(cluster) => predict(&self.path, &cluster)?,
            None => inspect(&self.path)?,
        };
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

impl Inspect {
    /// The GPUs of `--world`.
    fn cluster(&self) -> anyhow::Result<Option<Cluster>> {
        let Some(world) = self.world else {
            return Ok(None);
        };
        for (name, value) in [
            ("--network", Some(self.network)),
            ("--tok-s", self.tok_s),
            ("--price", self.price),
        ] {
            if let Some(value) = value.filter(|value| !(*value > 0.0 && value.is_finite())) {
                bail!("{name} is {value}; give a number above 0");
            }
        }
        Ok(Some(Cluster {
            world,
            gpus_per_node: self.gpus_per_node,
            link: match self.link {
                LinkArg::Nvlink => Link::Nvlink,
                LinkArg::Pcie => Link::Pcie,
            },
            network_gbit: self.network,
            tokens_per_second: self.tok_s,
            price: self.price,
        }))
    }
}

#[derive(Args)]
pub(crate) struct Plot {
    /// Draws these runs: folders, or metrics.jsonl files.
    #[arg(required = true)]
    runs: Vec<PathBuf>,
    /// Writes this PNG file.
    #[arg(long, value_name = "FILE", default_value = "curves.png")]
    out: PathBuf,
    /// Draws this quantity.
    #[arg(long, value_enum, default_value_t)]
    quantity: Quantity,
    /// Draws the quantity over this axis.
    #[arg(long, value_enum, default_value_t)]
    against: Against,
}

impl Plot {
    pub(crate) fn run(self) -> anyhow::Result<ExitCode> {
        if let Some(run) = named_twice(&self.runs) {
            anyhow::bail!("{}: this run is named twice; name it once", run.display());
        }
        let drawn = plot_runs(&self.runs, self.quantity, self.against, &self.out)?;
        if drawn.left_out > 0 {
            print(&format!(
                "{} not finite, or too large to be drawn, and left out",
                counted(drawn.left_out, "point is", "points are")
            ));
        }
        print(&format!(
            "plot: runs={} points={} out={}",
            self.runs.len(),
            drawn.points,
            shown(&self.out)
        ));
        Ok(ExitCode::SUCCESS)
    }
}
