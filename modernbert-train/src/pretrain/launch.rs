//! The phases of a run in order, from any state of the run.

use burn::train::Interrupter;
use modernbert::Loader;
use modernbert::checkpoint::save;
use modernbert::checkpoint::tiling::tile_from_folder;
use modernbert::device::NamedDevice;
use modernbert::model::{MaskedLm, Precision, initialize_with, named_parameters};
use ranks::Ranks;
use serde::{Deserialize, Serialize};
use serde_json::json;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Instant;

use super::error::{LossPlotError, PretrainError, Result, invalid};
use super::memory;
use super::phase::Session;
use super::prepare::{RunData, reopen};
use super::transition::with_config;
use super::unigram::{Unigram, UnigramScore};
use crate::engine::{GradientSum, LoopOutcome, Progress, read_log};
use crate::optim::NamedOptimizer;
use crate::recipe::{Phase, Recipe};
use crate::run_dir::{METRICS_FILE, PICTURE_FILE, RunDir};
use crate::snapshot::{RunState, Snapshot};
use modernbert_cli::plot::{Series, plot_curves};

/// Larger sizes are typing errors: the limit is a hundred times the largest encoder of this family.
const MOST_PARAMETERS: u64 = 100_000_000_000;

/// Settings of a run in addition to its recipe.
pub struct PretrainOptions {
    /// Folder of the run.
    pub out: PathBuf,
    /// Device.
    pub device: NamedDevice,
    /// Display of progress.
    pub progress: Progress,
    /// Peak of the device in TFLOP/s, for MFU; by default that of the device's name, where it is known.
    pub peak_tflops: Option<f64>,
    /// Handle that stops the run early; it is saved first.
    pub interrupter: Interrupter,
    /// The processes that train together; rank 0 writes the folder, which all ranks must see.
    pub ranks: Arc<Ranks>,
    /// The sum of their gradients.
    pub gradient_sum: GradientSum,
    /// True if an older run in the folder may be deleted although it has checkpoints.
    pub restart: bool,
}

/// End of a run.
pub enum PretrainEnd {
    /// All tokens were seen; the folder is a model.
    Finished(Box<PretrainSummary>),
    /// This process is not rank 0, which has the results.
    Followed,
    /// The run was interrupted, and can be resumed.
    Interrupted {
        /// Steps done.
        step: u64,
        /// The checkpoint that a resume starts from, if any step was done.
        checkpoint: Option<PathBuf>,
    },
}

/// Outcome of a finished run.
pub struct PretrainSummary {
    /// The trained model.
    pub model: MaskedLm,
    /// Its data.
    pub prepared: RunData,
    /// The run's last state, with the losses of the first step and of the last evaluation.
    pub state: RunState,
    /// Tokens per second in this process, without padding, evaluations and saving.
    pub tok_s: f64,
    /// Score of the unigram model on the last phase's masked tokens; `None` where none was masked.
    pub unigram: Option<UnigramScore>,
    /// Wall-clock seconds of this process, from text to files.
    pub seconds: f64,
}

/// A run before its first step in this process.
pub(super) struct Ready {
    pub(super) dir: RunDir,
    pub(super) recipe: Recipe,
    pub(super) phases: Vec<Phase>,
    pub(super) prepared: RunData,
    /// The state to continue from, and the checkpoint with weights and moments; `None` for a new run.
    pub(super) from: Option<(RunState, Snapshot)>,
    pub(super) started: Instant,
}

/// The start of all ranks, which rank 0 sends.
#[derive(Serialize, Deserialize)]
struct Begin {
    /// State and folder of the checkpoint to continue from.
    from: Option<(RunState, PathBuf)>,
}

impl Begin {
    fn of(from: Option<&(RunState, Snapshot)>) -> Self {
        let from = from.map(|(state, snapshot)| (state.clone(), snapshot.path.clone()));
        Self { from }
    }
}

/// Trains as one of several ranks, but not the first: the run, its data and the checkpoint it begins from are those of rank 0.
pub(super) fn train_as_follower(options: &PretrainOptions) -> Result<PretrainEnd> {
    let started = Instant::now();
    let begin = options.ranks.broadcast(&[])?;
    let begin: Begin = serde_json::from_slice(&begin)?;
    let (dir, recipe) = RunDir::open_as_follower(&options.out)?;
    let phases = recipe.phases()?;
    let prepared = reopen(&phases, dir.root())?;
    let from = match begin.from {
        Some((state, path)) => Some((state, Snapshot::open(&path)?)),
        None => None,
    };
    let ready = Ready {
        dir,
        recipe,
        phases,
        prepared,
        from,
        started,
    };
    launch(ready, options)
}

