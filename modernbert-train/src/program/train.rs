//! Commands that train.

use anyhow::{Context, anyhow, bail};
use modernbert::checkpoint::ModelSource;
use modernbert::device::is_cpu_with_bf16;
use modernbert_cli::text::{human_count, shown};
use modernbert_cli::{INTERRUPTED, describe};
use modernbert_train::pretrain::{
    PretrainEnd, PretrainOptions, PretrainSummary, anneal_model_recipe, anneal_recipe,
    masked_lines, pretrain, resume, roll_back, start_from,
};
use modernbert_train::recipe::{
    CorpusSource, Recipe, RecipeError, RecipeText, TrainingPrecision, builtin, builtin_names,
    builtin_or_file,
};
use modernbert_train::run_dir::{recipe_of_run, run_of_checkpoint};
use modernbert_train::tools::checkpoint_at;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use super::arguments::{Anneal, Demo, Resume, Rollback, Run};
use super::print;

const DEMO: &str = "demo";
const PRECISION: &str = "run.precision";

/// A file, whose references follow the overrides, or a built-in recipe.
fn read_recipe(path: &Path, overrides: &[String]) -> anyhow::Result<(Recipe, RecipeText)> {
    builtin_or_file(path, overrides).map_err(|error| {
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

/// The recipe with the changes of the command line, whose relative paths are made absolute because the recipe is stored.
fn with_arguments(
    recipe: Recipe,
    corpus: &[PathBuf],
    overrides: &[String],
) -> anyhow::Result<Recipe> {
    let mut recipe = recipe.with_overrides(overrides)?;
    if !corpus.is_empty() {
        recipe.data.corpus = CorpusSource::Paths(corpus.to_vec());
    }
    Ok(recipe.with_paths_in(&current_folder()?))
}

fn current_folder() -> anyhow::Result<PathBuf> {
    std::env::current_dir().context("the current folder can't be read; change to another one")
}

/// Largest number of tokens for which the cargo registry is used as the corpus without being named.
const MOST_TOKENS_BY_DEFAULT: u64 = 1_500_000_000;

/// Refuses a long run, or one that continues a published model, on the default corpus, which would be a mistake.
pub(super) fn check_corpus(
    recipe: &Recipe,
    text: &RecipeText,
    corpus: &[PathBuf],
) -> anyhow::Result<()> {
    let phases = recipe.phases()?;
    let on_registry = phases
        .iter()
        .all(|phase| phase.recipe.data.corpus == CorpusSource::Registry);
    if !on_registry || !corpus.is_empty() || text.sets("data.corpus") {
        return Ok(());
    }
    let tokens = phases.iter().map(|phase| phase.recipe.run.total_tokens);
    let tokens = tokens.fold(0, u64::saturating_add);
    if tokens <= MOST_TOKENS_BY_DEFAULT && recipe.model.from.is_none() {
        return Ok(());
    }
    bail!(
        "data.corpus: this recipe trains on {} tokens and names no text; pass it with --corpus PATH (files, folders, or a folder that \
         `modernbert-train tokenize` made). The default, the sources that cargo has unpacked on this machine, is a few million tokens: \
         that would be {} or so. To use it all the same, pass --set data.corpus=registry",
        human_count(tokens),
        match tokens / 10_000_000 {
            0 | 1 => "1 epoch".to_string(),
            epochs => format!("{} epochs", human_count(epochs)),
        },
    );
}

/// Start of a run from another run or model.
pub(super) enum Start {
    /// A checkpoint of a run.
    Checkpoint(PathBuf),
    /// A published model: its folder, or its name on the Hub.
    Model(String),
}

impl Start {
    /// Finds the checkpoint, run, model folder or Hub name that `from` names.
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
        let mut recipe = builtin(DEMO).context("there is no demo")??;
        self.out.settings.check_corpus(&self.corpus)?;
        let overrides = self.out.settings.overrides()?;
        let mut options = self.common.options(&self.out.out, self.out.restart)?;
        if is_cpu_with_bf16(&options.device.device) {
            recipe.run.precision = TrainingPrecision::Bf16;
        }
        let recipe = with_arguments(recipe, &self.corpus, &overrides)?;
        recipe.validate()?;
        recipe.check_used()?;
        self.out.check(&recipe, &[])?;
        // A demo may replace an older demo, which can be repeated within minutes.
        options.restart |= modernbert::read::text(&self.out.out.join("recipe.toml"))
            .is_ok_and(|text| recipe.to_toml().is_ok_and(|mine| mine == text));
        say_device(&options, &recipe);
        finish("demo", pretrain(&recipe, &options)?, &options)
    }
}

impl Run {
    pub(crate) fn run(self) -> anyhow::Result<ExitCode> {
        self.out.settings.check_corpus(&self.corpus)?;
        let overrides = self.out.settings.overrides()?;
        let (recipe, text) = read_recipe(&self.recipe, &overrides)?;
        let written = recipe.run.precision;
        let mut recipe = with_arguments(recipe, &self.corpus, &overrides)?;
        if self.out.settings.dtype.is_some()
            && written != recipe.run.precision
            && text.sets(PRECISION)
        {
            bail!(
                "{}: {PRECISION} is {}, and --dtype is {}; to replace the recipe's, write --set {PRECISION}={}",
                text.place(PRECISION, None),
                written.name(),
                recipe.run.precision.name(),
                recipe.run.precision.name(),
            );
        }
        let text = text.with_overrides(&overrides);
        if let Some(phase) = &self.phase {
            recipe = recipe.only_phase(phase)?;
            let own = format!("phase.{phase}.");
            self.out
                .settings
                .excludes("--phase", "leaves this phase out", |key| {
                    key.starts_with("phase.") && !key.starts_with(&own)
                })?;
        }
        let start = self.from.as_deref().map(Start::parse).transpose()?;
        if let Some(start) = &start {
            self.out.settings.check_start("--from", start)?;
        }
        if let Some(Start::Model(model)) = &start {
            recipe.model.from = Some(model.clone());
        }
        let located = |error| text.locate(error);
        if !matches!(start, Some(Start::Checkpoint(_))) {
            check_corpus(&recipe, &text, &self.corpus)?;
            recipe = recipe.resolve_model().map_err(located)?.0;
        }
        recipe.validate().map_err(located)?;
        recipe.check_used().map_err(located)?;
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
        let overrides = self.out.settings.overrides()?;
        let checkpoint = checkpoint_at(&self.checkpoint)?;
        let run = run_of_checkpoint(&checkpoint)?;
        self.out
            .check(&recipe_of_run(&run)?, &[&checkpoint, &run])?;
        let options = self.common.options(&self.out.out, self.out.restart)?;
        let end = roll_back(&checkpoint, &overrides, &options)?;
        finish("run", end, &options)
    }
}

impl Anneal {
    pub(crate) fn run(self) -> anyhow::Result<ExitCode> {
        let mut corpus = self.corpus.clone();
        for path in &mut corpus {
            *path = std::path::absolute(&*path)?;
        }
        self.out.settings.check_corpus(&self.corpus)?;
        self.out
            .settings
            .excludes("--tokens", "sets that too", |key| {
                key == "run.total_tokens" || key.ends_with(".run.total_tokens")
            })?;
        let overrides = self.out.settings.overrides()?;
        let start = Start::parse(&self.checkpoint)?;
        self.out.settings.check_start("the start", &start)?;
        match start {
            Start::Checkpoint(checkpoint) => {
                let recipe = anneal_recipe(&checkpoint, self.tokens, &corpus)?;
                let recipe = with_arguments(recipe, &[], &overrides)?;
                recipe.validate()?;
                recipe.check_corpora()?;
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
                recipe.check_corpora()?;
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
    if options.ranks.is_several() {
        print(&format!(
            "{} ranks, gradients {}",
            options.ranks.size(),
            options.gradient_sum.describe()
        ));
    }
}

/// Prints a few predictions on held-out text, then the line that programs read; after an interruption, the command that resumes the run.
fn finish(name: &str, end: PretrainEnd, options: &PretrainOptions) -> anyhow::Result<ExitCode> {
    let summary = match end {
        PretrainEnd::Finished(summary) => summary,
        PretrainEnd::Followed => return Ok(ExitCode::SUCCESS),
        PretrainEnd::Interrupted { step, checkpoint } => {
            let run = shown(&options.out);
            match checkpoint {
                Some(checkpoint) => print(&format!(
                    "interrupted at step {step}, saved in {}; resume with: modernbert-train resume {run}",
                    shown(&checkpoint)
                )),
                None => print(&format!(
                    "interrupted before its first step; resume with: modernbert-train resume {run}"
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
        shown(&options.out)
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
