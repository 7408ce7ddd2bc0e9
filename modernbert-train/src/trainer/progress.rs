//! What a person sees: burn-train's dashboard on a terminal, plain lines otherwise.

use burn::train::Interrupter;
use burn::train::logger::{EvaluationProgressLogger, TrainingProgressLogger};
use burn::train::metric::MetricDefinition;
use burn::train::renderer::{
    EvaluationName, MetricState, MetricsRenderer, MetricsRendererEvaluation,
    MetricsRendererTraining,
};
use std::io::IsTerminal;

use super::Dashboard;

/// How progress is shown.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Progress {
    /// burn-train's dashboard.
    Dashboard,
    /// A line every few steps on standard output.
    Lines,
    /// Nothing; for tests and for programs that read the log.
    Silent,
}

impl Progress {
    /// The dashboard on a terminal, lines otherwise.
    pub fn detect() -> Self {
        if std::io::stdout().is_terminal() {
            Self::Dashboard
        } else {
            Self::Lines
        }
    }

    /// What burn-train draws on: the dashboard until it is dropped, or nothing.
    pub(crate) fn renderer(self, interrupter: Interrupter) -> Box<dyn MetricsRenderer> {
        match self {
            Self::Dashboard => Box::new(Dashboard::new(interrupter)),
            Self::Lines | Self::Silent => Box::new(QuietRenderer),
        }
    }

    /// Prints a line of a training loop, unless the dashboard owns the screen or nothing is to be shown.
    pub fn line(self, text: &str) {
        if self == Self::Lines {
            self.note(text);
        }
    }

    /// Prints a line before or after a training loop, where there is no dashboard to disturb.
    #[allow(clippy::print_stdout)] // this is the one place where the trainer prints
    pub fn note(self, text: &str) {
        if self != Self::Silent {
            println!("{text}");
        }
    }
}

/// A renderer that shows nothing, for runs whose progress is lines of our own.
pub struct QuietRenderer;

impl MetricsRendererTraining for QuietRenderer {
    fn update_train(&mut self, _state: MetricState) {}
    fn update_valid(&mut self, _state: MetricState) {}
}

impl MetricsRendererEvaluation for QuietRenderer {
    fn update_test(&mut self, _name: EvaluationName, _state: MetricState) {}
}

impl TrainingProgressLogger for QuietRenderer {
    fn start(
        &mut self,
        _epochs: usize,
        _first: usize,
        _items: Option<usize>,
        _label: Option<&str>,
    ) {
    }
    fn start_split(&mut self, _name: &str, _items: usize) {}
    fn update_split(&mut self, _items: usize) {}
    fn update_epoch(&mut self, _epoch: usize) {}
    fn end_split(&mut self) {}
    fn end(&mut self) {}
    fn log_event_training(&mut self, _event: String) {}
}

impl EvaluationProgressLogger for QuietRenderer {
    fn start_global_progress(&mut self, _tests: usize) {}
    fn start_test(&mut self, _name: &str, _items: usize) {}
    fn update_test_progress(&mut self, _items: usize) {}
    fn end_test(&mut self) {}
    fn end_global_progress(&mut self) {}
    fn log_event_evaluation(&mut self, _event: String) {}
}

impl MetricsRenderer for QuietRenderer {
    fn manual_close(&mut self) {}
    fn register_metric(&mut self, _definition: MetricDefinition) {}
}
