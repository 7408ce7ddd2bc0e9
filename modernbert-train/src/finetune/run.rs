//! A finetuning from its examples to the best weights.

use burn::train::Interrupter;
use modernbert::model::{Architecture, SequenceClassifier};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use super::batches::Batches;
use super::example::Example;
use super::saving::{Folder, Resumed, fingerprint, is_cpu};
use super::sequence::Sample;
use super::task::{Best, FinetuneTask, TaskHistory};
use super::{FinetuneError, FinetuneOptions, JobClock, predict_examples};
use crate::engine::{
    BoxError, Cadence, Loop, LoopOutcome, LoopReport, LoopSettings, MetricsLog, Progress,
    ProgressUnit, Reporter, ReporterOptions, Suffix,
};
use crate::optim::NamedOptimizer;
use crate::run_dir::{METRICS_FILE, RunDirError};
use crate::saving::Saving;
use crate::snapshot::RunState;

/// Steps between two rows of the log, and between two readbacks on a GPU, which stall the device.
const LOG_EVERY: u64 = 16;
/// Time between two lines.
const LINE_EVERY: Duration = Duration::from_secs(10);
/// Name of the one phase in the log.
const PHASE: &str = "finetune";

/// Result of an evaluation on the dev set.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct DevScore {
    /// The number that decides which weights are best, higher is better; `None` where it is undefined, which is never best.
    pub main: Option<f64>,
    /// Numbers for the log, the main one among them, in the order in which they are shown.
    pub metrics: Vec<(String, Option<f64>)>,
}

impl DevScore {
    /// A score of one number.
    pub fn of(name: &str, value: f64) -> Self {
        Self {
            main: Some(value),
            metrics: vec![(name.to_string(), Some(value))],
        }
    }
}

/// One evaluation on the dev set during training.
#[derive(Clone, Debug, PartialEq)]
pub struct DevEvaluation {
    /// Optimizer steps done.
    pub step: usize,
    /// Its result.
    pub score: DevScore,
}

/// Computes the score of the dev set from the outputs for its examples, in their order.
pub type Scorer = Box<dyn FnMut(&[Vec<f32>]) -> Result<DevScore, BoxError> + Send>;

/// Data, score and settings of a finetuning; the type of its examples is its kind.
pub struct Finetuning<E: Example = Sample> {
    /// Examples to train on.
    pub train: Vec<E>,
    /// Examples to score the model on. Their targets give the dev loss of the log; where a target does not fit the model's outputs, there
    /// is no such loss.
    pub dev: Vec<E>,
    /// Outputs of the dev examples to a score.
    pub score: Scorer,
    /// Settings.
    pub options: FinetuneOptions,
    /// Display of progress.
    pub progress: Progress,
    /// Ends the run from outside.
    pub interrupter: Interrupter,
    /// The clock of the job to which this run belongs.
    pub clock: Option<Arc<JobClock>>,
    /// The folder in which the run is saved; `None` keeps everything in memory.
    pub saving: Option<Saving>,
    /// Peak FLOP/s of the device, for MFU; see [`device_peak`](crate::engine::device_peak).
    pub peak_flops: Option<f64>,
}

/// The step at which a run was interrupted, and its checkpoint.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Interruption {
    /// Steps done.
    pub step: usize,
    /// The checkpoint from which a resume starts, if the run has a folder and did a step.
    pub checkpoint: Option<PathBuf>,
}

impl Interruption {
    /// `, saved in PLACE` where it was saved.
    pub(super) fn place(&self) -> String {
        let place = self.checkpoint.as_ref();
        place.map_or(String::new(), |place| {
            format!(", saved in {}", place.display())
        })
    }
}

/// A finished or interrupted finetuning.
#[derive(Debug)]
pub struct Finetuned<M = SequenceClassifier> {
    /// The model with the weights of the best score; the last weights where no evaluation had a defined score.
    pub model: M,
    /// Outputs of those weights for the dev examples.
    pub outputs: Vec<Vec<f32>>,
    /// Their evaluation.
    pub best: DevEvaluation,
    /// Every evaluation, in order.
    pub evaluations: Vec<DevEvaluation>,
    /// Steps done and the mean loss of the steps since the entry before.
    pub losses: Vec<(usize, f64)>,
    /// Optimizer steps done.
    pub steps: usize,
    /// Steps without early stopping.
    pub planned_steps: usize,
    /// Seconds of training, evaluations and saving left out.
    pub train_seconds: f64,
    /// Seconds of evaluations.
    pub eval_seconds: f64,
    /// Examples evaluated in that time.
    pub evaluated: usize,
    /// Set where the run was interrupted: the model is the best one so far.
    pub interrupted: Option<Interruption>,
}

