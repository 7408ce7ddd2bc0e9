//! The heads on top of the encoder.
//!
//! | head | outputs | Hugging Face's class |
//! |---|---|---|
//! | [`MaskedLm`] | a score per vocabulary entry at chosen tokens | `ModernBertForMaskedLM` |
//! | [`SequenceClassifier`] | labels of a sequence, one, several or a number | `ModernBertForSequenceClassification` |
//! | [`TokenClassifier`] | a label per token | `ModernBertForTokenClassification` |
//! | [`QuestionAnswerer`] | start and end of an answer | `ModernBertForQuestionAnswering` |
//! | [`MultipleChoice`] | a score per choice of a question | `ModernBertForMultipleChoice` |
//!
//! BERT and RoBERTa have classes of the same endings.

mod choice;
mod labels;
mod loss;
mod mlm;
mod question;
mod sequence;
mod token;

use loss::row_losses;

pub use choice::MultipleChoice;
pub use labels::LabelError;
pub use mlm::{MaskedLm, MaskedLmOutput, MaskedTokens, TokenScores};
pub use question::{QuestionAnswerer, SpanLabels, SpanLogits, SpanOutput};
pub use sequence::{Classification, ClassificationLabels, SequenceClassifier};
pub use token::TokenClassifier;

use burn::module::Module;
use burn::tensor::{Device, Tensor};

use super::activation::Activate;
use super::linear::Linear;
use super::norm::Norm;
use super::precision::Precision;
use crate::batch::{Dropout, int_tensor};
use crate::config::ModernBertConfig;
use crate::config::flexbert::{HeadSpec, LossSpec};
use crate::ops::dropout::{DropoutSpec, Site, dropout};
use crate::ops::sum::{mean, sum};

/// `norm(act(dense(x)))`: shared by the MLM and the classification heads, in the model and in files, so that finetuning of a classifier
/// starts from the pretrained layer. Bias and norm are optional.
#[derive(Module, Debug)]
struct PredictionHead {
    dense: Linear,
    act: Activate,
    norm: Option<Norm>,
}

impl PredictionHead {
    fn new(spec: &HeadSpec, hidden: usize, device: &Device) -> Self {
        Self {
            dense: Linear::new(hidden, hidden, spec.bias, device),
            act: Activate::new(spec.activation, device),
            norm: spec.norm.as_ref().map(|norm| Norm::new(norm, device)),
        }
    }

    /// The head of masked language modeling.
    fn of_predictions(config: &ModernBertConfig, device: &Device) -> Self {
        Self::new(&config.spec().prediction, config.hidden_size, device)
    }

    /// The head of classifiers of sequences.
    fn of_classes(config: &ModernBertConfig, device: &Device) -> Self {
        Self::new(&config.spec().classification, config.hidden_size, device)
    }

    /// The head of classifiers of tokens; `None` where the classifier reads the encoder's states.
    fn of_tokens(config: &ModernBertConfig, device: &Device) -> Option<Self> {
        let spec = config.spec().token_classification;
        spec.map(|spec| Self::new(&spec, config.hidden_size, device))
    }

    /// `[rows, hidden]` f32 in and out.
    fn forward(&self, x: Tensor<2>, precision: Precision) -> Tensor<2> {
        let x = precision.raise(self.dense.forward(precision.to_compute(x)));
        let activated = self.act.forward(x);
        match &self.norm {
            Some(norm) => norm.forward(activated),
            None => activated,
        }
    }
}

/// The classifier's input: `z`, with dropout in training.
fn before_classifier(z: Tensor<2>, dropped: Option<Dropout>) -> Tensor<2> {
    drop_at(z, dropped, Site::Classifier)
}

/// `x`, with dropout at a site of the head in training.
fn drop_at(x: Tensor<2>, dropped: Option<Dropout>, site: Site) -> Tensor<2> {
    match dropped.and_then(|dropped| DropoutSpec::of(&dropped, 0, site)) {
        Some(spec) => dropout(x, spec),
        None => x,
    }
}

/// Mean cross-entropy `[1]` of the rows of `logits [rows, classes]` that have a label; 0 without any. The caller checks the
/// labels.
fn mean_of_labelled(logits: Tensor<2>, labels: &[Option<u32>], loss: LossSpec) -> Tensor<1> {
    let device = logits.device();
    let count = labels.iter().flatten().count();
    if labels.is_empty() {
        return Tensor::zeros([1], &device);
    }
    let targets = int_tensor(labels.iter().map(|l| l.unwrap_or(0) as i32), &device);
    let losses = row_losses(loss, logits, targets);
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
