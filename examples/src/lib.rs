//! Short programs, one for each use of ModernBERT, in `src/bin`. This library is what they share: the source of the model, the source of
//! the texts, progress, and the place of the results. Programs that train are the package `examples/training`.
// The types of wgpu nest deeper than the compiler expects by default.
#![recursion_limit = "256"]

pub mod args;
pub mod input;
pub mod output;
pub mod progress;
pub mod windows;
