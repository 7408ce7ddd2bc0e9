//! Commands that train.

use anyhow::{Context, bail};
use burn::train::Interrupter;
use clap::Args;
use modernbert_cli::{DeviceArgs, INTERRUPTED, describe};
use modernbert_train::pretrain::{
    PretrainEnd, PretrainOptions, PretrainSummary, anneal_recipe, masked_lines, pretrain, resume,
    roll_back, start_from,
};
use modernbert_train::recipe::{Corpus, Recipe, builtin, builtin_names};
use modernbert_train::run_dir::Choice;
use modernbert_train::tools::checkpoint_at;
use modernbert_train::trainer::Progress;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use super::interrupt::stop_on_ctrl_c;
use super::print;

pub(crate) const RUN_HELP: &str = "\
Examples:
  modernbert-train run cpu-tiny --out runs/tiny
      a recipe that travels in the program: demo, cpu-tiny, h100-15min, base, large
  modernbert-train run my.toml --out runs/mine --corpus texts/ --set optimizer.learning_rate=1e-3 --set phase.decay.run.total_tokens=5_000_000
      settings by dotted key; those of one phase by phase.NAME.key
  modernbert-train run h100-15min --phase extend --from runs/a/checkpoints/step-00012000 --out runs/b
      one phase alone, from a checkpoint of another run (its weights, moments and tokenizer)

The run is saved every 15 minutes (checkpoint.every_minutes), by steps if you like (checkpoint.every_steps), at the end of every phase
and at Ctrl-C. The folder then holds recipe.toml, metrics.jsonl, checkpoints/, and in the end a model that transformers loads.";

pub(crate) const RESUME_HELP: &str = "\
The log is cut back to the checkpoint and the run goes on bit for bit as if it had never stopped (on the same kind of device).
A run that was ended before its first checkpoint begins anew.

  modernbert-train resume runs/tiny
  modernbert-train resume runs/tiny --from previous       the newest checkpoint is damaged
  modernbert-train resume runs/tiny --from step-1200      checkpoints of later steps are set aside

To go on with other settings see `rollback`.";

pub(crate) const ROLLBACK_HELP: &str = "\
The other run stays as it is; the new one has its own folder, its log begins with the other's, and history.jsonl says where it
comes from. Data, masks and sizes stay the same, so the new run meets the very tokens the other one met.

  modernbert-train rollback runs/large/checkpoints/step-00178000 --out runs/large-b \\
      --set phase.pretrain.optimizer.learning_rate=5e-5 --set phase.pretrain.optimizer.weight_decay=1e-6
      what the authors of ModernBERT did when the large model's loss stood still (paper, appendix C.2)";

pub(crate) const ANNEAL_HELP: &str = "\
Any checkpoint of a stable phase will do: that is what they are kept for (checkpoint.keep_every_steps).

  modernbert-train anneal runs/base/checkpoints/step-00300000 --out runs/law --tokens 50_000_000 --corpus law/
      the checkpoint's learning rate falls to a thousandth by 1-sqrt over 50 M tokens of your texts; moments are kept";

const DEMO: &str = "demo";

#[derive(Args)]
pub(crate) struct Demo {
    /// Text to train on instead of the cargo registry's sources: files or folders of .txt, .md, .rs, .jsonl, .jsonl.gz.
    #[arg(long, value_name = "PATH")]
    corpus: Vec<PathBuf>,
    #[command(flatten)]
    out: OutArgs,
    #[command(flatten)]
    common: CommonArgs,
}

#[derive(Args)]
pub(crate) struct Run {
    /// The recipe: a TOML file, or the name of one that travels in the program.
    recipe: PathBuf,
    /// Text to train on instead of the recipe's; may be repeated.
    #[arg(long, value_name = "PATH")]
    corpus: Vec<PathBuf>,
    /// Runs this phase of the recipe alone.
    #[arg(long, value_name = "NAME")]
    phase: Option<String>,
    /// Starts from a checkpoint of another run (weights, moments, tokenizer) instead of random weights.
    #[arg(long, value_name = "CHECKPOINT")]
    from: Option<PathBuf>,
    #[command(flatten)]
    out: OutArgs,
    #[command(flatten)]
    common: CommonArgs,
}

