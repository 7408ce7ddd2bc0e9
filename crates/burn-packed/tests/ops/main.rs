//! The ops other than attention, each against its formula in f64: values, gradients, dtypes, extreme inputs.
//!
//! `MODERNBERT_TEST_DEVICE` selects the device.
#![allow(clippy::unwrap_used)] // a test may fail loudly
#![recursion_limit = "256"]

mod add_layer_norm;
mod convert;
mod cross_entropy;
mod decoder;
mod dropout;
mod fp8;
mod gather_rows;
mod geglu;
mod kahan;
mod layer_norm;
mod linear;
mod optimizer;
mod sum;
