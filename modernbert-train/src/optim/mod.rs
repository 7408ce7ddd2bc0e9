//! Optimizers that Burn does not have, and their state under the names of checkpoint files.
//!
//! Path of a learning rate: `optimizer.learning_rate` of the recipe →
//! [`Recipe::learning_rate`](crate::recipe::Recipe::learning_rate) → [`LearningRate::at`](crate::schedule::LearningRate::at) in the
//! training loop → [`NamedOptimizer::step_if`] → [`UpdateRule`] → [`adamw_all`](modernbert::ops::optimizer::adamw_all).

mod average;
mod decoupled_adamw;
mod gradients;
mod optimizer;
mod rule;
mod stable_adamw;
#[cfg(test)]
mod tests;
#[cfg(test)]
mod traces;

pub use average::AverageSettings;
pub use decoupled_adamw::DecoupledAdamW;
pub use gradients::{GradientSquares, clip_by_norm};
pub use optimizer::{MomentsError, NamedOptimizer, StoredTensor};
pub use rule::{MomentsState, UpdateRule};
pub use stable_adamw::{StableAdamW, StableAdamWConfig};
