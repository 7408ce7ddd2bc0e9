//! Short programs, one for each use of ModernBERT; they live in `src/bin`. This library is what they share on the command
//! line: where a model comes from, where texts come from, how progress is shown, where results go.
#![recursion_limit = "256"]

pub mod args;
pub mod input;
pub mod output;
pub mod progress;
