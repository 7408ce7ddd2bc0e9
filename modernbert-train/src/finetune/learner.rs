//! A classifier as burn-train sees it.

use burn::module::Module;
use burn::tensor::{Device, ExecutionError, Tensor};
use burn::train::metric::Adaptor;
use burn::train::{InferenceStep, ItemLazy, TrainOutput, TrainStep};
use modernbert::batch::{Dropout, PackedBatch};
use modernbert::model::{Classification, SequenceClassifier, dropout_rates};

use super::batches::Batch;

/// A sequence classifier under training.
#[derive(Module, Debug)]
pub struct ClassifierLearner {
    /// The model.
    pub model: SequenceClassifier,
}

/// What the dashboard shows of some steps or of a scoring.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct ClassifierStats {
    /// Mean loss of the steps.
    pub loss: Option<f64>,
    /// Main score of the dev set.
    pub score: Option<f64>,
    /// Sequences behind these numbers.
    pub rows: usize,
}

/// Result of a batch: its loss, still on the device, and numbers the strategy adds for the dashboard.
#[derive(Clone, Debug)]
pub struct ClassifierOutput {
    /// Mean loss over the sequences, `[1]`.
    pub loss: Tensor<1>,
    /// Filled in by the strategy once losses are read back.
    pub stats: ClassifierStats,
}

impl ClassifierOutput {
    /// An output of numbers alone, for the metrics thread.
    pub(super) fn of_stats(stats: ClassifierStats, device: &Device) -> Self {
        Self {
            loss: Tensor::zeros([1], &device.clone().inner()),
            stats,
        }
    }
}

impl ClassifierLearner {
    fn forward(&self, batch: &Batch) -> Classification {
        let device = self.model.model.device();
        // Sequences come from a tokenizer that truncates, so that a batch can't outgrow 32-bit boundaries.
        let packed = PackedBatch::from_sequences(&batch.sequences, &device)
            .expect("a batch of truncated sequences fits a packed batch");
        let dropout = batch.dropout_key.map(|(seed, batch)| Dropout {
            rates: dropout_rates(self.model.model.config()),
            seed,
            batch,
        });
        self.model
            .forward(&packed.with_dropout(dropout), &batch.labels)
    }
}

impl ItemLazy for ClassifierOutput {
    fn sync(self) -> Result<Self, ExecutionError> {
        // The strategy has read the loss already; what remains are host numbers.
        Ok(self)
    }
}

impl Adaptor<ClassifierStats> for ClassifierOutput {
    fn adapt(&self) -> ClassifierStats {
        self.stats.clone()
    }
}

impl TrainStep for ClassifierLearner {
    type Input = Batch;
    type Output = ClassifierOutput;

    fn step(&self, batch: Batch) -> TrainOutput<ClassifierOutput> {
        let Classification { loss, .. } = self.forward(&batch);
        let grads = loss.backward();
        let output = ClassifierOutput {
            loss: loss.inner(),
            stats: ClassifierStats::default(),
        };
        TrainOutput::new(self, grads, output)
    }
}

impl InferenceStep for ClassifierLearner {
    type Input = Batch;
    type Output = ClassifierOutput;

    fn step(&self, batch: Batch) -> ClassifierOutput {
        let Classification { loss, .. } = self.forward(&batch);
        ClassifierOutput {
            loss,
            stats: ClassifierStats::default(),
        }
    }
}
