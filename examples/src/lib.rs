//! Code shared by the programs in `src/bin`, one for each use of ModernBERT: model arguments, input of texts, progress, output of results.
//! Programs that train are the package `examples/training`.
// The types of wgpu nest deeper than the compiler expects by default.
#![recursion_limit = "256"]

pub mod args;
pub mod input;
pub mod output;
pub mod progress;
pub mod windows;
