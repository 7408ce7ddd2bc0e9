//! The training loop: steps of several micro-batches, evaluation by token interval, a log, saves.

use burn::data::dataloader::{DataLoaderIterator, Progress as ItemProgress};
use burn::module::Module;
use burn::optim::GradientsAccumulator;
use burn::tensor::Tensor;
use burn::train::{
    EventProcessorTraining, Interrupter, LearnerEvent, SupervisedTrainingEventProcessor,
    TrainLoader, TrainStep, TrainingItem, ValidLoader,
};
use std::sync::Arc;
use std::time::{Duration, Instant};

use super::evaluate::evaluate;
use super::learner::{MlmLearner, MlmStepOutput};
use super::log::LogRow;
use super::metrics::StepStats;
use super::readback::{Pending, read_back};
use super::strategy::{Outcome, TokenStrategyOptions, TrainingReport};
use super::window::Window;
use crate::loader::MlmItem;
use crate::optim::{GradientSquares, clip_by_norm};
use crate::snapshot::RunState;
use modernbert_cli::text::{human_count, human_seconds};

type Processor = SupervisedTrainingEventProcessor<MlmLearner>;
type Data<'a> = Box<dyn DataLoaderIterator<MlmItem> + 'a>;

/// Steps, and share of the limit of time, that are not counted when the speed is first measured: kernels are compiled, caches and
/// allocators warm up.
const WARM: (u64, f64) = (3, 0.02);
/// Steps after those, and share of the limit of time in all, after which the speed is taken as known.
const MEASURED: (u64, f64) = (9, 0.05);
/// Share of the limit after which it is taken as known whatever the number of steps.
const LATEST: f64 = 0.25;

pub(super) struct Loop {
    options: TokenStrategyOptions,
    processor: Processor,
    interrupter: Interrupter,
    report: TrainingReport,
    state: RunState,
    epoch: usize,
    /// Steps of this process.
    steps_here: u64,
    window: Window,
    /// The step of this process from which on the speed is measured.
    warm_at: Option<u64>,
    measured: Window,
    pending: Vec<Pending>,
    /// 1 on the device while every number of every step was finite; where losses are read back late, the optimizer asks it.
    go: Tensor<1>,
    names: Arc<[String]>,
    /// When the steps began that are not read back yet.
    mark: Instant,
    last_save: Instant,
    saved_step: u64,
    batch_tokens: u64,
}

impl Loop {
    pub(super) fn new(
        options: TokenStrategyOptions,
        processor: Processor,
        interrupter: Interrupter,
    ) -> Self {
        let state = options.state.clone();
        Self {
            processor,
            interrupter,
            report: TrainingReport::default(),
            epoch: 1,
            steps_here: 0,
            window: Window::restored(&state.window),
            warm_at: None,
            measured: Window::default(),
            pending: Vec::new(),
            go: Tensor::ones([1], &options.device.clone().inner()),
            names: Arc::from([]),
            mark: Instant::now(),
            last_save: Instant::now(),
            saved_step: state.step,
            batch_tokens: 0,
            state,
            options,
        }
    }

    pub(super) fn train(
        mut self,
        mut model: MlmLearner,
        train: &TrainLoader<MlmLearner>,
        valid: &ValidLoader<MlmLearner>,
    ) -> (MlmLearner, Processor, Outcome) {
        let mut data = train.iter();
        self.start_split();
        self.mark = Instant::now();
        let mut result = Ok(());
        while result.is_ok() && !self.spent() && !self.interrupter.should_stop() {
            (model, result) = self.step(model, &mut data);
            if result.is_ok() {
                result = self.after_step(&model, valid);
            }
        }
        if result.is_ok() {
            result = self.finish(&model, valid);
        }
        if let Err(failure) = result {
            self.report.failure = Some(failure);
        }
        let outcome = Outcome {
            optimizer: self.options.optimizer,
            state: self.state,
            report: self.report,
        };
        (model, self.processor, outcome)
    }

    fn spent(&self) -> bool {
        self.options.budget.is_spent()
    }

