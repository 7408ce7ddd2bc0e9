//! The model: its parameters, its arithmetic, its heads, its packing, its first weights.
//!
//! `parameters` counts and names, `forward` holds the whole model against an independent one (`reference`), `packing` says
//! that neighbours don't matter, `mlm`, `classifier` and `heads` hold the heads, `init` the random start, `flexbert` every pair of architecture choices
//! (against `flex_reference`). Run on another device
//! with `MODERNBERT_TEST_DEVICE`.
#![allow(clippy::unwrap_used)] // a test may fail loudly
#![recursion_limit = "256"]

mod classifier;
mod dropout;
mod flex_reference;
mod flexbert;
mod forward;
mod heads;
mod init;
mod mlm;
mod packing;
mod parameters;
mod reference;
mod toy;
