//! burn-train's dashboard, shared with those who have something to say between two steps.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use burn::train::logger::{EvaluationProgressLogger, TrainingProgressLogger};
use burn::train::metric::MetricDefinition;
use burn::train::renderer::{
    EvaluationName, MetricState, MetricsRenderer, MetricsRendererEvaluation,
    MetricsRendererTraining, default_renderer,
};
use burn::train::{Interrupter, LearnerSummary};

use modernbert_cli::compiling::{Listener, announce_to};

type SharedRenderer = Arc<Mutex<Box<dyn MetricsRenderer>>>;

/// burn-train's own renderer of a terminal, on which compilations of kernels are counted too.
pub struct Dashboard {
    renderer: SharedRenderer,
    /// Registered for compilations while the dashboard lives.
    _listener: Arc<Listener>,
}

impl Dashboard {
    /// Takes the screen until it is dropped.
    pub fn new(interrupter: Interrupter) -> Self {
        let shared = Arc::new(Mutex::new(default_renderer(interrupter, None)));
        let renderer = shared.clone();
        let listener: Arc<Listener> = Arc::new(move |event| {
            let mut renderer = renderer.lock().unwrap_or_else(PoisonError::into_inner);
            renderer.log_event_training(event);
        });
        announce_to(&listener);
        Self {
            renderer: shared,
            _listener: listener,
        }
    }

    fn inner(&self) -> MutexGuard<'_, Box<dyn MetricsRenderer>> {
        self.renderer.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

type Ended = Result<(), Box<dyn core::error::Error>>;

impl MetricsRendererTraining for Dashboard {
    fn update_train(&mut self, state: MetricState) {
        self.inner().update_train(state);
    }
    fn update_valid(&mut self, state: MetricState) {
        self.inner().update_valid(state);
    }
    fn on_train_end(&mut self, summary: Option<LearnerSummary>) -> Ended {
        self.inner().on_train_end(summary)
    }
}

impl MetricsRendererEvaluation for Dashboard {
    fn update_test(&mut self, name: EvaluationName, state: MetricState) {
        self.inner().update_test(name, state);
    }
    fn on_test_end(&mut self, summary: Option<LearnerSummary>) -> Ended {
        self.inner().on_test_end(summary)
    }
}

impl MetricsRenderer for Dashboard {
    fn manual_close(&mut self) {
        self.inner().manual_close();
    }
    fn register_metric(&mut self, definition: MetricDefinition) {
        self.inner().register_metric(definition);
    }
}

impl TrainingProgressLogger for Dashboard {
    fn start(&mut self, epochs: usize, first: usize, items: Option<usize>, label: Option<&str>) {
        self.inner().start(epochs, first, items, label);
    }
    fn update_epoch(&mut self, epoch: usize) {
        self.inner().update_epoch(epoch);
    }
    fn start_split(&mut self, split: &str, items: usize) {
        self.inner().start_split(split, items);
    }
    fn update_split(&mut self, items: usize) {
        self.inner().update_split(items);
    }
    fn end_split(&mut self) {
        self.inner().end_split();
    }
    fn end(&mut self) {
        self.inner().end();
    }
    fn log_event_training(&mut self, event: String) {
        self.inner().log_event_training(event);
    }
}

impl EvaluationProgressLogger for Dashboard {
    fn start_global_progress(&mut self, tests: usize) {
        self.inner().start_global_progress(tests);
    }
    fn start_test(&mut self, name: &str, items: usize) {
        self.inner().start_test(name, items);
    }
    fn update_test_progress(&mut self, items: usize) {
        self.inner().update_test_progress(items);
    }
    fn end_test(&mut self) {
        self.inner().end_test();
    }
    fn end_global_progress(&mut self) {
        self.inner().end_global_progress();
    }
    fn log_event_evaluation(&mut self, event: String) {
        self.inner().log_event_evaluation(event);
    }
}
