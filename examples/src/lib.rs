//! Short programs, one for each use of ModernBERT; they live in `src/bin`. This library is what they share: where a model
//! comes from, where texts come from, how progress is shown, where results go, and the comparison with transformers.
// The types of wgpu nest deeper than the compiler expects by default.
#![recursion_limit = "256"]

pub mod args;
pub mod finetuning;
pub mod input;
pub mod output;
pub mod parity;
pub mod progress;
