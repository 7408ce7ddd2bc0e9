//! Training inside burn-train: the model as a learner, a step-based strategy, metrics, the dashboard and the log.
//!
//! Burn's stock loop counts epochs; pretraining counts tokens. [`TokenStrategy`] is a custom strategy of burn-train: it keeps
//! the dashboard and the metrics, and owns micro-batches, token counting, evaluation by token interval and the log.

mod budget;
mod learner;
mod log;
mod metrics;
mod progress;
mod schedule;
mod strategy;

pub use budget::TokenBudget;
pub use learner::{MlmLearner, MlmStepOutput};
pub use log::{LogRow, MetricsLog, read_log};
pub use metrics::{SeriesMetric, StepStats};
pub use progress::{Progress, QuietRenderer, human_count, human_seconds};
pub use schedule::TokenScheduler;
pub use strategy::{StepFlops, TokenStrategy, TokenStrategyOptions, TrainingReport, evaluate};
