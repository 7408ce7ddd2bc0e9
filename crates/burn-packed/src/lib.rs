//! Packed (variable-length) encoder operations for [Burn](https://burn.dev): attention over sequences of different lengths
//! without padding, and the fused operations around it.
//!
//! | module | contents | modules of this crate that it imports |
//! |---|---|---|
//! | [`batch`] | packed batches; unpadding and repadding | none |
//! | [`device`] | devices by name | none |
//! | [`graph`] | forward passes of small batches as captured device graphs | `batch`, `ops` |
//! | [`ops`] | the Backend extension: attention, GeGLU, LayerNorm, cross-entropy, gathered rows, linear, fp8, dropout, optimizer | `batch`, `device` |
//!
//! The crate works on tensors and sequence boundaries and contains no model.
// The types of wgpu nest deeper than the compiler expects by default.
#![recursion_limit = "256"]

pub mod batch;
pub mod device;
pub mod graph;
pub mod ops;

/// The example of the README is compiled and run.
#[cfg(doctest)]
#[doc = include_str!("../README.md")]
struct Readme;
