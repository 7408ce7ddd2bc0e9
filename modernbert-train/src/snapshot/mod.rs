//! Checkpoints of a run: one folder each, which appears complete or not at all.
//!
//! | file | content |
//! |---|---|
//! | `model.safetensors`, `config.json` | the weights, as in any model folder |
//! | `optimizer.safetensors` | both moments of every parameter, `NAME.moment_1` and `NAME.moment_2` |
//! | `state.json` | state of the run: phase, steps, tokens, data-loader position, sums since the last row of the log |
//! | `manifest.json` | length and SHA-256 of each of the others, and of this list |
//!
//! The folder is written under a temporary name beside its final path, every file and the folder are synchronized, then the folder is renamed and
//! the parent synchronized: a crash at any moment leaves either no folder of that name or a complete one. Reading verifies the hash of
//! every file first: a damaged file is an error that names it.

mod error;
mod manifest;
mod read;
mod state;
#[cfg(test)]
pub(crate) mod tests;
mod write;
mod written_files;

pub(crate) use error::remedy;
pub(crate) use manifest::hash_file;
pub(crate) use write::{REPLACED, TEMPORARY};
pub(crate) use written_files::{BEST, BEST_OUTPUTS, CheckpointFiles, STAGED_MODEL, Warnings};

pub use error::SnapshotError;
pub use manifest::{CheckpointManifest, FileHash, hex, verify};
pub(crate) use read::read_tensors;
pub use read::{Snapshot, read_state};
pub use state::{RunState, WindowState};
pub(crate) use write::{
    ASIDE, Content, aside, discard, recover, synchronize, write_checkpoint, write_snapshot,
    write_tensors,
};

/// The moments of the optimizer.
pub const OPTIMIZER_FILE: &str = "optimizer.safetensors";
/// State of the run.
pub const STATE_FILE: &str = "state.json";
/// Lengths and hashes of the other files.
pub const MANIFEST_FILE: &str = "manifest.json";
