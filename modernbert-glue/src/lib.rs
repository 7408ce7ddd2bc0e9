//! GLUE on ModernBERT and Burn: nine tasks from the official files to scores.
//!
//! | module | contents |
//! |---|---|
//! | [`task`] | folder, columns, labels and scores of each task, and the paper's settings for it |
//! | [`data`] | the official TSV files and the Hub's Parquet files, checked row by row |
//! | [`metrics`], [`baseline`] | scores, also of a constant prediction |
//! | [`run`] | finetuning and scoring: one run, and resumable jobs of many runs |
//! | [`superglue`] | five tasks of SuperGLUE as kinds of finetuning |
//! | [`sweep`] | the paper's search for hyperparameters |
//! | [`watch`] | finetuning from each checkpoint of a pretraining run |
//! | [`results`] | `results.json` and its tables |
//! | [`report`] | comparison of runs with the paper and with each other, with plots |
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
pub mod superglue;
pub mod sweep;
pub mod task;
pub mod watch;
