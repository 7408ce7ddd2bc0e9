//! The loop of a finetuning: steps, losses read back in groups, scorings by step, the best weights kept.

use burn::data::dataloader::Progress as ItemProgress;
use burn::module::Module;
use burn::tensor::{Device, Tensor};
use burn::train::{
    EventProcessorTraining, Interrupter, Learner, LearnerEvent, SupervisedLearningStrategy,
    SupervisedTrainingEventProcessor, TrainLoader, TrainingComponents, TrainingItem, ValidLoader,
};
use modernbert::model::SequenceClassifier;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use super::batches::Sample;
use super::learner::{ClassifierLearner, ClassifierOutput, ClassifierStats};
use super::{
    Evaluation, FinetuneError, FinetuneOptions, Finetuned, JobClock, Score, Scorer, predict,
};
use crate::trainer::Progress;
use modernbert_cli::text::human_seconds;

/// Steps whose losses are read back together: a read waits for the device, which should not happen after every step.
const READ_EVERY: usize = 16;
/// Time between two lines.
const LINE_EVERY: Duration = Duration::from_secs(10);

type Processor = SupervisedTrainingEventProcessor<ClassifierLearner>;
type Outcome = Result<Trained, FinetuneError>;

/// burn-train's strategy for finetuning.
pub(super) struct StepStrategy {
    parts: Mutex<Parts>,
    outcome: Arc<Mutex<Option<Outcome>>>,
}

struct Parts {
    options: FinetuneOptions,
    dev: Vec<Sample>,
    score: Scorer,
    progress: Progress,
    clock: Option<Arc<JobClock>>,
}

/// What a loop that came to its end leaves behind.
pub(super) struct Trained {
    best: Best,
    evaluations: Vec<Evaluation>,
    losses: Vec<(usize, f64)>,
    steps: usize,
    train_time: Duration,
    eval_time: Duration,
    evaluated: usize,
}

struct Best {
    model: SequenceClassifier,
    outputs: Vec<Vec<f32>>,
    evaluation: Evaluation,
}

impl Trained {
    pub(super) fn finish(self, planned_steps: usize) -> Finetuned {
        Finetuned {
            model: self.best.model,
            outputs: self.best.outputs,
            best: self.best.evaluation,
            evaluations: self.evaluations,
            losses: self.losses,
            steps: self.steps,
            planned_steps,
            train_seconds: self.train_time.as_secs_f64(),
            eval_seconds: self.eval_time.as_secs_f64(),
            evaluated: self.evaluated,
        }
    }
}

impl StepStrategy {
    pub(super) fn new(
        options: FinetuneOptions,
        dev: Vec<Sample>,
        score: Scorer,
        progress: Progress,
        clock: Option<Arc<JobClock>>,
        outcome: Arc<Mutex<Option<Outcome>>>,
    ) -> Self {
        Self {
            parts: Mutex::new(Parts {
                options,
                dev,
                score,
                progress,
                clock,
            }),
            outcome,
        }
    }
}

impl SupervisedLearningStrategy<ClassifierLearner> for StepStrategy {
    fn fit(
        &self,
        components: TrainingComponents<ClassifierLearner>,
        mut learner: Learner<ClassifierLearner>,
        train: TrainLoader<ClassifierLearner>,
        _valid: ValidLoader<ClassifierLearner>,
        _starting_epoch: usize,
    ) -> (ClassifierLearner, Processor) {
        let mut parts = self.parts.lock().unwrap_or_else(PoisonError::into_inner);
        let device = learner.model().model.model.device();
        let device = if device.is_autodiff() {
            device
        } else {
            device.autodiff()
        };
        learner.fork(&device);
        let samples = train.num_items();
        let options = &parts.options;
        let plan = Plan {
            interval: options.evaluation_interval(samples),
            steps: options.steps_per_epoch(samples) * options.epochs,
            samples,
        };
        let mut run = Loop {
            device,
            plan,
            parts: &mut parts,
            processor: components.event_processor,
            interrupter: components.interrupter,
            started: Instant::now(),
            last_line: Instant::now(),
            stretch: 1,
            pending: Vec::new(),
            window: (0, 0.0),
            state: State::default(),
        };
        let outcome = run.train(&mut learner, &train);
        let processor = run.processor;
        *self.outcome.lock().unwrap_or_else(PoisonError::into_inner) = Some(outcome);
        (learner.model(), processor)
    }
}

struct Plan {
    interval: usize,
    steps: usize,
    samples: usize,
}

