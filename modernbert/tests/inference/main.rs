//! Pipelines from texts to results: order, batches, neighbours, streams, limits. Run on another device with
//! `MODERNBERT_TEST_DEVICE`.
#![allow(clippy::unwrap_used)] // a test may fail loudly
#![recursion_limit = "256"]

mod classify;
mod encode;
mod loading;
mod minilm;
mod model;
mod packed;
