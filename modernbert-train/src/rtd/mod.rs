//! Replaced-token detection: pretraining with a generator and a discriminator, an experiment of the authors' (a branch of their training code).
//!
//! The generator, a masked language model, predicts the masked tokens of a row. A token is drawn from each prediction, and the row with these
//! tokens in place of the masks is the discriminator's input: a [`TokenClassifier`] with one output, which says of every token whether it
//! differs from the original. A draw that hits the original counts as original. With M masked tokens, T tokens that are not padding, scores
//! `x` and labels `y` (1: replaced) of a step, the loss is
//!
//! ```text
//! 1/M Σ cross-entropy of the generator  +  weight · 1/T Σ (max(x, 0) - x y + ln(1 + e^-|x|))
//! ```
//!
//! No gradient passes through the draw: generator and discriminator share the optimizer, and no weights. Draws are a function of
//! (seed, row, number of the label), so that a step repeats itself. Paper: <https://arxiv.org/abs/2003.10555> (ELECTRA), whose weight of 50 is
//! the default here.
//!
//! [`RtdTask`] trains a [`RtdModel`] in the loop of [`engine`](crate::engine), as masked language modeling is. There is no recipe for it: a
//! program makes the loop, as the tests of this module do, and takes the discriminator's encoder from the result.

mod task;
#[cfg(test)]
mod tests;

pub use task::{RtdBatch, RtdTask};

use burn::module::Module;
use burn::tensor::{Device, Int, Tensor, activation};
use modernbert::batch::{PackedBatch, int_tensor};
use modernbert::config::{ConfigError, ModernBertConfig};
use modernbert::device::{ReadError, read};
use modernbert::model::{MaskedLm, MaskedTokens, TokenClassifier, initialize};

use crate::loader::MlmItem;

/// Generator and discriminator.
#[derive(Module, Debug)]
pub struct RtdModel {
    /// Predicts the masked tokens.
    pub generator: MaskedLm,
    /// One score per token, above 0 where the token seems replaced.
    pub discriminator: TokenClassifier,
}

impl RtdModel {
    /// Both models with random weights.
    ///
    /// # Errors
    /// A config that can't be built.
    pub fn new(
        generator: &ModernBertConfig,
        discriminator: &ModernBertConfig,
        seed: u64,
        device: &Device,
    ) -> Result<Self, ConfigError> {
        let classifier = TokenClassifier::new(discriminator, 1, device)?;
        Ok(Self {
            generator: initialize(MaskedLm::new(generator, device)?, generator, seed),
            discriminator: initialize(classifier, discriminator, seed.wrapping_add(1)),
        })
    }
}

/// The discriminator's input and labels of a row.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Corrupted {
    /// The row with a drawn token in place of each masked one, padding included.
    pub ids: Vec<u32>,
    /// True where the token differs from the original, one per token that is not padding.
    pub replaced: Vec<bool>,
}

/// Replaces the labelled tokens of a masked row by `drawn`, one token per label.
pub fn corrupt(item: &MlmItem, drawn: &[u32]) -> Corrupted {
    let mut ids = item.input_ids.clone();
    let mut replaced = vec![false; item.real_tokens];
    let labels = item.labels.positions.iter().zip(&item.labels.labels);
    for ((&position, &original), &drawn) in labels.take(item.labelled).zip(drawn) {
        ids[position as usize] = drawn;
        replaced[position as usize] = drawn != original;
    }
    Corrupted { ids, replaced }
}

/// A number in `[0, 1)` for a label of a row: the first 53 bits of SplitMix64's output.
pub(crate) fn uniform(seed: u64, row: u64, label: u64) -> f64 {
    let mix = |mut z: u64| {
        z = z.wrapping_add(0x9E37_79B9_7F4A_7C15);
        z = (z ^ (z >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        z ^ (z >> 31)
    };
    let bits = mix(mix(mix(seed) ^ row) ^ label);
    (bits >> 11) as f64 / (1u64 << 53) as f64
}

/// Draws a token from each row of `logits [rows, vocab]`: the first whose cumulative probability is above `uniforms [rows]`.
///
/// # Errors
/// A device that can't be read.
pub fn draw(logits: Tensor<2>, uniforms: &[f32]) -> Result<Vec<u32>, ReadError> {
    let [rows, vocab] = logits.dims();
    let device = logits.device();
    let cumulative = activation::softmax(logits, 1).cumsum(1);
    let uniforms = Tensor::<1>::from_floats(uniforms, &device).reshape([rows, 1]);
    let below = cumulative.lower_equal(uniforms.expand([rows, vocab]));
    let counts = read(below.float().sum_dim(1).reshape([rows]))?;
    // Rounding may leave the last sum below 1.
    let last = vocab.saturating_sub(1) as u32;
    Ok(counts
        .into_iter()
        .map(|count| (count as u32).min(last))
        .collect())
}

/// Sums of a row, each `[1]`.
pub(crate) struct RowLosses {
    /// Cross-entropies of the generator over the masked tokens, in nats.
    pub(crate) generator: Tensor<1>,
    /// Binary cross-entropies of the discriminator over the tokens that are not padding, in nats.
    pub(crate) discriminator: Tensor<1>,
    /// Tokens that the discriminator judges right.
    pub(crate) right: Tensor<1>,
    /// Tokens that are replaced.
    pub(crate) replaced: usize,
}

impl RtdModel {
    /// The losses of a row, with the draws of `seed`.
    ///
    /// # Errors
    /// A device that can't be read.
    pub(crate) fn losses(&self, item: &MlmItem, seed: u64) -> Result<RowLosses, ReadError> {
        let device = self.generator.model.device();
        let batch = |ids: &[u32]| {
            PackedBatch::new(ids, item.layout.clone(), &device).with_dropout(item.dropout)
        };
        let labels = &item.labels;
        let masked = MaskedTokens::new(&labels.positions, &labels.labels, &labels.weights, &device);
        let hidden = self.generator.model.forward(&batch(&item.input_ids));
        let logits = self
            .generator
            .decode(hidden.clone().detach().select(0, masked.positions.clone()));
        let uniforms: Vec<f32> = (0..labels.positions.len())
            .map(|label| uniform(seed, item.row, label as u64) as f32)
            .collect();
        let drawn = draw(logits.detach().inner(), &uniforms)?;
        let Corrupted { ids, replaced } = corrupt(item, &drawn);
        let generator = self.generator.score(hidden, &masked).loss_sum;

        let real = replaced.len();
        let scores = self.discriminator.logits(&batch(&ids));
        let scores = scores.slice([0..real, 0..1]).reshape([real]);
        let labels: Tensor<1, Int> = int_tensor(
            replaced.iter().map(|&replaced| i32::from(replaced)),
            &device,
        );
        let right = scores
            .clone()
            .detach()
            .greater_elem(0.0)
            .int()
            .equal(labels.clone());
        let loss = activation::relu(scores.clone()) - scores.clone() * labels.float()
            + (scores.abs().neg().exp() + 1.0).log();
        Ok(RowLosses {
            generator,
            discriminator: loss.sum(),
            right: right.float().sum(),
            replaced: replaced.iter().filter(|&&replaced| replaced).count(),
        })
    }
}
