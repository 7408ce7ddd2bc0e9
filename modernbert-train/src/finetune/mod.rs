//! Finetuning a sequence classifier: the loop that every such task shares, inside burn-train.
//!
//! Sequences are grouped by length and packed, so that a step computes on real tokens alone; the learning rate rises
//! linearly and falls linearly to zero; the optimizer is decoupled AdamW. The dev set is scored every so many steps, and the
//! weights that scored best are the ones that come back, whether training ran to its end or was stopped early.
//!
//! | page | what it holds |
//! |---|---|
//! | [`Sample`], [`Target`], [`encode`] | texts to labelled sequences, cut and counted |
//! | [`table`] | rows of CSV, TSV and JSONL files with labels of one's own |
//! | [`Finetuning`] | what to train on, how to score, and the run |
//! | [`predict`], [`classes`], [`scores`] | outputs for sequences, and what they say |
//! | [`JobClock`] | time left over several finetunings |

mod batches;
mod clock;
mod encode;
mod learner;
mod predict;
mod schedule;
mod strategy;
pub mod table;
#[cfg(test)]
mod tests;

pub use batches::{Batch, BatchLoader, Sample, Target};
pub use clock::JobClock;
pub use encode::{Encoded, Text, encode};
pub use learner::{ClassifierLearner, ClassifierOutput, ClassifierStats};
pub use predict::{classes, predict, predict_with, scores};

use burn::module::Module;
use burn::train::{Interrupter, Learner, SupervisedTraining, TrainingStrategy};
use modernbert::model::SequenceClassifier;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError};

use crate::optim::DecoupledAdamW;
use crate::trainer::{Progress, SeriesMetric};
use schedule::WarmupLinear;
use strategy::{StepStrategy, Trained};

/// Settings of a finetuning.
#[derive(Clone, Debug, PartialEq)]
pub struct FinetuneOptions {
    /// Passes over the training samples.
    pub epochs: usize,
    /// Sequences of a step.
    pub batch_size: usize,
    /// Peak learning rate.
    pub learning_rate: f64,
    /// Share of a weight lost per step at the peak.
    pub weight_decay: f64,
    /// Share of the steps in which the learning rate rises.
    pub warmup: f64,
    /// Seed of the order of samples.
    pub seed: u64,
    /// Steps between two scorings of the dev set; `None` scores after every epoch. The last step is always followed by one.
    pub evaluate_every: Option<usize>,
    /// Training stops after so many scorings in a row that brought nothing better; `None` never stops early.
    pub patience: Option<usize>,
    /// What the dashboard and the lines call this run.
    pub label: String,
}

impl Default for FinetuneOptions {
    /// Settings that suit many small data sets and base-sized models: 3 epochs in batches of 32 at 5e-5.
    fn default() -> Self {
        Self {
            epochs: 3,
            batch_size: 32,
            learning_rate: 5e-5,
            weight_decay: 5e-6,
            warmup: 0.06,
            seed: 0,
            evaluate_every: None,
            patience: None,
            label: "finetune".to_string(),
        }
    }
}

impl FinetuneOptions {
    /// Steps of one pass over so many samples.
    pub fn steps_per_epoch(&self, samples: usize) -> usize {
        samples.div_ceil(self.batch_size.max(1))
    }

    /// Steps between two scorings.
    pub fn evaluation_interval(&self, samples: usize) -> usize {
        let epoch = self.steps_per_epoch(samples).max(1);
        self.evaluate_every.unwrap_or(epoch).max(1)
    }

    /// Work of a run without early stopping, in tokens of a forward pass (a training step counts three), for [`JobClock`].
    pub fn work(&self, train: &[Sample], dev: &[Sample]) -> u64 {
        let tokens = |samples: &[Sample]| samples.iter().map(|s| s.ids.len() as u64).sum::<u64>();
        let steps = self.steps_per_epoch(train.len()) * self.epochs;
        let evaluations = steps.div_ceil(self.evaluation_interval(train.len()));
        3 * tokens(train) * self.epochs as u64 + tokens(dev) * evaluations as u64
    }
}

/// What a scoring of the dev set says.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Score {
    /// The number that decides which weights are best, higher is better; `None` where it does not exist, which is worse than
    /// any number.
    pub main: Option<f64>,
    /// Numbers for the log, the main one among them, in the order in which they are shown.
    pub metrics: Vec<(String, Option<f64>)>,
}

impl Score {
    /// A score of one number.
    pub fn of(name: &str, value: f64) -> Self {
        Self {
            main: Some(value),
            metrics: vec![(name.to_string(), Some(value))],
        }
    }
}

