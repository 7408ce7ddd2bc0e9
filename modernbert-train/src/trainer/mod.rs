//! Training inside burn-train: the model as a learner, a step-based strategy, metrics, the dashboard and the log.
//!
//! Burn's stock loop counts epochs; pretraining counts tokens. [`TokenStrategy`] is a custom strategy of burn-train: it keeps
//! the dashboard and the metrics, and owns micro-batches, token counting, evaluation by token interval, the log, and the moments at
//! which the run is saved.

mod budget;
mod dashboard;
mod evaluate;
mod learner;
mod loaders;
mod log;
mod looping;
mod metrics;
mod peaks;
mod progress;
mod readback;
mod schedule;
mod strategy;
#[cfg(test)]
mod tests;
mod window;

pub use budget::TokenBudget;
pub use dashboard::Dashboard;
pub use evaluate::evaluate;
pub use learner::{MlmLearner, MlmStepOutput};
pub use loaders::{FixedLoader, RowLoader};
pub use log::{LogRow, MetricsLog, read_log};
pub use metrics::{SeriesMetric, StepStats};
pub(crate) use peaks::cuda_name;
pub use peaks::peak_tflops;
pub use progress::{Progress, QuietRenderer};
pub use schedule::TokenScheduler;
pub use strategy::{
    Outcome, SaveHook, SavePolicy, StepFlops, TokenStrategy, TokenStrategyOptions, TrainingReport,
};
