//! The model: its parameters, its arithmetic, its heads, its packing, its first weights.
//!
//! `parameters` checks counts and names, `forward` compares the whole model with an independent one (`reference`), `packing` shows
//! that results don't depend on neighbours, `mlm`, `classifier` and `heads` test the heads, `init` the random initialization, `flexbert`
//! every pair of architecture choices (against `flex_reference`), `families` BERT and RoBERTa. Run on another device with `MODERNBERT_TEST_DEVICE`.
#![allow(clippy::unwrap_used)] // a test may fail loudly
#![recursion_limit = "256"]

mod classifier;
mod dropout;
mod families;
mod flex_reference;
mod flexbert;
mod forward;
mod fp8;
mod heads;
mod init;
mod mlm;
mod packing;
mod parameters;
mod reference;
mod toy;
