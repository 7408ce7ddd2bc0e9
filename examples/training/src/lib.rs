//! Code shared by the programs in `src/bin`, which train: arguments, a finetuning run, and the comparison with transformers. These programs
//! are a package of their own, so that the programs of `examples` don't compile the training engine.
// The types of wgpu nest deeper than the compiler expects by default.
#![recursion_limit = "256"]

pub mod finetuning;
pub mod parity;
