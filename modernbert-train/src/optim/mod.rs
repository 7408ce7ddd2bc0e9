//! Optimizers that Burn doesn't have, one of them with its state under the names of checkpoint files.

mod decoupled_adamw;
mod gradients;
mod named;
mod stable_adamw;
#[cfg(test)]
mod tests;

pub use decoupled_adamw::DecoupledAdamW;
pub use gradients::{GradientSquares, clip_by_norm};
pub use named::{MomentsError, NamedStableAdamW, StoredTensor};
pub use stable_adamw::{MomentsState, StableAdamW, StableAdamWConfig};
