//! Short programs that train, in `src/bin`. This library is what they share: arguments and the run of a finetuning, and the comparison
//! with transformers. They are a package of their own, so that the programs of `examples` don't compile the training engine.
// The types of wgpu nest deeper than the compiler expects by default.
#![recursion_limit = "256"]

pub mod finetuning;
pub mod parity;
