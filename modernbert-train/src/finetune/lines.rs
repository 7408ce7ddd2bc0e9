//! Progress of burn-train's stock loop as plain lines, where there is no terminal for the dashboard.

use burn::train::logger::{EvaluationProgressLogger, TrainingProgressLogger};
use burn::train::metric::{MetricDefinition, MetricId, NumericEntry};
use burn::train::renderer::{
    EvaluationName, MetricState, MetricsRenderer, MetricsRendererEvaluation,
    MetricsRendererTraining,
};
use std::collections::HashMap;
use std::time::{Duration, Instant};

use crate::trainer::{Progress, human_seconds};

/// Time between two lines of one epoch.
const INTERVAL: Duration = Duration::from_secs(10);

/// Prints a line every ten seconds and at the end of each epoch's training and evaluation.
pub struct LinesRenderer {
    label: String,
    names: HashMap<MetricId, String>,
    values: Vec<(String, f64)>,
    split: String,
    epoch: usize,
    epochs: usize,
    items: usize,
    done: usize,
    started: Instant,
    last: Instant,
}

impl LinesRenderer {
    /// Lines that begin with `label`.
    pub fn new(label: &str) -> Self {
        Self {
            label: label.to_string(),
            names: HashMap::new(),
            values: Vec::new(),
            split: String::new(),
            epoch: 1,
            epochs: 1,
            items: 0,
            done: 0,
            started: Instant::now(),
            last: Instant::now(),
        }
    }

    fn update(&mut self, state: MetricState) {
        let MetricState::Numeric(entry, Some(value)) = state else {
            return;
        };
        let Some(name) = self.names.get(&entry.metric_id) else {
            return;
        };
        let value = match value {
            NumericEntry::Value(value) | NumericEntry::Final(value) => value,
            NumericEntry::Aggregated {
                aggregated_value, ..
            } => aggregated_value,
        };
        match self.values.iter_mut().find(|(known, _)| known == name) {
            Some((_, old)) => *old = value,
            None => self.values.push((name.clone(), value)),
        }
    }

    fn print(&mut self) {
        self.last = Instant::now();
        let seconds = self.started.elapsed().as_secs_f64();
        let left = seconds / self.done.max(1) as f64 * self.items.saturating_sub(self.done) as f64;
        let values: Vec<String> = self
            .values
            .iter()
            .map(|(name, value)| match value.abs() {
                x if x > 0.0 && x < 1e-3 => format!("{} {value:.2e}", name.to_lowercase()),
                _ => format!("{} {value:.4}", name.to_lowercase()),
            })
            .collect();
        Progress::Lines.line(&format!(
            "{} {} epoch {}/{}  {}/{} samples  {}  left {}",
            self.label,
            self.split,
            self.epoch,
            self.epochs,
            self.done,
            self.items,
            values.join("  "),
            human_seconds(left)
        ));
    }
}

impl MetricsRendererTraining for LinesRenderer {
    fn update_train(&mut self, state: MetricState) {
        self.update(state);
    }

    fn update_valid(&mut self, state: MetricState) {
        self.update(state);
    }
}

impl TrainingProgressLogger for LinesRenderer {
    fn start(&mut self, epochs: usize, first: usize, _items: Option<usize>, _label: Option<&str>) {
        (self.epochs, self.epoch) = (epochs, first);
    }

    fn start_split(&mut self, name: &str, items: usize) {
        self.split = name.to_lowercase();
        (self.items, self.done) = (items, 0);
        self.values.clear();
        self.started = Instant::now();
        self.last = self.started;
    }

    fn update_split(&mut self, done: usize) {
        self.done = done;
        if self.last.elapsed() >= INTERVAL {
            self.print();
        }
    }

    fn update_epoch(&mut self, epoch: usize) {
        self.epoch = epoch + 1;
    }

    fn end_split(&mut self) {
        self.print();
    }

    fn end(&mut self) {}

    fn log_event_training(&mut self, _event: String) {}
}

impl EvaluationProgressLogger for LinesRenderer {
    fn start_global_progress(&mut self, _tests: usize) {}
    fn start_test(&mut self, _name: &str, _items: usize) {}
    fn update_test_progress(&mut self, _items: usize) {}
    fn end_test(&mut self) {}
    fn end_global_progress(&mut self) {}
    fn log_event_evaluation(&mut self, _event: String) {}
}

impl MetricsRendererEvaluation for LinesRenderer {
    fn update_test(&mut self, _name: EvaluationName, _state: MetricState) {}
}

impl MetricsRenderer for LinesRenderer {
    fn manual_close(&mut self) {}

    fn register_metric(&mut self, definition: MetricDefinition) {
        self.names
            .insert(definition.metric_id, definition.name.to_string());
    }
}
