//! Commands that train.

use anyhow::{Context, anyhow, bail};
use burn::train::Interrupter;
use clap::Args;
use modernbert::checkpoint::ModelSource;
use modernbert::output::OutputCheck;
use modernbert_cli::text::human_count;
use modernbert_cli::{DeviceArgs, INTERRUPTED, describe};
use modernbert_train::engine::{Progress, stop_on_signals};
use modernbert_train::pretrain::{
    PretrainEnd, PretrainOptions, PretrainSummary, anneal_model_recipe, anneal_recipe,
    masked_lines, pretrain, resume, roll_back, start_from,
};
use modernbert_train::recipe::{
    Corpus, Recipe, RecipeError, RecipeText, Tokenizer, builtin, builtin_names, builtin_text,
};
use modernbert_train::run_dir::{Choice, recipe_of_run, run_of_checkpoint};
use modernbert_train::tools::checkpoint_at;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use super::print;

pub(crate) const RUN_HELP: &str = "\
Examples:
  modernbert-train run cpu-tiny --out runs/tiny
      a built-in recipe: demo, cpu-tiny, continue, h100-15min, base, large
  modernbert-train run my.toml --out runs/mine --corpus texts/ --set optimizer.learning_rate=1e-3 --set phase.decay.run.total_tokens=5_000_000
      settings by dotted key; those of one phase by phase.NAME.key
  modernbert-train run h100-15min --phase extend --from runs/a/checkpoints/step-00012000 --out runs/b
      one phase alone, from a checkpoint of another run (its weights, moments and tokenizer)
  modernbert-train run continue --from answerdotai/ModernBERT-base --corpus code/ --out runs/code
      continued pretraining: sizes, weights and tokenizer of a published model (its folder, or its name on the Hugging Face Hub), a
      fresh optimizer, new text

Relative paths in a recipe are relative to its folder, those on the command line to the current one.

The run is saved every 15 minutes (checkpoint.every_minutes), by steps if you like (checkpoint.every_steps), at the end of every phase
and at Ctrl-C. The folder then holds recipe.toml, metrics.jsonl, checkpoints/, and in the end a model that transformers loads.";

pub(crate) const RESUME_HELP: &str = "\
Continues a run from a checkpoint, bit-identical to a run that never stopped (on the same kind of device). Rows of the log after the
checkpoint are cut off. A run that ended before its first checkpoint begins again.

  modernbert-train resume runs/tiny
  modernbert-train resume runs/tiny --from previous       the newest checkpoint is damaged
  modernbert-train resume runs/tiny --from step-1200      newer checkpoints are kept under another name

To go on with other settings see `rollback`.";

pub(crate) const ROLLBACK_HELP: &str = "\
The other run is not changed. The new run has its own folder, its log begins with that of the other run, and history.jsonl names the
checkpoint. Data, masks and sizes stay the same, so the new run trains on the same tokens.

  modernbert-train rollback runs/large/checkpoints/step-00178000 --out runs/large-b \\
      --set phase.pretrain.optimizer.learning_rate=5e-5 --set phase.pretrain.optimizer.weight_decay=1e-6
      what the authors of ModernBERT did when the large model's loss stood still (paper, appendix C.2)";

