//! The ops around attention, each against its formula in f64: values, gradients, other dtypes, the edges of the range.
//!
//! Run on another device with `MODERNBERT_TEST_DEVICE`.
#![allow(clippy::unwrap_used)] // a test may fail loudly
#![recursion_limit = "256"]

mod add_layer_norm;
mod cross_entropy;
mod decoder;
mod dropout;
mod embedding;
mod geglu;
mod layer_norm;
mod linear;
mod optimizer;
mod sum;
