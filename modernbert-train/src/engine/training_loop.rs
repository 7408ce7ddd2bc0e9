//! The training loop.
//!
//! | module | contents |
//! |---|---|
//! | this one | [`Loop`], its settings and outcome, the order of steps |
//! | `step` | one optimizer step, readbacks |
//! | `between_steps` | actions between two steps and at the end, checkpoints |
//! | `results` | rows of the log, evaluations |

mod between_steps;
mod results;
mod step;

use burn::module::Module;
use burn::tensor::{Device, Tensor};
use burn::train::Interrupter;
use ranks::Ranks;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::time::{Duration, Instant};

use super::cadence::{Cadence, ProgressUnit};
use super::early_stopping::EarlyStopping;
use super::error::{EngineError, Failure, panic_text};
use super::interrupt::Training;
use super::readback::Pending;
use super::reporter::Reporter;
use super::spikes::{SpikeLimit, Spikes};
use super::task::Task;
use super::transport::GradientSum;
use super::window::Window;
use crate::optim::NamedOptimizer;
use crate::schedule::LearningRate;
use crate::snapshot::RunState;

/// Settings of the loop.
#[derive(Clone, Debug)]
pub struct LoopSettings {
    /// The intervals.
    pub cadence: Cadence,
    /// The learning rate as a function of the units seen.
    pub learning_rate: LearningRate,
    /// Gradients of a larger norm are scaled down to this norm.
    pub max_grad_norm: Option<f64>,
    /// Definition of loss spikes, whose updates are skipped; `None` skips none.
    pub spikes: Option<SpikeLimit>,
    /// Evaluations without a better score after which the run ends.
    pub patience: Option<u64>,
    /// True if checkpoints are written.
    pub saves: bool,
    /// Peak FLOP/s of the device for MFU, if known.
    pub peak_flops: Option<f64>,
}

/// Counts of a loop that ended or was interrupted.
#[derive(Clone, Debug, Default)]
pub struct LoopReport {
    /// Tokens this process trained on, padding not counted.
    pub tokens: u64,
    /// Seconds of training, without evaluations and saving.
    pub seconds: f64,
    /// True if the loop ended because the interrupter asked for it.
    pub interrupted: bool,
    /// True if early stopping ended the run.
    pub stopped_early: bool,
}

/// Results of a loop.
pub struct LoopOutcome<T: Task> {
    /// The task, with the weights it kept.
    pub task: T,
    /// The model with its last weights, on a device without gradients.
    pub model: T::Model,
    /// The optimizer with its moments.
    pub optimizer: NamedOptimizer,
    /// Position, counts and sums of the run.
    pub state: RunState,
    /// Counts of this process.
    pub report: LoopReport,
}

/// Training of one phase; see the [module](super).
pub struct Loop<T: Task> {
    task: T,
    settings: LoopSettings,
    optimizer: NamedOptimizer,
    state: RunState,
    reporter: Reporter,
    interrupter: Interrupter,
    /// The processes that train together.
    ranks: Arc<Ranks>,
    gradient_sum: GradientSum,
    report: LoopReport,
    stopping: EarlyStopping,
    /// Steps of this process.
    steps_here: u64,
    window: Window,
    /// The step of this process after which the speed is measured.
    measured_from: Option<u64>,
    measured: Window,
    pending: Vec<Pending>,
    /// All-finite flag on the device, `[1]`, where losses are read back late: 1 while every loss and gradient of every step was finite.
    /// Otherwise the optimizer skips its update (cf. `found_inf`).
    all_finite: Option<Tensor<1>>,
    spikes: Option<Spikes>,
    device: Device,
    /// Learning rate of the last step.
    rate: Option<f64>,
    /// Start of the steps that are not read back yet.
    mark: Instant,
    last_save: Instant,
    saved_step: Option<u64>,
    batch_tokens: u64,
}

impl<T: Task> Loop<T> {
    /// Creates a loop that continues from `state` with `optimizer`'s moments.
    pub fn new(
        task: T,
        settings: LoopSettings,
        (optimizer, state): (NamedOptimizer, RunState),
        reporter: Reporter,
        interrupter: Interrupter,
    ) -> Self {
        Self {
            task,
            optimizer,
            reporter,
            interrupter,
            ranks: Arc::new(Ranks::single()),
            gradient_sum: GradientSum::default(),
            report: LoopReport::default(),
            stopping: EarlyStopping {
                patience: settings.patience,
                best: state.best_score_bits.map(f64::from_bits),
                unimproved: state.unimproved,
            },
            steps_here: 0,
            window: Window::restored(&state.window),
            measured_from: None,
            measured: Window::default(),
            pending: Vec::new(),
            all_finite: None,
            spikes: None,
            device: Device::default(),
            rate: None,
            mark: Instant::now(),
            last_save: Instant::now(),
            saved_step: (state.step > 0).then_some(state.step),
            batch_tokens: 0,
            state,
            settings,
        }
    }

