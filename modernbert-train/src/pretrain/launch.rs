//! The phases of a run one after the other, from wherever it stands.

use anyhow::{Context, Result, bail};
use burn::train::Interrupter;
use modernbert::Loader;
use modernbert::checkpoint::save;
use modernbert::checkpoint::tiling::tile_from_folder;
use modernbert::device::NamedDevice;
use modernbert::model::{MaskedLm, Precision, initialize, named_parameters};
use serde_json::json;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Instant;

use super::handover::with_config;
use super::phase::{PhaseEnd, Session};
use super::prepare::Prepared;
use super::unigram::{Unigram, UnigramScore};
use crate::optim::{NamedStableAdamW, StableAdamWConfig};
use crate::recipe::{Phase, Precision as RecipePrecision, Recipe};
use crate::run_dir::{METRICS_FILE, PICTURE_FILE, RunDir};
use crate::snapshot::{RunState, Snapshot};
use crate::trainer::{Progress, read_log};
use modernbert_cli::plot::{Series, plot_curves};

/// Beyond this a size is a slip of the keyboard: a hundred times the largest encoder of this family.
const MOST_PARAMETERS: u64 = 100_000_000_000;

/// What a run needs beside its recipe.
pub struct PretrainOptions {
    /// Folder for everything the run makes.
    pub out: PathBuf,
    /// Where to train.
    pub device: NamedDevice,
    /// How progress is shown.
    pub progress: Progress,
    /// Peak of the device in TFLOP/s, for MFU; by default that of the device's name, where it is known.
    pub peak_tflops: Option<f64>,
    /// Handle that stops the run early; it is saved first.
    pub interrupter: Interrupter,
    /// Whether an older run in the folder may be deleted although it has checkpoints.
    pub restart: bool,
}

/// How a run ended.
pub enum PretrainEnd {
    /// All tokens are seen; the folder is a model.
    Finished(Box<PretrainSummary>),
    /// It was asked to stop, and can be resumed.
    Interrupted {
        /// Steps done.
        step: u64,
        /// The checkpoint it goes on from, if any step was done.
        checkpoint: Option<PathBuf>,
    },
}

/// Outcome of a finished run.
pub struct PretrainSummary {
    /// The trained model.
    pub model: MaskedLm,
    /// Its data.
    pub prepared: Prepared,
    /// Where the run stands: losses of the first step and of the last evaluation among it.
    pub state: RunState,
    /// Real tokens per second in this process, evaluations and saving left out.
    pub tok_s: f64,
    /// Cross-entropy and hits of the unigram model on the last phase's masked tokens.
    pub unigram: UnigramScore,
    /// Wall-clock seconds of this process, from text to files.
    pub seconds: f64,
}

/// A run before its first step in this process.
pub(super) struct Ready {
    pub(super) dir: RunDir,
    pub(super) recipe: Recipe,
    pub(super) phases: Vec<Phase>,
    pub(super) prepared: Prepared,
    /// Where it stands, and the checkpoint with weights and moments; a run that begins has none.
    pub(super) from: Option<(RunState, Snapshot)>,
    pub(super) started: Instant,
}

pub(super) fn precision_of(recipe: &Recipe) -> Precision {
    match recipe.run.precision {
        RecipePrecision::F32 => Precision::F32,
        RecipePrecision::Bf16 => Precision::Bf16,
    }
}

