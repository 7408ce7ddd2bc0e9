//! Starting a run: from text, from its last checkpoint, from a checkpoint of another run.

use modernbert::Loader;
use modernbert::config::ModernBertConfig;
use modernbert::tokenizer::Tokenizer;
use modernbert::wording::shown;
use serde_json::json;
use std::path::{Path, PathBuf};
use std::time::Instant;

use super::error::{PretrainError, Result, invalid};
use super::launch::{PretrainEnd, PretrainOptions, Ready, first_state, launch, train_as_follower};
use super::memory;
use super::prepare::{RunData, SHARDS, is_prepared, prepare, reopen};
use crate::recipe::{CorpusSource, Phase, PhaseRecipe, Recipe, TokenizerSource, builtin};
use crate::run_dir::{
    Choice, METRICS_FILE, RECIPE_FILE, RunDir, RunInfo, cut_log, recipe_of_run, run_of_checkpoint,
    sha256_of,
};
use crate::snapshot::{RunState, Snapshot};

/// Runs `first` on rank 0; the other ranks follow it. An error of any rank ends all.
fn over_ranks(
    options: &PretrainOptions,
    first: impl FnOnce() -> Result<PretrainEnd>,
) -> Result<PretrainEnd> {
    let end = if options.ranks.is_first() {
        first()
    } else {
        train_as_follower(options)
    };
    end.inspect_err(|error| options.ranks.leave(&error.to_string()))
}

/// Trains by the recipe and writes the model folder `out`.
///
/// # Errors
/// Invalid settings, invalid data, a device that can't be used, a non-finite loss, a full disk. Earlier checkpoints stay
/// complete; `model.safetensors` is written only at the end.
pub fn pretrain(recipe: &Recipe, options: &PretrainOptions) -> Result<PretrainEnd> {
    over_ranks(options, || pretrain_first(recipe, options))
}

fn pretrain_first(recipe: &Recipe, options: &PretrainOptions) -> Result<PretrainEnd> {
    let started = Instant::now();
    let (recipe, folder) = recipe.clone().resolve_model()?;
    recipe.validate()?;
    let phases = recipe.phases()?;
    check_memory(&phases, options)?;
    if let Some(folder) = folder {
        // Before the corpus is tokenized, which can take hours.
        let checked = Loader::from(folder).check_masked_lm();
        checked.map_err(|source| PretrainError::Published {
            from: recipe.model.from.clone().unwrap_or_default(),
            source: Box::new(source),
        })?;
    }
    let dir = RunDir::create(&options.out, &recipe, options.restart)?;
    let prepared = prepare(&phases, dir.root(), options.progress)?;
    let mut info = RunInfo::new(&recipe.to_toml()?);
    check_shards(&mut info, &dir, &prepared)?;
    launch(
        Ready {
            dir,
            recipe,
            phases,
            prepared,
            from: None,
            started,
        },
        options,
    )
}

/// Refuses, on a CPU, a run that the machine's memory can't hold, before the data is prepared. Other devices are checked after that: see
/// [`memory::check_device`].
fn check_memory(phases: &[Phase], options: &PretrainOptions) -> Result<()> {
    if options.device.name != memory::CPU {
        return Ok(());
    }
    memory::check(phases)
}

/// Resumes the run in `options.out` from the chosen checkpoint; a run without checkpoints starts again.
///
/// The log is cut back to the checkpoint. Checkpoints of later steps, which exist if the choice is not the newest, are
/// renamed.
///
/// # Errors
/// As [`pretrain`]; a recipe or a shard that was changed since the run was begun; a damaged checkpoint, by name.
pub fn resume(choice: Choice, options: &PretrainOptions) -> Result<PretrainEnd> {
    over_ranks(options, || resume_first(choice, options))
}

