//! GLUE on ModernBERT and Burn: nine tasks from the official files to scores.
//!
//! | room | what it holds |
//! |---|---|
//! | [`task`] | what each task is, and the paper's settings for it |
//! | [`data`] | the official TSV files, checked row by row |
//! | [`metrics`], [`baseline`] | scores, and what a constant answer would get |
//! | [`run`] | finetuning and scoring |
//! | [`results`] | `results.json` and its tables |
// The types of wgpu nest deeper than the compiler expects by default.
#![recursion_limit = "256"]

pub mod baseline;
pub mod data;
pub mod metrics;
pub mod results;
pub mod run;
pub mod task;