/// Trains until all phases are done or the interrupter stops it.
pub(super) fn launch(ready: Ready, options: &PretrainOptions) -> Result<PretrainEnd> {
    let Ready {
        dir,
        recipe,
        phases,
        prepared,
        from,
        started,
    } = ready;
    let progress = options.progress;
    if options.ranks.is_first() {
        let begin = Begin::of(from.as_ref());
        options.ranks.broadcast(&serde_json::to_vec(&begin)?)?;
        dir.keep_logs()?;
    }
    let precision = phases[0].recipe.precision();
    check_device(&options.device, precision, &prepared)?;
    let configs = prepared.phases.iter().map(|data| &data.config);
    memory::check_device(phases.iter().zip(configs), &options.device)?;
    let device = options.device.device.clone();
    let mut optimizer = NamedOptimizer::new(phases[0].recipe.update_rule());
    let (mut model, mut state) = match &from {
        None => {
            let config = &prepared.phases[0].config;
            let start = &phases[0].recipe.model;
            let initialized = initialize_with(
                MaskedLm::new(config, &device)?,
                config,
                start.init_method.unwrap_or_default(),
                start.init_small_embedding.unwrap_or(false),
                recipe.run.seed,
            );
            let mut model = match initialized {
                Ok(model) => model,
                Err(error) => return invalid(error.to_string()),
            };
            if let Some(from) = &phases[0].recipe.model.from {
                let published =
                    MaskedLm::load(Loader::from(from).device(&device)).map_err(|source| {
                        PretrainError::Published {
                            from: from.clone(),
                            source: Box::new(source),
                        }
                    })?;
                model = with_config(published, config, &device)?;
                progress.note(&format!("weights: those of {from}; the optimizer is fresh"));
            }
            if let Some(folder) = &phases[0].recipe.model.tile_from {
                let tiling = phases[0].recipe.model.tiling.unwrap_or_default();
                let (tiled, fresh) =
                    tile_from_folder(model, config, folder, tiling).map_err(|source| {
                        PretrainError::Tiling {
                            path: folder.clone(),
                            source: Box::new(source),
                        }
                    })?;
                model = tiled;
                progress.note(&format!(
                    "weights: tiled from {}; {} of {} tensors are initialized at random",
                    folder.display(),
                    fresh.len(),
                    named_parameters(&model).len(),
                ));
            }
            (model, first_state(&recipe, &phases)?)
        }
        Some((state, snapshot)) => {
            let model = snapshot.model(&device)?;
            snapshot.restore_optimizer(&model, &mut optimizer)?;
            if !snapshot.path.starts_with(dir.root())
                && let Some(phase) = phases.get(state.phase)
            {
                // Another run's checkpoint becomes the first one of this run, which can be resumed from now on.
                dir.save(&model, &optimizer, state, &phase.recipe.checkpoint)?;
            }
            (model, state.clone())
        }
    };
    model = model.with_precision(precision);
    let config = &prepared.phases[0].config;
    progress.note(&format!(
        "model: {} layers, hidden {}, {} heads, {:.2} M parameters; {} on {}; kernels: {}",
        config.num_hidden_layers,
        config.hidden_size,
        config.num_attention_heads,
        config.mlm_parameters() as f64 / 1e6,
        precision.name(),
        options.device.name,
        modernbert::ops::kernels_in_use(&device),
    ));
    let composed = config.spec().composed_parts();
    if !composed.is_empty() {
        progress.note(&format!(
            "no kernel of its own, computed by tensor operations: {}",
            composed.join(", ")
        ));
    }

    let session = Session {
        dir: &dir,
        options,
        phases: &phases,
        several: phases.len() > 1,
    };
    let (mut tokens, mut seconds) = (0, 0.0);
    while let Some(phase) = phases.get(state.phase) {
        if state.phase_done {
            let evaluated = optimizer.evaluated(model.clone());
            session.by_position(&phases, &prepared, &evaluated, &state)?;
            state = next_phase(&state, phases.get(state.phase + 1));
            continue;
        }
        let data = &prepared.phases[state.phase];
        if *model.model.config() != data.config {
            model = with_config(model, &data.config, &device)?.with_precision(precision);
        }
        optimizer = optimizer
            .with_rule(phase.recipe.update_rule())
            .with_average(phase.recipe.average());
        let masking = (&prepared.tokenizer, prepared.tokenizer.special().pad);
        let LoopOutcome {
            model: trained,
            optimizer: updated,
            state: reached,
            report,
            ..
        } = session.run(phase, data, masking, model, (optimizer, state))?;
        (model, optimizer, state) = (trained, updated, reached);
        tokens += report.tokens;
        seconds += report.seconds;
        if report.interrupted {
            dir.note(
                "interrupted",
                json!({ "step": state.step, "phase": state.phase_name }),
            )?;
            let checkpoint = dir.checkpoint_path(state.step);
            return Ok(PretrainEnd::Interrupted {
                step: state.step,
                checkpoint: checkpoint.is_dir().then_some(checkpoint),
            });
        }
    }

    if !options.ranks.is_first() {
        options.ranks.barrier()?;
        return Ok(PretrainEnd::Followed);
    }
    let model = optimizer.evaluated(model);
    dir.put_model(|folder| -> Result<()> { Ok(save(&model, model.model.config(), folder)?) })?;
    // The other ranks end when the model is written.
    options.ranks.barrier()?;
    let last = prepared.phases.len() - 1;
    let eval_items = session.eval_items(
        &phases[last].recipe,
        &prepared.phases[last],
        (&prepared.tokenizer, prepared.tokenizer.special().pad),
    )?;
    let unigram = Unigram::count(&prepared.phases[last].train)?.score(&eval_items);
    draw(dir.root(), unigram).map_err(PretrainError::Picture)?;
    dir.note(
        "finished",
        json!({ "step": state.step, "eval_loss": state.eval_loss }),
    )?;
    Ok(PretrainEnd::Finished(Box::new(PretrainSummary {
        model,
        prepared,
        state,
        tok_s: tokens as f64 / f64::max(seconds, 1e-9),
        unigram,
        seconds: started.elapsed().as_secs_f64(),
    })))
}

