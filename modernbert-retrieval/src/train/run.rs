//! A training from its rows to the best weights.

use burn::train::Interrupter;
use modernbert::config::{fits_f32, is_share};
use modernbert::model::Architecture;
use modernbert::wording::short;
use modernbert_train::engine::{
    Cadence, Loop, LoopOutcome, LoopReport, LoopSettings, MetricsLog, Progress, ProgressUnit,
    Reporter, ReporterOptions,
};
use modernbert_train::finetune::is_cpu;
use modernbert_train::optim::{DecoupledAdamW, NamedOptimizer, UpdateRule};
use modernbert_train::run_dir::{METRICS_FILE, RunDirError};
use modernbert_train::saving::{RunFolder, Saving};
use modernbert_train::schedule::{LearningRate, Schedule, TokenSpan};
use modernbert_train::snapshot::{RunState, hex};
use sha2::{Digest, Sha256};
use std::path::PathBuf;
use std::time::Duration;

use super::embedder::Embedder;
use super::error::TrainError;
use super::evaluate::EvalSet;
use super::losses::{Loss, Objective};
use super::rows::TrainRows;
use super::sampler::Sampler;
use super::saving::{Resumed, read};
use super::step::StepOptions;
use super::task::{EvaluationPoint, RetrievalTask, TaskHistory, TokenizedRows};
use super::texts::{Role, TextOptions, TokenizedText};

/// Steps between two rows of the log, and between two readbacks on a GPU, which stall the device.
const LOG_EVERY: u64 = 16;
/// Time between two lines.
const LINE_EVERY: Duration = Duration::from_secs(10);
/// Largest number of batches of a step, all of which are in memory.
const MOST_BATCHES: usize = 10_000;
/// Largest number of passes over the rows.
const MOST_EPOCHS: f64 = 10_000.0;
/// Name of the one phase in the log, and of the run in its lines.
const PHASE: &str = "retrieval";

/// Length of a run.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Length {
    /// Passes over the rows.
    Epochs(f64),
    /// Optimizer steps.
    Steps(u64),
}

/// Settings of a run.
#[derive(Clone, Debug, PartialEq)]
pub struct TrainOptions {
    /// The loss.
    pub loss: Loss,
    /// Length of the run.
    pub length: Length,
    /// Rows of a batch, whose documents are each other's negatives.
    pub batch: usize,
    /// Batches of a step, whose gradients are averaged; their documents are not each other's negatives.
    pub accumulate: usize,
    /// True if a text may occur twice in a batch.
    pub allow_duplicates: bool,
    /// Computation of gradients; the token budget changes results by rounding alone.
    pub step: StepOptions,
    /// Peak learning rate.
    pub learning_rate: f64,
    /// Share of a weight removed per step at the peak.
    pub weight_decay: f64,
    /// Share of the steps in which the learning rate rises.
    pub warmup: f64,
    /// Seed of the order of rows.
    pub seed: u64,
    /// Steps between two evaluations; `None` evaluates after every epoch. The last step is always evaluated.
    pub evaluate_every: Option<u64>,
    /// Evaluations in a row without a better score after which training stops; `None` never stops early.
    pub patience: Option<u64>,
    /// Time after which the run ends at the latest, its learning rate decayed; `None` for no limit.
    pub time_limit: Option<Duration>,
}

impl Default for TrainOptions {
    /// One epoch of batches of 64 at 8e-5, the paper's settings of ModernBERT-base.
    fn default() -> Self {
        Self {
            loss: Loss::in_batch(),
            length: Length::Epochs(1.0),
            batch: 64,
            accumulate: 1,
            allow_duplicates: false,
            step: StepOptions {
                token_budget: 16_384,
                query_chunk: None,
            },
            learning_rate: 8e-5,
            weight_decay: 0.0,
            warmup: 0.05,
            seed: 12,
            evaluate_every: None,
            patience: None,
            time_limit: None,
        }
    }
}

/// Data, settings and folder of a run.
pub struct Training {
    /// Rows to train on.
    pub rows: TrainRows,
    /// Data sets to evaluate on; the mean of their nDCG@10 chooses the best weights.
    pub sets: Vec<EvalSet>,
    /// Settings.
    pub options: TrainOptions,
    /// Display of progress.
    pub progress: Progress,
    /// Ends the run from outside.
    pub interrupter: Interrupter,
    /// The folder in which the run is saved; `None` keeps everything in memory.
    pub saving: Option<Saving>,
    /// Peak FLOP/s of the device, for MFU.
    pub peak_flops: Option<f64>,
}