    /// One optimizer step.
    fn step(&mut self, model: MlmLearner, data: &mut Data<'_>) -> (MlmLearner, Result<(), String>) {
        let asked = Instant::now();
        let rows = self.options.batch.size(self.options.budget.seen());
        let items = match self.items(data, rows) {
            Ok(items) => items,
            Err(failure) => return (model, Err(failure)),
        };
        let tokens: u64 = items.iter().map(|item| item.real_tokens as u64).sum();
        let known = Window {
            tokens,
            timed_tokens: tokens,
            slots: items.iter().map(|item| item.input_ids.len() as u64).sum(),
            labelled: items.iter().map(|item| item.labelled as u64).sum(),
            flops: (self.options.step_flops)(&items),
            waited: asked.elapsed(),
            ..Window::default()
        };
        self.batch_tokens = known.slots;
        let position = items.last().and_then(|item| item.position_after(1));

        let mut accumulator = GradientsAccumulator::new();
        let mut outputs: Vec<MlmStepOutput> = Vec::with_capacity(rows);
        for item in items {
            let output = TrainStep::step(&model, item);
            accumulator.accumulate(&model, output.grads);
            outputs.push(output.item);
        }
        let mut grads = accumulator.grads();
        let squares = GradientSquares::of(&model.model, &grads);
        if self.names.len() != squares.names.len() {
            self.names = squares.names.clone().into();
        }
        let (step, names) = (self.state.step + 1, self.names.clone());
        let pending = Pending::new(step, outputs, &squares, names, known);
        // Where losses are read later, a step with a number that isn't finite is left out by the device.
        let go = (self.options.read_every > 1).then(|| pending.gate(self.go.clone()));
        if let Some(go) = &go {
            self.go = go.clone();
        }
        self.pending.push(pending);
        // Where reading costs nothing, a number that isn't finite is noticed before the weights change.
        if self.options.read_every <= 1
            && let Err(failure) = self.read_back()
        {
            return (model, Err(failure));
        }
        if let Some(limit) = self.options.max_grad_norm {
            grads = clip_by_norm(&model.model, grads, &squares, limit);
        }
        // The step's tokens count before its rate is asked for: a warmup that starts from zero moves at once.
        self.options.budget.add(tokens);
        let lr = self.options.scheduler.current();
        let model = MlmLearner {
            model: self.options.optimizer.step_if(go, lr, model.model, grads),
        };
        self.state.step = step;
        self.state.tokens += tokens;
        self.state.phase_tokens += tokens;
        self.state.rows += rows as u64;
        self.state.position = position;
        self.state.optimizer_updates = self.options.optimizer.updates();
        self.steps_here += 1;
        self.report.tokens += tokens;
        (model, Ok(()))
    }

    /// The rows of a step, each with the labelled tokens of all of them as its denominator: micro-batches then add up to the
    /// token-exact mean.
    fn items(&self, data: &mut Data<'_>, rows: usize) -> Result<Vec<MlmItem>, String> {
        let mut items = Vec::with_capacity(rows);
        for _ in 0..rows {
            match data.next() {
                Some(Ok(item)) => items.push(item),
                Some(Err(error)) => return Err(error.to_string()),
                None => return Err("the data ended before the run did".to_string()),
            }
        }
        MlmItem::share_denominator(&mut items);
        Ok(items)
    }

    /// Reads back what is still on the device.
    fn read_back(&mut self) -> Result<(), String> {
        let time = self.mark.elapsed();
        self.mark = Instant::now();
        for window in read_back(std::mem::take(&mut self.pending), time)? {
            let loss = window.loss_sum / window.labelled.max(1) as f64;
            self.state.first_loss.get_or_insert(loss);
            if self.warm_at.is_some() {
                self.measured.add(&window);
            }
            self.window.add(&window);
            self.state.phase_seconds += window.time.as_secs_f64();
            self.report.seconds += window.time.as_secs_f64();
        }
        Ok(())
    }