    /// Trains together with other ranks, whose gradients are summed as `gradient_sum` says; see the [module](super).
    pub fn over(mut self, ranks: Arc<Ranks>, gradient_sum: GradientSum) -> Self {
        self.ranks = ranks;
        self.gradient_sum = gradient_sum;
        self
    }

    /// Trains until the phase has seen its total, early stopping ends it, or the interrupter stops it. The end of the phase is
    /// evaluated; in each case a checkpoint is written.
    ///
    /// # Errors
    /// Data, device or files that can't be used; a non-finite loss, gradient, parameter or evaluation. Checkpoints of earlier steps stay
    /// complete.
    pub fn run(mut self, model: T::Model) -> Result<LoopOutcome<T>, Failure> {
        let device = model.devices().into_iter().next().unwrap_or_default();
        let device = if device.is_autodiff() {
            device
        } else {
            device.autodiff()
        };
        let model = model.train().fork(&device);
        // Where losses are read back late, the device skips the update of a step with a non-finite value.
        let late = self.settings.cadence.read_every > 1;
        self.device = device.inner();
        self.all_finite = late.then(|| Tensor::ones([1], &self.device));
        let saved = self.state.spikes;
        self.spikes = (self.settings.spikes).map(|limit| Spikes::new(limit, saved, &self.device));
        let _training = Training::begin();
        // Backends report an exhausted device by a panic, which must not end the other runs of a job.
        let trained = catch_unwind(AssertUnwindSafe(|| self.train(model)));
        self.reporter.end();
        let error = match trained {
            Ok(Ok(model)) => {
                return Ok(LoopOutcome {
                    model: model.valid(),
                    task: self.task,
                    optimizer: self.optimizer,
                    state: self.state,
                    report: self.report,
                });
            }
            Ok(Err(error)) => error,
            Err(panic) => EngineError::Panicked(panic_text(&*panic)),
        };
        self.ranks.leave(&error.to_string());
        Err(Failure {
            step: self.state.step,
            error,
        })
    }

    fn train(&mut self, mut model: T::Model) -> Result<T::Model, EngineError> {
        self.reporter.begin(self.total());
        self.mark = Instant::now();
        while !self.ended() && !self.should_stop()? {
            // Once more, because the actions after a step may have changed the total.
            model = self.task.adapt(model, self.seen());
            model = self.step(model)?;
            model = self.task.adapt(model, self.seen());
            self.after_step(&model)?;
        }
        self.finish(&model)?;
        Ok(model)
    }

    /// Units of the phase seen.
    fn seen(&self) -> u64 {
        match self.settings.cadence.unit {
            ProgressUnit::Tokens => self.state.phase_tokens,
            ProgressUnit::Steps => self.state.step,
        }
    }

    /// Units of the phase.
    fn total(&self) -> u64 {
        self.state.phase_total
    }

    fn ended(&self) -> bool {
        self.seen() >= self.total() || self.report.stopped_early
    }

    /// Returns whether a signal or a key asks for the end, on any rank.
    fn should_stop(&self) -> Result<bool, EngineError> {
        let own = self.interrupter.should_stop();
        if !self.ranks.is_several() {
            return Ok(own);
        }
        let all = self.ranks.all_gather(&[u8::from(own)])?;
        Ok(all.iter().any(|one| one.first() == Some(&1)))
    }

    /// Rank 0's durations: actions that depend on a clock are the same on all ranks.
    fn agreed<const N: usize>(&self, own: [Duration; N]) -> Result<[Duration; N], EngineError> {
        if !self.ranks.is_several() {
            return Ok(own);
        }
        let message: Vec<u8> = own
            .iter()
            .flat_map(|one| (one.as_nanos() as u64).to_le_bytes())
            .collect();
        let first = self.ranks.broadcast(&message)?;
        let (nanos, _) = first.as_chunks::<8>();
        let at = |i: usize| nanos.get(i).map_or(0, |&bytes| u64::from_le_bytes(bytes));
        Ok(std::array::from_fn(|i| Duration::from_nanos(at(i))))
    }
}
