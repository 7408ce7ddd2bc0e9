//! The training loop.

use burn::module::Module;
use burn::optim::GradientsParams;
use burn::tensor::{Device, Tensor};
use burn::train::Interrupter;
use ranks::{Ranks, tree};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::time::{Duration, Instant};

use super::cadence::{Cadence, Due, Moment, Unit};
use super::early_stopping::EarlyStopping;
use super::error::{EngineError, Failure, panic_text};
use super::finite::non_finite_parameter;
use super::interrupt::Training;
use super::log::LogRow;
use super::memory::memory_mib;
use super::over_ranks::{accumulate, reduce};
use super::readback::{Pending, read_back};
use super::reporter::Reporter;
use super::spikes::{SpikeLimit, Spikes};
use super::task::{Evaluation, EvaluationError, Sums, Task};
use super::window::Window;
use crate::optim::{GradientSquares, NamedOptimizer, clip_by_norm};
use crate::schedule::{LearningRate, Shortened};
use crate::snapshot::RunState;
use modernbert_cli::text::{human_count, human_seconds};

/// Settings of the loop.
#[derive(Clone, Debug)]
pub struct Settings {
    /// The intervals.
    pub cadence: Cadence,
    /// The learning rate as a function of the units seen.
    pub learning_rate: LearningRate,
    /// Gradients of a larger norm are scaled down to this norm.
    pub max_grad_norm: Option<f64>,
    /// Which losses are spikes, whose updates are skipped.
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
pub struct Report {
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
pub struct Outcome<T: Task> {
    /// The task, with the weights it kept.
    pub task: T,
    /// The model with its last weights, on a device without gradients.
    pub model: T::Model,
    /// The optimizer with its moments.
    pub optimizer: NamedOptimizer,
    /// Position, counts and sums of the run.
    pub state: RunState,
    /// Counts of this process.
    pub report: Report,
}

/// Training of one phase; see the [module](super).
pub struct Loop<T: Task> {
    task: T,
    settings: Settings,
    optimizer: NamedOptimizer,
    state: RunState,
    reporter: Reporter,
    interrupter: Interrupter,
    /// The processes that train together.
    ranks: Arc<Ranks>,
    report: Report,
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
        settings: Settings,
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
            report: Report::default(),
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

    /// Trains together with other ranks; see the [module](super).
    pub fn over(mut self, ranks: Arc<Ranks>) -> Self {
        self.ranks = ranks;
        self
    }

