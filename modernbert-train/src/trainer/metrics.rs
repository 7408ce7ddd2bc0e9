//! Numbers of a step as series of burn-train's dashboard.

use burn::tensor::TensorReadError;
use burn::train::metric::state::{FormatOptions, NumericMetricState};
use burn::train::metric::{
    Metric, MetricAttributes, MetricMetadata, MetricName, Numeric, NumericAttributes, NumericEntry,
    SerializedEntry,
};
use std::sync::Arc;

/// What is known about a step (or an evaluation) once it is read back.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct StepStats {
    /// Mean cross-entropy over the labelled tokens, in nats.
    pub loss: f64,
    /// Share of the labelled tokens guessed right.
    pub masked_accuracy: f64,
    /// Learning rate of the step.
    pub lr: Option<f64>,
    /// Tokens per second without padding.
    pub tok_s: Option<f64>,
    /// Share of the time spent waiting for data.
    pub data_wait: Option<f64>,
    /// Model FLOP/s over the device's peak, where the peak is known.
    pub mfu: Option<f64>,
    /// Norm of the last step's gradient.
    pub grad_norm: Option<f64>,
    /// Tokens of the last step, padding included.
    pub batch_tokens: Option<u64>,
    /// Share of the rows that is not padding.
    pub packing: Option<f64>,
    /// Tokens still to be seen.
    pub tokens_left: Option<u64>,
    /// Seconds left at this speed.
    pub seconds_left: Option<f64>,
    /// Number of labelled tokens behind loss and accuracy.
    pub labelled: usize,
}

/// One number of the statistics `S` of a step as a metric.
#[derive(Clone)]
pub struct SeriesMetric<S = StepStats> {
    name: MetricName,
    unit: Option<&'static str>,
    higher_is_better: bool,
    precision: usize,
    pick: fn(&S) -> Option<f64>,
    rows: fn(&S) -> usize,
    state: NumericMetricState,
}

impl SeriesMetric<StepStats> {
    /// Mean loss.
    pub fn loss() -> Self {
        Self::of_step("Loss", None, false, 4, |stats| Some(stats.loss))
    }

    /// Masked accuracy in percent.
    pub fn masked_accuracy() -> Self {
        Self::of_step("Masked Accuracy", Some("%"), true, 2, |stats| {
            Some(100.0 * stats.masked_accuracy)
        })
    }

    /// Learning rate.
    pub fn learning_rate() -> Self {
        Self::of_step("Learning Rate", None, false, 6, |stats| stats.lr)
    }

    /// Tokens per second.
    pub fn tokens_per_second() -> Self {
        Self::of_step("Tokens", Some("tok/s"), true, 0, |stats| stats.tok_s)
    }

    /// Share of the time spent waiting for data, in percent.
    pub fn data_wait() -> Self {
        Self::of_step("Data Wait", Some("%"), false, 2, |stats| {
            stats.data_wait.map(|share| 100.0 * share)
        })
    }

    /// Model FLOP utilisation in percent.
    pub fn mfu() -> Self {
        Self::of_step("MFU", Some("%"), true, 2, |stats| {
            stats.mfu.map(|share| 100.0 * share)
        })
    }

    /// Norm of the gradient.
    pub fn gradient_norm() -> Self {
        Self::of_step("Gradient Norm", None, false, 4, |stats| stats.grad_norm)
    }

    /// Tokens of a step, in thousands, padding included.
    pub fn batch_size() -> Self {
        Self::of_step("Batch Size", Some("k tokens"), true, 1, |stats| {
            stats.batch_tokens.map(|tokens| tokens as f64 / 1e3)
        })
    }

    /// Share of the rows that is not padding, in percent.
    pub fn packing() -> Self {
        Self::of_step("Packing", Some("%"), true, 2, |stats| {
            stats.packing.map(|share| 100.0 * share)
        })
    }

    /// Tokens still to be seen, in millions.
    pub fn tokens_left() -> Self {
        Self::of_step("Tokens Left", Some("M"), false, 3, |stats| {
            stats.tokens_left.map(|tokens| tokens as f64 / 1e6)
        })
    }

    /// Time left at the present speed, in minutes.
    pub fn time_left() -> Self {
        Self::of_step("Time Left", Some("min"), false, 1, |stats| {
            stats.seconds_left.map(|seconds| seconds / 60.0)
        })
    }

    fn of_step(
        name: &str,
        unit: Option<&'static str>,
        higher_is_better: bool,
        precision: usize,
        pick: fn(&StepStats) -> Option<f64>,
    ) -> Self {
        Self::new(name, unit, higher_is_better, precision, pick, |stats| {
            stats.labelled
        })
    }
}

impl<S> SeriesMetric<S> {
    /// A series called `name`: `pick` gives its value (`None` where there is none), `rows` how many rows that value is a
    /// mean of, `precision` the digits shown.
    pub fn new(
        name: &str,
        unit: Option<&'static str>,
        higher_is_better: bool,
        precision: usize,
        pick: fn(&S) -> Option<f64>,
        rows: fn(&S) -> usize,
    ) -> Self {
        Self {
            name: Arc::new(name.to_string()),
            unit,
            higher_is_better,
            precision,
            pick,
            rows,
            state: NumericMetricState::new(),
        }
    }

    fn format(&self) -> FormatOptions {
        let format = FormatOptions::new(self.name.clone()).precision(self.precision);
        match self.unit {
            Some(unit) => format.unit(unit),
            None => format,
        }
    }
}

impl<S: Clone + Send + Sync + 'static> Metric for SeriesMetric<S> {
    type Input = S;

    fn name(&self) -> MetricName {
        self.name.clone()
    }

    fn attributes(&self) -> MetricAttributes {
        NumericAttributes {
            unit: self.unit.map(str::to_string),
            higher_is_better: self.higher_is_better,
        }
        .into()
    }

    fn update(
        &mut self,
        stats: &S,
        _metadata: &MetricMetadata,
    ) -> Result<SerializedEntry, TensorReadError> {
        let Some(value) = (self.pick)(stats) else {
            return Ok(SerializedEntry::not_available(self.unit));
        };
        self.state.update(value, (self.rows)(stats).max(1));
        Ok(self.state.compute_update(self.format()))
    }

    fn compute(&mut self) -> Result<SerializedEntry, TensorReadError> {
        Ok(self.state.compute_final(self.format()))
    }

    fn clear(&mut self) {
        self.state.reset();
    }
}

impl<S: Clone + Send + Sync + 'static> Numeric for SeriesMetric<S> {
    fn value(&self) -> Option<NumericEntry> {
        Some(self.state.current_value()).filter(|value| value.current().is_finite())
    }

    fn running_value(&self) -> Option<NumericEntry> {
        Some(self.state.running_value()).filter(|value| value.current().is_finite())
    }

    fn final_value(&self) -> NumericEntry {
        self.state.final_value()
    }
}
