//! Finetuning of sequence classifiers on the [training loop](crate::engine).
//!
//! Sequences are grouped by length and packed, so that a step computes on real tokens alone. The learning rate rises linearly and falls
//! linearly to zero; the optimizer is decoupled AdamW. The dev set is scored every so many steps, and the weights with the best score
//! are the result, whether training runs to its end, is stopped early, or is interrupted. With a folder ([`Saving`]) the run has a
//! `metrics.jsonl` and checkpoints, and a run that was killed goes on bit for bit.
//!
//! | module | contents |
//! |---|---|
//! | [`Sample`], [`Target`], [`encode`] | texts to labelled sequences, truncated and counted |
//! | [`table`] | rows of CSV, TSV and JSONL files with labels of one's own |
//! | [`Finetuning`], [`FinetuneOptions`] | data, score and settings of a run, and the run |
//! | [`Saving`] | the run's folder: checkpoints, resuming |
//! | [`Batches`] | the micro-batches of each step |
//! | [`predict`], [`classes`], [`scores`] | outputs for sequences, and their meaning |
//! | [`JobClock`] | time left over several finetunings |

mod batches;
mod clock;
mod encode;
mod error;
mod options;
mod predict;
mod run;
mod saving;
pub mod table;
mod task;
#[cfg(test)]
mod tests;

pub use batches::{Batch, Batches, Sample, Target};
pub use clock::JobClock;
pub use encode::{Encoded, Text, encode};
pub use error::FinetuneError;
pub use options::FinetuneOptions;
pub use predict::{classes, predict, predict_with, scores};
pub use run::{Evaluation, Finetuned, Finetuning, Interruption, Score, Scorer};
pub use saving::{Saving, has_checkpoints, remove_checkpoints};

pub use crate::engine::BoxError;
