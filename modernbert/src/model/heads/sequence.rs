//! Classification and regression of whole sequences.

use burn::module::Module;
use burn::tensor::{Device, Int, Tensor, TensorData, activation};

use super::labels::{check_classes, check_count};
use super::{LabelError, PredictionHead, before_classifier, drop_at, row_losses};
use crate::batch::{PackedBatch, int_tensor};
use crate::config::{ConfigError, ModernBertConfig, Pooling};
use crate::model::encoder::ModernBert;
use crate::model::linear::Linear;
use crate::model::pooling::pool;
use crate::model::precision::Precision;
use crate::ops::dropout::Site;
use crate::ops::sum::mean;

/// The encoder with a pooled head: `classifier(norm(gelu(dense(pool(h)))))`.
#[derive(Module, Debug)]
pub struct SequenceClassifier {
    /// The encoder.
    pub model: ModernBert,
    head: PredictionHead,
    classifier: Linear,
    #[module(skip)]
    pooling: Pooling,
}

/// Labels of a batch; their kind decides the loss, as in Hugging Face's models.
#[derive(Clone, Debug)]
pub enum ClassificationLabels {
    /// One class per sequence: cross-entropy.
    Classes(Vec<u32>),
    /// One number per sequence, for a model with one output: mean squared error.
    Scores(Vec<f32>),
    /// Any number of labels per sequence, row-major `[sequences, labels]`: binary cross-entropy.
    MultiLabel(Vec<f32>),
}

impl ClassificationLabels {
    /// Checks that these labels fit `sequences` sequences and a model with `outputs` outputs.
    ///
    /// # Errors
    /// A wrong number of labels; a class without an output.
    pub fn check(&self, sequences: usize, outputs: usize) -> Result<(), LabelError> {
        match self {
            Self::Classes(classes) => {
                check_count("sequences", sequences, classes.len())?;
                check_classes(classes.iter().copied().map(Some), outputs)
            }
            Self::Scores(values) | Self::MultiLabel(values) => {
                check_count("outputs", sequences * outputs, values.len())
            }
        }
    }
}

/// Result of a labeled batch.
#[derive(Clone, Debug)]
pub struct Classification {
    /// Mean loss over the sequences, `[1]`.
    pub loss: Tensor<1>,
    /// Outputs, `[sequences, labels]`.
    pub logits: Tensor<2>,
}

impl SequenceClassifier {
    /// A classifier with `num_labels` outputs and the config's pooling, all weights zero.
    ///
    /// # Errors
    /// As [`ModernBertConfig::validate`].
    pub fn new(
        config: &ModernBertConfig,
        num_labels: usize,
        device: &Device,
    ) -> Result<Self, ConfigError> {
        Ok(Self {
            model: ModernBert::new(config, device)?,
            head: PredictionHead::of_classes(config, device),
            classifier: Linear::new(config.hidden_size, num_labels, true, device),
            pooling: config.spec().pooling,
        })
    }

    /// The same model with its matrix multiplications in another dtype.
    pub fn with_precision(mut self, precision: Precision) -> Self {
        self.model = self.model.with_precision(precision);
        self
    }

    /// The same model with a residual stream in its precision; see [`ModernBert::with_half_residual`].
    pub fn with_half_residual(mut self, half: bool) -> Self {
        self.model = self.model.with_half_residual(half);
        self
    }

    /// The same model for inference alone; see [`ModernBert::for_inference`].
    pub fn for_inference(mut self) -> Self {
        self.model = self.model.for_inference();
        self
    }

    /// Number of outputs per sequence.
    pub fn outputs(&self) -> usize {
        self.classifier.weight.val().dims()[0]
    }

    /// Outputs `[sequences, labels]` in f32.
    pub fn logits(&self, batch: &PackedBatch) -> Tensor<2> {
        self.decode(self.model.forward(batch), batch)
    }

    /// Outputs `[sequences, labels]` in f32 from the batch's hidden states `[total, hidden]`.
    pub fn decode(&self, hidden: Tensor<2>, batch: &PackedBatch) -> Tensor<2> {
        let pooled = pool(hidden, &batch.layout, self.pooling);
        let pooled = drop_at(pooled, batch.dropout, Site::Head);
        // The head and the classifier are a few rows: f32 costs nothing there.
        let z = self.head.forward(pooled, Precision::F32);
        self.classifier.forward(before_classifier(z, batch.dropout))
    }

    /// Outputs and mean loss.
    ///
    /// # Panics
    /// If the labels don't fit the batch: a mistake of the calling code, which [`ClassificationLabels::check`] finds
    /// where labels come from outside.
    pub fn forward(&self, batch: &PackedBatch, labels: &ClassificationLabels) -> Classification {
        let logits = self.logits(batch);
        let [sequences, outputs] = logits.dims();
        if let Err(error) = labels.check(sequences, outputs) {
            panic!("{error}");
        }
        let device = logits.device();
        let loss = match labels {
            ClassificationLabels::Classes(classes) => {
                let targets: Tensor<1, Int> =
                    int_tensor(classes.iter().map(|&c| c as i32), &device);
                {
                    let loss = self.model.config().flexbert.loss();
                    mean(row_losses(loss, logits.clone(), targets))
                }
            }
            ClassificationLabels::Scores(scores) => {
                let targets = Tensor::<1>::from_floats(scores.as_slice(), &device);
                let error = logits.clone().flatten::<1>(0, 1) - targets;
                mean(error.clone() * error)
            }
            ClassificationLabels::MultiLabel(values) => {
                let data = TensorData::new(values.clone(), [sequences, outputs]);
                let targets = Tensor::<2>::from_data(data, &device);
                // -[t log σ(x) + (1 - t) log σ(-x)] = (1 - t) x - log σ(x)
                let absent = targets.neg() + 1.0;
                mean(absent * logits.clone() - activation::log_sigmoid(logits.clone()))
            }
        };
        Classification { loss, logits }
    }
}
