//! GEMMs with packed weights on CPUs, by the best instruction set of the processor, chosen at run time: one binary for all processors.
//!
//! | module | contents | modules of this crate that it imports |
//! |---|---|---|
//! | [`instruction_set`] | the instruction sets: detection, choice, the environment variable that forces one | none |
//! | [`aligned`] | buffers aligned to cache lines | none |
//! | [`element`] | operand types f32, bf16 and i8, and their conversions | none |
//! | [`pack`] | weights and other right operands as panels of 32 columns | `aligned`, `element` |
//! | [`kernel`] | 32 × 32 tiles of a result on each instruction set | `instruction_set`, `element` |
//! | [`team`] | a fixed set of threads with barriers | none |
//!
//! A right operand `[k, n]` is packed once, into *panels* of 32 columns. A kernel multiplies up to 32 rows of a left operand, which is
//! row-major and not packed, with one panel, over the whole inner dimension. Each element of a result is therefore a sum in an order that
//! depends on the inner dimension alone: results are batch-invariant and bit-identical between runs on one instruction set.
//!
//! | operands | accumulator | instruction sets |
//! |---|---|---|
//! | f32 | f32 | AVX-512, AVX2 with FMA, portable |
//! | bf16 | f32 | AMX, AVX-512-BF16, AVX-512, AVX2 with FMA, portable |
//! | i8 | i32, exact | AMX, AVX-512-VNNI, AVX2, portable |

pub mod aligned;
pub mod element;
pub mod instruction_set;
pub mod kernel;
pub mod pack;
pub mod team;

pub use element::Element;
pub use instruction_set::InstructionSet;
pub use kernel::{PANEL, ROWS};
pub use pack::Panels;
pub use team::{Team, Worker};

/// The example of the README is compiled and run.
#[cfg(doctest)]
#[doc = include_str!("../README.md")]
struct Readme;