/// A finished or interrupted run.
#[derive(Debug)]
pub struct Trained {
    /// The model with the weights of the best evaluation; the last ones without an evaluation.
    pub model: Embedder,
    /// Its evaluation.
    pub best: Option<EvaluationPoint>,
    /// Every evaluation, in order.
    pub evaluations: Vec<EvaluationPoint>,
    /// Optimizer steps done.
    pub steps: u64,
    /// Steps without early stopping and interruption.
    pub planned_steps: u64,
    /// Loss of the first step.
    pub first_loss: Option<f64>,
    /// Tokens trained on.
    pub tokens: u64,
    /// Seconds of training, evaluations and saving left out.
    pub seconds: f64,
    /// Set if the run was interrupted, with the checkpoint from which a resume starts.
    pub interrupted: Option<Option<PathBuf>>,
    /// Texts that were truncated.
    pub truncated: usize,
}

impl Training {
    /// A run without folder, shown as [`Progress::detect`] chooses.
    pub fn new(rows: TrainRows, sets: Vec<EvalSet>, options: TrainOptions) -> Self {
        Self {
            rows,
            sets,
            options,
            progress: Progress::detect(),
            interrupter: Interrupter::new(),
            saving: None,
            peak_flops: None,
        }
    }

    /// Trains `model`, whose texts become tokens as `texts` says, and returns it with the best weights.
    ///
    /// The same rows, settings and initial weights give the same result, bit for bit, on one CPU build; a resumed run ends as if it had
    /// never stopped.
    ///
    /// # Errors
    /// As [`TrainRows::check`]; settings that can't be used; a non-finite loss or parameter; a checkpoint of another run; a folder that can't be written; a
    /// failure of the device.
    pub fn run(self, model: Embedder, texts: &TextOptions) -> Result<Trained, TrainError> {
        self.rows.check(&self.options.loss)?;
        self.check(model.model.config().hidden_size, texts)?;
        let Self {
            rows,
            sets,
            options,
            progress,
            interrupter,
            saving,
            peak_flops,
        } = self;
        let (data, truncated) = tokenized(&rows, texts)?;
        let accumulate = options.accumulate as u64;
        let sampler = Sampler::new(
            &data.rows,
            options.batch,
            options.seed,
            options.allow_duplicates,
        );
        if sampler.per_epoch() == 0 {
            return Err(TrainError::Conflicts {
                most: largest_batch(&data, options.seed),
                rows: data.rows.len(),
                batch: options.batch,
            });
        }
        let per_epoch = sampler.per_epoch() as f64 / accumulate as f64;
        let planned_steps = match options.length {
            Length::Steps(steps) => steps,
            Length::Epochs(epochs) => ((epochs * per_epoch).round() as u64).max(1),
        };
        let interval = options
            .evaluate_every
            .unwrap_or((per_epoch.round() as u64).max(1));

        let rule: UpdateRule =
            DecoupledAdamW::new(options.learning_rate, options.weight_decay).into();
        let mut begun = Resumed {
            state: RunState {
                phase_name: PHASE.to_string(),
                phase_total: planned_steps,
                next_evaluation: interval,
                ..RunState::default()
            },
            model,
            optimizer: NamedOptimizer::new(rule),
            history: TaskHistory::default(),
        };
        let config = begun.model.encoder().config().clone();
        let (mut every_steps, mut every, mut log, mut folder) = (None, None, None, None);
        if let Some(saving) = saving {
            (every_steps, every) = (saving.every_steps, Some(saving.every));
            let sha256 = fingerprint(&options, &saving.identity, &data, &sets, texts);
            let opened = RunFolder::open(saving, sha256, config.clone())?;
            let empty = NamedOptimizer::new(rule);
            let resumed = opened.resume(|snapshot| read(snapshot, &begun.model, empty))?;
            if let Some(resumed) = resumed {
                progress.note(&format!(
                    "resuming from step {} of {planned_steps}",
                    resumed.state.step
                ));
                begun = resumed;
            }
            let path = opened.root().join(METRICS_FILE);
            let opened_log = MetricsLog::open(&path);
            log = Some(opened_log.map_err(|source| RunDirError::Io { path, source })?);
            folder = Some(opened);
        }
        let settings = LoopSettings {
            cadence: Cadence {
                unit: ProgressUnit::Steps,
                evaluate_every: interval,
                log_every: LOG_EVERY,
                log_before_evaluation: true,
                read_every: if is_cpu(&begun.model.model.device()) {
                    1
                } else {
                    LOG_EVERY
                },
                save_every_steps: every_steps,
                save_every: every,
                evaluate_before_save: false,
                time_limit: options.time_limit,
            },
            learning_rate: LearningRate {
                peak: options.learning_rate,
                schedule: Schedule::LinearWithWarmup {
                    warmup_tokens: TokenSpan::Fraction(options.warmup),
                    final_fraction: 0.0,
                },
                margin: 1,
            },
            max_grad_norm: None,
            spikes: None,
            patience: options.patience,
            saves: folder.is_some(),
            peak_flops,
        };
        let task = RetrievalTask {
            data,
            sampler,
            accumulate,
            seed: options.seed,
            kind: texts.kind().clone(),
            loss: options.loss,
            step: options.step,
            sets,
            config,
            folder,
            history: begun.history,
        };
        let Resumed {
            model,
            optimizer,
            state,
            ..
        } = begun;
        let outcome = if state.phase_done {
            LoopOutcome {
                task,
                model,
                optimizer,
                state,
                report: LoopReport::default(),
            }
        } else {
            let reporter = Reporter::new::<RetrievalTask>(
                ReporterOptions {
                    progress,
                    title: PHASE.to_string(),
                    prefix: PHASE.to_string(),
                    suffix: None,
                    unit: ProgressUnit::Steps,
                    evaluations: planned_steps.div_ceil(interval),
                    line_every: LINE_EVERY,
                    log,
                    has_mfu: peak_flops.is_some(),
                    skips_spikes: false,
                },
                &interrupter,
            );
            let training = Loop::new(task, settings, (optimizer, state), reporter, interrupter);
            training.run(model).map_err(TrainError::of)?
        };
        Ok(finish(outcome, planned_steps, truncated))
    }

