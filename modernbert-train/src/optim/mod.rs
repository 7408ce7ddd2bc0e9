//! Optimizers that Burn doesn't have.

mod stable_adamw;
#[cfg(test)]
mod tests;

pub use stable_adamw::{StableAdamW, StableAdamWConfig};
