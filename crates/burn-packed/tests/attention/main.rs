//! Packed attention: its numbers, its windows, its sequences.
//!
//! `accuracy` holds the op against the f64 reference, `windows` says who sees whom, `sequences` that packed neighbours
//! don't matter, `rotary` what positions do, `checkpointing` that recomputed inputs are the same. Run on another device with `MODERNBERT_TEST_DEVICE`.
#![allow(clippy::unwrap_used)] // a test may fail loudly
#![recursion_limit = "256"]

mod accuracy;
mod case;
mod checkpointing;
mod half_precision;
mod naive;
mod rotary;
mod sequences;
mod windows;
