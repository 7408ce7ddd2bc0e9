//! Masked language modeling: a score for every token of the vocabulary at the labeled positions.

use burn::module::{Module, Param};
use burn::tensor::{Device, Int, Tensor};

use super::{PredictionHead, row_losses};
use crate::batch::{PackedBatch, TokenOrder, int_tensor};
use crate::config::{ConfigError, ModernBertConfig};
use crate::model::encoder::ModernBert;
use crate::model::linear::zeros;
use crate::model::precision::Precision;
use crate::ops::cross_entropy::{cross_entropy, decoder_loss};
use crate::ops::{gather_rows::gather_rows, linear::linear, sum::sum};

/// Scores over the vocabulary; the weight is the token embedding unless the config unties it.
#[derive(Module, Debug)]
struct Decoder {
    weight: Option<Param<Tensor<2>>>,
    bias: Option<Param<Tensor<1>>>,
}

/// The encoder with its pretraining head.
///
/// `logits = E · norm(gelu(dense(h))) + bias`, where E is the token embedding: one parameter, stored once, whose gradient
/// is the sum of both uses.
#[derive(Module, Debug)]
pub struct MaskedLm {
    /// The encoder.
    pub model: ModernBert,
    head: PredictionHead,
    decoder: Decoder,
}

/// Labeled positions of a packed batch, on the device of the model.
///
/// Rows of weight 0 may pad the number of rows to a fixed one, so that shapes don't vary from batch to batch.
#[derive(Clone, Debug)]
pub struct MaskedTokens {
    /// Row of each labeled token in the batch, `[rows]`.
    pub positions: Tensor<1, Int>,
    /// The original token, `[rows]`.
    pub labels: Tensor<1, Int>,
    /// 1 for a labeled token, 0 for padding, `[rows]`.
    pub weights: Tensor<1>,
    /// The positions on the host, for the gradient of the hidden states.
    pub order: TokenOrder,
}

impl MaskedTokens {
    /// Moves host values to `device`.
    pub fn new(positions: &[u32], labels: &[u32], weights: &[f32], device: &Device) -> Self {
        Self {
            positions: int_tensor(positions.iter().map(|&p| p as i32), device),
            labels: int_tensor(labels.iter().map(|&l| l as i32), device),
            weights: Tensor::from_floats(weights, device),
            order: TokenOrder::new(positions.to_vec()),
        }
    }
}

/// Sums over the labeled rows of a batch, the loss with the config's label smoothing and z-loss; divide by the number of labeled tokens, of one batch or of several.
#[derive(Clone, Debug)]
pub struct MaskedLmOutput {
    /// Sum of the losses, `[1]`, in nats.
    pub loss_sum: Tensor<1>,
    /// Number of rows whose best token is the label, `[1]`.
    pub correct: Tensor<1>,
}

/// Scores of labeled rows one by one, padding included.
#[derive(Clone, Debug)]
pub struct TokenScores {
    /// Cross-entropy of each row, `[rows]`, in nats.
    pub losses: Tensor<1>,
    /// 1 where the best token is the label, `[rows]`.
    pub hits: Tensor<1>,
}

impl MaskedLm {
    /// A model of this shape with all weights zero; load or [`crate::model::initialize`] it before use.
    ///
    /// # Errors
    /// As [`ModernBertConfig::validate`].
    pub fn new(config: &ModernBertConfig, device: &Device) -> Result<Self, ConfigError> {
        let (vocab, hidden) = (config.vocab_size, config.hidden_size);
        Ok(Self {
            model: ModernBert::new(config, device)?,
            head: PredictionHead::of_predictions(config, device),
            decoder: Decoder {
                weight: (!config.tie_word_embeddings).then(|| zeros([vocab, hidden], device)),
                bias: config
                    .decoder_bias
                    .then(|| Param::from_tensor(Tensor::zeros([vocab], device))),
            },
        })
    }

