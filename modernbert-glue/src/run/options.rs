//! Settings of a job.

use burn::train::Interrupter;
use modernbert::device::NamedDevice;
use modernbert::model::Precision;
use modernbert_train::engine::Progress;
use std::collections::BTreeMap;
use std::path::PathBuf;

use crate::task::Task;

/// Seeds of the authors' evaluations, in their order.
const SEEDS: [u64; 4] = [1618, 42, 6033, 3145];

/// The first `count` seeds: the authors' four, then consecutive numbers from 10004.
pub fn job_seeds(count: usize) -> Vec<u64> {
    let seed = |i: usize| SEEDS.get(i).copied().unwrap_or(10_000 + i as u64);
    (0..count).map(seed).collect()
}

/// Rule for the finetuned models that are kept on the disk.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Keep {
    /// The models of every seed.
    All,
    /// Per task, that of the seed with the best main score.
    Best,
    /// None; MNLI's is kept until the tasks that start from it are done.
    None,
}

/// Model that RTE, MRPC and STS-B start from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum MnliStart {
    /// The best model of this job's MNLI runs; the pretrained model where there is none.
    Auto,
    /// A folder with a model that was finetuned on MNLI.
    Folder(PathBuf),
    /// The pretrained model, like the other tasks.
    Off,
}

/// Hyperparameters that a sweep found for a task.
#[derive(Clone, Copy, Debug, PartialEq, serde::Serialize, serde::Deserialize)]
pub struct Tuned {
    /// Peak learning rate.
    pub learning_rate: f64,
    /// Decoupled weight decay.
    pub weight_decay: f64,
    /// Passes over the training set.
    pub epochs: usize,
}

/// Settings of a job; `None` takes the paper's value for the task.
#[derive(Clone)]
pub struct RunOptions {
    /// Device.
    pub device: NamedDevice,
    /// Dtype of matrix multiplications and attention; STS-B is always computed in f32, as by the authors.
    pub precision: Precision,
    /// One run per seed.
    pub seeds: Vec<u64>,
    /// True if weights start random instead of pretrained; tokenizer and config are the model's.
    pub random_init: bool,
    /// Model that RTE, MRPC and STS-B start from.
    pub mnli: MnliStart,
    /// Hyperparameters of a sweep, by task; they have priority over the paper's.
    pub tuned: BTreeMap<Task, Tuned>,
    /// Passes over the training set.
    pub epochs: Option<usize>,
    /// Sequences of a step.
    pub batch_size: Option<usize>,
    /// Peak learning rate.
    pub learning_rate: Option<f64>,
    /// Decoupled weight decay.
    pub weight_decay: Option<f64>,
    /// Longer pairs are truncated to this many tokens.
    pub max_length: usize,
    /// Share of the steps in which the learning rate rises.
    pub warmup: f64,
    /// Dropout after the attention output projection; by default the config's `attention_dropout`.
    pub attention_output_dropout: Option<f64>,
    /// Number of rows read of the training set and of each dev set; all by default.
    pub max_rows: Option<usize>,
    /// Steps between evaluations on the dev set; by default an epoch, but at most 2000 steps.
    pub evaluate_every: Option<usize>,
    /// Evaluations in a row without a better score after which a run stops; `None` never stops early.
    pub patience: Option<usize>,
    /// Rule for the models that are kept.
    pub keep: Keep,
    /// True if existing runs are repeated.
    pub again: bool,
    /// Display of progress.
    pub progress: Progress,
    /// Ends the whole job: the current run is saved, and the same command continues from there.
    pub interrupter: Interrupter,
}
