//! What the fuzz targets share.
//!
//! This crate compiles the pages that read files, from where they stand, and nothing else: building it with the fuzzer's
//! instrumentation takes a minute, where all of Burn would take half an hour. Those pages use no other part of the project.
#![allow(dead_code, missing_docs, unreachable_pub)]

// The shard's pages call the model crate by its name; here that is this crate.
extern crate self as modernbert;

pub mod checkpoint;
#[path = "../../modernbert/src/config/mod.rs"]
pub mod config;
pub mod memory;
pub mod shard;
#[path = "../../modernbert/src/tokenizer/mod.rs"]
pub mod tokenizer;

use std::path::PathBuf;

/// A folder in memory where there is one, for targets that read files.
pub fn scratch() -> PathBuf {
    let memory = PathBuf::from("/dev/shm");
    let base = if memory.is_dir() { memory } else { std::env::temp_dir() };
    let folder = base.join(format!("modernbert-fuzz-{}", std::process::id()));
    std::fs::create_dir_all(&folder).expect("a folder to write to");
    folder
}