    /// The same model with its matrix multiplications in another dtype.
    pub fn with_precision(mut self, precision: Precision) -> Self {
        self.model = self.model.with_precision(precision);
        self
    }

    /// The same model with another rotary base in its global layers; see [`ModernBert::with_global_rope_theta`].
    pub fn with_global_rope_theta(mut self, theta: f64) -> Self {
        self.model = self.model.with_global_rope_theta(theta);
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

    /// The same model with activation checkpointing on or off; see [`ModernBert::with_recompute`].
    pub fn with_recompute(mut self, recompute: bool) -> Self {
        self.model = self.model.with_recompute(recompute);
        self
    }

    /// Scores `[rows, vocab]` in f32 at the given rows of the batch; head and decoder compute only these.
    pub fn logits(&self, batch: &PackedBatch, positions: Tensor<1, Int>) -> Tensor<2> {
        self.decode(self.model.forward(batch).select(0, positions))
    }

    /// Scores `[rows, vocab]` in f32 for hidden states `[rows, hidden]`.
    pub fn decode(&self, hidden: Tensor<2>) -> Tensor<2> {
        let precision = self.model.head_precision();
        let z = precision.to_compute(self.head.forward(hidden, precision));
        let (weight, bias) = self.decoder();
        precision.raise(linear(z, weight, bias))
    }

    /// Weight and bias of the decoder; the weight is the token embedding unless untied.
    fn decoder(&self) -> (Tensor<2>, Option<Tensor<1>>) {
        let weight = match &self.decoder.weight {
            Some(weight) => weight.val(),
            None => self.model.embeddings.tok_embeddings.weight.val(),
        };
        (weight, self.decoder.bias.as_ref().map(|bias| bias.val()))
    }

    /// Loss and number of correct predictions over the labeled tokens.
    pub fn forward(&self, batch: &PackedBatch, masked: &MaskedTokens) -> MaskedLmOutput {
        self.score(self.model.forward(batch), masked)
    }

    /// Loss and number of correct predictions over the labeled tokens of a batch, from its hidden states `[total, hidden]`.
    pub fn score(&self, hidden: Tensor<2>, masked: &MaskedTokens) -> MaskedLmOutput {
        let precision = self.model.head_precision();
        let hidden = gather_rows(hidden, masked.positions.clone(), masked.order.clone());
        let z = precision.to_compute(self.head.forward(hidden, precision));
        let (weight, bias) = self.decoder();
        let loss = self.model.config().flexbert.loss();
        if !loss.is_cross_entropy() {
            let logits = precision.raise(linear(z, weight, bias));
            let (labels, weights) = (masked.labels.clone(), masked.weights.clone());
            let hits = best_is(logits.clone(), labels.clone());
            return MaskedLmOutput {
                loss_sum: sum(row_losses(loss, logits, labels) * weights.clone()),
                correct: sum(hits * weights),
            };
        }
        let (loss_sum, correct) = decoder_loss(
            z,
            weight,
            bias,
            masked.labels.clone(),
            masked.weights.clone(),
            None,
        );
        MaskedLmOutput { loss_sum, correct }
    }

    /// Loss and correctness of each labeled token of a batch, from its hidden states `[total, hidden]`.
    pub fn token_scores(&self, hidden: Tensor<2>, masked: &MaskedTokens) -> TokenScores {
        let logits = self.decode(hidden.select(0, masked.positions.clone()));
        let hits = best_is(logits.clone(), masked.labels.clone());
        TokenScores {
            losses: cross_entropy(logits, masked.labels.clone()),
            hits,
        }
    }
}

/// 1 for each row whose largest score is that of its label, `[rows]`.
fn best_is(logits: Tensor<2>, labels: Tensor<1, Int>) -> Tensor<1> {
    let best = logits.detach().argmax(1).flatten::<1>(0, 1);
    best.equal(labels).float()
}
