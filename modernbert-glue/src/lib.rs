//! GLUE on ModernBERT and Burn: nine tasks from the official files to scores.
//!
//! | room | what it holds |
//! |---|---|
//! | [`task`] | what each task is, and the paper's settings for it |
//! | [`data`] | the official TSV files and the Hub's Parquet files, checked row by row |
//! | [`metrics`], [`baseline`] | scores, and what a constant answer would get |
//! | [`run`] | finetuning and scoring: one run, and jobs of many that can be resumed |
//! | [`sweep`] | the paper's search for hyperparameters |
//! | [`results`] | `results.json` and its tables |
//! | [`report`] | runs side by side, beside the paper and against each other, with pictures |
//! | [`submission`] | test predictions as gluebenchmark.com takes them |
// The types of wgpu nest deeper than the compiler expects by default.
#![recursion_limit = "256"]

pub mod baseline;
pub mod data;
pub mod metrics;
pub mod report;
pub mod results;
pub mod run;
pub mod submission;
pub mod sweep;
pub mod task;
