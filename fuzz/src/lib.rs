//! Code shared by the fuzz targets.
//!
//! The targets depend on the crates without a tensor library alone: building those with the fuzzer's instrumentation takes a
//! minute or two, where Burn would take half an hour.

pub mod memory;

pub use modernbert_data::{formats, shard};
pub use modernbert_files::{checkpoint, config, tokenizer};

use std::path::PathBuf;

/// A folder in memory, if the system has one, for targets that read files.
pub fn scratch() -> PathBuf {
    let memory = PathBuf::from("/dev/shm");
    let base = if memory.is_dir() { memory } else { std::env::temp_dir() };
    let folder = base.join(format!("modernbert-fuzz-{}", std::process::id()));
    std::fs::create_dir_all(&folder).expect("a folder to write to");
    folder
}
