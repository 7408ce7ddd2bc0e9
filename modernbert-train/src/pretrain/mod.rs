//! Pretraining by a recipe: corpus, tokenizer, shards, model, the phases of training, model folder, plot of the loss.
//!
//! | module | contents |
//! |---|---|
//! | [`prepare`](prepare()), `tokens` | text, or a folder of token shards, to tokenizer and samples |
//! | [`pretrain`], [`resume`], [`start_from`], [`roll_back`] | start a run, resume one, start one from a checkpoint of another |
//! | `launch`, `phase` | the phases in order; one phase in the training loop |
//! | `mlm` | masked language modeling as a [`Task`](crate::engine::Task) |
//! | `transition` | the same weights under the next phase's config |
//! | `unigram`, `samples` | the baseline; held-out predictions |
//! | `memory` | bytes that a recipe needs |

mod error;
mod launch;
mod memory;
mod mlm;
mod phase;
mod prepare;
mod samples;
mod start;
#[cfg(test)]
mod tests;
mod tokens;
mod transition;
mod unigram;

pub use error::{LossPlotError, PretrainError};
pub use launch::{PretrainEnd, PretrainOptions, PretrainSummary};
pub use memory::TrainingMemory;
pub use prepare::{PhaseData, RunData, SHARDS, is_prepared, prepare, reopen};
pub use samples::{MaskedLine, masked_lines};
pub use start::{anneal_model_recipe, anneal_recipe, pretrain, resume, roll_back, start_from};
pub use unigram::{Unigram, UnigramScore};

pub use crate::run_dir::{METRICS_FILE, PICTURE_FILE, RECIPE_FILE};