fn resume_first(choice: Choice, options: &PretrainOptions) -> Result<PretrainEnd> {
    let started = Instant::now();
    let progress = options.progress;
    let (dir, recipe, mut info) = RunDir::open(&options.out)?;
    dir.check_written(&info)?;
    let phases = recipe.phases()?;
    check_memory(&phases, options)?;
    let snapshot = choice.open(dir.root())?;
    if let (None, Some(from)) = (&snapshot, &info.started_from) {
        return invalid(format!(
            "{}: the run was ended before it had a checkpoint, and it starts from {from}: begin it again with the command that began it",
            dir.root().display()
        ));
    }
    let prepared = if snapshot.is_some() || is_prepared(&phases, dir.root()) {
        reopen(&phases, dir.root())?
    } else {
        progress.note("the run was ended before its data was ready: it is prepared again");
        prepare(&phases, dir.root(), progress)?
    };
    check_shards(&mut info, &dir, &prepared)?;
    let step = snapshot.as_ref().map_or(0, |snapshot| snapshot.state.step);
    if let Some(snapshot) = &snapshot {
        let path = dir.root().join(RECIPE_FILE);
        let text =
            modernbert::read::text(&path).map_err(PretrainError::io(&path, "can't be read"))?;
        if snapshot.state.recipe_sha256 != sha256_of(&text) {
            return invalid(format!(
                "{}: this checkpoint belongs to another recipe than {RECIPE_FILE}",
                snapshot.path.display()
            ));
        }
        let aside = dir.set_aside_after(step)?;
        if aside > 0 {
            progress.note(&format!(
                "{aside} checkpoints of later steps are renamed (checkpoints/aside-…)"
            ));
        }
    }
    let cut = dir.cut_logs(step)?;
    progress.note(&format!(
        "resuming from step {step}; {cut} rows of the log after it are cut off"
    ));
    let from = snapshot.map(|snapshot| (snapshot.state.clone(), snapshot));
    launch(
        Ready {
            dir,
            recipe,
            phases,
            prepared,
            from,
            started,
        },
        options,
    )
}

/// Begins a run with the weights and moments of a checkpoint of another run: its first phase starts at token 0, as after a phase transition.
/// The tokenizer is that run's, independent of the recipe.
///
/// # Errors
/// As [`pretrain`]; a checkpoint of another shape.
pub fn start_from(
    recipe: &Recipe,
    checkpoint: &Path,
    options: &PretrainOptions,
) -> Result<PretrainEnd> {
    over_ranks(options, || start_from_first(recipe, checkpoint, options))
}

fn start_from_first(
    recipe: &Recipe,
    checkpoint: &Path,
    options: &PretrainOptions,
) -> Result<PretrainEnd> {
    let started = Instant::now();
    let snapshot = Snapshot::open(checkpoint)?;
    let origin = run_of_checkpoint(checkpoint)?;
    let mut recipe = recipe.clone();
    if recipe.model.from.take().is_some() {
        // Sizes and tokenizer of a published model are those of the checkpoint's run.
        recipe.model = recipe_of_run(&origin)?.model;
        recipe.model.from = None;
    }
    recipe.data.tokenizer = TokenizerSource::Path(absolute(&origin)?);
    recipe.validate()?;
    let phases = recipe.phases()?;
    check_memory(&phases, options)?;
    let config = modernbert::checkpoint::read_config(checkpoint)?;
    // Before the corpus is tokenized, which can take hours; the tokenizer is that of the checkpoint's run.
    let tokenizer = Tokenizer::from_folder(&origin)?;
    if let Some(first) = phases.first() {
        let wanted = first.recipe.model.config(tokenizer.vocab_size())?;
        check_shape(checkpoint, &config, &wanted)?;
    }
    let dir = RunDir::create_from(&options.out, &recipe, options.restart, Some(checkpoint))?;
    let prepared = prepare(&phases, dir.root(), options.progress)?;
    check_shape(checkpoint, &config, &prepared.phases[0].config)?;
    let text = recipe.to_toml()?;
    let mut info = RunInfo::new(&text);
    info.started_from = Some(checkpoint.display().to_string());
    check_shards(&mut info, &dir, &prepared)?;
    let state = RunState {
        step: snapshot.state.step,
        tokens: snapshot.state.tokens,
        optimizer_updates: snapshot.state.optimizer_updates,
        first_loss: snapshot.state.first_loss,
        ..first_state(&recipe, &phases)?
    };
    carry_log(&origin, dir.root(), state.step)?;
    dir.note(
        "started from",
        json!({ "checkpoint": checkpoint.display().to_string(), "step": state.step }),
    )?;
    launch(
        Ready {
            dir,
            recipe,
            phases,
            prepared,
            from: Some((state, snapshot)),
            started,
        },
        options,
    )
}

/// Refuses a checkpoint whose model is not the recipe's.
fn check_shape(
    checkpoint: &Path,
    config: &ModernBertConfig,
    wanted: &ModernBertConfig,
) -> Result<()> {
    let shape = |config: &ModernBertConfig| {
        (
            config.vocab_size,
            config.hidden_size,
            config.intermediate_size,
            config.num_hidden_layers,
            config.num_attention_heads,
        )
    };
    if shape(config) != shape(wanted) {
        return invalid(format!(
            "{}: its model has another shape than the recipe's (vocabulary, hidden, intermediate, layers, heads: {:?} and {:?}); give \
             the recipe the [model] of the run it comes from",
            checkpoint.display(),
            shape(config),
            shape(wanted)
        ));
    }
    if config.spec().encoder_tensors() != wanted.spec().encoder_tensors() {
        return invalid(format!(
            "{}: its model has other parameters than the recipe's; give the recipe the [model] of the run it comes from, [model.flexbert] included",
            checkpoint.display(),
        ));
    }
    Ok(())
}

