//! A classifier as burn-train sees it.

use burn::module::Module;
use burn::tensor::{ExecutionError, Tensor};
use burn::train::metric::Adaptor;
use burn::train::{InferenceStep, ItemLazy, TrainOutput, TrainStep};
use modernbert::batch::{Dropout, DropoutRates, PackedBatch};
use modernbert::model::{Classification, ClassificationLabels, SequenceClassifier};

use super::batches::Batch;

/// A sequence classifier under training.
#[derive(Module, Debug)]
pub struct ClassifierLearner {
    /// The model.
    pub model: SequenceClassifier,
}

/// What the metrics show of a batch.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct ClassifierStats {
    /// Mean loss.
    pub loss: f64,
    /// Share of right classes; `None` for regression.
    pub accuracy: Option<f64>,
    /// Sequences of the batch.
    pub rows: usize,
}

/// Result of a batch.
#[derive(Clone, Debug)]
pub struct ClassifierOutput {
    loss: Tensor<1>,
    logits: Tensor<2>,
    labels: ClassificationLabels,
}

impl ClassifierLearner {
    fn forward(&self, batch: &Batch) -> Classification {
        let device = self.model.model.device();
        // Sequences come from a tokenizer that truncates, so that a batch can't outgrow 32-bit boundaries.
        let packed = PackedBatch::from_sequences(&batch.sequences, &device)
            .expect("a batch of truncated sequences fits a packed batch");
        let dropout = batch.dropout_key.map(|(seed, batch)| Dropout {
            rates: DropoutRates::from(self.model.model.config()),
            seed,
            batch,
        });
        self.model
            .forward(&packed.with_dropout(dropout), &batch.labels)
    }
}

impl ItemLazy for ClassifierOutput {
    fn sync(self) -> Result<Self, ExecutionError> {
        Ok(Self {
            loss: self.loss.without_autodiff(),
            logits: self.logits.without_autodiff(),
            labels: self.labels,
        })
    }
}

impl Adaptor<ClassifierStats> for ClassifierOutput {
    fn adapt(&self) -> ClassifierStats {
        let [rows, width] = self.logits.dims();
        let loss = self
            .loss
            .clone()
            .try_into_scalar::<f64>()
            .unwrap_or(f64::NAN);
        let accuracy = match &self.labels {
            ClassificationLabels::Classes(classes) => {
                let logits: Option<Vec<f32>> = self
                    .logits
                    .clone()
                    .try_into_data()
                    .ok()
                    .and_then(|data| data.try_to_vec().ok());
                logits.map(|logits| {
                    let hits = logits.chunks(width).zip(classes).filter(|(row, class)| {
                        let best = (0..width).max_by(|&a, &b| row[a].total_cmp(&row[b]));
                        best == Some(**class as usize)
                    });
                    hits.count() as f64 / rows.max(1) as f64
                })
            }
            ClassificationLabels::Scores(_) | ClassificationLabels::MultiLabel(_) => None,
        };
        ClassifierStats {
            loss,
            accuracy,
            rows,
        }
    }
}

impl TrainStep for ClassifierLearner {
    type Input = Batch;
    type Output = ClassifierOutput;

    fn step(&self, batch: Batch) -> TrainOutput<ClassifierOutput> {
        let Classification { loss, logits } = self.forward(&batch);
        let grads = loss.backward();
        let output = ClassifierOutput {
            loss,
            logits,
            labels: batch.labels,
        };
        TrainOutput::new(self, grads, output)
    }
}

impl InferenceStep for ClassifierLearner {
    type Input = Batch;
    type Output = ClassifierOutput;

    fn step(&self, batch: Batch) -> ClassifierOutput {
        let Classification { loss, logits } = self.forward(&batch);
        ClassifierOutput {
            loss,
            logits,
            labels: batch.labels,
        }
    }
}