/// One scoring of the dev set during training.
#[derive(Clone, Debug, PartialEq)]
pub struct Evaluation {
    /// Optimizer steps done.
    pub step: usize,
    /// What came out.
    pub score: Score,
}

/// Gives the score of the dev set from the outputs for its samples, in their order.
pub type Scorer = Box<dyn FnMut(&[Vec<f32>]) -> Result<Score, String> + Send>;

/// A finetuning that is about to run: data, score and settings.
pub struct Finetuning {
    /// Labelled sequences to train on.
    pub train: Vec<Sample>,
    /// Sequences to score the model on; their targets are not looked at, so any will do.
    pub dev: Vec<Sample>,
    /// Outputs of the dev samples to a score.
    pub score: Scorer,
    /// How to train.
    pub options: FinetuneOptions,
    /// How progress is shown.
    pub progress: Progress,
    /// Ends the run from outside.
    pub interrupter: Interrupter,
    /// The clock of the job this run is a part of.
    pub clock: Option<Arc<JobClock>>,
}

/// A finished finetuning.
#[derive(Debug)]
pub struct Finetuned {
    /// The model with the weights that scored best.
    pub model: SequenceClassifier,
    /// Outputs of those weights for the dev samples.
    pub outputs: Vec<Vec<f32>>,
    /// When they were reached, and their score.
    pub best: Evaluation,
    /// Every scoring, in order.
    pub evaluations: Vec<Evaluation>,
    /// Steps done and the mean loss of the steps since the entry before.
    pub losses: Vec<(usize, f64)>,
    /// Optimizer steps done.
    pub steps: usize,
    /// Steps there would have been without early stopping.
    pub planned_steps: usize,
    /// Seconds of training, scoring left out.
    pub train_seconds: f64,
    /// Seconds of scoring.
    pub eval_seconds: f64,
    /// Sequences scored in that time.
    pub evaluated: usize,
}