    fn check(&self, hidden: usize, texts: &TextOptions) -> Result<(), TrainError> {
        let options = &self.options;
        let wrong = |name: &'static str, value: String, needed: &str| TrainError::Setting {
            name,
            value,
            needed: needed.to_string(),
        };
        for (name, value) in [
            ("--batch", options.batch),
            ("--accumulate", options.accumulate),
            ("--token-budget", options.step.token_budget),
            ("--query-chunk", options.step.query_chunk.unwrap_or(1)),
        ] {
            if value == 0 {
                return Err(wrong(name, "0".to_string(), "it is 1 or more"));
            }
        }
        if options.accumulate > MOST_BATCHES {
            let needed = format!("it is at most {MOST_BATCHES}");
            return Err(wrong(
                "--accumulate",
                options.accumulate.to_string(),
                &needed,
            ));
        }
        let in_batch = matches!(options.loss.objective, Objective::InBatch(_));
        if in_batch && !options.allow_duplicates {
            self.rows.check_own_negatives()?;
        }
        if in_batch && options.batch == 1 && self.rows.ways() == 1 {
            let needed = "with one document a row nothing is compared: give 2 or more, or rows with negatives";
            return Err(wrong("--batch", "1".to_string(), needed));
        }
        // Weights are f32: a smaller rate would be 0 there, a larger one infinite.
        let rate = options.learning_rate;
        if !fits_f32(rate) {
            let needed = "give a positive number that f32 holds";
            return Err(wrong("--learning-rate", short(rate), needed));
        }
        for (name, share) in [
            ("--weight-decay", options.weight_decay),
            ("--warmup", options.warmup),
        ] {
            if !is_share(share) {
                let needed = "give a number from 0 to below 1";
                return Err(wrong(name, share.to_string(), needed));
            }
        }
        match options.length {
            Length::Epochs(epochs) if !(epochs > 0.0 && epochs.is_finite()) => {
                let needed = "give a finite number above 0";
                return Err(wrong("--epochs", epochs.to_string(), needed));
            }
            Length::Epochs(epochs) if epochs > MOST_EPOCHS => {
                let needed = format!("it is at most {MOST_EPOCHS}");
                return Err(wrong("--epochs", epochs.to_string(), &needed));
            }
            Length::Steps(0) => {
                return Err(wrong("--steps", "0".to_string(), "it is 1 or more"));
            }
            _ => {}
        }
        if let Objective::InBatch(in_batch) = &options.loss.objective
            && !fits_f32(in_batch.scale)
        {
            let needed = "give a positive number that f32 holds";
            return Err(wrong("--scale", short(in_batch.scale), needed));
        }
        let dimensions = &options.loss.dimensions;
        if texts.kind().is_per_token() && !dimensions.is_empty() {
            let list = format!("{dimensions:?}");
            let needed = "it is for models with one vector per text";
            return Err(wrong("--matryoshka", list, needed));
        }
        if let Some(&dimension) = dimensions.iter().find(|&&d| d == 0 || d > hidden) {
            let needed = format!("give 1 to {hidden}, the components of the model's vectors");
            return Err(wrong("--matryoshka", dimension.to_string(), &needed));
        }
        Ok(())
    }
}