#[derive(Args)]
pub(crate) struct Resume {
    /// The run's folder.
    run: PathBuf,
    /// Which checkpoint: latest, previous (the newest good one before the newest), or step-NUMBER.
    #[arg(long, value_name = "WHICH", default_value = "latest")]
    from: Choice,
    #[command(flatten)]
    common: CommonArgs,
}

#[derive(Args)]
pub(crate) struct Rollback {
    /// The checkpoint to go back to.
    checkpoint: PathBuf,
    #[command(flatten)]
    out: OutArgs,
    #[command(flatten)]
    common: CommonArgs,
}

#[derive(Args)]
pub(crate) struct Anneal {
    /// The checkpoint to decay from.
    checkpoint: PathBuf,
    /// Tokens of the decay.
    #[arg(long, value_parser = tokens)]
    tokens: u64,
    /// Text to train on instead of the run's; may be repeated.
    #[arg(long, value_name = "PATH")]
    corpus: Vec<PathBuf>,
    #[command(flatten)]
    out: OutArgs,
    #[command(flatten)]
    common: CommonArgs,
}

#[derive(Args)]
struct OutArgs {
    /// Folder for the run: model, log, picture, checkpoints.
    #[arg(long, value_name = "FOLDER")]
    out: PathBuf,
    /// Deletes a run with checkpoints that is in the folder.
    #[arg(long)]
    restart: bool,
    /// Replaces one setting of the recipe, as in --set optimizer.learning_rate=1e-3; may be repeated.
    #[arg(long = "set", value_name = "KEY=VALUE")]
    overrides: Vec<String>,
    /// Dtype of matrix products: f32 or bf16; by default the recipe's.
    #[arg(long)]
    dtype: Option<String>,
}

#[derive(Args)]
struct CommonArgs {
    #[command(flatten)]
    device: DeviceArgs,
    /// Peak of the device in TFLOP/s at that dtype, for MFU; by default that of the device's name, where it is known.
    #[arg(long, value_name = "TFLOPS")]
    peak_tflops: Option<f64>,
    /// Plain lines even on a terminal.
    #[arg(long)]
    lines: bool,
}

/// A number of tokens, with `_` between digits if you like.
fn tokens(text: &str) -> Result<u64, String> {
    let tokens = text.replace('_', "").parse::<u64>();
    tokens.map_err(|_| "write a number of tokens, such as 50_000_000".to_string())
}

impl OutArgs {
    fn overrides(&self) -> Vec<String> {
        let mut overrides = self.overrides.clone();
        if let Some(dtype) = &self.dtype {
            overrides.push(format!("run.precision=\"{dtype}\""));
        }
        overrides
    }
}

impl CommonArgs {
    fn options(&self, out: &Path, restart: bool) -> anyhow::Result<PretrainOptions> {
        if let Some(peak) = self
            .peak_tflops
            .filter(|peak| !(*peak > 0.0 && peak.is_finite()))
        {
            bail!("--peak-tflops is {peak}; give the device's peak, above 0, or leave it out");
        }
        let device = self.device.select_for_training()?;
        let progress = if self.lines {
            Progress::Lines
        } else {
            Progress::detect()
        };
        let interrupter = Interrupter::new();
        stop_on_ctrl_c(&interrupter)?;
        Ok(PretrainOptions {
            out: out.to_path_buf(),
            device,
            progress,
            peak_tflops: self.peak_tflops,
            interrupter,
            restart,
        })
    }
}

/// A file, or a recipe that travels in the program.
fn read_recipe(path: &Path) -> anyhow::Result<Recipe> {
    let named = path.to_str().filter(|_| !path.is_file()).and_then(builtin);
    match named {
        Some(recipe) => Ok(recipe?),
        None => Recipe::from_file(path).with_context(|| {
            let names: Vec<_> = builtin_names().collect();
            format!("recipes that travel in the program: {}", names.join(", "))
        }),
    }
}

fn with_corpus(mut recipe: Recipe, corpus: &[PathBuf]) -> Recipe {
    if !corpus.is_empty() {
        recipe.data.corpus = Corpus::Paths(corpus.to_vec());
    }
    recipe
}

impl Demo {
    pub(crate) fn run(self) -> anyhow::Result<ExitCode> {
        let recipe = with_corpus(builtin(DEMO).context("there is no demo")??, &self.corpus);
        let recipe = recipe.with_overrides(&self.out.overrides())?;
        // The same demo again is no loss: what it made can be made again within minutes.
        let again = std::fs::read_to_string(self.out.out.join("recipe.toml"))
            .is_ok_and(|text| recipe.to_toml().is_ok_and(|mine| mine == text));
        let options = self
            .common
            .options(&self.out.out, self.out.restart || again)?;
        say_device(&options, &recipe);
        finish("demo", pretrain(&recipe, &options)?, &options)
    }
}