/// The state in which a run of this recipe begins.
pub(super) fn first_state(recipe: &Recipe, phases: &[Phase]) -> Result<RunState> {
    let Some(first) = phases.first() else {
        return invalid("the recipe has no phase; give it one, or no [[phase]] at all");
    };
    let state = RunState {
        recipe_sha256: crate::run_dir::sha256_of(&recipe.to_toml()?),
        ..RunState::default()
    };
    Ok(begin(state, first))
}

fn begin(state: RunState, phase: &Phase) -> RunState {
    RunState {
        phase_name: phase.name.clone(),
        phase_done: false,
        phase_tokens: 0,
        rows: 0,
        position: None,
        phase_total: phase.recipe.run.total_tokens,
        fitted: false,
        shortened: None,
        spikes: None,
        next_evaluation: phase.recipe.run.eval_every_tokens,
        phase_seconds: 0.0,
        window: Default::default(),
        ..state
    }
}

/// The state after a phase transition: time, data and schedule start again, step and token counts of the run continue.
fn next_phase(state: &RunState, next: Option<&Phase>) -> RunState {
    let moved = RunState {
        phase: state.phase + 1,
        ..state.clone()
    };
    match next {
        Some(phase) => begin(moved, phase),
        None => moved,
    }
}

fn check_device(device: &NamedDevice, precision: Precision, prepared: &RunData) -> Result<()> {
    if let Some(data) = prepared.phases.first()
        && data.config.mlm_parameters() > MOST_PARAMETERS
    {
        return invalid(format!(
            "model: these sizes make {:.0} billion parameters; lower model.hidden_size, model.intermediate_size or \
             model.num_hidden_layers",
            data.config.mlm_parameters() as f64 / 1e9
        ));
    }
    if !device.device.supports_dtype(precision.dtype()) {
        return invalid(format!(
            "device {} doesn't compute in {}; set run.precision to f32",
            device.name,
            precision.name()
        ));
    }
    Ok(())
}

/// Draws the run's log; a unigram loss that is undefined is left out.
fn draw(out: &Path, unigram: Option<UnigramScore>) -> Result<(), LossPlotError> {
    let rows = read_log(&out.join(METRICS_FILE))?;
    let curve = |split: &str| -> Vec<(f64, f64)> {
        rows.iter()
            .filter(|row| row.split == split)
            .filter_map(|row| Some((row.tokens as f64, row.loss?)))
            .collect()
    };
    let series = [
        Series::new("train", curve("train")).smoothed(0.6),
        Series::new("held out", curve("eval")),
    ];
    let unigram: Vec<_> = unigram
        .iter()
        .map(|score| ("unigram", score.loss))
        .collect();
    plot_curves(
        &out.join(PICTURE_FILE),
        "Masked language modeling loss",
        &series,
        "tokens",
        "loss (nats)",
        &unigram,
    )?;
    Ok(())
}
