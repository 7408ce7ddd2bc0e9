//! One phase of a recipe in the training loop.

use modernbert::model::MaskedLm;
use modernbert::tokenizer::Tokenizer;
use serde_json::json;
use std::time::Duration;

use super::error::{PretrainError, Result};
use super::launch::PretrainOptions;
use super::memory;
use super::mlm::MlmTask;
use super::prepare::{PhaseData, RunData};
use crate::by_position::{EDGES, scores_by_position};
use crate::engine::{
    Failure, Loop, LoopOutcome, LoopSettings, MetricsLog, Reporter, ReporterOptions, SMALLER_STEP,
    device_peak,
};
use crate::loader::{MlmItem, TrainLoader, TrainStream, evaluation_items_of};
use crate::mask::Masker;
use crate::optim::NamedOptimizer;
use crate::recipe::{OptimizerKind, Phase, Recipe};
use crate::run_dir::{METRICS_FILE, POSITIONS_FILE, RunDir, list_checkpoints};
use crate::snapshot::RunState;

/// Number of full-length sequences from which on only these are scored by position.
const FEW_SEQUENCES: usize = 4;

/// Shared by all phases of a run.
pub(super) struct Session<'a> {
    pub(super) dir: &'a RunDir,
    pub(super) options: &'a PretrainOptions,
    /// The phases of the recipe.
    pub(super) phases: &'a [Phase],
    /// True if the recipe has more than one phase.
    pub(super) several: bool,
}

/// A tokenizer and its padding id.
type Masking<'a> = (&'a Tokenizer, u32);

impl<'a> Session<'a> {
    /// The held-out batches of a phase.
    pub(super) fn eval_items(
        &self,
        recipe: &Recipe,
        data: &PhaseData,
        (tokenizer, pad): Masking<'_>,
    ) -> Result<Vec<MlmItem>> {
        let masker = Masker::new(tokenizer, recipe.mask.eval, true)?;
        let loader = recipe.loader_options(pad);
        let tokens = recipe.run.eval_tokens as usize;
        let total: f64 = data.eval.iter().map(|source| source.proportion).sum();
        let mut items = Vec::new();
        for source in &data.eval {
            let share = (tokens as f64 * source.proportion / total).ceil() as usize;
            items.extend(evaluation_items_of(
                &source.samples,
                &masker,
                &loader,
                share,
            )?);
        }
        Ok(items)
    }

    /// Computes the held-out loss by the position of a token in its sequence at the end of a phase, prints it, and appends it to
    /// `positions.jsonl`. Sequences are those of the run's longest phase, so that phases can be compared. If at least [`FEW_SEQUENCES`] have
    /// the full length, only these are scored: short documents differ from long ones and would be in the first buckets only.
    pub(super) fn by_position(
        &self,
        phases: &[Phase],
        prepared: &RunData,
        model: &MaskedLm,
        state: &RunState,
    ) -> Result<()> {
        let longest = phases
            .iter()
            .zip(&prepared.phases)
            .max_by_key(|(phase, _)| phase.recipe.data.sequence_length);
        let Some((phase, data)) = longest else {
            return Ok(());
        };
        // One rank computes and writes it; the others wait for it at their next step.
        if !self.options.ranks.is_first() || self.dir.has_row(POSITIONS_FILE, state.step) {
            return Ok(());
        }
        let masking = (&prepared.tokenizer, prepared.tokenizer.special().pad);
        let items = self.eval_items(&phase.recipe, data, masking)?;
        let longest = phase.recipe.data.sequence_length;
        let full = items.iter().map(|item| {
            let ranges = item.layout.ranges();
            let real = ranges.take_while(|range| range.end <= item.real_tokens);
            real.filter(|range| range.len() == longest).count()
        });
        let full: usize = full.sum();
        let (shortest, which) = match full >= FEW_SEQUENCES {
            true => (longest, format!(" in {full} sequences of {longest} tokens")),
            false => (0, String::new()),
        };
        let mut scores = scores_by_position(model, &items, &EDGES, shortest)?;
        scores.retain(|bucket| bucket.tokens > 0);
        if scores.is_empty() {
            return Ok(());
        }
        let shown: Vec<String> = scores
            .iter()
            .map(|bucket| format!("{}-{} {:.3}", bucket.from, bucket.to, bucket.loss))
            .collect();
        let progress = self.options.progress;
        progress.note(&format!(
            "held-out loss by position{which}: {}",
            shown.join(", ")
        ));
        let row = json!({ "phase": state.phase_name, "step": state.step, "tokens": state.tokens, "shortest": shortest, "positions": scores });
        self.dir.append(POSITIONS_FILE, &row)?;
        Ok(())
    }

    /// Trains a phase from `state`.
    pub(super) fn run(
        &self,
        phase: &Phase,
        data: &PhaseData,
        masking: Masking<'_>,
        model: MaskedLm,
        (optimizer, state): (NamedOptimizer, RunState),
    ) -> Result<LoopOutcome<MlmTask<'a>>> {
        let (recipe, options) = (&phase.recipe, self.options);
        if let Some(warning) = memory::warning(&data.config, recipe, &options.device) {
            options.progress.note(&warning);
        }
        for warning in recipe.warnings() {
            options.progress.note(&warning);
        }
        if self.several || state.rows > 0 {
            options.progress.note(&announce(phase, data, &state));
        }
        let event = if state.rows > 0 { "resumed" } else { "phase" };
        let note = json!({ "phase": phase.name, "step": state.step, "tokens": state.tokens });
        self.dir.note(event, note)?;

