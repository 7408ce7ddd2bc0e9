//! One phase inside burn-train.

use anyhow::{Context, Result, bail};
use burn::module::Module;
use burn::train::{Learner, SupervisedTraining, TrainingStrategy};
use modernbert::model::MaskedLm;
use modernbert::tokenizer::Tokenizer;
use serde_json::json;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, PoisonError};
use std::time::Duration;

use super::launch::{PretrainOptions, optimizer_config, precision_of};
use super::memory;
use super::prepare::{PhaseData, Prepared};
use crate::by_position::{EDGES, scores_by_position};
use crate::loader::{LoaderOptions, MlmItem, TrainLoader, TrainStream, evaluation_items_of};
use crate::mask::Masker;
use crate::optim::NamedStableAdamW;
use crate::recipe::{Phase, Recipe};
use crate::run_dir::{METRICS_FILE, POSITIONS_FILE, RunDir};
use crate::snapshot::RunState;
use crate::trainer::{
    FixedLoader, MetricsLog, MlmLearner, Outcome, RowLoader, SavePolicy, SeriesMetric, TokenBudget,
    TokenScheduler, TokenStrategy, TokenStrategyOptions, peak_tflops,
};

/// Sequences of full length from which on they alone are scored by position.
const FEW_SEQUENCES: usize = 4;

/// Whether a phase is under way, which can be saved; before and after it there is nothing a signal should wait for.
static TRAINING: AtomicBool = AtomicBool::new(false);

/// Whether this process trains at the moment, so that an interrupt should go to the interrupter.
pub fn is_training() -> bool {
    TRAINING.load(Ordering::SeqCst)
}

/// What all phases of a run share.
pub(super) struct Session<'a> {
    pub(super) dir: Arc<RunDir>,
    pub(super) options: &'a PretrainOptions,
    /// Whether the recipe has more than one phase.
    pub(super) several: bool,
}

/// What a phase leaves.
pub(super) struct PhaseEnd {
    pub(super) model: MaskedLm,
    pub(super) outcome: Outcome,
}

/// A tokenizer and its padding id.
type Masking<'a> = (&'a Tokenizer, u32);