/// Begins a run that continues another run from one of its checkpoints with the same data position, moments and
/// counts but other settings, such as another learning rate. The other run is not changed.
///
/// # Errors
/// As [`start_from`]; settings that would have given other data.
pub fn roll_back(
    checkpoint: &Path,
    overrides: &[String],
    options: &PretrainOptions,
) -> Result<PretrainEnd> {
    over_ranks(options, || roll_back_first(checkpoint, overrides, options))
}

fn roll_back_first(
    checkpoint: &Path,
    overrides: &[String],
    options: &PretrainOptions,
) -> Result<PretrainEnd> {
    let started = Instant::now();
    let snapshot = Snapshot::open(checkpoint)?;
    let origin = run_of_checkpoint(checkpoint)?;
    let old = recipe_of_run(&origin)?;
    let recipe = old.with_overrides(overrides)?;
    recipe.validate()?;
    let (phases, before) = (recipe.phases()?, old.phases()?);
    same_data(&phases, &before)?;
    let mut state = snapshot.state.clone();
    if let Some(phase) = phases.get(state.phase) {
        // Another length of the phase is one of the settings that may change.
        let (new, old) = (
            phase.recipe.run.total_tokens,
            before[state.phase].recipe.run.total_tokens,
        );
        if new != old {
            state.phase_total = new;
            state.fitted = false;
            state.shortened = None;
            state.phase_done = state.phase_tokens >= new;
        }
    }
    if state.phase_done && state.phase + 1 >= phases.len() {
        return invalid(format!(
            "{}: the last phase has seen {} tokens and is to see {}: nothing is left to train; give run.total_tokens a larger value, or go back to an \
             earlier checkpoint",
            checkpoint.display(),
            state.phase_tokens,
            state.phase_total,
        ));
    }
    let dir = RunDir::create_from(&options.out, &recipe, options.restart, Some(checkpoint))?;
    copy_data(&origin, dir.root())?;
    let prepared = reopen(&phases, dir.root())?;
    let mut info = RunInfo::new(&recipe.to_toml()?);
    info.started_from = Some(checkpoint.display().to_string());
    check_shards(&mut info, &dir, &prepared)?;
    state.recipe_sha256 = info.recipe_sha256.clone();
    carry_log(&origin, dir.root(), state.step)?;
    let note = json!({ "checkpoint": checkpoint.display().to_string(), "step": state.step, "changes": overrides });
    dir.note("rolled back", note)?;
    options.progress.note(&format!(
        "rolled back to step {} of {}, with {}",
        state.step,
        shown(&origin),
        overrides.join(", ")
    ));
    launch(
        Ready {
            dir,
            recipe,
            phases,
            prepared,
            from: Some((state, snapshot)),
            started,
        },
        options,
    )
}

/// A recipe that anneals a published model, named by its folder or on the Hub: the built-in recipe `continue` with the 1-sqrt decay over
/// `tokens`, on `corpus`.
///
/// # Errors
/// None in practice: a test parses the built-in recipe.
pub fn anneal_model_recipe(from: &str, tokens: u64, corpus: &[PathBuf]) -> Result<Recipe> {
    let mut recipe = builtin("continue")
        .ok_or_else(|| PretrainError::Invalid("there is no recipe continue".to_string()))??;
    recipe.model.from = Some(from.to_owned());
    recipe.schedule = crate::schedule::Schedule::OneMinusSqrt {
        decay_tokens: crate::schedule::TokenSpan::Fraction(1.0),
        final_fraction: 0.001,
    };
    recipe.run.total_tokens = tokens;
    if !corpus.is_empty() {
        recipe.data.corpus = CorpusSource::Paths(corpus.to_vec());
    }
    recipe.phase = vec![PhaseRecipe {
        name: "anneal".to_string(),
        settings: toml::Table::new(),
    }];
    Ok(recipe)
}

