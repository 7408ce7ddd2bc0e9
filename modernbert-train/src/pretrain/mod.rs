//! A recipe from beginning to end: corpus, tokenizer, shards, model, the phases of training, model folder, picture.
//!
//! | page | what it does |
//! |---|---|
//! | [`prepare`](prepare()) | text to tokenizer and shards |
//! | [`pretrain`], [`resume`], [`start_from`], [`roll_back`] | begin a run, go on with one, begin one from a checkpoint of another |
//! | `phase` | one phase inside burn-train |
//! | `handover` | the same weights under the next phase's config |

mod handover;
mod launch;
mod memory;
mod phase;
mod prepare;
mod samples;
mod start;
mod tokens;
mod unigram;

pub use launch::{PretrainEnd, PretrainOptions, PretrainSummary};
pub use memory::TrainingMemory;
pub use phase::is_training;
pub use prepare::{PhaseData, Prepared, SHARDS, is_prepared, prepare, reopen};
pub use samples::{MaskedLine, masked_lines};
pub use start::{anneal_model_recipe, anneal_recipe, pretrain, resume, roll_back, start_from};
pub use unigram::{Unigram, UnigramScore};

pub use crate::run_dir::{METRICS_FILE, PICTURE_FILE, RECIPE_FILE};
