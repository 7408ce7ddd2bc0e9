//! Arguments of the commands that train, and their help texts.

use anyhow::bail;
use burn::train::Interrupter;
use clap::Args;
use modernbert::output::{OutputCheck, overlap};
use modernbert_cli::DeviceArgs;
use modernbert_train::engine::{Progress, stop_on_signals};
use modernbert_train::pretrain::PretrainOptions;
use modernbert_train::recipe::{CorpusSource, Recipe, TokenizerSource};
use modernbert_train::run_dir::Choice;
use ranks::World;
use std::path::{Path, PathBuf};

use super::rank_arguments::RankArgs;
use super::train::Start;

pub(crate) const RUN_HELP: &str = "\
Examples:
  modernbert-train run cpu-tiny --out runs/tiny
      a built-in recipe: demo, cpu-tiny, 17m, continue, h100-15min, base, large
  modernbert-train run my.toml --out runs/mine --corpus texts/ --set optimizer.learning_rate=1e-3 --set phase.decay.run.total_tokens=5_000_000
      settings by dotted key; those of one phase by phase.NAME.key
  modernbert-train run h100-15min --phase extend --from runs/a/checkpoints/step-00012000 --out runs/b
      one phase alone, from a checkpoint of another run (its weights, moments and tokenizer)
  modernbert-train run continue --from answerdotai/ModernBERT-base --corpus code/ --out runs/code
      continued pretraining: sizes, weights and tokenizer of a published model (its folder, or its name on the Hugging Face Hub), a
      fresh optimizer, new text

Relative paths in a recipe are relative to its folder, those on the command line to the current one.

A checkpoint is saved every 15 minutes (checkpoint.every_minutes), optionally by steps (checkpoint.every_steps), at the end of every phase
and at Ctrl-C. The folder then contains recipe.toml, metrics.jsonl, checkpoints/, and at the end a model that transformers loads.";

pub(crate) const RESUME_HELP: &str = "\
Continues a run from a checkpoint, bit-identical to a run that never stopped (on the same kind of device). Rows of the log after the
checkpoint are cut off. A run that ended before its first checkpoint begins again.

  modernbert-train resume runs/tiny
  modernbert-train resume runs/tiny --from previous       the newest checkpoint is damaged
  modernbert-train resume runs/tiny --from step-1200      newer checkpoints are kept under another name

To continue with other settings see `rollback`.";

pub(crate) const ROLLBACK_HELP: &str = "\
The other run is not changed. The new run has its own folder, its log begins with that of the other run, and history.jsonl names the
checkpoint. Data, masks and sizes stay the same, so the new run trains on the same tokens.

  modernbert-train rollback runs/large/checkpoints/step-00178000 --out runs/large-b \\
      --set phase.pretrain.optimizer.learning_rate=5e-5 --set phase.pretrain.optimizer.weight_decay=1e-6
      as the authors of ModernBERT did when the large model's loss stagnated (paper, appendix C.2)";

pub(crate) const ANNEAL_HELP: &str = "\
Starts from any checkpoint of a stable phase (checkpoint.keep_every_steps keeps them), or from a published
model (its folder, or its name on the Hub): the settings are then those of the recipe `continue`, and the optimizer is fresh.

  modernbert-train anneal runs/base/checkpoints/step-00300000 --out runs/law --tokens 50_000_000 --corpus law/
      decays the checkpoint's learning rate to a thousandth by 1-sqrt over 50 M tokens of your texts; moments are kept
  modernbert-train anneal answerdotai/ModernBERT-base --out runs/law --tokens 50_000_000 --corpus law/ --set optimizer.learning_rate=1e-4";

#[derive(Args)]
pub(crate) struct Demo {
    /// Trains on this text instead of the cargo registry's sources; may be repeated. Files or folders of .txt, .md and source code, .jsonl, .ndjson,
    /// .csv and .tsv, each also as .gz or .zst (.json only compressed), .parquet, and MDS shards. .zst needs the feature zstd, .parquet the
    /// feature parquet.
    #[arg(long, value_name = "PATH")]
    pub(super) corpus: Vec<PathBuf>,
    #[command(flatten)]
    pub(super) out: OutArgs,
    #[command(flatten)]
    pub(super) common: CommonArgs,
}

#[derive(Args)]
pub(crate) struct Run {
    /// Runs this recipe: a TOML file, or the name of a built-in recipe.
    pub(super) recipe: PathBuf,
    /// Trains on this text instead of the recipe's; may be repeated.
    #[arg(long, value_name = "PATH")]
    pub(super) corpus: Vec<PathBuf>,
    /// Runs only this phase of the recipe.
    #[arg(long, value_name = "NAME")]
    pub(super) phase: Option<String>,
    /// Starts from a checkpoint of another run (weights, moments, tokenizer), or from a published model (sizes, weights, tokenizer; a folder
    /// or a name on the Hub), instead of random weights.
    #[arg(long, value_name = "CHECKPOINT|MODEL")]
    pub(super) from: Option<PathBuf>,
    #[command(flatten)]
    pub(super) out: OutArgs,
    #[command(flatten)]
    pub(super) common: CommonArgs,
}

