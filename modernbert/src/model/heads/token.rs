//! Token classification: named entities, parts of speech.

use burn::module::Module;
use burn::tensor::{Device, Tensor};

use super::labels::{check_classes, check_count};
use super::{Classification, LabelError, PredictionHead, before_classifier, mean_of_labelled};
use crate::batch::{Dropout, PackedBatch};
use crate::config::{ConfigError, ModernBertConfig};
use crate::model::encoder::ModernBert;
use crate::model::linear::Linear;
use crate::model::precision::Precision;

/// The encoder with a classifier on every token: `classifier(norm(act(dense(h))))`, in BERT and RoBERTa `classifier(h)`.
#[derive(Module, Debug)]
pub struct TokenClassifier {
    /// The encoder.
    pub model: ModernBert,
    head: Option<PredictionHead>,
    classifier: Linear,
}

impl TokenClassifier {
    /// A classifier with `num_labels` outputs per token, all weights zero.
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
            head: PredictionHead::of_tokens(config, device),
            classifier: Linear::new(config.hidden_size, num_labels, true, device),
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

    /// Number of outputs per token.
    pub fn outputs(&self) -> usize {
        self.classifier.weight.val().dims()[0]
    }

    /// Outputs `[total, labels]` in f32, one row per token of the batch.
    pub fn logits(&self, batch: &PackedBatch) -> Tensor<2> {
        self.scores(self.model.forward(batch), batch.dropout)
    }

    /// Outputs `[rows, labels]` in f32 for hidden states `[rows, hidden]`.
    pub fn decode(&self, hidden: Tensor<2>) -> Tensor<2> {
        self.scores(hidden, None)
    }

    fn scores(&self, hidden: Tensor<2>, dropped: Option<Dropout>) -> Tensor<2> {
        let z = match &self.head {
            Some(head) => head.forward(hidden, self.model.head_precision()),
            None => hidden,
        };
        self.classifier.forward(before_classifier(z, dropped))
    }

    /// Outputs, and the mean cross-entropy over the labeled tokens.
    ///
    /// `labels` holds one entry per token of the batch, `None` for a token without a label (continuations of words,
    /// special tokens). A batch without any label has loss 0.
    ///
    /// # Errors
    /// A number of labels that differs from the number of tokens; a class without an output.
    pub fn forward(
        &self,
        batch: &PackedBatch,
        labels: &[Option<u32>],
    ) -> Result<Classification, LabelError> {
        check_count("tokens", batch.layout.total_tokens(), labels.len())?;
        let [outputs, _] = self.classifier.weight.dims();
        check_classes(labels.iter().copied(), outputs)?;
        let logits = self.logits(batch);
        let loss = self.model.config().flexbert.loss();
        let loss = mean_of_labelled(logits.clone(), labels, loss);
        Ok(Classification { loss, logits })
    }
}
