//! Pretraining of ModernBERT on Burn: from text to a model folder.
//!
//! | module | contents |
//! |---|---|
//! | [`corpus`], [`formats`], [`shard`], [`mixture`], [`tokenize`], [`order`], [`pack`], [`mask`], [`loader`] | the data, from text to masked rows; from `modernbert-data` |
//! | [`optim`], [`schedule`] | StableAdamW and decoupled AdamW; learning rates and batch sizes over a run |
//! | [`recipe`] | a run as a TOML file |
//! | [`engine`] | the one training loop: steps, evaluations, checkpoints, burn-train's dashboard, the log |
//! | [`finetune`] | finetuning of classifiers on that loop |
//! | [`snapshot`] | checkpoints: weights, moments, position and hashes in one folder that appears complete or not at all |
//! | [`run_dir`] | the folder of a run: lock, recipe, history, which checkpoints are kept |
//! | [`saving`] | the folder of a run of one phase that can be resumed |
//! | [`by_position`] | held-out loss by the position of a token in its sequence |
//! | [`recompute`] | gradients with activation checkpointing: only a layer's input is saved |
//! | [`rtd`] | replaced-token detection as a task of the loop |
//! | [`pretrain`] | a recipe from beginning to end, and resuming a run |
//! | [`sweep`] | runs of a grid of settings and seeds: the grid's file, the folder, the comparison of the runs |
//! | [`statistics`] | mean, deviation, paired t-test |
//! | [`tools`] | comparing, averaging, exporting and describing runs and checkpoints |
//!
//! Every random choice of the data is a function of seed, epoch and position.
// The types of wgpu nest deeper than the compiler expects by default.
#![recursion_limit = "256"]

pub mod by_position;
pub mod engine;
pub mod finetune;
pub mod optim;
pub mod pretrain;
pub mod recipe;
pub mod recompute;
pub mod rtd;
pub mod run_dir;
pub mod saving;
pub mod schedule;
pub mod snapshot;
pub mod statistics;
pub mod sweep;
pub mod tools;

pub use modernbert_data::{corpus, formats, loader, mask, mixture, order, pack, shard, tokenize};