#[derive(Args)]
pub(crate) struct Resume {
    /// Resumes the run in this folder.
    pub(super) run: PathBuf,
    /// Starts from this checkpoint: latest, previous (the newest intact one before the newest), or step-NUMBER.
    #[arg(long, value_name = "WHICH", default_value = "latest")]
    pub(super) from: Choice,
    #[command(flatten)]
    pub(super) common: CommonArgs,
}

#[derive(Args)]
pub(crate) struct Rollback {
    /// Starts from this checkpoint.
    pub(super) checkpoint: PathBuf,
    #[command(flatten)]
    pub(super) out: OutArgs,
    #[command(flatten)]
    pub(super) common: CommonArgs,
}

#[derive(Args)]
pub(crate) struct Anneal {
    /// Decays from this checkpoint, or from a published model: a folder, or a name on the Hub.
    #[arg(value_name = "CHECKPOINT|MODEL")]
    pub(super) checkpoint: PathBuf,
    /// Decays over this many tokens.
    #[arg(long, value_parser = tokens)]
    pub(super) tokens: u64,
    /// Trains on this text instead of the run's; may be repeated.
    #[arg(long, value_name = "PATH")]
    pub(super) corpus: Vec<PathBuf>,
    #[command(flatten)]
    pub(super) out: OutArgs,
    #[command(flatten)]
    pub(super) common: CommonArgs,
}

#[derive(Args)]
pub(super) struct OutArgs {
    /// Writes the run to this folder: model, log, plot of the loss, checkpoints.
    #[arg(long, value_name = "FOLDER")]
    pub(super) out: PathBuf,
    /// Deletes the run in the folder first. Nothing else is deleted: a folder with any other file is refused.
    #[arg(long)]
    pub(super) restart: bool,
    #[command(flatten)]
    pub(super) settings: SettingArgs,
}

#[derive(Args)]
pub(super) struct SettingArgs {
    /// Replaces one setting of the recipe, as in --set optimizer.learning_rate=1e-3, or restores its default, as in --set
    /// run.max_seconds=unset; may be repeated.
    #[arg(long = "set", value_name = "KEY=VALUE")]
    pub(super) overrides: Vec<String>,
    /// Computes matrix multiplications and attention in this dtype, f32 or bf16, where the recipe names none; to replace the recipe's, use
    /// --set run.precision.
    #[arg(long)]
    pub(super) dtype: Option<String>,
}

#[derive(Args)]
pub(super) struct CommonArgs {
    #[command(flatten)]
    pub(super) device: DeviceArgs,
    /// Computes MFU from this peak of the device, in TFLOP/s at the dtype of training; by default from the built-in table of devices.
    #[arg(long, value_name = "TFLOPS")]
    pub(super) peak_tflops: Option<f64>,
    /// Prints lines instead of the dashboard on a terminal.
    #[arg(long)]
    pub(super) lines: bool,
    #[command(flatten)]
    pub(super) ranks: RankArgs,
}

/// Reason why a text is no number of tokens.
#[derive(Debug, thiserror::Error)]
#[error("write a number of tokens above 0, such as 50_000_000")]
struct TokensError;

/// A number of tokens, optionally with `_` between digits.
fn tokens(text: &str) -> Result<u64, TokensError> {
    let tokens = text.replace('_', "").parse::<u64>();
    tokens.ok().filter(|&tokens| tokens > 0).ok_or(TokensError)
}

impl SettingArgs {
    /// The overrides of `--set` and `--dtype`.
    ///
    /// # Errors
    /// Both set the dtype.
    pub(super) fn overrides(&self) -> anyhow::Result<Vec<String>> {
        let mut overrides = self.overrides.clone();
        if let Some(dtype) = &self.dtype {
            self.excludes("--dtype", "sets that too", |key| key == "run.precision")?;
            overrides.push(format!("run.precision=\"{dtype}\""));
        }
        Ok(overrides)
    }

    /// Refuses an override whose key another argument decides.
    ///
    /// # Errors
    /// The first such override.
    pub(super) fn excludes(
        &self,
        argument: &str,
        reason: &str,
        is_decided: impl Fn(&str) -> bool,
    ) -> anyhow::Result<()> {
        let key = |text: &str| is_decided(text.split('=').next().unwrap_or_default().trim());
        match self.overrides.iter().find(|text| key(text)) {
            Some(text) => bail!("--set {text}: {argument} {reason}; leave one of the two out"),
            None => Ok(()),
        }
    }

