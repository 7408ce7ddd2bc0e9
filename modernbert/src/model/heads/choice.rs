//! Multiple choice: a score for each of several continuations.

use burn::module::Module;
use burn::tensor::{Device, Tensor};

use super::labels::{check_classes, check_count};
use super::{Classification, LabelError, PredictionHead, before_classifier, mean_of_labelled};
use crate::batch::PackedBatch;
use crate::config::{ConfigError, ModernBertConfig, Pooling};
use crate::model::encoder::ModernBert;
use crate::model::linear::Linear;
use crate::model::pooling::pool;
use crate::model::precision::Precision;

/// The encoder with one pooled score per sequence, and a softmax over the choices of a question.
///
/// A batch of `Q` questions with `C` choices each is `Q · C` sequences, the choices of the first question first. Padded ids
/// `[Q, C, S]` in row-major order are thus the padded batch `[Q · C, S]` of [`crate::batch::Unpadded`].
#[derive(Module, Debug)]
pub struct MultipleChoice {
    /// The encoder.
    pub model: ModernBert,
    head: PredictionHead,
    classifier: Linear,
    #[module(skip)]
    pooling: Pooling,
}

impl MultipleChoice {
    /// A model with the config's pooling, all weights zero.
    ///
    /// # Errors
    /// As [`ModernBertConfig::validate`].
    pub fn new(config: &ModernBertConfig, device: &Device) -> Result<Self, ConfigError> {
        Ok(Self {
            model: ModernBert::new(config, device)?,
            head: PredictionHead::of_classes(config, device),
            classifier: Linear::new(config.hidden_size, 1, true, device),
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

    /// Scores `[questions, choices]` in f32.
    ///
    /// # Errors
    /// A number of sequences that is no multiple of `choices`.
    pub fn logits(&self, batch: &PackedBatch, choices: usize) -> Result<Tensor<2>, LabelError> {
        let sequences = batch.layout.num_sequences();
        if choices == 0 || !sequences.is_multiple_of(choices) {
            return Err(LabelError::Choices { sequences, choices });
        }
        let scores = self.decode(self.model.forward(batch), batch);
        Ok(scores.reshape([sequences / choices, choices]))
    }

    /// Score of every sequence, `[sequences]`, from the batch's hidden states `[total, hidden]`.
    pub fn decode(&self, hidden: Tensor<2>, batch: &PackedBatch) -> Tensor<1> {
        let pooled = pool(hidden, &batch.layout, self.pooling);
        // A few rows, as in sequence classification: f32 costs nothing.
        let z = self.head.forward(pooled, Precision::F32);
        self.classifier
            .forward(before_classifier(z, batch.dropout))
            .flatten::<1>(0, 1)
    }

    /// Scores, and the mean cross-entropy of the right choices, one per question.
    ///
    /// # Errors
    /// A number of sequences that is no multiple of `choices`, another number of labels than of questions, a label that is
    /// no choice.
    pub fn forward(
        &self,
        batch: &PackedBatch,
        choices: usize,
        labels: &[u32],
    ) -> Result<Classification, LabelError> {
        check_classes(labels.iter().copied().map(Some), choices)?;
        let logits = self.logits(batch, choices)?;
        check_count("questions", logits.dims()[0], labels.len())?;
        let labels: Vec<Option<u32>> = labels.iter().copied().map(Some).collect();
        let loss = self.model.config().flexbert.loss();
        let loss = mean_of_labelled(logits.clone(), &labels, loss);
        Ok(Classification { loss, logits })
    }
}