    /// Everything that may be due between two steps: reading back, fitting to time, a log row, an evaluation, a save.
    fn after_step(
        &mut self,
        model: &MlmLearner,
        valid: &ValidLoader<MlmLearner>,
    ) -> Result<(), String> {
        let spent = self.share_of_time();
        let (steps_here, fitted) = (self.steps_here, self.state.fitted);
        let fits = !fitted
            && self.warm_at.is_some_and(|warm| {
                let enough = steps_here >= warm + MEASURED.0 && spent >= MEASURED.1;
                enough || (steps_here > warm && spent >= LATEST)
            });
        // What compiling takes in the first steps must not be averaged into the speed.
        let warm = !fitted && self.warm_at.is_none() && steps_here >= WARM.0 && spent >= WARM.1;
        let steps = self.window.steps + self.pending.len() as u64;
        let logs = steps >= self.options.log_every || self.spent();
        let evaluates = self.state.phase_tokens >= self.state.next_evaluation && !self.spent();
        let by_step = self
            .options
            .policy
            .every_steps
            .is_some_and(|every| self.state.step.is_multiple_of(every));
        let saves = by_step || self.last_save.elapsed() >= self.options.policy.every;
        let reads = self.pending.len() as u64 >= self.options.read_every;
        if reads || warm || fits || logs || evaluates || saves {
            self.read_back()?;
        }
        if warm {
            self.warm_at = Some(steps_here);
        }
        if fits {
            self.fit_to_time();
        }
        if logs {
            self.log_window()?;
        }
        if evaluates {
            while self.state.next_evaluation <= self.state.phase_tokens {
                self.state.next_evaluation += self.options.eval_every;
            }
            self.evaluation(model, valid)?;
        }
        // At the end of the phase the save waits for the evaluation there.
        if saves && !self.spent() {
            let known = self.state.eval_step == Some(self.state.step);
            if by_step && self.options.policy.evaluated && !known {
                self.evaluation(model, valid)?;
            }
            self.save(model)?;
        }
        Ok(())
    }

    /// The end of the phase, or of the process's patience: evaluation where the phase is done, and a save in either case.
    fn finish(
        &mut self,
        model: &MlmLearner,
        valid: &ValidLoader<MlmLearner>,
    ) -> Result<(), String> {
        self.read_back()?;
        if self.spent() {
            if self.state.eval_step != Some(self.state.step) || self.steps_here == 0 {
                self.evaluation(model, valid)?;
            }
            self.state.phase_done = true;
            return self.save(model);
        }
        self.report.interrupted = true;
        if self.state.step > self.saved_step {
            self.save(model)?;
        }
        Ok(())
    }

    fn save(&mut self, model: &MlmLearner) -> Result<(), String> {
        self.state.window = self.window.save();
        self.state.phase_total = self.options.budget.total();
        self.options
            .log
            .synchronise()
            .map_err(|error| error.to_string())?;
        (self.options.save)(&model.model, &self.options.optimizer, &self.state)?;
        self.saved_step = self.state.step;
        self.last_save = Instant::now();
        self.mark = Instant::now();
        Ok(())
    }

    /// Share of the limit of time that the phase has taken; 1 without a limit.
    fn share_of_time(&self) -> f64 {
        let seconds = self.state.phase_seconds + self.mark.elapsed().as_secs_f64();
        let limit = self.options.max_time.map(|limit| limit.as_secs_f64());
        limit.map_or(1.0, |limit| seconds / limit.max(1e-9))
    }

    /// Shortens the phase when the measured speed says that it wouldn't end in time.
    fn fit_to_time(&mut self) {
        self.state.fitted = true;
        let Some(limit) = self.options.max_time else {
            return;
        };
        let seconds = self.measured.time.as_secs_f64().max(1e-9);
        let speed = self.measured.timed_tokens as f64 / seconds;
        let left = limit.saturating_sub(Duration::from_secs_f64(self.state.phase_seconds));
        let budget = &self.options.budget;
        // A few percent are kept for evaluations.
        let possible = budget.seen() + (0.95 * left.as_secs_f64() * speed) as u64;
        if possible < budget.total() {
            self.options.progress.line(&format!(
                "this machine does {} tok/s: the run is shortened from {} to {} tokens to end within {}",
                human_count(speed as u64),
                human_count(budget.total()),
                human_count(possible),
                human_seconds(limit.as_secs_f64()),
            ));
            budget.shorten(possible);
        }
    }

    fn log_window(&mut self) -> Result<(), String> {
        let window = std::mem::take(&mut self.window);
        let mut stats = window.stats(self.options.peak_flops);
        let budget = &self.options.budget;
        let left = budget.total().saturating_sub(budget.seen());
        stats.lr = Some(self.options.scheduler.current());
        stats.batch_tokens = Some(self.batch_tokens);
        stats.tokens_left = Some(left);
        stats.seconds_left = stats.tok_s.map(|speed| left as f64 / speed.max(1e-9));
        self.record("train", &stats)?;
        self.show(stats);
        Ok(())
    }

