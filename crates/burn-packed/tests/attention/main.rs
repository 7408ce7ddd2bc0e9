//! Packed attention on the device that `MODERNBERT_TEST_DEVICE` names (the CPU without it).
//!
//! - `accuracy`, `half_precision`: errors against the f64 reference, in f32 and in bf16 and f16;
//! - `windows`: which keys a query sees;
//! - `sequences`: results are batch-invariant;
//! - `rotary`: RoPE;
//! - `rows`: chosen rows in f64;
//! - `checkpointing`: gradients with recomputed inputs.
#![allow(clippy::unwrap_used)] // a test may fail loudly
#![recursion_limit = "256"]

mod accuracy;
mod case;
mod checkpointing;
mod half_precision;
mod naive;
mod rotary;
mod rows;
mod sequences;
mod windows;