pub(super) fn optimizer_config(recipe: &Recipe) -> StableAdamWConfig {
    let optimizer = &recipe.optimizer;
    StableAdamWConfig {
        beta1: optimizer.beta1,
        beta2: optimizer.beta2,
        epsilon: optimizer.epsilon,
        weight_decay: optimizer.weight_decay,
        max_lr: optimizer.max_lr.unwrap_or(optimizer.learning_rate),
    }
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
    let precision = precision_of(&phases[0].recipe);
    check_device(&options.device, precision, &prepared)?;
    let device = options.device.device.clone();
    let mut optimizer = NamedStableAdamW::new(optimizer_config(&phases[0].recipe));
    let (mut model, mut state) = match &from {
        None => {
            let config = &prepared.phases[0].config;
            let mut model = initialize(MaskedLm::new(config, &device)?, config, recipe.run.seed);
            if let Some(from) = &phases[0].recipe.model.from {
                let published = MaskedLm::load(Loader::from(from).device(&device))
                    .with_context(|| format!("model.from = {from}"))?;
                model = with_config(published, config, &device)?;
                progress.note(&format!("weights: those of {from}; the optimizer is fresh"));
            }
            if let Some(folder) = &phases[0].recipe.model.tile_from {
                let tiling = phases[0].recipe.model.tiling.unwrap_or_default();
                let (tiled, fresh) = tile_from_folder(model, config, folder, tiling)
                    .with_context(|| format!("model.tile_from = {}", folder.display()))?;
                model = tiled;
                progress.note(&format!(
                    "weights: tiled from {}; {} of {} tensors start at random",
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

    let dir = Arc::new(dir);
    let session = Session {
        dir: dir.clone(),
        options,
        several: phases.len() > 1,
    };
    let (mut tokens, mut seconds) = (0, 0.0);
    while let Some(phase) = phases.get(state.phase) {
        if state.phase_done {
            session.by_position(&phases, &prepared, &model, &state)?;
            state = next_phase(&state, phases.get(state.phase + 1));
            continue;
        }
        let data = &prepared.phases[state.phase];
        if *model.model.config() != data.config {
            model = with_config(model, &data.config, &device)?.with_precision(precision);
        }
        optimizer.reconfigure(optimizer_config(&phase.recipe));
        let pad = prepared.tokenizer.special().pad;
        let masking = (&prepared.tokenizer, pad);
        let end = session.run(phase, data, masking, model, optimizer, state)?;
        let PhaseEnd {
            model: trained,
            outcome,
        } = end;
        tokens += outcome.report.tokens;
        seconds += outcome.report.seconds;
        if let Some(failure) = &outcome.report.failure {
            return Err(failed(&dir, outcome.state.step, failure));
        }
        (model, optimizer, state) = (trained, outcome.optimizer, outcome.state);
        if outcome.report.interrupted {
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

    save(&model, model.model.config(), dir.root())?;
    let last = prepared.phases.len() - 1;
    let eval_items = session.eval_items(
        &phases[last].recipe,
        &prepared.phases[last],
        (&prepared.tokenizer, prepared.tokenizer.special().pad),
    )?;
    let unigram = Unigram::count(&prepared.phases[last].train).score(&eval_items);
    draw(dir.root(), unigram.loss)?;
    dir.record_model()?;
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

/// The error of a run that failed while it trained, with what is left of it.
fn failed(dir: &RunDir, step: u64, failure: &str) -> anyhow::Error {
    let _ = dir.note("failed", json!({ "step": step, "why": failure }));
    let last = crate::run_dir::list_checkpoints(dir.root())
        .ok()
        .and_then(|found| found.last().map(|one| one.step));
    let rest = match last {
        Some(step) => format!(
            ". The run's last checkpoint is that of step {step}; `modernbert-train resume {}` goes on from it",
            dir.root().display()
        ),
        None => String::new(),
    };
    anyhow::anyhow!(
        "training stopped at step {step}: {}{rest}",
        super::phase::explain(failure)
    )
}

/// Where a run of this recipe begins.
pub(super) fn first_state(recipe: &Recipe, phases: &[Phase]) -> Result<RunState> {
    let Some(first) = phases.first() else {
        bail!("the recipe has no phase");
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
        next_evaluation: phase.recipe.run.eval_every_tokens,
        phase_seconds: 0.0,
        window: Default::default(),
        ..state
    }
}

/// The hand-over: time, data and schedule begin anew, step and token counts of the run go on.
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

fn check_device(device: &NamedDevice, precision: Precision, prepared: &Prepared) -> Result<()> {
    if let Some(data) = prepared.phases.first()
        && data.config.mlm_parameters() > MOST_PARAMETERS
    {
        bail!(
            "model: these sizes make {:.0} billion parameters; lower model.hidden_size, model.intermediate_size or \
             model.num_hidden_layers",
            data.config.mlm_parameters() as f64 / 1e9
        );
    }
    if !device.device.supports_dtype(precision.dtype()) {
        bail!(
            "device {} doesn't compute in {}; use --dtype f32",
            device.name,
            precision.name()
        );
    }
    Ok(())
}

/// Draws the run's log.
fn draw(out: &Path, unigram_loss: f64) -> Result<()> {
    let rows = read_log(&out.join(METRICS_FILE))
        .with_context(|| "the picture of the loss can't be drawn")?;
    let curve = |split: &str| -> Vec<(f64, f64)> {
        rows.iter()
            .filter(|row| row.split == split)
            .map(|row| (row.tokens as f64, row.loss))
            .collect()
    };
    let series = [
        Series::new("train", curve("train")).smoothed(0.6),
        Series::new("held out", curve("eval")),
    ];
    plot_curves(
        &out.join(PICTURE_FILE),
        "Masked language modelling loss",
        &series,
        "tokens",
        "loss (nats)",
        &[("unigram", unigram_loss)],
    )?;
    Ok(())
}
