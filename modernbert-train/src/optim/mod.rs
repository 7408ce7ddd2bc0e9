//! Optimizers that Burn doesn't have.

mod decoupled_adamw;
mod stable_adamw;
#[cfg(test)]
mod tests;

pub use decoupled_adamw::DecoupledAdamW;
pub use stable_adamw::{MomentsState, StableAdamW, StableAdamWConfig};
