//! Finetuning on GLUE by the paper's protocol: data to samples, a classifier per seed, the best weights of each scored on the
//! dev sets.
//!
//! | item | contents |
//! |---|---|
//! | [`RunOptions`] | settings of a job; the rest is the paper's |
//! | [`Pretrained`] | the model's folder, opened once |
//! | [`RunSettings`], [`RunRecord`] | everything that decides a run, and its result, as `run.json` |
//! | [`TaskSequences`] | a task's data as sequences |
//! | [`run_seed`] | one task, one seed |
//! | [`run_job`] | all tasks and seeds, in two rounds, resumable |
//!
//! A job's folder holds `results.json` and `runs/TASK/seed-N/run.json`; beside the latter, `metrics.jsonl` is the log of the training,
//! `model/` the finetuned model where it is kept, and `checkpoints/` the state of a run that was interrupted.

mod job;
mod options;
mod prepare;
mod pretrained;
mod record;
mod seed;

pub(crate) use job::best_run;
pub use job::{JobReport, run_job};
pub use options::{Keep, MnliStart, RunOptions, Tuned, job_seeds};
pub use prepare::TaskSequences;
pub use pretrained::{Pretrained, weights_hash};
pub use record::{EvaluationRecord, RunRecord, RunSettings, seed_folder};
pub use seed::{Run, run_seed};

use modernbert::checkpoint::{CheckpointError, SourceError as ModelSourceError};
use modernbert::config::ConfigError;
use modernbert::tokenizer::TokenizerError;
use modernbert_train::finetune::FinetuneError;
use std::path::PathBuf;

use crate::data::{DatasetSourceError, GlueDataError};
use crate::metrics::MetricError;
use crate::results::ResultsError;
use crate::task::Task;

/// Name of the file of one run.
pub const RUN_FILE: &str = "run.json";
/// Name of the folder of its model.
pub const MODEL_FOLDER: &str = "model";

/// Reason why a task has no score.
#[derive(Debug, thiserror::Error)]
pub enum RunError {
    /// The task's files.
    #[error(transparent)]
    Data(#[from] GlueDataError),
    /// The data set of the Hub.
    #[error(transparent)]
    Source(#[from] DatasetSourceError),
    /// The model of the Hub.
    #[error(transparent)]
    Model(#[from] ModelSourceError),
    /// The model's folder.
    #[error(transparent)]
    Checkpoint(#[from] CheckpointError),
    /// The model can't be loaded.
    #[error(transparent)]
    Load(#[from] modernbert::LoadError),
    /// The model's config.
    #[error(transparent)]
    Config(#[from] ConfigError),
    /// The tokenizer of the model's folder.
    #[error(transparent)]
    Tokenizer(#[from] TokenizerError),
    /// Training or prediction.
    #[error(transparent)]
    Finetune(#[from] FinetuneError),
    /// Predictions that can't be scored, such as non-finite numbers.
    #[error(transparent)]
    Metric(#[from] MetricError),
    /// `results.json`.
    #[error(transparent)]
    Results(#[from] ResultsError),
    /// A task without labelled data, such as AX.
    #[error("{0} has no labelled data to train on; it can only be predicted")]
    NotTrainable(Task),
    /// Tokenizer and model of different vocabularies.
    #[error("{}: the tokenizer has {tokenizer} ids, the model {model}; they don't belong together", folder.display())]
    Vocabulary {
        /// The model's folder.
        folder: PathBuf,
        /// Ids of the tokenizer.
        tokenizer: usize,
        /// Rows of the model's embedding.
        model: usize,
    },
    /// A finished run with other settings in the same folder.
    #[error("{}: made with other settings ({differences}); give another --out, or --again to replace it", path.display())]
    OtherSettings {
        /// Its `run.json`.
        path: PathBuf,
        /// Description of the difference.
        differences: String,
    },
    /// A malformed `run.json`.
    #[error("{}: not a record of a run ({reason}); move it away", path.display())]
    Record {
        /// The file.
        path: PathBuf,
        /// Description of the conflict.
        reason: String,
    },
    /// A file that can't be read, written or removed.
    #[error("{}: {source}; check that the file exists, the free disk space and your permissions", path.display())]
    Io {
        /// The file.
        path: PathBuf,
        /// Error of the operating system.
        source: std::io::Error,
    },
    /// The job was interrupted; the run is saved.
    #[error("{label}: interrupted at step {step}; the same command continues from there")]
    Interrupted {
        /// The run.
        label: String,
        /// Steps done.
        step: usize,
    },
    /// A panic: a bug, or a device that failed during a task.
    #[error("stopped by an internal failure: {0}")]
    Panic(String),
}