#[derive(Default)]
struct State {
    best: Option<Best>,
    evaluations: Vec<Evaluation>,
    losses: Vec<(usize, f64)>,
    steps: usize,
    seen: usize,
    unimproved: usize,
    eval_time: Duration,
    evaluated: usize,
}

struct Loop<'a> {
    device: Device,
    plan: Plan,
    parts: &'a mut Parts,
    processor: Processor,
    interrupter: Interrupter,
    started: Instant,
    last_line: Instant,
    /// burn-train counts epochs; here one lasts from scoring to scoring.
    stretch: usize,
    /// Losses still on the device, of the steps after the last read.
    pending: Vec<Tensor<1>>,
    /// Number and sum of the losses since the last entry of the log.
    window: (usize, f64),
    state: State,
}

impl Loop<'_> {
    fn train(
        &mut self,
        learner: &mut Learner<ClassifierLearner>,
        train: &TrainLoader<ClassifierLearner>,
    ) -> Outcome {
        if let Some(clock) = &self.parts.clock {
            clock.start();
        }
        self.start_stretch();
        'epochs: for _ in 0..self.parts.options.epochs {
            for batch in train.iter() {
                if self.interrupter.should_stop() {
                    return Err(FinetuneError::Interrupted(self.label()));
                }
                let batch = batch.map_err(|error| FinetuneError::Training {
                    label: self.label(),
                    reason: error.to_string(),
                })?;
                let tokens: usize = batch.sequences.iter().map(Vec::len).sum();
                self.state.seen += batch.sequences.len();
                let output = learner.train_step(batch);
                self.pending.push(output.item.loss);
                learner.lr_step();
                learner.optimizer_step(output.grads);
                self.state.steps += 1;
                self.worked(3 * tokens as u64);
                let due = self.state.steps.is_multiple_of(self.plan.interval);
                let last = self.state.steps == self.plan.steps;
                if due || last || self.pending.len() >= READ_EVERY {
                    self.read_losses(learner)?;
                }
                if due || last {
                    self.evaluation(learner, last)?;
                    let patience = self.parts.options.patience;
                    if patience.is_some_and(|patience| self.state.unimproved >= patience) {
                        break 'epochs;
                    }
                }
            }
        }
        let State {
            best,
            evaluations,
            losses,
            steps,
            eval_time,
            evaluated,
            ..
        } = std::mem::take(&mut self.state);
        let best = best.ok_or_else(|| FinetuneError::Interrupted(self.label()))?;
        Ok(Trained {
            best,
            evaluations,
            losses,
            steps,
            train_time: self.started.elapsed().saturating_sub(eval_time),
            eval_time,
            evaluated,
        })
    }

    fn label(&self) -> String {
        self.parts.options.label.clone()
    }

    fn worked(&self, work: u64) {
        if let Some(clock) = &self.parts.clock {
            clock.add(work);
        }
    }

    /// Reads the losses of the last steps; a loss that is no number ends the run.
    fn read_losses(&mut self, learner: &Learner<ClassifierLearner>) -> Result<(), FinetuneError> {
        if self.pending.is_empty() {
            return Ok(());
        }
        let count = self.pending.len();
        let losses: Vec<f32> = Tensor::cat(std::mem::take(&mut self.pending), 0)
            .try_into_data()
            .map_err(|error| FinetuneError::Device(error.to_string()))?
            .try_to_vec()
            .map_err(|error| FinetuneError::Device(format!("{error:?}")))?;
        let first = self.state.steps - count + 1;
        for (i, loss) in losses.iter().map(|&loss| f64::from(loss)).enumerate() {
            if !loss.is_finite() {
                return Err(FinetuneError::Diverged {
                    label: self.label(),
                    step: first + i,
                    loss,
                });
            }
            self.window.0 += 1;
            self.window.1 += loss;
        }
        let mean = self.window.1 / self.window.0.max(1) as f64;
        self.state.losses.push((self.state.steps, mean));
        self.window = (0, 0.0);
        let stats = ClassifierStats {
            loss: Some(mean),
            score: None,
            rows: count * self.parts.options.batch_size,
        };
        self.show(learner, stats, mean);
        Ok(())
    }

    fn evaluation(
        &mut self,
        learner: &Learner<ClassifierLearner>,
        last: bool,
    ) -> Result<(), FinetuneError> {
        let begun = Instant::now();
        self.send_train(LearnerEvent::EndSplit(self.stretch));
        let total_items = self.parts.dev.len();
        let result = self.processor.process_valid(LearnerEvent::StartSplit {
            epoch_number: self.stretch,
            total_items,
        });
        self.interrupter.fail_on_error(result);

        let model = learner.model().valid().model;
        let rows: Vec<&[u32]> = self.parts.dev.iter().map(|s| s.ids.as_slice()).collect();
        let tokens: usize = rows.iter().map(|row| row.len()).sum();
        let outputs = predict(&model, &rows)?;
        self.worked(tokens as u64);
        let step = self.state.steps;
        let score = (self.parts.score)(&outputs).map_err(|reason| FinetuneError::Score {
            label: self.label(),
            step,
            reason,
        })?;
        self.state.evaluated += outputs.len();
        let evaluation = Evaluation { step, score };
        self.state.evaluations.push(evaluation.clone());
        let (main, rows) = (evaluation.score.main, outputs.len());
        let best = self.state.best.as_ref();
        let better = best.is_none_or(|best| is_better(main, best.evaluation.score.main));
        if better {
            self.state.unimproved = 0;
        } else {
            self.state.unimproved += 1;
        }
        self.line_of(&evaluation.score, better);
        if better {
            self.state.best = Some(Best {
                model,
                outputs,
                evaluation,
            });
        }

        let stats = ClassifierStats {
            loss: None,
            score: main,
            rows,
        };
        let item = TrainingItem::new(
            ClassifierOutput::of_stats(stats, &self.device),
            ItemProgress::new(rows, rows, Some("sequences".to_string())),
            Some(step),
            None,
        );
        let result = self
            .processor
            .process_valid(LearnerEvent::ProcessedItem(item));
        self.interrupter.fail_on_error(result);
        let result = self
            .processor
            .process_valid(LearnerEvent::EndSplit(self.stretch));
        self.interrupter.fail_on_error(result);
        self.send_train(LearnerEvent::EndEpoch(self.stretch));
        self.stretch += 1;
        if !last {
            self.start_stretch();
        }
        self.state.eval_time += begun.elapsed();
        Ok(())
    }

    fn start_stretch(&mut self) {
        self.send_train(LearnerEvent::StartSplit {
            epoch_number: self.stretch,
            total_items: self.plan.samples * self.parts.options.epochs,
        });
    }

    fn show(&mut self, learner: &Learner<ClassifierLearner>, stats: ClassifierStats, loss: f64) {
        let total = self.plan.samples * self.parts.options.epochs;
        if self.last_line.elapsed() >= LINE_EVERY {
            self.last_line = Instant::now();
            let spent = self.started.elapsed();
            let speed = self.state.seen as f64 / (spent - self.state.eval_time).as_secs_f64();
            let share = self.state.seen as f64 / total.max(1) as f64;
            let left = spent.as_secs_f64() / share.max(1e-9) * (1.0 - share);
            let text = format!(
                "step {:>5} of {}  loss {loss:.4}  {speed:.0} sequences/s  left {}",
                self.state.steps,
                self.plan.steps,
                human_seconds(left)
            );
            self.line(&text);
        }
        let item = TrainingItem::new(
            ClassifierOutput::of_stats(stats, &self.device),
            ItemProgress::new(self.state.seen, total, Some("sequences".to_string())),
            Some(self.state.steps),
            Some(learner.lr_current()),
        );
        self.send_train(LearnerEvent::ProcessedItem(item));
    }

    fn line_of(&self, score: &Score, better: bool) {
        let metrics = score.metrics.iter().map(|(name, value)| match value {
            Some(value) => format!("{name} {value:.4}"),
            None => format!("{name} n/a"),
        });
        self.line(&format!(
            "step {:>5} of {}  dev {}{}",
            self.state.steps,
            self.plan.steps,
            metrics.collect::<Vec<_>>().join("  "),
            if better { "  (best)" } else { "" }
        ));
    }

    fn line(&self, text: &str) {
        let clock = self.parts.clock.as_ref();
        let job = clock.map_or(String::new(), |clock| format!("  | {clock}"));
        let label = &self.parts.options.label;
        self.parts.progress.line(&format!("{label} {text}{job}"));
    }

    fn send_train(&mut self, event: LearnerEvent<ClassifierOutput>) {
        let result = self.processor.process_train(event);
        self.interrupter.fail_on_error(result);
    }
}

/// Whether a score beats another; one that does not exist beats none, and anything beats it.
pub(super) fn is_better(new: Option<f64>, old: Option<f64>) -> bool {
    match (new, old) {
        (Some(new), Some(old)) => new > old,
        (Some(_), None) => true,
        (None, _) => false,
    }
}