pub(crate) const ANNEAL_HELP: &str = "\
Any checkpoint of a stable phase will do: that is what they are kept for (checkpoint.keep_every_steps). A published model will do as
well (its folder, or its name on the Hub): the settings are then those of the recipe `continue`, and the optimizer is fresh.

  modernbert-train anneal runs/base/checkpoints/step-00300000 --out runs/law --tokens 50_000_000 --corpus law/
      decays the checkpoint's learning rate to a thousandth by 1-sqrt over 50 M tokens of your texts; moments are kept
  modernbert-train anneal answerdotai/ModernBERT-base --out runs/law --tokens 50_000_000 --corpus law/ --set optimizer.learning_rate=1e-4";

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
    /// The recipe: a TOML file, or the name of a built-in recipe.
    recipe: PathBuf,
    /// Text to train on instead of the recipe's; may be repeated.
    #[arg(long, value_name = "PATH")]
    corpus: Vec<PathBuf>,
    /// Runs this phase of the recipe alone.
    #[arg(long, value_name = "NAME")]
    phase: Option<String>,
    /// Starts from a checkpoint of another run (weights, moments, tokenizer), or from a published model (sizes, weights, tokenizer; a folder
    /// or a name on the Hub), instead of random weights.
    #[arg(long, value_name = "CHECKPOINT|MODEL")]
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
    /// The checkpoint to decay from; or a published model, as a folder or by its name on the Hub.
    #[arg(value_name = "CHECKPOINT|MODEL")]
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
    /// Deletes the run that is in the folder first. Nothing else is deleted: a folder that holds any other file is refused.
    #[arg(long)]
    restart: bool,
    /// Replaces one setting of the recipe, as in --set optimizer.learning_rate=1e-3; may be repeated.
    #[arg(long = "set", value_name = "KEY=VALUE")]
    overrides: Vec<String>,
    /// Dtype of matrix multiplication and attention: f32 or bf16; by default the recipe's.
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

/// Text that is no number of tokens.
#[derive(Debug, thiserror::Error)]
#[error("write a number of tokens above 0, such as 50_000_000")]
struct TokensError;

/// A number of tokens, with `_` between digits if you like.
fn tokens(text: &str) -> Result<u64, TokensError> {
    let tokens = text.replace('_', "").parse::<u64>();
    tokens.ok().filter(|&tokens| tokens > 0).ok_or(TokensError)
}

impl OutArgs {
    fn overrides(&self) -> Vec<String> {
        let mut overrides = self.overrides.clone();
        if let Some(dtype) = &self.dtype {
            overrides.push(format!("run.precision=\"{dtype}\""));
        }
        overrides
    }

