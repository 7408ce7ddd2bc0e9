//! Training data: from text files to masked, packed rows of token ids. No tensor library.
//!
//! | module | contents |
//! |---|---|
//! | [`formats`] | rows of text, JSONL, CSV, TSV and Parquet; documents of these and of MDS; labelled tables |
//! | [`corpus`] | documents from files, folders and the cargo registry; a held-out split |
//! | [`shard`] | token shards: tokenized samples in one memory-mapped, hashed file |
//! | [`mixture`], [`tokenize`] | sources in their proportions, and text of any size to a folder of shards |
//! | [`order`] | the shuffle |
//! | [`pack`] | greedy best-fit packing into rows of fixed length |
//! | [`mask`] | masking, 80/10/10, by counter-based random streams |
//! | [`loader`] | shards to masked rows, on separate threads; resumable positions |
//!
//! Data flows in one direction: `formats` → `corpus` → `shard` → `order` → `pack` → `mask` → `loader`, and modules depend in that direction
//! alone. Every random choice is a function of seed, epoch and position.

pub mod corpus;
pub mod formats;
pub mod loader;
pub mod mask;
pub mod mixture;
pub mod order;
pub mod pack;
pub mod shard;
pub mod tokenize;