        let masker = Masker::new(masking.0, recipe.mask.train, false)?;
        let stream = recipe.loader_options(masking.1);
        let stream = TrainStream::of_sources(data.train.clone(), masker, stream)?
            .with_dropout(recipe.dropout.rates());
        let total = recipe.run.total_tokens;
        let rows = TrainLoader::new(stream, total).with_threads(recipe.data.loader_threads);
        let rows = match &state.position {
            Some(position) => rows.from_position(position.clone())?,
            None => rows.starting_at(state.rows),
        };
        let log = self.dir.root().join(METRICS_FILE);
        let peak_flops = options.peak_tflops.map(|peak| peak * 1e12);
        let peak_flops = peak_flops.or_else(|| device_peak(&options.device, recipe.precision()));
        let settings = LoopSettings {
            cadence: recipe.cadence(options.device.name == memory::CPU),
            learning_rate: recipe.learning_rate(),
            max_grad_norm: recipe.optimizer.max_grad_norm,
            spikes: recipe.spike_limit(),
            patience: None,
            saves: true,
            peak_flops,
        };
        let reporter = Reporter::new::<MlmTask<'_>>(
            ReporterOptions {
                progress: options.progress,
                title: phase.name.clone(),
                prefix: String::new(),
                suffix: None,
                unit: settings.cadence.unit,
                evaluations: total.div_ceil(recipe.run.eval_every_tokens),
                line_every: Duration::ZERO,
                log: match options.ranks.is_first() {
                    true => Some(
                        MetricsLog::open(&log)
                            .map_err(PretrainError::io(&log, "can't be written"))?,
                    ),
                    false => None,
                },
                has_mfu: peak_flops.is_some(),
                skips_spikes: recipe.optimizer.skip_spikes.is_some(),
            },
            &options.interrupter,
        );
        let task = MlmTask {
            rows: rows.rows(),
            batch: recipe.batch.warmup_over(state.phase_total),
            batch_recipe: recipe.batch.clone(),
            rotary: recipe.model.rotary_ramp(&data.config, state.phase_total),
            model_recipe: recipe.model.clone(),
            held_out: self.eval_items(recipe, data, masking)?,
            config: data.config.clone(),
            dir: self.dir,
            ranks: options.ranks.clone(),
            rule: &self.phases[state.phase].recipe.checkpoint,
        };
        let interrupter = options.interrupter.clone();
        let training = Loop::new(task, settings, (optimizer, state), reporter, interrupter)
            .over(options.ranks.clone(), options.gradient_sum.clone());
        training
            .run(model.with_recompute(recipe.batch.recompute))
            .map_err(|failure| self.failed(&failure))
    }

    /// The error of a run that failed in training, with the run's last checkpoint.
    fn failed(&self, failure: &Failure) -> PretrainError {
        let reason = failure.error.explained(SMALLER_STEP);
        let note = json!({ "step": failure.step, "why": failure.error.to_string() });
        let _ = self.dir.note("failed", note);
        let root = self.dir.root();
        let last = list_checkpoints(root).ok();
        let last = last.and_then(|found| found.last().map(|one| one.step));
        PretrainError::Training {
            step: failure.step,
            reason,
            rest: last.map_or(String::new(), |step| {
                format!(
                    ". The run's last checkpoint is that of step {step}; `modernbert-train resume {}` continues from it",
                    root.display()
                )
            }),
        }
    }
}

/// The line printed when a phase begins or is resumed.
fn announce(phase: &Phase, data: &PhaseData, state: &RunState) -> String {
    use modernbert_cli::text::human_count;
    let recipe = &phase.recipe;
    let progress = if state.rows > 0 {
        format!(
            "continues at step {}, {} of {} tokens",
            state.step,
            human_count(state.phase_tokens),
            human_count(state.phase_total)
        )
    } else {
        format!("{} tokens", human_count(state.phase_total))
    };
    let most = if recipe.batch.packing { "" } else { "at most " };
    let shorter = recipe.length_warmup().map_or(String::new(), |warmup| {
        format!(
            " (from {} on over {} tokens of rows)",
            warmup.from,
            human_count(warmup.tokens)
        )
    });
    let rule = match recipe.optimizer.kind {
        OptimizerKind::StableAdamW => "",
        OptimizerKind::AdamW => "adamw, ",
    };
    let ramp = recipe.model.rotary_ramp(&data.config, state.phase_total);
    let base = ramp.map_or(String::new(), |ramp| {
        format!(
            "rising from {} over {} tokens to ",
            ramp.from,
            human_count(ramp.tokens)
        )
    });
    format!(
        "phase {}: {progress}; up to {} tokens a sequence{shorter}, {most}{} a step, {rule}learning rate {:e} ({}), weight decay {:e}, rotary base \
         {base}{} global and {} local",
        phase.name,
        recipe.data.sequence_length,
        human_count(recipe.tokens_per_step()),
        recipe.optimizer.learning_rate,
        recipe.schedule.kind(),
        recipe.optimizer.weight_decay,
        data.config.global_rope_theta,
        data.config.local_rope_theta,
    )
}