    /// Whether a run of this recipe can be written to `--out`, before anything is read or trained. `inputs` are read beside what the
    /// recipe names.
    fn check(&self, recipe: &Recipe, inputs: &[&Path]) -> anyhow::Result<()> {
        let mut read: Vec<PathBuf> = inputs.iter().map(|path| path.to_path_buf()).collect();
        let mut needed = 0;
        for phase in recipe.phases()? {
            let recipe = phase.recipe;
            let corpora = [Some(recipe.data.corpus), recipe.data.eval_corpus];
            for corpus in corpora.into_iter().flatten() {
                if let Corpus::Paths(paths) = corpus {
                    read.extend(paths);
                }
            }
            if let Tokenizer::Path(path) = recipe.data.tokenizer {
                read.push(path);
            }
            read.extend(recipe.model.tile_from.clone());
            read.extend(recipe.model.from.clone().map(PathBuf::from));
            if let Ok(config) = recipe.model.config(recipe.data.tokenizer_vocab) {
                // A checkpoint has weights and both moments in f32, and one more is written before one is dropped.
                let checkpoints = 1 + recipe.checkpoint.keep_last.max(1) as u64;
                let parameters = config.mlm_parameters();
                needed = parameters.saturating_mul(12 * checkpoints + 4);
            }
        }
        // What the folder may hold already is for the run's folder itself to judge.
        OutputCheck::folder(&self.out)
            .inputs(read)
            .replaces(|_| true)
            .needs(needed)
            .check()?;
        Ok(())
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
        stop_on_signals(&interrupter)?;
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

/// A file, or a built-in recipe.
fn read_recipe(path: &Path) -> anyhow::Result<(Recipe, RecipeText)> {
    let name = path.to_str().filter(|_| !path.is_file());
    if let Some((recipe, text)) = name.and_then(|name| Some((builtin(name)?, builtin_text(name)?)))
    {
        return Ok((recipe?, text));
    }
    Recipe::from_file_with_text(path).map_err(|error| {
        let names: Vec<_> = builtin_names().collect();
        match error {
            error @ RecipeError::Io { .. } => {
                anyhow!(
                    "{error}, or the name of a built-in recipe: {}",
                    names.join(", ")
                )
            }
            other => other.into(),
        }
    })
}

/// The recipe with what the command line changes; relative paths of the command line are made absolute, as the recipe is stored.
fn with_arguments(
    recipe: Recipe,
    corpus: &[PathBuf],
    overrides: &[String],
) -> anyhow::Result<Recipe> {
    let mut recipe = recipe.with_overrides(overrides)?;
    if !corpus.is_empty() {
        recipe.data.corpus = Corpus::Paths(corpus.to_vec());
    }
    Ok(recipe.with_paths_in(&current_folder()?))
}

fn current_folder() -> anyhow::Result<PathBuf> {
    std::env::current_dir().context("the current folder can't be read; change to another one")
}

/// Tokens up to which the sources that cargo has unpacked may be trained on without being asked for.
const MOST_TOKENS_BY_DEFAULT: u64 = 1_500_000_000;

/// Refuses a long run, or one that continues a published model, on the default corpus: nobody wants that by accident.
fn check_corpus(recipe: &Recipe, text: &RecipeText, corpus: &[PathBuf]) -> anyhow::Result<()> {
    let phases = recipe.phases()?;
    let on_registry = phases
        .iter()
        .all(|phase| phase.recipe.data.corpus == Corpus::Registry);
    if !on_registry || !corpus.is_empty() || text.sets("data.corpus") {
        return Ok(());
    }
    let tokens = phases.iter().map(|phase| phase.recipe.run.total_tokens);
    let tokens = tokens.fold(0, u64::saturating_add);
    if tokens <= MOST_TOKENS_BY_DEFAULT && recipe.model.from.is_none() {
        return Ok(());
    }
    bail!(
        "data.corpus: this recipe trains on {} tokens and names no text; give it some with --corpus PATH (files, folders, or a folder that \
         `modernbert-train tokenize` made). The default, the sources that cargo has unpacked on this machine, is a few million tokens: \
         that would be {} epochs or so. To use it all the same, pass --set data.corpus=registry",
        human_count(tokens),
        human_count((tokens / 10_000_000).max(1)),
    );
}

/// The beginning of a run that another run or model gives.
enum Start {
    /// A checkpoint of a run.
    Checkpoint(PathBuf),
    /// A published model: its folder, or its name on the Hub.
    Model(String),
}

impl Start {
    /// The checkpoint, run, model folder or Hub name that `from` is.
    fn parse(from: &Path) -> anyhow::Result<Self> {
        let holds = |name: &str| from.join(name).exists();
        let is_run = holds("manifest.json") || holds("checkpoints");
        let is_model = holds("config.json") && !is_run;
        let Some(name) = from.to_str() else {
            return Ok(Self::Checkpoint(checkpoint_at(from)?));
        };
        if is_model {
            return Ok(Self::Model(
                std::path::absolute(from)?
                    .to_str()
                    .unwrap_or(name)
                    .to_owned(),
            ));
        }
        match ModelSource::parse(name) {
            ModelSource::Hub(name) => {
                ModelSource::Hub(name.clone()).resolve(None, false)?;
                Ok(Self::Model(name))
            }
            ModelSource::Folder(folder) => Ok(Self::Checkpoint(checkpoint_at(&folder)?)),
        }
    }
}

impl Demo {
    pub(crate) fn run(self) -> anyhow::Result<ExitCode> {
        let recipe = builtin(DEMO).context("there is no demo")??;
        let recipe = with_arguments(recipe, &self.corpus, &self.out.overrides())?;
        recipe.validate()?;
        self.out.check(&recipe, &[])?;
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
        let (recipe, text) = read_recipe(&self.recipe)?;
        let overrides = self.out.overrides();
        let text = text.with_overrides(&overrides);
        let mut recipe = with_arguments(recipe, &self.corpus, &overrides)?;
        if let Some(phase) = &self.phase {
            recipe = recipe.only_phase(phase)?;
        }
        let start = self.from.as_deref().map(Start::parse).transpose()?;
        if let Some(Start::Model(model)) = &start {
            recipe.model.from = Some(model.clone());
        }
        let located = |error| text.locate(error);
        if !matches!(start, Some(Start::Checkpoint(_))) {
            check_corpus(&recipe, &text, &self.corpus)?;
            recipe = recipe.resolve_model().map_err(located)?.0;
        }
        recipe.validate().map_err(located)?;
        let mut inputs = vec![self.recipe.as_path()];
        inputs.extend(self.from.as_deref());
        self.out.check(&recipe, &inputs)?;
        let options = self.common.options(&self.out.out, self.out.restart)?;
        say_device(&options, &recipe);
        let end = match &start {
            Some(Start::Checkpoint(from)) => start_from(&recipe, from, &options)?,
            _ => pretrain(&recipe, &options)?,
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
        let checkpoint = checkpoint_at(&self.checkpoint)?;
        let run = run_of_checkpoint(&checkpoint)?;
        self.out
            .check(&recipe_of_run(&run)?, &[&checkpoint, &run])?;
        let options = self.common.options(&self.out.out, self.out.restart)?;
        let end = roll_back(&checkpoint, &self.out.overrides(), &options)?;
        finish("run", end, &options)
    }
}

impl Anneal {
    pub(crate) fn run(self) -> anyhow::Result<ExitCode> {
        let mut corpus = self.corpus.clone();
        for path in &mut corpus {
            *path = std::path::absolute(&*path)?;
        }
        let overrides = self.out.overrides();
        match Start::parse(&self.checkpoint)? {
            Start::Checkpoint(checkpoint) => {
                let recipe = anneal_recipe(&checkpoint, self.tokens, &corpus)?;
                let recipe = with_arguments(recipe, &[], &overrides)?;
                recipe.validate()?;
                let run = run_of_checkpoint(&checkpoint)?;
                self.out.check(&recipe, &[&checkpoint, &run])?;
                let options = self.common.options(&self.out.out, self.out.restart)?;
                finish("run", start_from(&recipe, &checkpoint, &options)?, &options)
            }
            Start::Model(model) => {
                let recipe = anneal_model_recipe(&model, self.tokens, &corpus)?;
                let recipe = with_arguments(recipe, &[], &overrides)?;
                let text = RecipeText::new("recipes/continue.toml", "").with_overrides(&overrides);
                check_corpus(&recipe, &text, &corpus)?;
                let (recipe, _) = recipe.resolve_model()?;
                recipe.validate()?;
                self.out.check(&recipe, &[])?;
                let options = self.common.options(&self.out.out, self.out.restart)?;
                say_device(&options, &recipe);
                finish("run", pretrain(&recipe, &options)?, &options)
            }
        }
    }
}

fn say_device(options: &PretrainOptions, recipe: &Recipe) {
    print(&describe(&options.device, recipe.run.precision.name()));
}

/// Shows a few predictions on held-out text, then the line that programs read; or how to resume.
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
    show_predictions(&summary)?;
    let state = &summary.state;
    let defined =
        |value: Option<f64>| value.map_or("undefined".to_string(), |value| format!("{value:.4}"));
    print(&format!(
        "{name}: loss_start={} loss_end={} unigram_loss={} top1={} unigram_top1={} tok_s={:.0} seconds={:.0} out={}",
        defined(state.first_loss),
        defined(state.eval_loss),
        defined(summary.unigram.map(|score| score.loss)),
        defined(state.eval_accuracy),
        defined(summary.unigram.map(|score| score.top1)),
        summary.tok_s,
        summary.seconds,
        options.out.display()
    ));
    Ok(ExitCode::SUCCESS)
}

fn show_predictions(summary: &PretrainSummary) -> anyhow::Result<()> {
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
        let predictions: Vec<String> = line
            .predictions
            .iter()
            .map(|one| format!("{:?} {:.0} %", one.token, 100.0 * one.probability))
            .collect();
        print(&format!(
            "    was {:?}; predicted {}",
            line.truth,
            predictions.join(", ")
        ));
    }
    Ok(())
}
