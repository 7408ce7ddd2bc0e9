//! What stands on the encoder.

mod mlm;
mod sequence;

pub use mlm::{MaskedLm, MaskedLmOutput, MaskedTokens};
pub use sequence::{Classification, ClassificationLabels, SequenceClassifier};

use burn::module::Module;
use burn::tensor::{Device, Tensor};

use super::activation::activate;
use super::linear::Linear;
use super::norm::LayerNorm;
use super::precision::Precision;
use crate::config::{Activation, ModernBertConfig};

/// `norm(act(dense(x)))`: shared by the MLM and the classification heads, in the model and in files, so that a classifier
/// starts from the pretrained one.
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
