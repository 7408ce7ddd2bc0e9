//! Masked-language-model masking of packed rows.
//!
//! With masking probability `p` (0.3 in ModernBERT), a token is predicted with probability `p`; of those, 80 % are
//! shown as `[MASK]`, 10 % as a random token, 10 % as they are. One uniform draw for each position decides all of it.
//!
//! The choice of tokens is a pure function of [`MaskKey`], independent of earlier rows, so a resumed run masks the
//! same tokens. Random tokens are uniform over every id but the padding one. (The published code draws them up to the
//! largest id in the batch, so that one row's masking depends on the others.)

#[cfg(test)]
mod tests;

use rand_chacha::rand_core::Rng;

use modernbert_files::tokenizer::Tokenizer;

use crate::order::{Purpose, below, keyed_rng};
use crate::pack::PackedRow;

/// The share of predicted tokens that are shown as `[MASK]`.
const SHOWN_MASKED: f64 = 0.8;
/// The share of predicted tokens that are shown as `[MASK]` or as a random token.
const SHOWN_CHANGED: f64 = 0.9;

/// An error of masking.
#[derive(Debug, thiserror::Error, PartialEq)]
pub enum MaskError {
    /// The probability is invalid.
    #[error("a masking probability of {0} is not between 0 and 1; ModernBERT is trained with 0.3")]
    Probability(f64),
    /// There is no id to draw random tokens from.
    #[error(
        "a vocabulary of {0} ids has none to replace tokens with; use the tokenizer's vocab_size"
    )]
    Vocabulary(u32),
    /// More tokens were chosen than the cap allows.
    #[error(
        "{labels} tokens of a row are to be predicted and the cap is {cap}; \
         compute the cap with `label_cap` from the row's length and the masking probability"
    )]
    Overflow {
        /// Tokens chosen.
        labels: usize,
        /// The cap.
        cap: usize,
    },
}

/// Key of a row's masking.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct MaskKey {
    /// The run's seed.
    pub seed: u64,
    /// The epoch, counted from 0: each shows the same tokens masked differently.
    pub epoch: u64,
    /// The row's number in its epoch, over all ranks.
    pub row: u64,
}

/// A row with some of its tokens masked.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct MaskedRow {
    /// Input of the model.
    pub input_ids: Vec<u32>,
    /// Predicted positions, ascending.
    pub positions: Vec<u32>,
    /// The original ids at these positions.
    pub labels: Vec<u32>,
}

/// The predicted positions of a row, padded to a fixed count, so that every step has the same shapes.
#[derive(Debug, Clone, PartialEq)]
pub struct CappedLabels {
    /// Positions; padding is 0.
    pub positions: Vec<u32>,
    /// Labels; padding is 0.
    pub labels: Vec<u32>,
    /// 1 for predicted positions, 0 for padding.
    pub weights: Vec<f32>,
}

impl MaskedRow {
    /// Positions and labels padded to `cap`; more are an error and never dropped.
    pub fn capped(&self, cap: usize) -> Result<CappedLabels, MaskError> {
        let labels = self.labels.len();
        if labels > cap {
            return Err(MaskError::Overflow { labels, cap });
        }
        let filled = |values: &[u32]| {
            let mut values = values.to_vec();
            values.resize(cap, 0);
            values
        };
        let mut weights = vec![1.0; labels];
        weights.resize(cap, 0.0);
        Ok(CappedLabels {
            positions: filled(&self.positions),
            labels: filled(&self.labels),
            weights,
        })
    }
}

/// Cap on the predicted tokens of a row: the expected number plus six standard deviations of the binomial, which a
/// row exceeds about once in a billion.
pub fn label_cap(tokens: usize, mask_prob: f64) -> usize {
    let mean = tokens as f64 * mask_prob;
    let deviation = (mean * (1.0 - mask_prob)).max(0.0).sqrt();
    ((mean + 6.0 * deviation).ceil() as usize).min(tokens)
}

/// Masks tokens of rows.
#[derive(Debug, Clone, PartialEq)]
pub struct Masker {
    mask_prob: f64,
    mask_id: u32,
    pad_id: u32,
    vocab_size: u32,
    /// Ids never chosen, besides padding.
    protected: Vec<u32>,
}

impl Masker {
    /// Masking for rows of this tokenizer.
    ///
    /// With `protect_special`, special tokens such as `[CLS]` are never predicted: for evaluation, where they would
    /// inflate the score. ModernBERT itself was trained without.
    pub fn new(
        tokenizer: &Tokenizer,
        mask_prob: f64,
        protect_special: bool,
    ) -> Result<Self, MaskError> {
        let special = tokenizer.special();
        let protected = if protect_special {
            special.ids().to_vec()
        } else {
            Vec::new()
        };
        Self::from_ids(
            mask_prob,
            special.mask,
            special.pad,
            tokenizer.vocab_size() as u32,
            protected,
        )
    }

    /// The same from plain ids: random tokens are drawn from `0..vocab_size` (without `pad_id`), `protected`
    /// ids are never predicted.
    pub fn from_ids(
        mask_prob: f64,
        mask_id: u32,
        pad_id: u32,
        vocab_size: u32,
        protected: Vec<u32>,
    ) -> Result<Self, MaskError> {
        if !(mask_prob > 0.0 && mask_prob < 1.0) {
            return Err(MaskError::Probability(mask_prob));
        }
        if vocab_size < 2 {
            return Err(MaskError::Vocabulary(vocab_size));
        }
        Ok(Self {
            mask_prob,
            mask_id,
            pad_id,
            vocab_size,
            protected,
        })
    }

    /// The probability with which a token is predicted.
    pub fn mask_prob(&self) -> f64 {
        self.mask_prob
    }

    /// Masks tokens of `row`. Padding is neither predicted nor changed.
    pub fn mask(&self, row: &PackedRow, key: MaskKey) -> MaskedRow {
        // Two streams of one key: the number of random tokens must not change the choice of later positions.
        let mut choice = keyed_rng(Purpose::Mask, key.seed, key.epoch, key.row);
        let mut replacement = choice.clone();
        replacement.set_stream(1);

        let mut masked = MaskedRow {
            input_ids: row.ids.clone(),
            positions: Vec::new(),
            labels: Vec::new(),
        };
        for (position, &id) in row.ids.iter().enumerate().take(row.real_tokens) {
            let draw = f64::from(choice.next_u32()) / 2f64.powi(32);
            if draw >= self.mask_prob || id == self.pad_id || self.protected.contains(&id) {
                continue;
            }
            masked.positions.push(position as u32);
            masked.labels.push(id);
            if draw < SHOWN_MASKED * self.mask_prob {
                masked.input_ids[position] = self.mask_id;
            } else if draw < SHOWN_CHANGED * self.mask_prob {
                masked.input_ids[position] = self.random_id(&mut replacement);
            }
        }
        masked
    }

    fn random_id(&self, rng: &mut impl Rng) -> u32 {
        if self.pad_id >= self.vocab_size {
            return below(rng, u64::from(self.vocab_size)) as u32;
        }
        // One id fewer, and the ones from padding on move up by one.
        let id = below(rng, u64::from(self.vocab_size) - 1) as u32;
        if id < self.pad_id { id } else { id + 1 }
    }
}