impl Run {
    pub(crate) fn run(self) -> anyhow::Result<ExitCode> {
        let recipe = with_corpus(read_recipe(&self.recipe)?, &self.corpus);
        let mut recipe = recipe.with_overrides(&self.out.overrides())?;
        if let Some(phase) = &self.phase {
            recipe = recipe.only_phase(phase)?;
        }
        recipe.validate()?;
        let options = self.common.options(&self.out.out, self.out.restart)?;
        say_device(&options, &recipe);
        let end = match &self.from {
            Some(from) => start_from(&recipe, &checkpoint_at(from)?, &options)?,
            None => pretrain(&recipe, &options)?,
        };
        finish("run", end, &options)
    }
}

impl Resume {
    pub(crate) fn run(self) -> anyhow::Result<ExitCode> {
        let options = self.common.options(&self.run, false)?;
        finish("run", resume(self.from, &options)?, &options)
    }
}

impl Rollback {
    pub(crate) fn run(self) -> anyhow::Result<ExitCode> {
        let options = self.common.options(&self.out.out, self.out.restart)?;
        let checkpoint = checkpoint_at(&self.checkpoint)?;
        let end = roll_back(&checkpoint, &self.out.overrides(), &options)?;
        finish("run", end, &options)
    }
}

impl Anneal {
    pub(crate) fn run(self) -> anyhow::Result<ExitCode> {
        let checkpoint = checkpoint_at(&self.checkpoint)?;
        let recipe = anneal_recipe(&checkpoint, self.tokens, &self.corpus)?;
        let recipe = recipe.with_overrides(&self.out.overrides())?;
        let options = self.common.options(&self.out.out, self.out.restart)?;
        let end = start_from(&recipe, &checkpoint, &options)?;
        finish("run", end, &options)
    }
}

fn say_device(options: &PretrainOptions, recipe: &Recipe) {
    print(&describe(&options.device, recipe.run.precision.name()));
}

/// Shows a few guesses on held-out text, then the line that programs read; or how to go on.
fn finish(name: &str, end: PretrainEnd, options: &PretrainOptions) -> anyhow::Result<ExitCode> {
    let summary = match end {
        PretrainEnd::Finished(summary) => summary,
        PretrainEnd::Interrupted { step, checkpoint } => {
            let run = options.out.display();
            match checkpoint {
                Some(checkpoint) => print(&format!(
                    "interrupted at step {step}, saved in {}; go on with: modernbert-train resume {run}",
                    checkpoint.display()
                )),
                None => print(&format!(
                    "interrupted before its first step; go on with: modernbert-train resume {run}"
                )),
            }
            return Ok(ExitCode::from(INTERRUPTED));
        }
    };
    show_guesses(&summary)?;
    let state = &summary.state;
    print(&format!(
        "{name}: loss_start={:.4} loss_end={:.4} unigram_loss={:.4} top1={:.4} unigram_top1={:.4} tok_s={:.0} seconds={:.0} out={}",
        state.first_loss.unwrap_or(f64::NAN),
        state.eval_loss.unwrap_or(f64::NAN),
        summary.unigram.loss,
        state.eval_accuracy.unwrap_or(f64::NAN),
        summary.unigram.top1,
        summary.tok_s,
        summary.seconds,
        options.out.display()
    ));
    Ok(ExitCode::SUCCESS)
}

fn show_guesses(summary: &PretrainSummary) -> anyhow::Result<()> {
    let prepared = &summary.prepared;
    let lines = masked_lines(
        &summary.model,
        &prepared.tokenizer,
        &prepared.eval_documents,
        5,
    )
    .context("the model can't be tried on held-out text")?;
    for line in lines {
        print(&line.text);
        let guesses: Vec<String> = line
            .guesses
            .iter()
            .map(|guess| format!("{:?} {:.0} %", guess.token, 100.0 * guess.probability))
            .collect();
        print(&format!(
            "    was {:?}; guesses {}",
            line.truth,
            guesses.join(", ")
        ));
    }
    Ok(())
}