/// Tokens of all texts of the rows, and how many texts were truncated.
fn tokenized(rows: &TrainRows, texts: &TextOptions) -> Result<(TokenizedRows, usize), TrainError> {
    let mut used = [vec![false; rows.texts.len()], vec![false; rows.texts.len()]];
    for row in &rows.rows {
        used[0][row.query as usize] = true;
        for &document in &row.documents {
            used[1][document as usize] = true;
        }
    }
    let mut truncated = 0;
    let mut tokens = |used: &[bool], role: Role| -> Result<Vec<TokenizedText>, TrainError> {
        let indices: Vec<usize> = (0..used.len()).filter(|&i| used[i]).collect();
        let chosen: Vec<&str> = indices.iter().map(|&i| rows.texts[i].as_str()).collect();
        let mut all = vec![TokenizedText::default(); used.len()];
        for (i, text) in indices.into_iter().zip(texts.tokenize_all(&chosen, role)?) {
            truncated += usize::from(text.truncated);
            all[i] = text;
        }
        Ok(all)
    };
    let queries = tokens(&used[0], Role::Query)?;
    let documents = tokens(&used[1], Role::Document)?;
    let data = TokenizedRows {
        rows: rows.rows.clone(),
        queries,
        documents,
    };
    Ok((data, truncated))
}

/// Rows of the largest batch without repetition, for an error.
fn largest_batch(data: &TokenizedRows, seed: u64) -> usize {
    let fits = |batch: usize| Sampler::new(&data.rows, batch, seed, false).per_epoch() > 0;
    let (mut low, mut high) = (0, data.rows.len());
    while low < high {
        let middle = (low + high).div_ceil(2);
        if fits(middle) {
            low = middle;
        } else {
            high = middle - 1;
        }
    }
    low
}

/// SHA-256 over everything that decides a run but its initial weights: settings, identity, rows, tokens and evaluation sets.
fn fingerprint(
    options: &TrainOptions,
    identity: &str,
    data: &TokenizedRows,
    sets: &[EvalSet],
    texts: &TextOptions,
) -> String {
    let mut hash = Sha256::new();
    hash.update(format!("{options:?}\0{identity}\0{:?}\0", texts.kind()));
    for row in &data.rows {
        for text in row.texts() {
            hash.update(text.to_le_bytes());
        }
        for score in &row.scores {
            hash.update(score.to_bits().to_be_bytes());
        }
    }
    for text in data.queries.iter().chain(&data.documents) {
        text.hash_into(&mut hash);
    }
    for set in sets {
        set.hash_into(&mut hash);
    }
    hex(&hash.finalize())
}

fn finish(outcome: LoopOutcome<RetrievalTask>, planned_steps: u64, truncated: usize) -> Trained {
    let LoopOutcome {
        task,
        model,
        state,
        report,
        ..
    } = outcome;
    let step = state.step;
    let interrupted = report
        .interrupted
        .then(|| task.folder.as_ref().and_then(|f| f.checkpoint(step)));
    let TaskHistory { best, evaluations } = task.history;
    let (model, best) = match best {
        Some((model, index)) => (model, evaluations.get(index).cloned()),
        None => (model, None),
    };
    Trained {
        model,
        best,
        evaluations,
        steps: step,
        planned_steps,
        first_loss: state.first_loss,
        tokens: state.tokens,
        seconds: state.phase_seconds,
        interrupted,
        truncated,
    }
}
