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

/// Which finetuned models stay on the disk.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Keep {
    /// Those of every seed.
    All,
    /// Per task, that of the seed with the best main score.
    Best,
    /// None; MNLI's stays until the tasks that start from it are done.
    None,
}

/// What RTE, MRPC and STS-B start from.
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
    /// Where to compute.
    pub device: NamedDevice,
    /// Dtype of products and attention; STS-B is computed in f32 whatever is chosen, as by the authors.
    pub precision: Precision,
    /// One run per seed.
    pub seeds: Vec<u64>,
    /// Whether weights start random instead of pretrained; tokenizer and config are the model's.
    pub random_init: bool,
    /// What RTE, MRPC and STS-B start from.
    pub mnli: MnliStart,
    /// Hyperparameters of a sweep, by task; they come before the paper's.
    pub tuned: BTreeMap<Task, Tuned>,
    /// Passes over the training set.
    pub epochs: Option<usize>,
    /// Sequences of a step.
    pub batch_size: Option<usize>,
    /// Peak learning rate.
    pub learning_rate: Option<f64>,
    /// Decoupled weight decay.
    pub weight_decay: Option<f64>,
    /// Longer pairs are cut to so many tokens.
    pub max_length: usize,
    /// Share of the steps in which the learning rate rises.
    pub warmup: f64,
    /// Only so many rows of the training set and of each dev set.
    pub max_rows: Option<usize>,
    /// Steps between scorings of the dev set; by default an epoch, but at most 2000 steps.
    pub evaluate_every: Option<usize>,
    /// Scorings in a row without anything better after which a run stops; `None` never stops early.
    pub patience: Option<usize>,
    /// Which models stay.
    pub keep: Keep,
    /// Whether runs that are there already are done again.
    pub again: bool,
    /// How progress is shown.
    pub progress: Progress,
    /// Ends the whole job: the run under way is saved, and the same command goes on from there.
    pub interrupter: Interrupter,
}
