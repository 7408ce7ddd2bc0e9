//! burn-train's strategy for pretraining: what it is given, and what it leaves behind.

use burn::tensor::Device;
use burn::train::{
    Learner, SupervisedLearningStrategy, SupervisedTrainingEventProcessor, TrainLoader,
    TrainingComponents, ValidLoader,
};
use modernbert::model::MaskedLm;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use super::TokenBudget;
use super::learner::MlmLearner;
use super::log::MetricsLog;
use super::looping::Loop;
use super::metrics::StepStats;
use super::progress::Progress;
use super::schedule::TokenScheduler;
use crate::loader::MlmItem;
use crate::optim::NamedStableAdamW;
use crate::schedule::BatchWarmup;
use crate::snapshot::RunState;

/// FLOP of a step, from its micro-batches.
pub type StepFlops = Box<dyn Fn(&[MlmItem]) -> f64 + Send + Sync>;

/// Saves the run; gives an error in words. Called between steps, with everything read back.
pub type SaveHook =
    Box<dyn FnMut(&MaskedLm, &NamedStableAdamW, &RunState) -> Result<(), String> + Send>;

/// When the run is saved.
#[derive(Clone, Copy, Debug)]
pub struct SavePolicy {
    /// After every so many steps of the run.
    pub every_steps: Option<u64>,
    /// When the last save is so long ago.
    pub every: Duration,
    /// Whether a save by step is evaluated first.
    pub evaluated: bool,
}

/// Settings of the loop.
pub struct TokenStrategyOptions {
    /// Device to train on.
    pub device: Device,
    /// Tokens seen and to be seen in this phase.
    pub budget: TokenBudget,
    /// The learning rate.
    pub scheduler: TokenScheduler,
    /// The optimizer with its moments; [`Outcome`] gives it back.
    pub optimizer: NamedStableAdamW,
    /// Where the run stands at the start.
    pub state: RunState,
    /// Micro-batches of a step.
    pub batch: BatchWarmup,
    /// Gradients of a larger norm are scaled down to it.
    pub max_grad_norm: Option<f64>,
    /// Tokens between evaluations.
    pub eval_every: u64,
    /// Steps between lines and log rows.
    pub log_every: u64,
    /// Steps after which losses and norms are read back from the device. With 1 they are looked at before the weights change. With
    /// more, the device itself leaves out a step with a number that isn't finite, and all after it; the next reading says so.
    pub read_every: u64,
    /// Limit of time for the phase: when the speed measured in the first steps says that it would take longer, its total is shortened
    /// once, so that a decay is still completed.
    pub max_time: Option<Duration>,
    /// FLOP of a step's forward and backward as a function of its micro-batches, for MFU.
    pub step_flops: StepFlops,
    /// Peak FLOP/s of the device, if known.
    pub peak_flops: Option<f64>,
    /// Where rows go.
    pub log: MetricsLog,
    /// How progress is shown.
    pub progress: Progress,
    /// When the run is saved.
    pub policy: SavePolicy,
    /// How.
    pub save: SaveHook,
}

/// What a finished, interrupted or failed loop leaves behind.
#[derive(Clone, Debug, Default)]
pub struct TrainingReport {
    /// Statistics of the last evaluation in this process.
    pub last_evaluation: Option<StepStats>,
    /// Real tokens trained on by this process.
    pub tokens: u64,
    /// Seconds they took, evaluations and saving left out.
    pub seconds: f64,
    /// Whether the loop stopped because it was asked to.
    pub interrupted: bool,
    /// Why the loop stopped early, if a number stopped being one, data failed or a file couldn't be written.
    pub failure: Option<String>,
}

/// The strategy's results beside the model.
pub struct Outcome {
    /// The optimizer with its moments.
    pub optimizer: NamedStableAdamW,
    /// Where the run stands.
    pub state: RunState,
    /// What happened.
    pub report: TrainingReport,
}

/// burn-train's strategy for pretraining; see the room's page.
pub struct TokenStrategy {
    options: Mutex<Option<TokenStrategyOptions>>,
    outcome: Arc<Mutex<Option<Outcome>>>,
}

impl TokenStrategy {
    /// A strategy for one launch, and the place where it leaves its outcome.
    pub fn new(options: TokenStrategyOptions) -> (Self, Arc<Mutex<Option<Outcome>>>) {
        let outcome = Arc::new(Mutex::new(None));
        let strategy = Self {
            options: Mutex::new(Some(options)),
            outcome: outcome.clone(),
        };
        (strategy, outcome)
    }
}

impl SupervisedLearningStrategy<MlmLearner> for TokenStrategy {
    fn fit(
        &self,
        components: TrainingComponents<MlmLearner>,
        mut learner: Learner<MlmLearner>,
        train: TrainLoader<MlmLearner>,
        valid: ValidLoader<MlmLearner>,
        _starting_epoch: usize,
    ) -> (MlmLearner, SupervisedTrainingEventProcessor<MlmLearner>) {
        let options = self
            .options
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .take();
        let Some(options) = options else {
            // A second launch of the same strategy has nothing to do.
            return (learner.model(), components.event_processor);
        };
        let device = options.device.clone();
        let device = if device.is_autodiff() {
            device
        } else {
            device.autodiff()
        };
        learner.fork(&device);
        let run = Loop::new(options, components.event_processor, components.interrupter);
        let (model, processor, outcome) = run.train(learner.model(), &train, &valid);
        *self.outcome.lock().unwrap_or_else(PoisonError::into_inner) = Some(outcome);
        (model, processor)
    }
}
