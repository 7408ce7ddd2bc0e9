//! The forward pass of ModernBERT's published architecture on CPUs, and attention with its gradients, without tensors.
//!
//! | module | contents | modules of this crate that it imports |
//! |---|---|---|
//! | [`weights`] | matrices packed for GEMMs, in f32, bf16 or int8 | none |
//! | `rows` | loops over rows: LayerNorm, GeGLU, softmax, RoPE | none |
//! | [`attention`] | attention of one head of one sequence, and its gradients | `rows` |
//! | `shared` | buffers whose rows several threads write | `rows` |
//! | `outliers` | the second product of int8 GEMMs, of rows with outliers alone | `rows`, `shared` |
//! | `profile` | the time of each operation of a pass | none |
//! | `pass` | one pass: its phases and the tasks that threads share | all others |
//! | `encoder` | sizes, packed layers, rotary tables, threads | all others |
//!
//! Weights are packed once ([`cpu_gemm::pack`]); activations are f32 in the residual stream, and f32 or bf16 as operands of GEMMs. An int8 encoder
//! quantizes the left operand of each GEMM by rows: one scale per token and matrix. The epilogue of a GEMM (the residual sum, GeGLU, rounding) is applied to
//! each 32 × 32 tile of the result while the tile is in the L1 cache.
//!
//! Results are batch-invariant and the same for any number of threads: the order of every sum depends on the row's own sequence alone.

pub mod attention;
mod encoder;
mod outliers;
mod pass;
mod profile;
mod rows;
mod shared;
pub mod weights;

pub use encoder::{Builder, EncoderDtype, EncoderSizes, Layer, PackedEncoder};
pub use profile::{Op, Profile};
pub use weights::WeightMatrix;

/// The example of the README is compiled and run.
#[cfg(doctest)]
#[doc = include_str!("../README.md")]
struct Readme;