    /// Evaluates, records, and starts the next stretch of the dashboard.
    fn evaluation(
        &mut self,
        learner: &MlmLearner,
        valid: &ValidLoader<MlmLearner>,
    ) -> Result<(), String> {
        let total_items = valid.num_items();
        self.send_train(LearnerEvent::EndSplit(self.epoch));
        let result = self.processor.process_valid(LearnerEvent::StartSplit {
            epoch_number: self.epoch,
            total_items,
        });
        self.interrupter.fail_on_error(result);
        let stats = evaluate(&learner.clone().valid(), valid)?;
        self.record("eval", &stats)?;
        self.state.eval_loss = Some(stats.loss);
        self.state.eval_accuracy = Some(stats.masked_accuracy);
        self.state.eval_step = Some(self.state.step);
        self.options.progress.line(&format!(
            "eval  step {:>6}  tokens {:>8}  loss {:.4}  accuracy {:.1} %",
            self.state.step,
            human_count(self.state.tokens),
            stats.loss,
            100.0 * stats.masked_accuracy
        ));
        let item = TrainingItem::new(
            MlmStepOutput::of_stats(stats.clone(), &self.options.device),
            ItemProgress::new(total_items, total_items, Some("batches".to_string())),
            Some(self.state.step as usize),
            None,
        );
        for event in [
            LearnerEvent::ProcessedItem(item),
            LearnerEvent::EndSplit(self.epoch),
        ] {
            let result = self.processor.process_valid(event);
            self.interrupter.fail_on_error(result);
        }
        self.report.last_evaluation = Some(stats);
        self.send_train(LearnerEvent::EndEpoch(self.epoch));
        self.epoch += 1;
        if !self.spent() && !self.interrupter.should_stop() {
            self.start_split();
        }
        self.mark = Instant::now();
        Ok(())
    }

    fn start_split(&mut self) {
        let total = self.options.budget.total() as usize;
        self.send_train(LearnerEvent::StartSplit {
            epoch_number: self.epoch,
            total_items: total,
        });
    }

    fn show(&mut self, stats: StepStats) {
        let budget = self.options.budget.clone();
        let mfu = stats
            .mfu
            .map_or(String::new(), |mfu| format!("  mfu {:.1} %", 100.0 * mfu));
        self.options.progress.line(&format!(
            "train step {:>6}  tokens {:>8} of {}  loss {:.4}  accuracy {:.1} %  lr {:.2e}  norm {:.2}  batch {}  packed {:.1} %  \
             {:>7} tok/s  wait {:.1} %{mfu}  left {}",
            self.state.step,
            human_count(budget.seen()),
            human_count(budget.total()),
            stats.loss,
            100.0 * stats.masked_accuracy,
            stats.lr.unwrap_or(0.0),
            stats.grad_norm.unwrap_or(0.0),
            human_count(self.batch_tokens),
            100.0 * stats.packing.unwrap_or(0.0),
            human_count(stats.tok_s.unwrap_or(0.0) as u64),
            100.0 * stats.data_wait.unwrap_or(0.0),
            human_seconds(stats.seconds_left.unwrap_or(0.0)),
        ));
        let (seen, total) = (budget.seen() as usize, budget.total() as usize);
        let item = MlmStepOutput::of_stats(stats, &self.options.device);
        let item = TrainingItem::new(
            item,
            ItemProgress::new(seen.min(total), total, Some("tokens".to_string())),
            Some(self.state.step as usize),
            Some(self.options.scheduler.current().into()),
        );
        self.send_train(LearnerEvent::ProcessedItem(item));
    }

    fn send_train(&mut self, event: LearnerEvent<MlmStepOutput>) {
        let result = self.processor.process_train(event);
        self.interrupter.fail_on_error(result);
    }

    fn record(&mut self, split: &str, stats: &StepStats) -> Result<(), String> {
        let row = LogRow {
            split: split.to_string(),
            step: self.state.step,
            tokens: self.state.tokens,
            loss: stats.loss,
            masked_accuracy: stats.masked_accuracy,
            lr: stats.lr,
            tok_s: stats.tok_s,
            data_wait: stats.data_wait,
            mfu: stats.mfu,
            phase: Some(self.state.phase_name.clone()),
            grad_norm: stats.grad_norm,
            batch_tokens: stats.batch_tokens,
            packing: stats.packing,
            tokens_left: stats.tokens_left,
            seconds_left: stats.seconds_left,
        };
        self.options
            .log
            .append(&row)
            .map_err(|error| error.to_string())
    }
}