impl Session<'_> {
    fn loader_options(&self, recipe: &Recipe, pad_id: u32) -> LoaderOptions {
        LoaderOptions {
            row_length: recipe.batch.tokens,
            micro_batches: recipe.batch.micro_batches,
            pad_id,
            seed: recipe.data_seed(),
            sequences: (!recipe.batch.packing)
                .then(|| recipe.batch.tokens / recipe.data.sequence_length),
        }
    }

    /// The held-out batches of a phase.
    pub(super) fn eval_items(
        &self,
        recipe: &Recipe,
        data: &PhaseData,
        (tokenizer, pad): Masking<'_>,
    ) -> Result<Vec<MlmItem>> {
        let masker = Masker::new(tokenizer, recipe.mask.eval, true)?;
        let loader = self.loader_options(recipe, pad);
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

    /// Held-out loss by where in its sequence a token stands, at the end of a phase: shown, and a line of `positions.jsonl`. Sequences are
    /// those of the run's longest phase, so that phases can be compared, and where there are a few that fill it only they: short
    /// documents are others than long ones, and would be seen in the first buckets alone.
    pub(super) fn by_position(
        &self,
        phases: &[Phase],
        prepared: &Prepared,
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
        if self.dir.has_row(POSITIONS_FILE, state.step) {
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

    /// Trains a phase from where `state` stands.
    pub(super) fn run(
        &self,
        phase: &Phase,
        data: &PhaseData,
        masking: Masking<'_>,
        model: MaskedLm,
        optimizer: NamedStableAdamW,
        state: RunState,
    ) -> Result<PhaseEnd> {
        let (recipe, options) = (&phase.recipe, self.options);
        if self.options.device.name == "flex"
            && let Some(warning) = memory::warning(&data.config, recipe)
        {
            options.progress.note(&warning);
        }
        if self.several || state.rows > 0 {
            options.progress.note(&announce(phase, data, &state));
        }
        let event = if state.rows > 0 { "resumed" } else { "phase" };
        let note = json!({ "phase": phase.name, "step": state.step, "tokens": state.tokens });
        self.dir.note(event, note)?;

        let loader = self.loader_options(recipe, masking.1);
        let masker = Masker::new(masking.0, recipe.mask.train, false)?;
        let stream = TrainStream::of_sources(data.train.clone(), masker, loader)?
            .with_dropout(recipe.dropout.rates());
        let total = recipe.run.total_tokens;
        let rows = TrainLoader::new(stream, total).with_threads(recipe.data.loader_threads);
        let rows = match &state.position {
            Some(position) => rows.from_position(position.clone())?,
            None => rows.starting_at(state.rows),
        };
        let eval_items = self.eval_items(recipe, data, masking)?;
        let budget = TokenBudget::resumed(state.phase_tokens, state.phase_total);
        let scheduler = TokenScheduler::new(
            recipe.schedule.clone(),
            recipe.optimizer.learning_rate,
            budget.clone(),
        );
        let (strategy, outcome) = TokenStrategy::new(self.strategy(
            recipe,
            &model,
            (budget, scheduler.clone()),
            optimizer,
            state.clone(),
        )?);
        let mut training = SupervisedTraining::new(
            self.dir.root(),
            Arc::new(RowLoader(Arc::new(rows))),
            Arc::new(FixedLoader::new(eval_items)),
        )
        .metrics((SeriesMetric::loss(), SeriesMetric::masked_accuracy()))
        .metric_train_numeric(SeriesMetric::learning_rate())
        .metric_train_numeric(SeriesMetric::gradient_norm())
        .metric_train_numeric(SeriesMetric::tokens_per_second())
        .metric_train_numeric(SeriesMetric::data_wait())
        .metric_train_numeric(SeriesMetric::batch_size())
        .metric_train_numeric(SeriesMetric::packing())
        .metric_train_numeric(SeriesMetric::tokens_left())
        .metric_train_numeric(SeriesMetric::time_left())
        .with_metric_logger(burn::train::logger::InMemoryMetricLogger::default())
        .with_application_logger(None)
        .renderer(options.progress.renderer(options.interrupter.clone()))
        .with_interrupter(options.interrupter.clone())
        .with_training_strategy(TrainingStrategy::Custom(Arc::new(strategy)))
        .num_epochs(total.div_ceil(recipe.run.eval_every_tokens) as usize)
        .label(&phase.name);
        if self.peak(recipe).is_some() {
            training = training.metric_train_numeric(SeriesMetric::mfu());
        }
        // The strategy has its own optimizer, whose state has names; burn-train's stays unused.
        let unused = optimizer_config(recipe).build().into();
        let learner = Learner::new(
            MlmLearner {
                model: model.with_recompute(recipe.batch.recompute),
            }
            .train(),
            unused,
            scheduler,
        );
        TRAINING.store(true, Ordering::SeqCst);
        let result = catch_unwind(AssertUnwindSafe(|| training.launch(learner)));
        TRAINING.store(false, Ordering::SeqCst);
        let result = match result {
            Ok(result) => result,
            Err(panic) => bail!("training stopped: {}", explain(&panic_text(&*panic))),
        };
        let outcome = outcome
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .take();
        let Some(outcome) = outcome else {
            bail!("training stopped before its first step");
        };
        if let (Some(error), None) = (&result.error, &outcome.report.failure) {
            bail!("training stopped: {}", explain(&error.to_string()));
        }
        Ok(PhaseEnd {
            model: result.model.model,
            outcome,
        })
    }

    fn peak(&self, recipe: &Recipe) -> Option<f64> {
        let options = self.options;
        let known = || {
            let name = options.device.name.strip_prefix("cuda:")?;
            let name = crate::trainer::cuda_name(name.parse().ok()?)?;
            peak_tflops(&name, precision_of(recipe))
        };
        options.peak_tflops.or_else(known).map(|peak| peak * 1e12)
    }

    fn strategy(
        &self,
        recipe: &Recipe,
        model: &MaskedLm,
        (budget, scheduler): (TokenBudget, TokenScheduler),
        optimizer: NamedStableAdamW,
        state: RunState,
    ) -> Result<TokenStrategyOptions> {
        let config = model.model.config().clone();
        let log_path = self.dir.root().join(METRICS_FILE);
        let log = MetricsLog::open(&log_path)
            .with_context(|| format!("{}: can't be written", log_path.display()))?;
        let on_cpu = self.options.device.name == "flex";
        let read_every = match recipe.run.read_every_steps {
            Some(every) => every,
            None if on_cpu => 1,
            None => recipe.run.log_every_steps,
        };
        let (dir, rule) = (self.dir.clone(), recipe.checkpoint.clone());
        Ok(TokenStrategyOptions {
            device: self.options.device.device.clone().autodiff(),
            budget,
            scheduler,
            optimizer,
            state,
            batch: recipe.batch_warmup(),
            max_grad_norm: recipe.optimizer.max_grad_norm,
            eval_every: recipe.run.eval_every_tokens,
            log_every: recipe.run.log_every_steps,
            read_every,
            max_time: recipe.run.max_seconds.map(Duration::from_secs),
            step_flops: Box::new(move |items| {
                let lengths: Vec<usize> = items
                    .iter()
                    .flat_map(|item| item.layout.lengths())
                    .collect();
                let labelled: usize = items.iter().map(|item| item.labelled).sum();
                config.train_flops(&lengths, labelled) as f64
            }),
            peak_flops: self.peak(recipe),
            log,
            progress: self.options.progress,
            policy: SavePolicy {
                every_steps: recipe.checkpoint.every_steps,
                every: Duration::from_secs_f64(60.0 * recipe.checkpoint.every_minutes),
                evaluated: recipe.checkpoint.keep_best > 0,
            },
            save: Box::new(move |model, optimizer, state| {
                dir.save(model, optimizer, state, &rule)
                    .map(|_| ())
                    .map_err(|error| format!("the run can't be saved: {error}"))
            }),
        })
    }
}

/// What a person should know when a phase begins or goes on.
fn announce(phase: &Phase, data: &PhaseData, state: &RunState) -> String {
    use modernbert_cli::text::human_count;
    let recipe = &phase.recipe;
    let stands = if state.rows > 0 {
        format!(
            "goes on at step {}, {} of {} tokens",
            state.step,
            human_count(state.phase_tokens),
            human_count(state.phase_total)
        )
    } else {
        format!("{} tokens", human_count(state.phase_total))
    };
    let most = if recipe.batch.packing { "" } else { "at most " };
    format!(
        "phase {}: {stands}; up to {} tokens a sequence, {most}{} a step, learning rate {:e} ({}), weight decay {:e}, rotary base {} \
         global and {} local",
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

fn panic_text(panic: &(dyn std::any::Any + Send)) -> String {
    let text = panic.downcast_ref::<String>().map(String::as_str);
    let text = text.or_else(|| panic.downcast_ref::<&str>().copied());
    text.unwrap_or("a defect of the program or of the device's driver")
        .to_string()
}

/// What helps against too little memory.
pub(super) const SMALLER: &str = "halve batch.tokens and double batch.micro_batches (the same step in smaller pieces), shorten \
                                  data.sequence_length, or choose a smaller model";

/// A failure with a suggestion where it is about memory.
pub(super) fn explain(failure: &str) -> String {
    let lower = failure.to_lowercase();
    let signs = [
        "out of memory",
        "outofmemory",
        "out_of_memory",
        "can't allocate",
        "cannot allocate",
        "failed to allocate",
        "allocation failed",
        "buffer too big",
        "buffertoobig",
    ];
    if signs.iter().any(|sign| lower.contains(sign)) {
        format!("{failure}. The device has too little memory: {SMALLER}")
    } else {
        failure.to_string()
    }
}

#[cfg(test)]
mod tests {
    use super::explain;

    #[test]
    fn too_little_memory_gets_a_suggestion() {
        let text = explain("CUDA_ERROR_OUT_OF_MEMORY: out of memory");
        assert!(
            text.contains("batch.tokens") && text.contains("micro_batches"),
            "{text}"
        );
        assert_eq!(explain("a row is too long"), "a row is too long");
    }
}
