//! What the example programs share; each program stands in `src/bin`.
// The types of wgpu nest deeper than the compiler expects by default.
#![recursion_limit = "256"]

pub mod parity;
