//! The training loop: steps of several micro-batches, evaluation by token interval, a log.

use burn::data::dataloader::Progress as ItemProgress;
use burn::module::Module;
use burn::optim::GradientsAccumulator;
use burn::tensor::Device;
use burn::train::{
    EventProcessorTraining, InferenceStep, Learner, LearnerEvent, SupervisedLearningStrategy,
    SupervisedTrainingEventProcessor, TrainLoader, TrainingComponents, TrainingItem, ValidLoader,
};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use super::TokenBudget;
use super::learner::{MlmLearner, MlmStepOutput};
use super::log::{LogRow, MetricsLog};
use super::metrics::StepStats;
use super::progress::{Progress, human_count, human_seconds};
use super::schedule::TokenScheduler;
use crate::loader::MlmItem;

/// FLOP of a step, from its micro-batches.
pub type StepFlops = Box<dyn Fn(&[MlmItem]) -> f64 + Send + Sync>;

/// Settings of the loop.
pub struct TokenStrategyOptions {
    /// Device to train on.
    pub device: Device,
    /// Tokens seen and to be seen.
    pub budget: TokenBudget,
    /// The schedule given to the learner; the loop reads the rate from it.
    pub scheduler: TokenScheduler,
    /// Micro-batches of a step.
    pub micro_batches: usize,
    /// Tokens between evaluations.
    pub eval_every: u64,
    /// Steps between lines and log rows.
    pub log_every: u64,
    /// Wall-clock limit: when the speed measured in the first steps says that the run would take longer, its total is
    /// shortened once, before the schedule has left its warmup, so that the decay is still completed.
    pub max_time: Option<Duration>,
    /// FLOP of a step's forward and backward as a function of its micro-batches, for MFU.
    pub step_flops: StepFlops,
    /// Peak FLOP/s of the device, if known.
    pub peak_flops: Option<f64>,
    /// Where rows go.
    pub log: MetricsLog,
    /// How progress is shown.
    pub progress: Progress,
}

/// What a finished (or interrupted) loop leaves behind.
#[derive(Clone, Debug, Default)]
pub struct TrainingReport {
    /// Optimizer steps done.
    pub steps: u64,
    /// Loss of the first step.
    pub first_loss: Option<f64>,
    /// Statistics of the last evaluation.
    pub last_evaluation: Option<StepStats>,
    /// Real tokens per second over the whole loop, evaluation left out.
    pub tok_s: f64,
    /// Why the loop stopped early, if a number stopped being one or data failed.
    pub failure: Option<String>,
}

/// burn-train's strategy for pretraining; see the room's page.
pub struct TokenStrategy {
    state: Mutex<TokenStrategyOptions>,
    report: Arc<Mutex<TrainingReport>>,
}

impl TokenStrategy {
    /// A strategy, and the report it fills in.
    pub fn new(options: TokenStrategyOptions) -> (Self, Arc<Mutex<TrainingReport>>) {
        let report = Arc::new(Mutex::new(TrainingReport::default()));
        let strategy = Self {
            state: Mutex::new(options),
            report: report.clone(),
        };
        (strategy, report)
    }
}

type Processor = SupervisedTrainingEventProcessor<MlmLearner>;

/// Steps whose time is not counted when the speed is first measured: caches and allocators warm up.
const WARM_STEPS: u64 = 3;
/// Steps after which the speed is taken as known.
const MEASURED_STEPS: u64 = 12;

impl SupervisedLearningStrategy<MlmLearner> for TokenStrategy {
    fn fit(
        &self,
        components: TrainingComponents<MlmLearner>,
        mut learner: Learner<MlmLearner>,
        train: TrainLoader<MlmLearner>,
        valid: ValidLoader<MlmLearner>,
        _starting_epoch: usize,
    ) -> (MlmLearner, Processor) {
        let mut options = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        let mut run = Loop {
            options: &mut options,
            processor: components.event_processor,
            interrupter: components.interrupter,
            report: TrainingReport::default(),
            epoch: 1,
            training_time: Duration::ZERO,
        };
        let device = run.options.device.clone();
        let device = if device.is_autodiff() {
            device
        } else {
            device.autodiff()
        };
        learner.fork(&device);
        run.train(&mut learner, &train, &valid);
        *self.report.lock().unwrap_or_else(PoisonError::into_inner) = run.report;
        (learner.model(), run.processor)
    }
}

struct Loop<'a> {
    options: &'a mut TokenStrategyOptions,
    processor: Processor,
    interrupter: burn::train::Interrupter,
    report: TrainingReport,
    epoch: usize,
    training_time: Duration,
}

/// Sums over the steps since the last log row.
#[derive(Default)]
struct Window {
    loss_sum: f64,
    correct: f64,
    labelled: usize,
    tokens: u64,
    flops: f64,
    waited: Duration,
    time: Duration,
    steps: u64,
}