    /// Trains until the phase has seen its total, early stopping ends it, or the interrupter stops it. The end of the phase is
    /// evaluated; in each case a checkpoint is written.
    ///
    /// # Errors
    /// Data, device or files that can't be used; a non-finite loss, gradient, parameter or evaluation. Checkpoints of earlier steps stay
    /// complete.
    pub fn run(mut self, model: T::Model) -> Result<Outcome<T>, Failure> {
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
                return Ok(Outcome {
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
            model = self.step(model)?;
            self.after_step(&model)?;
        }
        self.finish(&model)?;
        Ok(model)
    }

    /// Units of the phase seen.
    fn seen(&self) -> u64 {
        match self.settings.cadence.unit {
            Unit::Tokens => self.state.phase_tokens,
            Unit::Steps => self.state.step,
        }
    }

    /// Units of the phase.
    fn total(&self) -> u64 {
        self.state.phase_total
    }

    fn ended(&self) -> bool {
        self.seen() >= self.total() || self.report.stopped_early
    }

    /// One optimizer step: micro-batches, their gradients, the update.
    fn step(&mut self, model: T::Model) -> Result<T::Model, EngineError> {
        let asked = Instant::now();
        let seen = self.seen();
        let batches = self.task.next_step(&self.state, seen);
        let batches = batches
            .map_err(EngineError::Data)?
            .ok_or(EngineError::DataEnded)?;
        let counts = self.task.counts(&batches);
        let known = Window {
            tokens: counts.tokens,
            timed_tokens: counts.tokens,
            slots: counts.slots,
            weight: counts.weight,
            flops: counts.flops,
            waited: asked.elapsed(),
            ..Window::default()
        };
        self.batch_tokens = counts.slots;

        let (sums, mut gradients) = self.gradients(&model, batches)?;
        let squares = GradientSquares::of(&model, &gradients);
        let step = self.state.step + 1;
        let mut pending = Pending::new(step, sums, &squares, known);
        let all_finite = self.all_finite.take().map(|flag| pending.gate(flag));
        self.all_finite.clone_from(&all_finite);
        let late = all_finite.is_some();
        let mut apply = all_finite;
        if let Some(spikes) = &mut self.spikes {
            let applied = spikes.judge(pending.loss());
            pending = pending.with_spikes(applied.clone(), spikes);
            apply = Some(match apply {
                Some(finite) => finite * applied,
                None => applied,
            });
        }
        self.pending.push(pending);
        // Without the flag, a non-finite value is found before the weights change.
        if !late {
            self.read_back()?;
        }
        if let Some(limit) = self.settings.max_grad_norm {
            gradients = clip_by_norm(&model, gradients, &squares, limit);
        }
        self.state.step = step;
        self.state.tokens += counts.tokens;
        self.state.phase_tokens += counts.tokens;
        self.state.rows += counts.rows;
        self.state.position = counts.position;
        let (after, total) = (self.seen(), self.total());
        let shortened = self.state.shortened;
        let rate = self
            .settings
            .learning_rate
            .of_step(seen, after, total, shortened);
        self.rate = Some(rate);
        let model = self.optimizer.step_if(apply, rate, model, gradients);
        self.state.optimizer_updates = self.optimizer.updates();
        self.steps_here += 1;
        self.report.tokens += counts.tokens;
        Ok(model)
    }

    /// Sums and gradients of a step. The code that uses them does not depend on the number of ranks.
    fn gradients(
        &self,
        model: &T::Model,
        mut batches: Vec<T::Batch>,
    ) -> Result<(Vec<Sums>, GradientsParams), EngineError> {
        if !self.ranks.is_several() {
            return Ok(self.task.step(model, batches));
        }
        if !T::OVER_RANKS {
            return Err(EngineError::OneProcess);
        }
        let leaves = batches.len();
        let own = tree::share(leaves, self.ranks.rank(), self.ranks.size());
        let mine = batches.drain(own.clone()).collect();
        let (sums, parts) = accumulate(&self.task, model, mine, leaves, &own);
        reduce(&self.ranks, model, leaves, sums, parts)
    }

    /// Whether a signal or a key asks for the end, on any rank.
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

    /// Reads back the losses and norms that are still on the device.
    fn read_back(&mut self) -> Result<(), EngineError> {
        let [time] = self.agreed([self.mark.elapsed()])?;
        self.mark = Instant::now();
        for window in read_back(std::mem::take(&mut self.pending), time)? {
            self.state.first_loss.get_or_insert(window.loss());
            if self.measured_from.is_some() {
                self.measured.add(&window);
            }
            self.window.add(&window);
            if window.spikes.is_some() {
                self.state.spikes = window.spikes;
            }
            self.state.phase_seconds += window.time.as_secs_f64();
            self.report.seconds += window.time.as_secs_f64();
        }
        Ok(())
    }

    fn moment(&self) -> Result<Moment, EngineError> {
        let trained = Duration::from_secs_f64(self.state.phase_seconds) + self.mark.elapsed();
        let [since_save, trained] = self.agreed([self.last_save.elapsed(), trained])?;
        Ok(Moment {
            step: self.state.step,
            steps_here: self.steps_here,
            seen: self.seen(),
            total: self.total(),
            next_evaluation: self.state.next_evaluation,
            unlogged: self.window.steps + self.pending.len() as u64,
            unread: self.pending.len() as u64,
            since_save,
            trained,
            fitted: self.state.fitted,
            measured_from: self.measured_from,
        })
    }

    /// Performs the actions due between two steps, in the order of [`Due`].
    fn after_step(&mut self, model: &T::Model) -> Result<(), EngineError> {
        let moment = self.moment()?;
        let due: Due = self.settings.cadence.due(&moment);
        if due.read {
            self.read_back()?;
        }
        if due.measure {
            self.measured_from = Some(self.steps_here);
        }
        if due.fit {
            self.fit_to_time(moment);
        }
        if due.log {
            self.log_window()?;
        }
        if due.evaluate {
            let (next, seen) = (self.state.next_evaluation, self.seen());
            self.state.next_evaluation = self.settings.cadence.next_evaluation(next, seen);
            self.evaluation(model)?;
        }
        // Fitting to the time limit may have ended the phase; its checkpoint then follows its evaluation.
        if due.save && self.settings.saves && !self.ended() {
            if due.evaluate_for_save && self.state.eval_step != Some(self.state.step) {
                self.evaluation(model)?;
            }
            self.save(model)?;
        }
        Ok(())
    }

    /// Ends the phase or an interrupted run: evaluates a phase that is done, and saves in either case.
    fn finish(&mut self, model: &T::Model) -> Result<(), EngineError> {
        self.read_back()?;
        if self.ended() {
            if self.state.eval_step != Some(self.state.step) || self.steps_here == 0 {
                self.evaluation(model)?;
            }
            if !self.settings.saves {
                self.check_parameters(model)?;
            }
            self.state.phase_done = true;
            return self.save(model);
        }
        self.report.interrupted = true;
        if self.saved_step != Some(self.state.step) && self.state.step > 0 {
            self.save(model)?;
        }
        Ok(())
    }

    /// Fails where a parameter is not finite.
    fn check_parameters(&self, model: &T::Model) -> Result<(), EngineError> {
        let step = self.state.step;
        match non_finite_parameter(model)? {
            Some(name) => Err(EngineError::Diverged { step, name }),
            None => Ok(()),
        }
    }

    fn save(&mut self, model: &T::Model) -> Result<(), EngineError> {
        if !self.settings.saves {
            return Ok(());
        }
        self.check_parameters(model)?;
        self.state.window = self.window.save();
        self.reporter.synchronize()?;
        self.task
            .save(model, &self.optimizer, &self.state)
            .map_err(EngineError::Save)?;
        // No rank goes on before the checkpoint is complete.
        self.ranks.barrier()?;
        self.saved_step = Some(self.state.step);
        self.last_save = Instant::now();
        self.mark = Instant::now();
        Ok(())
    }

    /// Lowers the phase's total when the measured speed shows that the phase would not end in time.
    fn fit_to_time(&mut self, moment: Moment) {
        self.state.fitted = true;
        let seconds = self.measured.time.as_secs_f64().max(1e-9);
        let (units, unit) = match self.settings.cadence.unit {
            Unit::Tokens => (self.measured.timed_tokens, "tok/s"),
            Unit::Steps => (self.measured.steps, "steps/s"),
        };
        let speed = units as f64 / seconds;
        let moment = Moment {
            trained: Duration::from_secs_f64(self.state.phase_seconds),
            ..moment
        };
        let Some(total) = self.settings.cadence.fitted_total(&moment, speed) else {
            return;
        };
        let limit = self.settings.cadence.time_limit.unwrap_or_default();
        let name = match self.settings.cadence.unit {
            Unit::Tokens => "tokens",
            Unit::Steps => "steps",
        };
        self.reporter.line(&format!(
            "this machine does {} {unit}: the run is shortened from {} to {} {name} to end within {}",
            human_count(speed as u64),
            human_count(self.total()),
            human_count(total),
            human_seconds(limit.as_secs_f64()),
        ));
        self.state.shortened = Some(Shortened {
            seen: self.seen(),
            planned: self.total(),
        });
        self.state.phase_total = total;
        self.task.shortened(total);
    }

    /// Writes and shows the sums since the last row of the log.
    fn log_window(&mut self) -> Result<(), EngineError> {
        let window = std::mem::take(&mut self.window);
        let (seen, total) = (self.seen(), self.total());
        let left = total.saturating_sub(seen);
        let (tokens_left, units) = match self.settings.cadence.unit {
            Unit::Tokens => (left, window.timed_tokens),
            Unit::Steps => {
                let per_step = self.state.tokens as f64 / self.state.step.max(1) as f64;
                ((left as f64 * per_step) as u64, window.steps)
            }
        };
        let row = window.row(self.settings.peak_flops, T::COUNTS_CORRECT);
        let speed = units as f64 / window.time.as_secs_f64().max(1e-9);
        let rate = &self.settings.learning_rate;
        let at = || rate.at_shortened(seen, total, self.state.shortened);
        let row = LogRow {
            lr: Some(self.rate.unwrap_or_else(at)),
            memory_mib: memory_mib(&self.device),
            skipped: self.spikes.is_some().then_some(window.skipped),
            batch_tokens: Some(self.batch_tokens),
            tokens_left: Some(tokens_left),
            seconds_left: Some(left as f64 / speed.max(1e-9)),
            ..self.row("train", row)
        };
        self.task.logged(self.state.step, window.loss());
        self.reporter.train(&row, window.weight, (seen, total))?;
        Ok(())
    }

    fn row(&self, split: &str, row: LogRow) -> LogRow {
        LogRow {
            split: split.to_string(),
            step: self.state.step,
            tokens: self.state.tokens,
            phase: Some(self.state.phase_name.clone()),
            ..row
        }
    }

    /// Evaluates, records the result, and updates early stopping.
    fn evaluation(&mut self, model: &T::Model) -> Result<(), EngineError> {
        let items = self.task.evaluation_items();
        self.reporter.begin_evaluation(items);
        let step = self.state.step;
        let model = model.valid();
        let evaluation = self.task.evaluate(&model, step);
        let evaluation = evaluation.map_err(|error| match error {
            EvaluationError::NotFinite { what, value } => {
                EngineError::DivergedEvaluation { step, what, value }
            }
            EvaluationError::Other(source) => EngineError::Evaluation { step, source },
        })?;
        let better = T::SCORED && self.stopping.judge(evaluation.score);
        if T::SCORED {
            if better {
                self.task.keep_best(model);
            }
            self.state.best_score_bits = self.stopping.best.map(f64::to_bits);
            self.state.unimproved = self.stopping.unimproved;
            self.report.stopped_early = self.stopping.stops();
        }
        let Evaluation {
            loss,
            accuracy,
            score,
            ..
        } = evaluation;
        let row = LogRow {
            loss,
            masked_accuracy: accuracy,
            score,
            ..LogRow::default()
        };
        let row = self.row("eval", row);
        let goes_on = !self.ended() && !self.interrupter.should_stop();
        let next = goes_on.then(|| self.total());
        self.reporter
            .evaluated(&row, &evaluation, (self.seen(), self.total()), better, next)?;
        self.state.eval_loss = loss;
        self.state.eval_accuracy = accuracy;
        self.state.eval_step = Some(step);
        self.mark = Instant::now();
        Ok(())
    }
}