    /// Refuses `--set data.corpus` beside `--corpus`.
    ///
    /// # Errors
    /// Both are given.
    pub(super) fn check_corpus(&self, corpus: &[PathBuf]) -> anyhow::Result<()> {
        if corpus.is_empty() {
            return Ok(());
        }
        if let Some((first, second)) = overlap(corpus) {
            bail!(
                "--corpus names {} and {}, which have text in common, so that it would be read twice; name it once",
                corpus[first].display(),
                corpus[second].display()
            );
        }
        self.excludes("--corpus", "sets that too", |key| key == "data.corpus")
    }

    /// Refuses settings that a start from a checkpoint or a model decides.
    ///
    /// # Errors
    /// The first such setting.
    pub(super) fn check_start(&self, argument: &str, start: &Start) -> anyhow::Result<()> {
        let reason = "decides that";
        self.excludes(argument, reason, |key| key == "model.from")?;
        match start {
            Start::Checkpoint(_) => self.excludes(argument, reason, |key| key == "data.tokenizer"),
            Start::Model(_) => Ok(()),
        }
    }
}

/// The paths that a run of this recipe reads, and the bytes that its checkpoints need.
pub(super) fn reads_and_needs(recipe: &Recipe) -> anyhow::Result<(Vec<PathBuf>, u64)> {
    let (mut read, mut needed) = (Vec::new(), 0);
    for phase in recipe.phases()? {
        let recipe = phase.recipe;
        let corpora = [Some(recipe.data.corpus), recipe.data.eval_corpus];
        for corpus in corpora.into_iter().flatten() {
            if let CorpusSource::Paths(paths) = corpus {
                read.extend(paths);
            }
        }
        if let TokenizerSource::Path(path) = recipe.data.tokenizer {
            read.push(path);
        }
        read.extend(recipe.model.tile_from.clone());
        read.extend(recipe.model.from.clone().map(PathBuf::from));
        if let Ok(config) = recipe.model.config(recipe.data.tokenizer_vocab) {
            // A checkpoint has weights and both moments in f32, and a new one is written before an old one is removed.
            let checkpoints = (recipe.checkpoint.keep_last.max(1) as u64).saturating_add(1);
            let bytes = checkpoints.saturating_mul(12).saturating_add(4);
            needed = config.mlm_parameters().saturating_mul(bytes);
        }
    }
    Ok((read, needed))
}

impl OutArgs {
    /// Checks that a run of this recipe can be written to `--out`, before anything is read or trained. `inputs` are the inputs that the
    /// recipe doesn't name.
    pub(super) fn check(&self, recipe: &Recipe, inputs: &[&Path]) -> anyhow::Result<()> {
        let (mut read, needed) = reads_and_needs(recipe)?;
        read.extend(inputs.iter().map(|path| path.to_path_buf()));
        // `RunDir` itself checks the content of an existing folder.
        OutputCheck::folder(&self.out)
            .inputs(read)
            .replaces(|_| true)
            .needs(needed)
            .check()?;
        Ok(())
    }
}

impl CommonArgs {
    pub(super) fn options(&self, out: &Path, restart: bool) -> anyhow::Result<PretrainOptions> {
        if let Some(peak) = self
            .peak_tflops
            .filter(|peak| !(*peak > 0.0 && peak.is_finite()))
        {
            bail!("--peak-tflops is {peak}; give the device's peak, above 0, or leave it out");
        }
        let world = World::from_environment()?;
        let device = match world.size {
            1 => self.device.select_for_training()?,
            _ => self.device.of_rank(world.local_rank)?,
        };
        let (ranks, gradient_sum) = self.ranks.connect(&world, &device)?;
        let progress = if self.lines || !ranks.is_first() {
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
            ranks,
            gradient_sum,
            restart,
        })
    }
}

impl Demo {
    pub(crate) fn ranks(&self) -> (Option<u16>, &Path) {
        (self.common.ranks.nproc, &self.out.out)
    }
}

impl Run {
    pub(crate) fn ranks(&self) -> (Option<u16>, &Path) {
        (self.common.ranks.nproc, &self.out.out)
    }
}

impl Resume {
    pub(crate) fn ranks(&self) -> (Option<u16>, &Path) {
        (self.common.ranks.nproc, &self.run)
    }
}

impl Rollback {
    pub(crate) fn ranks(&self) -> (Option<u16>, &Path) {
        (self.common.ranks.nproc, &self.out.out)
    }
}

impl Anneal {
    pub(crate) fn ranks(&self) -> (Option<u16>, &Path) {
        (self.common.ranks.nproc, &self.out.out)
    }
}