impl Loop<'_> {
    fn train(
        &mut self,
        learner: &mut Learner<MlmLearner>,
        train: &TrainLoader<MlmLearner>,
        valid: &ValidLoader<MlmLearner>,
    ) {
        let mut data = train.iter();
        let mut window = Window::default();
        let mut measured = Window::default();
        let mut next_evaluation = self.options.eval_every;
        self.start_split();
        while !self.options.budget.is_spent() && !self.interrupter.should_stop() {
            let step = match self.step(learner, &mut data) {
                Ok(step) => step,
                Err(failure) => {
                    self.report.failure = Some(failure);
                    break;
                }
            };
            self.report
                .first_loss
                .get_or_insert(step.loss_sum / step.labelled.max(1) as f64);
            if self.report.steps > WARM_STEPS {
                measured.add(&step);
            }
            window.add(&step);
            if self.report.steps == MEASURED_STEPS {
                self.fit_to_time(&measured);
            }
            let budget = &self.options.budget;
            if window.steps >= self.options.log_every || budget.is_spent() {
                let stats = self.stats(&std::mem::take(&mut window));
                self.record("train", &stats);
                self.show(stats);
            }
            if self.options.budget.seen() >= next_evaluation && !self.options.budget.is_spent() {
                next_evaluation += self.options.eval_every;
                self.evaluation(learner, valid);
            }
        }
        if self.report.failure.is_none() && self.report.steps > 0 {
            self.evaluation(learner, valid);
        }
        let seconds = self.training_time.as_secs_f64();
        self.report.tok_s = self.options.budget.seen() as f64 / seconds.max(1e-9);
    }

    /// One optimizer step; the loss is read back, checked and counted before the weights change.
    fn step(
        &mut self,
        learner: &mut Learner<MlmLearner>,
        data: &mut Box<dyn burn::data::dataloader::DataLoaderIterator<MlmItem> + '_>,
    ) -> Result<Window, String> {
        let started = Instant::now();
        let mut items = Vec::with_capacity(self.options.micro_batches);
        for _ in 0..self.options.micro_batches {
            match data.next() {
                Some(Ok(item)) => items.push(item),
                Some(Err(error)) => return Err(error.to_string()),
                None => return Err("the data ended before the run did".to_string()),
            }
        }
        let mut window = Window {
            waited: started.elapsed(),
            tokens: items.iter().map(|item| item.real_tokens as u64).sum(),
            labelled: items.iter().map(|item| item.labelled).sum(),
            flops: (self.options.step_flops)(&items),
            steps: 1,
            ..Window::default()
        };
        let mut accumulator = GradientsAccumulator::new();
        let mut outputs: Vec<MlmStepOutput> = Vec::with_capacity(items.len());
        for item in items {
            let output = learner.train_step(item);
            accumulator.accumulate(&learner.model(), output.grads);
            outputs.push(output.item);
        }
        for output in outputs {
            window.loss_sum += read(output.loss_sum)?;
            window.correct += read(output.correct)?;
        }
        let step = self.report.steps + 1;
        if !window.loss_sum.is_finite() {
            return Err(format!(
                "the loss of step {step} is {}; the weights were left as they were before it. Lower \
                 optimizer.learning_rate or look at the data of this step",
                window.loss_sum
            ));
        }
        // The step's tokens count before its rate is asked for: a warmup that starts from zero moves at once.
        self.options.budget.add(window.tokens);
        learner.lr_step();
        learner.optimizer_step(accumulator.grads());
        self.report.steps = step;
        window.time = started.elapsed();
        self.training_time += window.time;
        Ok(window)
    }

    /// Shortens the run when the measured speed says that it wouldn't end in time.
    fn fit_to_time(&mut self, measured: &Window) {
        let Some(limit) = self.options.max_time else {
            return;
        };
        let speed = measured.tokens as f64 / measured.time.as_secs_f64().max(1e-9);
        let left = limit.saturating_sub(self.training_time).as_secs_f64();
        let budget = &self.options.budget;
        // A few percent are kept for evaluations.
        let possible = budget.seen() + (0.95 * left * speed) as u64;
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

    fn stats(&self, window: &Window) -> StepStats {
        let seconds = window.time.as_secs_f64().max(1e-9);
        let labelled = window.labelled.max(1) as f64;
        StepStats {
            loss: window.loss_sum / labelled,
            masked_accuracy: window.correct / labelled,
            lr: Some(self.options.scheduler.current()),
            tok_s: Some(window.tokens as f64 / seconds),
            data_wait: Some(window.waited.as_secs_f64() / seconds),
            mfu: self
                .options
                .peak_flops
                .map(|peak| window.flops / seconds / peak),
            labelled: window.labelled,
        }
    }

    /// Evaluates, records, and starts the next stretch of the dashboard.
    fn evaluation(&mut self, learner: &Learner<MlmLearner>, valid: &ValidLoader<MlmLearner>) {
        let total_items = valid.num_items();
        self.send_train(LearnerEvent::EndSplit(self.epoch));
        let result = self.processor.process_valid(LearnerEvent::StartSplit {
            epoch_number: self.epoch,
            total_items,
        });
        self.interrupter.fail_on_error(result);
        let model = learner.model().valid();
        match evaluate(&model, valid) {
            Err(failure) => self.report.failure = Some(failure),
            Ok(stats) => {
                self.record("eval", &stats);
                let budget = &self.options.budget;
                self.options.progress.line(&format!(
                    "eval  step {:>6}  tokens {:>8}  loss {:.4}  accuracy {:.1} %",
                    self.report.steps,
                    human_count(budget.seen()),
                    stats.loss,
                    100.0 * stats.masked_accuracy
                ));
                let item = TrainingItem::new(
                    MlmStepOutput::of_stats(stats.clone(), &self.options.device),
                    ItemProgress::new(total_items, total_items, Some("batches".to_string())),
                    Some(self.report.steps as usize),
                    None,
                );
                let result = self
                    .processor
                    .process_valid(LearnerEvent::ProcessedItem(item));
                self.interrupter.fail_on_error(result);
                self.report.last_evaluation = Some(stats);
            }
        }
        let result = self
            .processor
            .process_valid(LearnerEvent::EndSplit(self.epoch));
        self.interrupter.fail_on_error(result);
        self.send_train(LearnerEvent::EndEpoch(self.epoch));
        self.epoch += 1;
        if !self.options.budget.is_spent() && !self.interrupter.should_stop() {
            self.start_split();
        }
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
        let speed = stats.tok_s.unwrap_or(0.0);
        let left = budget.total().saturating_sub(budget.seen()) as f64 / speed.max(1e-9);
        let mfu = stats
            .mfu
            .map_or(String::new(), |mfu| format!("  mfu {:.1} %", 100.0 * mfu));
        self.options.progress.line(&format!(
            "train step {:>6}  tokens {:>8} of {}  loss {:.4}  accuracy {:.1} %  lr {:.2e}  {:>7} tok/s  wait {:.1} %{mfu}  left {}",
            self.report.steps,
            human_count(budget.seen()),
            human_count(budget.total()),
            stats.loss,
            100.0 * stats.masked_accuracy,
            stats.lr.unwrap_or(0.0),
            human_count(speed as u64),
            100.0 * stats.data_wait.unwrap_or(0.0),
            human_seconds(left),
        ));
        let (seen, total) = (budget.seen() as usize, budget.total() as usize);
        let item = MlmStepOutput::of_stats(stats, &self.options.device);
        let item = TrainingItem::new(
            item,
            ItemProgress::new(seen.min(total), total, Some("tokens".to_string())),
            Some(self.report.steps as usize),
            Some(self.options.scheduler.current().into()),
        );
        self.send_train(LearnerEvent::ProcessedItem(item));
    }

    fn send_train(&mut self, event: LearnerEvent<MlmStepOutput>) {
        let result = self.processor.process_train(event);
        self.interrupter.fail_on_error(result);
    }

    fn record(&mut self, split: &str, stats: &StepStats) {
        let row = LogRow {
            split: split.to_string(),
            step: self.report.steps,
            tokens: self.options.budget.seen(),
            loss: stats.loss,
            masked_accuracy: stats.masked_accuracy,
            lr: stats.lr,
            tok_s: stats.tok_s,
            data_wait: stats.data_wait,
            mfu: stats.mfu,
        };
        if let Err(error) = self.options.log.append(&row) {
            self.report.failure = Some(error.to_string());
            self.interrupter
                .stop(Some("the metrics log can't be written"));
        }
    }
}