impl<E: Example> Finetuning<E> {
    /// A run without clock and folder, shown as [`Progress::detect`] chooses.
    ///
    /// `score` gets the outputs for the dev examples, in order, as [`Example::predict`] defines them: for a [`Sample`] the logits of the
    /// classes, or one number.
    pub fn new(
        train: Vec<E>,
        dev: Vec<E>,
        options: FinetuneOptions,
        score: impl FnMut(&[Vec<f32>]) -> Result<DevScore, BoxError> + Send + 'static,
    ) -> Self {
        Self {
            train,
            dev,
            score: Box::new(score),
            options,
            progress: Progress::detect(),
            interrupter: Interrupter::new(),
            clock: None,
            saving: None,
            peak_flops: None,
        }
    }

    /// Trains `model` and returns it with the weights of the best score. A run with a folder that is resumed ends as if it had never
    /// stopped.
    ///
    /// The same examples, settings and initial weights give the same result, bit for bit, on one CPU build.
    ///
    /// # Errors
    /// No examples; labels without an output of the model; a non-finite loss, parameter or output; a score that can't be computed; an
    /// interruption before the first evaluation; a checkpoint of another run; a folder that can't be written; a failure of the device.
    pub fn run(self, model: E::Model) -> Result<Finetuned<E::Model>, FinetuneError> {
        self.check(&model)?;
        let Self {
            train,
            dev,
            score,
            options,
            progress,
            interrupter,
            clock,
            saving,
            peak_flops,
        } = self;
        let label = options.label.clone();
        let planned_steps = options.steps_per_epoch(train.len()) * options.epochs;
        let interval = options.evaluation_interval(train.len()) as u64;
        let mut left_of_work = options.cost_in_tokens(&train, &dev);

        let optimizer = NamedOptimizer::new(options.update_rule());
        let mut begun = Resumed {
            state: RunState {
                phase_name: PHASE.to_string(),
                phase_total: planned_steps as u64,
                next_evaluation: interval,
                ..RunState::default()
            },
            model,
            optimizer,
            history: TaskHistory::default(),
        };
        let (mut every_steps, mut every, mut log) = (None, None, None);
        let mut folder = None;
        if let Some(saving) = saving {
            (every_steps, every) = (saving.every_steps, Some(saving.every));
            let sha256 = fingerprint(&options, &saving.identity, &begun.model, &train, &dev);
            let opened = Folder::open::<E>(saving, sha256, &begun.model, &dev)?;
            let empty = NamedOptimizer::new(options.update_rule());
            if let Some(resumed) = opened.resume::<E>(&begun.model, empty)? {
                progress.note(&format!(
                    "{label}: resuming from step {} of {planned_steps}",
                    resumed.state.step
                ));
                begun = resumed;
            }
            let path = opened.run.root().join(METRICS_FILE);
            let opened_log = MetricsLog::open(&path);
            log = Some(opened_log.map_err(|source| RunDirError::Io { path, source })?);
            folder = Some(opened);
        }
        if let Some(clock) = &clock {
            clock.start();
            // Work of an earlier process takes no time in this one.
            clock.drop_work(begun.history.work.min(left_of_work));
        }
        left_of_work = left_of_work.saturating_sub(begun.history.work);
        let done_before = clock.as_ref().map_or(0, |clock| clock.done());

        let on_cpu = is_cpu(&begun.model.encoder().device());
        let settings = LoopSettings {
            cadence: Cadence {
                unit: ProgressUnit::Steps,
                evaluate_every: interval,
                log_every: LOG_EVERY,
                log_before_evaluation: true,
                read_every: if on_cpu { 1 } else { LOG_EVERY },
                save_every_steps: every_steps,
                save_every: every,
                evaluate_before_save: false,
                time_limit: None,
            },
            learning_rate: options.rate(),
            max_grad_norm: None,
            spikes: None,
            patience: options.patience.map(|patience| patience as u64),
            saves: folder.is_some(),
            peak_flops,
        };
        let task = FinetuneTask {
            batches: Batches::new(
                train,
                options.batch_size,
                options.micro_batches,
                options.seed,
            ),
            rates: options.dropout_rates(begun.model.encoder().config()),
            config: begun.model.encoder().config().clone(),
            dev,
            score,
            clock: clock.clone(),
            folder,
            history: begun.history,
            latest: Vec::new(),
        };
        let Resumed {
            model,
            optimizer,
            state,
            ..
        } = begun;
        let outcome = if state.phase_done {
            Ok(LoopOutcome {
                task,
                model,
                optimizer,
                state,
                report: LoopReport::default(),
            })
        } else {
            let on_clock = clock.clone();
            let suffix =
                on_clock.map(|clock| -> Suffix { Box::new(move || format!("  | {clock}")) });
            let reporter = Reporter::new::<FinetuneTask<E>>(
                ReporterOptions {
                    progress,
                    title: label.clone(),
                    prefix: label.clone(),
                    suffix,
                    unit: ProgressUnit::Steps,
                    evaluations: (planned_steps as u64).div_ceil(interval),
                    line_every: LINE_EVERY,
                    log,
                    has_mfu: peak_flops.is_some(),
                    skips_spikes: false,
                },
                &interrupter,
            );
            Loop::new(task, settings, (optimizer, state), reporter, interrupter).run(model)
        };
        if let Some(clock) = clock {
            // Early stopping and failures leave work undone that the job counted on.
            clock.drop_work(left_of_work.saturating_sub(clock.done() - done_before));
        }
        let outcome = outcome.map_err(|failure| FinetuneError::of(label.clone(), failure))?;
        finish(outcome, label, planned_steps)
    }

