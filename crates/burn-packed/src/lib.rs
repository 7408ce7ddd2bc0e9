//! Packed (variable-length) encoder operations for [Burn](https://burn.dev): attention over sequences of different lengths
//! without padding, and the fused operations around it.
//!
//! | module | contents | may use |
//! |---|---|---|
//! | [`batch`] | packed batches; unpadding and repadding | nothing |
//! | [`device`] | devices by name | nothing |
//! | [`graph`] | forward passes of small batches as captured device graphs | `batch`, `ops` |
//! | [`ops`] | the Backend extension: attention, GeGLU, LayerNorm, cross-entropy, gathered rows, linear, dropout, optimizer | `batch`, `device` |
//!
//! The crate knows tensors and sequence boundaries; it knows no model.
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
