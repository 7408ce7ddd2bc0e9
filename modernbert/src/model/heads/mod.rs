//! The heads on top of the encoder.
//!
//! | head | outputs | Hugging Face's class |
//! |---|---|---|
//! | [`MaskedLm`] | a score per vocabulary entry at chosen tokens | `ModernBertForMaskedLM` |
//! | [`SequenceClassifier`] | labels of a sequence, one, several or a number | `ModernBertForSequenceClassification` |
//! | [`TokenClassifier`] | a label per token | `ModernBertForTokenClassification` |
//! | [`QuestionAnswerer`] | start and end of an answer | `ModernBertForQuestionAnswering` |
//! | [`MultipleChoice`] | a score per choice of a question | `ModernBertForMultipleChoice` |

mod choice;
mod labels;
mod mlm;
mod question;
mod sequence;
mod token;

pub use choice::MultipleChoice;
pub use labels::LabelError;
pub use mlm::{MaskedLm, MaskedLmOutput, MaskedTokens, TokenScores};
pub use question::{QuestionAnswerer, SpanLabels, SpanLogits, SpanOutput};
pub use sequence::{Classification, ClassificationLabels, SequenceClassifier};
pub use token::TokenClassifier;

use burn::module::Module;
use burn::tensor::{Device, Tensor};

use super::activation::activate;
use super::linear::Linear;
use super::norm::LayerNorm;
use super::precision::Precision;
use crate::batch::{Dropout, int_tensor};
use crate::config::{Activation, ModernBertConfig};
use crate::ops::cross_entropy::cross_entropy;
use crate::ops::dropout::{DropoutSpec, Site, dropout};
use crate::ops::sum::{mean, sum};

/// `norm(act(dense(x)))`: shared by the MLM and the classification heads, in the model and in files, so that finetuning of a classifier
/// starts from the pretrained layer.
#[derive(Module, Debug)]
struct PredictionHead {
    dense: Linear,
    norm: LayerNorm,
    #[module(skip)]
    activation: Activation,
}

impl PredictionHead {
    fn new(config: &ModernBertConfig, device: &Device) -> Self {
        let hidden = config.hidden_size;
        Self {
            dense: Linear::new(hidden, hidden, config.classifier_bias, device),
            norm: LayerNorm::new(config, device),
            activation: config.classifier_activation,
        }
    }

    /// `[rows, hidden]` f32 in and out.
    fn forward(&self, x: Tensor<2>, precision: Precision) -> Tensor<2> {
        let x = precision.raise(self.dense.forward(precision.lower(x)));
        self.norm.forward(activate(self.activation, x))
    }
}

/// The classifier's input: `z`, with dropout in training.
fn before_classifier(z: Tensor<2>, dropped: Option<Dropout>) -> Tensor<2> {
    match dropped.and_then(|dropped| DropoutSpec::of(&dropped, 0, Site::Classifier)) {
        Some(spec) => dropout(z, spec),
        None => z,
    }
}

/// Mean cross-entropy `[1]` of the rows of `logits [rows, classes]` that have a label; 0 without any. The caller checks the
/// labels.
fn mean_of_labelled(logits: Tensor<2>, labels: &[Option<u32>]) -> Tensor<1> {
    let device = logits.device();
    let count = labels.iter().flatten().count();
    if labels.is_empty() {
        return Tensor::zeros([1], &device);
    }
    let targets = int_tensor(labels.iter().map(|l| l.unwrap_or(0) as i32), &device);
    let losses = cross_entropy(logits, targets);
    if count == labels.len() {
        return mean(losses);
    }
    let share = 1.0 / count.max(1) as f32;
    let weights: Vec<f32> = labels
        .iter()
        .map(|l| if l.is_some() { share } else { 0.0 })
        .collect();
    sum(losses * Tensor::from_floats(weights.as_slice(), &device))
}