/// Why a finetuning failed.
#[derive(Debug, thiserror::Error)]
pub enum FinetuneError {
    /// There is nothing to train on, or nothing to score on.
    #[error("{label}: there are no {what} samples; give at least one")]
    Empty {
        /// The run.
        label: String,
        /// `training` or `dev`.
        what: &'static str,
    },
    /// A setting that can't work.
    #[error("{label}: {setting} is 0; it must be at least 1")]
    Zero {
        /// The run.
        label: String,
        /// The setting.
        setting: &'static str,
    },
    /// Classes among scores, or a class the model has no output for.
    #[error("{label}: training sample {index}: {reason}")]
    Target {
        /// The run.
        label: String,
        /// Its position, from 0.
        index: usize,
        /// What doesn't fit.
        reason: String,
    },
    /// The loss stopped being a number.
    #[error(
        "{label}: the loss of step {step} is {loss}: training diverged; lower the learning rate or look at the data"
    )]
    Diverged {
        /// The run.
        label: String,
        /// The first step whose loss is no number.
        step: usize,
        /// What it is instead.
        loss: f64,
    },
    /// The outputs can't be scored.
    #[error("{label}: after step {step}: {reason}")]
    Score {
        /// The run.
        label: String,
        /// Steps done.
        step: usize,
        /// What the scorer said.
        reason: String,
    },
    /// burn-train stopped on an error.
    #[error("{label}: training stopped: {reason}")]
    Training {
        /// The run.
        label: String,
        /// What it said.
        reason: String,
    },
    /// The model asks for what training can't do.
    #[error(transparent)]
    Config(#[from] modernbert::config::ConfigError),
    /// Somebody stopped it.
    #[error("{0}: interrupted")]
    Interrupted(String),
    /// The device could not be read.
    #[error("the device could not be read: {0}")]
    Device(String),
    /// A batch is too large.
    #[error(transparent)]
    Layout(#[from] modernbert::batch::LayoutError),
}

impl Finetuning {
    /// A run without a clock, shown as [`Progress::detect`] finds fit.
    ///
    /// `score` gets the outputs for the dev samples, in order: logits of the classes, or one number.
    pub fn new(
        train: Vec<Sample>,
        dev: Vec<Sample>,
        options: FinetuneOptions,
        score: impl FnMut(&[Vec<f32>]) -> Result<Score, String> + Send + 'static,
    ) -> Self {
        Self {
            train,
            dev,
            score: Box::new(score),
            options,
            progress: Progress::detect(),
            interrupter: Interrupter::new(),
            clock: None,
        }
    }

    /// Trains `model` and returns it with the weights that scored best.
    ///
    /// The same samples, settings and first weights give the same result, bit for bit, on one CPU build.
    ///
    /// # Errors
    /// No samples; labels the model has no output for; a loss that is no number; a score that can't be
    /// computed; an interruption; a failure of the device.
    pub fn run(self, model: SequenceClassifier) -> Result<Finetuned, FinetuneError> {
        self.check(&model)?;
        let options = self.options;
        let label = options.label.clone();
        let planned_work = options.work(&self.train, &self.dev);
        let done_before = self.clock.as_ref().map_or(0, |clock| clock.done());
        let clock = self.clock.clone();
        let planned_steps = options.steps_per_epoch(self.train.len()) * options.epochs;
        let optimizer = DecoupledAdamW::new(options.learning_rate, options.weight_decay);
        let schedule = WarmupLinear::new(options.learning_rate, options.warmup, planned_steps);
        let loader = BatchLoader::shuffled(self.train, options.batch_size, options.seed);
        let (epochs, progress) = (options.epochs, self.progress);
        let outcome = Arc::new(Mutex::new(None));
        let strategy = StepStrategy::new(
            options,
            self.dev,
            self.score,
            progress,
            self.clock,
            outcome.clone(),
        );
        let training = SupervisedTraining::new(
            // Nothing is written there: logs are kept in memory, and the best weights too.
            PathBuf::from("."),
            Arc::new(loader),
            Arc::new(BatchLoader::in_order(Vec::new(), 1)),
        )
        .metric_train_numeric(ClassifierStats::loss())
        .metric_train_numeric(burn::train::metric::LearningRateMetric::new())
        .metric_valid_numeric(ClassifierStats::score())
        .with_metric_logger(burn::train::logger::InMemoryMetricLogger::default())
        .with_application_logger(None)
        .renderer(progress.renderer(self.interrupter.clone()))
        .with_interrupter(self.interrupter)
        .with_training_strategy(TrainingStrategy::Custom(Arc::new(strategy)))
        .label(&label)
        .num_epochs(epochs);
        let learner = ClassifierLearner { model }.train();
        let result = training.launch(Learner::new(learner, optimizer.into(), schedule));
        if let Some(clock) = clock {
            // Early stopping and failures leave work undone that the job counted on.
            clock.drop_work(planned_work.saturating_sub(clock.done() - done_before));
        }
        let outcome = outcome
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .take();
        if let Some(error) = result.error {
            return Err(FinetuneError::Training {
                label,
                reason: error.to_string(),
            });
        }
        let trained: Trained = outcome.unwrap_or(Err(FinetuneError::Interrupted(label)))?;
        Ok(trained.finish(planned_steps))
    }

    fn check(&self, model: &SequenceClassifier) -> Result<(), FinetuneError> {
        let label = || self.options.label.clone();
        for (what, samples) in [("training", &self.train), ("dev", &self.dev)] {
            if samples.is_empty() {
                return Err(FinetuneError::Empty {
                    label: label(),
                    what,
                });
            }
        }
        for (setting, value) in [
            ("epochs", self.options.epochs),
            ("batch_size", self.options.batch_size),
        ] {
            if value == 0 {
                return Err(FinetuneError::Zero {
                    label: label(),
                    setting,
                });
            }
        }
        let outputs = model.outputs();
        let scores = matches!(self.train[0].target, Target::Score(_));
        for (index, sample) in self.train.iter().enumerate() {
            let reason = match sample.target {
                Target::Class(class) if !scores && (class as usize) < outputs => continue,
                Target::Score(score) if scores && score.is_finite() && outputs == 1 => continue,
                Target::Class(class) if !scores => {
                    format!("class {class}, but the model has {outputs} outputs")
                }
                Target::Score(score) if scores && outputs == 1 => format!("its score is {score}"),
                Target::Score(_) if scores => {
                    format!("a score, but the model has {outputs} outputs instead of one")
                }
                _ => "some samples have classes and some have scores".to_string(),
            };
            return Err(FinetuneError::Target {
                label: label(),
                index,
                reason,
            });
        }
        Ok(())
    }
}

impl ClassifierStats {
    fn loss() -> SeriesMetric<Self> {
        SeriesMetric::new(
            "Loss",
            None,
            false,
            4,
            |stats: &Self| stats.loss,
            |stats| stats.rows,
        )
    }

    fn score() -> SeriesMetric<Self> {
        SeriesMetric::new(
            "Dev Score",
            None,
            true,
            4,
            |stats: &Self| stats.score,
            |stats| stats.rows,
        )
    }
}
