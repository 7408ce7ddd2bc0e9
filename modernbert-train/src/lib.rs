//! Pretraining of ModernBERT on Burn: from text to a model folder.
//!
//! | room | what it holds |
//! |---|---|
//! | [`corpus`] | documents from files, folders and the cargo registry; a held-out split |
//! | [`formats`] | text files, rows of JSON, Parquet and MDS as one stream of records |
//! | [`shard`] | token shards: tokenised samples in one memory-mapped, hashed file |
//! | [`mixture`], [`tokenize`] | sources in their proportions, and text of any size to a folder of shards |
//! | [`order`] | the shuffle |
//! | [`pack`] | greedy best-fit packing into rows of fixed length |
//! | [`mask`] | masking, 80/10/10, by counter-based random streams |
//! | [`loader`] | the three together, on a thread of its own |
//! | [`optim`], [`schedule`] | StableAdamW; warmup, plateau and 1-sqrt decay in tokens |
//! | [`recipe`] | a run as a TOML file |
//! | [`trainer`] | the loop inside burn-train, its dashboard and its log |
//! | [`finetune`] | the loop every finetuning shares |
//! | [`snapshot`] | checkpoints: weights, moments, position and hashes in one folder that appears whole or not at all |
//! | [`run_dir`] | the folder of a run: lock, recipe, history, which checkpoints are kept |
//! | [`by_position`] | held-out loss by where in its sequence a token stands |
//! | [`recompute`] | gradients with activation checkpointing: a layer keeps its input alone |
//! | [`report`] | pictures |
//! | [`pretrain`] | a recipe from beginning to end, and a run from where it stopped |
//! | [`tools`] | comparing, averaging, exporting and describing what runs leave behind |
//!
//! Text flows one way: `corpus` → `shard` → `order` → `pack` → `mask` → `loader` → `trainer`. Every random choice on it is
//! a function of seed, epoch and position.
// The types of wgpu nest deeper than the compiler expects by default.
#![recursion_limit = "256"]

pub mod by_position;
pub mod finetune;
pub mod optim;
pub mod pretrain;
pub mod recipe;
pub mod recompute;
pub mod run_dir;
pub mod schedule;
pub mod snapshot;
pub mod tools;
pub mod trainer;

pub use modernbert_data::{corpus, formats, loader, mask, mixture, order, pack, shard, tokenize};
