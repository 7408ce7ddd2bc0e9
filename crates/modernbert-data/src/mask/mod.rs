//! Masked-language-model masking of packed rows.
//!
//! With masking probability `p` (0.3 in ModernBERT), a token is predicted with probability `p`; of those, 80 % are
//! shown as `[MASK]`, 10 % as a random token, 10 % as they are. One uniform draw for each position decides all of it.
//!
//! The choice of tokens is a pure function of [`MaskKey`] and of the cap on a row's labels, independent of earlier
//! rows, so a resumed run masks the same tokens. Random tokens are uniform over every id but padding and the unused
//! ones (`[unused0]` and so on), which no text contains. (The published code draws them up to the largest id in the
//! batch, so that one row's masking depends on the others.)

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
/// Draws for one row before [`Masker::mask_within`] gives up. With [`label_cap`] a second draw is needed once in 10^9 rows; only a cap
/// below the mean number of labels uses up this many.
const DRAWS: u64 = 64;

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
    /// The epoch, counted from 0: each shows the same tokens masked differently. Always 0 where `row` is counted over all epochs, as in
    /// [`crate::loader`].
    pub epoch: u64,
    /// In training the row's number over the whole phase and all ranks, in evaluation the number of the sample.
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
    /// Ids below `vocab_size` that no random token has, ascending: padding and unused ids.
    never_drawn: Vec<u32>,
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
        let vocab_size = tokenizer.vocab_size() as u32;
        let unused =
            (0..vocab_size).filter(|&id| tokenizer.token(id).is_some_and(|t| is_unused(&t)));
        Self::from_ids(mask_prob, special.mask, special.pad, vocab_size, protected)?
            .without_drawing(unused)
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
            never_drawn: (pad_id < vocab_size)
                .then_some(pad_id)
                .into_iter()
                .collect(),
        })
    }

    /// The same masker, whose random tokens are never one of `ids`.
    ///
    /// # Errors
    /// No id is left to draw.
    pub fn without_drawing(
        mut self,
        ids: impl IntoIterator<Item = u32>,
    ) -> Result<Self, MaskError> {
        let ids = ids.into_iter().filter(|&id| id < self.vocab_size);
        self.never_drawn.extend(ids);
        self.never_drawn.sort_unstable();
        self.never_drawn.dedup();
        if self.never_drawn.len() >= self.vocab_size as usize {
            return Err(MaskError::Vocabulary(self.vocab_size));
        }
        Ok(self)
    }

    /// The probability with which a token is predicted.
    pub fn mask_prob(&self) -> f64 {
        self.mask_prob
    }

    /// Masks tokens of `row`. Padding is neither predicted nor changed.
    pub fn mask(&self, row: &PackedRow, key: MaskKey) -> MaskedRow {
        self.draw(row, key, 0)
    }

    /// Masks at most `cap` tokens of `row`: returns the first of up to 64 draws that has no more labels than `cap`. Draw 0
    /// is [`Self::mask`]'s; each draw has its own random numbers, so the result is a function of row, key and cap alone.
    ///
    /// # Errors
    /// Too many labels in every one of 64 draws: the cap is too small for the row.
    pub fn mask_within(
        &self,
        row: &PackedRow,
        key: MaskKey,
        cap: usize,
    ) -> Result<MaskedRow, MaskError> {
        let mut labels = 0;
        for attempt in 0..DRAWS {
            let masked = self.draw(row, key, attempt);
            if masked.labels.len() <= cap {
                return Ok(masked);
            }
            labels = masked.labels.len();
        }
        Err(MaskError::Overflow { labels, cap })
    }

    /// Draw number `attempt` of a row.
    fn draw(&self, row: &PackedRow, key: MaskKey, attempt: u64) -> MaskedRow {
        // Two streams for each draw: the number of random tokens must not change the choice of later positions.
        let mut choice = keyed_rng(Purpose::Mask, key.seed, key.epoch, key.row);
        choice.set_stream(2 * attempt);
        let mut replacement = choice.clone();
        replacement.set_stream(2 * attempt + 1);

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
        let excluded = self.never_drawn.len() as u64;
        let mut id = below(rng, u64::from(self.vocab_size) - excluded) as u32;
        // Each excluded id, in ascending order, moves the ids from itself on up by one.
        for &never in &self.never_drawn {
            if id < never {
                break;
            }
            id += 1;
        }
        id
    }
}

/// Returns whether a token fills up a vocabulary: `[unused0]`, `[unused1]`, …
fn is_unused(token: &str) -> bool {
    let number = token
        .strip_prefix("[unused")
        .and_then(|rest| rest.strip_suffix(']'));
    number.is_some_and(|digits| !digits.is_empty() && digits.bytes().all(|b| b.is_ascii_digit()))
}
