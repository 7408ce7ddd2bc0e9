//! Finetuning a sequence classifier: the loop that every such task shares, inside burn-train.
//!
//! Sequences are grouped by length and packed, so that a step computes on real tokens alone; the learning rate rises
//! linearly and falls linearly to zero; the optimizer is decoupled AdamW. burn-train runs the epochs and its dashboard.

mod batches;
mod learner;
mod lines;
mod schedule;
#[cfg(test)]
mod tests;

pub use batches::{Batch, BatchLoader, Sample, Target};
pub use learner::{ClassifierLearner, ClassifierOutput, ClassifierStats};
pub use lines::LinesRenderer;

use burn::module::Module;
use burn::tensor::Device;
use burn::train::{Interrupter, Learner, SupervisedTraining};
use modernbert::batch::PackedBatch;
use modernbert::model::SequenceClassifier;
use std::path::Path;
use std::sync::Arc;

use crate::optim::DecoupledAdamW;
use crate::trainer::{Progress, QuietRenderer, SeriesMetric};
use schedule::WarmupLinear;

/// Settings of a finetuning.
#[derive(Clone, Debug, PartialEq)]
pub struct FinetuneOptions {
    /// Passes over the training samples.
    pub epochs: usize,
    /// Sequences of a step.
    pub batch_size: usize,
    /// Peak learning rate.
    pub learning_rate: f64,
    /// Share of a weight lost per step at the peak.
    pub weight_decay: f64,
    /// Share of the steps in which the learning rate rises.
    pub warmup: f64,
    /// Seed of the order of samples.
    pub seed: u64,
    /// What the dashboard calls this run.
    pub label: String,
}

/// Why a finetuning failed.
#[derive(Debug, thiserror::Error)]
pub enum FinetuneError {
    /// There is nothing to train on.
    #[error("{0}: there are no training samples")]
    Empty(String),
    /// burn-train stopped on an error.
    #[error("{label}: training stopped: {reason}")]
    Training {
        /// The run.
        label: String,
        /// What it said.
        reason: String,
    },
    /// The model asks for what training can't do.
    #[error(transparent)]
    Config(#[from] modernbert::config::ConfigError),
    /// Somebody stopped it.
    #[error("{0}: interrupted")]
    Interrupted(String),
    /// The device could not be read.
    #[error("the device could not be read: {0}")]
    Device(String),
    /// A batch is too large.
    #[error(transparent)]
    Layout(#[from] modernbert::batch::LayoutError),
}

/// Trains `model` on `train` and returns it; `valid` is what the dashboard evaluates after each epoch.
///
/// `folder` is where burn-train may keep files of its own.
///
/// # Errors
/// No samples, an interruption, a failure of the device.
pub fn finetune(
    model: SequenceClassifier,
    train: Vec<Sample>,
    valid: Vec<Sample>,
    options: &FinetuneOptions,
    folder: &Path,
    progress: Progress,
    interrupter: Interrupter,
) -> Result<SequenceClassifier, FinetuneError> {
    let label = options.label.clone();
    if train.is_empty() {
        return Err(FinetuneError::Empty(label));
    }
    let regression = train
        .iter()
        .any(|sample| matches!(sample.target, Target::Score(_)));
    let steps = train.len().div_ceil(options.batch_size) * options.epochs;
    let optimizer = DecoupledAdamW::new(options.learning_rate, options.weight_decay);
    let schedule = WarmupLinear::new(options.learning_rate, options.warmup, steps);
    let batch_size = options.batch_size;
    let mut training = SupervisedTraining::new(
        folder,
        Arc::new(BatchLoader::shuffled(train, batch_size, options.seed)),
        Arc::new(BatchLoader::in_order(valid, batch_size)),
    )
    .metrics((ClassifierStats::loss(),))
    .metric_train_numeric(burn::train::metric::LearningRateMetric::new())
    .with_metric_logger(burn::train::logger::InMemoryMetricLogger::default())
    .with_application_logger(None)
    .with_interrupter(interrupter)
    .label(&label)
    .num_epochs(options.epochs);
    if !regression {
        training = training.metrics((ClassifierStats::accuracy(),));
    }
    training = match progress {
        Progress::Dashboard => training,
        Progress::Lines => training.renderer(Box::new(LinesRenderer::new(&label))),
        Progress::Silent => training.renderer(Box::new(QuietRenderer)),
    };
    let learner = ClassifierLearner { model }.train();
    let result = training.launch(Learner::new(learner, optimizer.into(), schedule));
    if let Some(error) = result.error {
        return Err(FinetuneError::Training {
            label,
            reason: error.to_string(),
        });
    }
    if result.interrupted.is_some() {
        return Err(FinetuneError::Interrupted(label));
    }
    Ok(result.model.model)
}

/// Outputs of the model for each sequence, in the order given; sequences are grouped by length meanwhile.
///
/// # Errors
/// A device that can't be read.
pub fn predict(
    model: &SequenceClassifier,
    sequences: &[&[u32]],
    batch_size: usize,
) -> Result<Vec<Vec<f32>>, FinetuneError> {
    let device: Device = model.model.device();
    let mut order: Vec<usize> = (0..sequences.len()).collect();
    order.sort_by_key(|&i| sequences[i].len());
    let mut outputs = vec![Vec::new(); sequences.len()];
    for chunk in order.chunks(batch_size.max(1)) {
        let rows: Vec<&[u32]> = chunk.iter().map(|&i| sequences[i]).collect();
        let batch = PackedBatch::from_sequences(&rows, &device)?;
        let logits = model.logits(&batch);
        let [_, width] = logits.dims();
        let values: Vec<f32> = logits
            .try_into_data()
            .map_err(|error| FinetuneError::Device(error.to_string()))?
            .try_to_vec()
            .map_err(|error| FinetuneError::Device(format!("{error:?}")))?;
        for (&i, row) in chunk.iter().zip(values.chunks(width)) {
            outputs[i] = row.to_vec();
        }
    }
    Ok(outputs)
}

impl ClassifierStats {
    fn loss() -> SeriesMetric<Self> {
        SeriesMetric::new(
            "Loss",
            None,
            false,
            4,
            |stats: &Self| Some(stats.loss),
            |stats| stats.rows,
        )
    }

    fn accuracy() -> SeriesMetric<Self> {
        SeriesMetric::new(
            "Accuracy",
            Some("%"),
            true,
            2,
            |stats: &Self| stats.accuracy.map(|share| 100.0 * share),
            |stats| stats.rows,
        )
    }
}