    fn check(&self, model: &E::Model) -> Result<(), FinetuneError> {
        let label = || self.options.label.clone();
        for (what, examples) in [("training", &self.train), ("dev", &self.dev)] {
            if examples.is_empty() {
                return Err(FinetuneError::Empty {
                    label: label(),
                    what,
                });
            }
        }
        self.options.check()?;
        let outputs = E::outputs(model);
        let first = &self.train[0];
        for (index, example) in self.train.iter().enumerate() {
            if let Some(reason) = example.mismatch_reason(first, outputs) {
                return Err(FinetuneError::Target {
                    label: label(),
                    index,
                    reason,
                });
            }
        }
        Ok(())
    }
}

/// The best weights of a loop that ended.
fn finish<E: Example>(
    outcome: LoopOutcome<FinetuneTask<E>>,
    label: String,
    planned_steps: usize,
) -> Result<Finetuned<E::Model>, FinetuneError> {
    let LoopOutcome {
        task,
        model,
        state,
        report,
        ..
    } = outcome;
    let step = state.step;
    let interrupted = report.interrupted.then(|| Interruption {
        step: step as usize,
        checkpoint: task.folder.as_ref().and_then(|f| f.run.checkpoint(step)),
    });
    let TaskHistory {
        best,
        evaluations,
        losses,
        eval_seconds,
        evaluated,
        ..
    } = task.history;
    let best = match (best, evaluations.last()) {
        (Some(best), _) => best,
        // No evaluation had a defined score: the last weights are as good as any.
        (None, Some(last)) if interrupted.is_none() => {
            let outputs = match task.latest.is_empty() {
                true => predict_examples(&model, &task.dev)?,
                false => task.latest,
            };
            Best {
                model,
                outputs,
                evaluation: last.clone(),
            }
        }
        _ => {
            let at = interrupted.unwrap_or(Interruption {
                step: step as usize,
                checkpoint: None,
            });
            return Err(FinetuneError::Interrupted { label, at });
        }
    };
    Ok(Finetuned {
        model: best.model,
        outputs: best.outputs,
        best: best.evaluation,
        evaluations,
        losses,
        steps: step as usize,
        planned_steps,
        train_seconds: state.phase_seconds,
        eval_seconds,
        evaluated,
        interrupted,
    })
}
