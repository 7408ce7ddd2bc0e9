//! From token shards to masked micro-batches, on separate threads.
//!
//! The stream is a pure function of shards and settings: sources drawn from in their proportions, each in shuffled epochs, packed
//! greedily into rows of a fixed number of tokens, masked with a key per row. One row is one micro-batch. The rows don't depend on the number of loader
//! threads, of ranks, or of rows per step. A run resumes from a [`Position`].

mod error;
mod evaluation;
mod item;
mod options;
mod position;
mod source;
mod stream;
#[cfg(test)]
mod tests;
mod threads;

pub use error::LoaderError;
pub use evaluation::{evaluation_items, evaluation_items_of};
pub use item::MlmItem;
pub use options::{LengthWarmup, LoaderOptions};
pub use position::Position;
pub use source::DataSource;
pub use stream::{TrainSteps, TrainStream};
pub use threads::{Prefetched, TrainLoader};