/// A recipe that anneals a checkpoint: the settings of its phase with the 1-sqrt decay over `tokens` from the checkpoint's learning rate
/// on, on `corpus` if given. Weight decay stays relative to the phase's peak rate.
///
/// # Errors
/// A checkpoint whose run's recipe can't be read, or whose learning rate is 0.
pub fn anneal_recipe(checkpoint: &Path, tokens: u64, corpus: &[PathBuf]) -> Result<Recipe> {
    let origin = run_of_checkpoint(checkpoint)?;
    let state = crate::snapshot::Snapshot::open(checkpoint)?.state;
    let run = recipe_of_run(&origin)?;
    let phases = run.phases()?;
    let phase = phases.into_iter().nth(state.phase).ok_or_else(|| {
        PretrainError::Invalid(format!(
            "{}: its phase isn't in the recipe; restore the recipe of its run",
            checkpoint.display()
        ))
    })?;
    let mut recipe = phase.recipe;
    let peak = recipe.optimizer.learning_rate;
    let rate =
        recipe
            .learning_rate()
            .at_shortened(state.phase_tokens, state.phase_total, state.shortened);
    if rate <= 0.0 {
        return invalid(format!(
            "{}: its learning rate is 0, at the end of a decay; anneal an earlier checkpoint, or train on with `modernbert-train run RECIPE --from \
             CHECKPOINT`",
            checkpoint.display()
        ));
    }
    if rate != peak {
        recipe.optimizer.learning_rate = rate;
        recipe.optimizer.max_lr.get_or_insert(peak);
    }
    recipe.schedule = crate::schedule::Schedule::OneMinusSqrt {
        decay_tokens: crate::schedule::TokenSpan::Fraction(1.0),
        final_fraction: 0.001,
    };
    recipe.batch.warmup_tokens = crate::schedule::TokenSpan::Tokens(0);
    recipe.run.total_tokens = tokens;
    recipe.run.max_seconds = None;
    if !corpus.is_empty() {
        recipe.data.corpus = CorpusSource::Paths(corpus.to_vec());
    }
    recipe.phase = vec![PhaseRecipe {
        name: "anneal".to_string(),
        settings: toml::Table::new(),
    }];
    Ok(recipe)
}

fn absolute(path: &Path) -> Result<PathBuf> {
    path.canonicalize()
        .map_err(PretrainError::io(path, "there is no such folder"))
}

fn check_shards(info: &mut RunInfo, dir: &RunDir, prepared: &RunData) -> Result<()> {
    let shards = prepared.phases.iter().flat_map(|data| data.shards());
    Ok(info.check_shards(dir.root(), shards)?)
}

/// Checks that the settings that decide the order of the data are those of the run that is rolled back.
fn same_data(now: &[Phase], then: &[Phase]) -> Result<()> {
    if now.len() != then.len() {
        return invalid(
            "a rollback keeps the run's phases; to start with others, use `modernbert-train run RECIPE --from CHECKPOINT`",
        );
    }
    for (now, then) in now.iter().zip(then) {
        let (a, b) = (&now.recipe, &then.recipe);
        let same = a.data == b.data
            && a.mask == b.mask
            && a.batch.tokens == b.batch.tokens
            && a.run.seed == b.run.seed
            && a.model.config(1).ok().map(|c| c.hidden_size)
                == b.model.config(1).ok().map(|c| c.hidden_size);
        if !same || now.name != then.name {
            return invalid(format!(
                "phase {}: a rollback keeps data, masks, batch.tokens, seeds and sizes, as its position in the data would mean \
                 nothing in another; to change them, use `modernbert-train run RECIPE --from CHECKPOINT`",
                then.name
            ));
        }
    }
    Ok(())
}

/// Tokenizer and shards of another run, by links where the file system has them.
fn copy_data(from: &Path, to: &Path) -> Result<()> {
    let copy = |from: &Path, to: &Path| -> Result<()> {
        if std::fs::hard_link(from, to).is_ok() {
            return Ok(());
        }
        std::fs::copy(from, to)
            .map(|_| ())
            .map_err(PretrainError::io(from, "can't be copied"))
    };
    let shards = to.join(SHARDS);
    let _ = std::fs::remove_dir_all(&shards);
    std::fs::create_dir_all(&shards).map_err(PretrainError::io(&shards, "can't be made"))?;
    let listed = from.join(SHARDS);
    let entries =
        std::fs::read_dir(&listed).map_err(PretrainError::io(&listed, "can't be read"))?;
    for entry in entries {
        let entry = entry.map_err(PretrainError::io(&listed, "can't be read"))?;
        copy(&entry.path(), &shards.join(entry.file_name()))?;
    }
    for name in modernbert::tokenizer::FILES {
        let _ = std::fs::remove_file(to.join(name));
        copy(&from.join(name), &to.join(name))?;
    }
    Ok(())
}

/// The log of the other run up to the start of this one.
fn carry_log(from: &Path, to: &Path, step: u64) -> Result<()> {
    let (source, target) = (from.join(METRICS_FILE), to.join(METRICS_FILE));
    if source.is_file() {
        std::fs::copy(&source, &target).map_err(PretrainError::io(&source, "can't be copied"))?;
        cut_log(to, step, |_| Ok(()))?;
    }
    Ok(())
}