impl Window {
    fn add(&mut self, other: &Self) {
        self.loss_sum += other.loss_sum;
        self.correct += other.correct;
        self.labelled += other.labelled;
        self.tokens += other.tokens;
        self.flops += other.flops;
        self.waited += other.waited;
        self.time += other.time;
        self.steps += other.steps;
    }
}

/// Mean loss and accuracy over all labelled tokens of a loader.
///
/// # Errors
/// Data or a device that can't be read, in words.
pub fn evaluate(model: &MlmLearner, valid: &ValidLoader<MlmLearner>) -> Result<StepStats, String> {
    let (mut loss, mut correct, mut labelled) = (0.0, 0.0, 0);
    for item in valid.iter() {
        let item = item.map_err(|error| error.to_string())?;
        labelled += item.labelled;
        let output = InferenceStep::step(model, item);
        loss += read(output.loss_sum)?;
        correct += read(output.correct)?;
    }
    let count = labelled.max(1) as f64;
    Ok(StepStats {
        loss: loss / count,
        masked_accuracy: correct / count,
        labelled,
        ..StepStats::default()
    })
}

fn read(sum: burn::tensor::Tensor<1>) -> Result<f64, String> {
    sum.try_into_scalar::<f64>()
        .map_err(|error| format!("the device could not be read: {error}"))
}
