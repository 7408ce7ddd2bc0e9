//! Predictions for masked tokens.

use burn::tensor::activation::softmax;

use super::runner::Runner;
use super::{BatchOptions, InferenceError};
use crate::batch::{PackedBatch, int_tensor};
use crate::device::read;
use crate::loader::Loader;
use crate::model::MaskedLm;
use crate::tokenizer::Tokenizer;

/// Masks that are scored together: a row of scores is as wide as the vocabulary.
const ROWS: usize = 256;

/// A predicted token and its probability.
#[derive(Clone, Debug, PartialEq)]
pub struct Candidate {
    /// Id of the token.
    pub id: u32,
    /// The token as text, often with a leading blank.
    pub token: String,
    /// Probability over the whole vocabulary.
    pub probability: f32,
}

/// A masked language model and its tokenizer, for predictions of masked tokens.
///
/// ```
/// use modernbert::MaskFiller;
///
/// # let folder = tiny_models::masked_lm();
/// # let name = folder.path();
/// let filler = MaskFiller::load(name)?;
/// let masks = filler.fill("one [MASK] three", 5)?;
/// println!("{:?} with probability {:.2}", masks[0][0].token, masks[0][0].probability);
/// # assert_eq!((masks.len(), masks[0].len()), (1, 5));
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Debug)]
pub struct MaskFiller {
    model: MaskedLm,
    runner: Runner,
}

impl MaskFiller {
    /// A mask filler of these parts.
    ///
    /// # Errors
    /// Batches without tokens, a maximum length beyond the model's, a tokenizer of another model.
    pub fn new(
        model: MaskedLm,
        tokenizer: Tokenizer,
        batches: BatchOptions,
    ) -> Result<Self, InferenceError> {
        let runner = Runner::new(model.model.config(), tokenizer, batches)?;
        Ok(Self { model, runner })
    }

    /// Loads a masked language model and its tokenizer, from a folder or by its name on the Hub.
    ///
    /// # Errors
    /// As [`MaskedLm::load`] and [`Self::new`].
    pub fn load(model: impl Into<Loader>) -> Result<Self, InferenceError> {
        let opened = model.into().open::<MaskedLm>()?;
        let model = opened.for_inference(MaskedLm::new)?;
        Self::new(model, opened.tokenizer()?, opened.batches.clone())
    }

    /// The mask token of this tokenizer, such as `[MASK]`.
    pub fn mask(&self) -> String {
        let tokenizer = &self.runner.tokenizer;
        tokenizer
            .token(tokenizer.special().mask)
            .unwrap_or_default()
    }

    /// The `count` most probable tokens for every mask of `text`, best first, one list per mask in order.
    ///
    /// # Errors
    /// As [`fill_mask`].
    pub fn fill(&self, text: &str, count: usize) -> Result<Vec<Vec<Candidate>>, InferenceError> {
        fill(
            &self.model,
            &self.runner.tokenizer,
            self.runner.max_length,
            text,
            count,
        )
    }
}

/// The `count` most probable tokens for every mask of `text`, best first, one list per mask in order.
///
/// # Errors
/// A text without a mask or beyond the model's positions; a tokenizer of another model; an output that is not finite.
pub fn fill_mask(
    model: &MaskedLm,
    tokenizer: &Tokenizer,
    text: &str,
    count: usize,
) -> Result<Vec<Vec<Candidate>>, InferenceError> {
    let limit = model.model.config().max_position_embeddings;
    fill(model, tokenizer, limit, text, count)
}

fn fill(
    model: &MaskedLm,
    tokenizer: &Tokenizer,
    limit: usize,
    text: &str,
    count: usize,
) -> Result<Vec<Vec<Candidate>>, InferenceError> {
    let ids = tokenizer.encode(text)?;
    let mask = tokenizer.special().mask;
    let positions: Vec<i32> = (0..ids.len())
        .filter(|&i| ids[i] == mask)
        .map(|i| i as i32)
        .collect();
    if positions.is_empty() {
        return Err(InferenceError::NoMask {
            mask: tokenizer.token(mask).unwrap_or_default(),
            text: text.chars().take(200).collect(),
        });
    }
    if ids.len() > limit {
        return Err(InferenceError::TooLong {
            tokens: ids.len(),
            limit,
        });
    }
    let rows = model.model.config().vocab_size;
    if ids.iter().any(|&id| id as usize >= rows) {
        return Err(InferenceError::Vocabulary {
            tokens: tokenizer.id_bound(),
            rows,
        });
    }
    model.model.check_tokens(ids.len())?;
    let device = model.model.device();
    let batch = PackedBatch::from_sequences(&[ids], &device)?;
    let hidden = model.model.forward(&batch);
    let mut candidates = Vec::with_capacity(positions.len());
    for some in positions.chunks(ROWS) {
        let rows = int_tensor(some.iter().copied(), &device);
        let logits = model.decode(hidden.clone().select(0, rows));
        let probabilities = read(softmax(logits, 1))?;
        // A logit that is not finite makes its whole row NaN.
        if probabilities.iter().any(|p| !p.is_finite()) {
            return Err(InferenceError::NonFinite {
                index: 1,
                precision: model.model.precision().name(),
            });
        }
        let rows = probabilities.chunks(probabilities.len() / some.len());
        candidates.extend(rows.map(|row| best(row, count, tokenizer)));
    }
    Ok(candidates)
}

fn best(row: &[f32], count: usize, tokenizer: &Tokenizer) -> Vec<Candidate> {
    let candidate = |id: u32| Candidate {
        id,
        token: tokenizer.token(id).unwrap_or_default(),
        probability: row[id as usize],
    };
    largest(row, count).into_iter().map(candidate).collect()
}

/// Indices of the `count` largest values, the largest first, equal ones in their order.
fn largest(row: &[f32], count: usize) -> Vec<u32> {
    let better = |&a: &u32, &b: &u32| row[b as usize].total_cmp(&row[a as usize]).then(a.cmp(&b));
    let mut order: Vec<u32> = (0..row.len() as u32).collect();
    // Only the values that are returned are sorted: a vocabulary has 50,368.
    if (1..order.len()).contains(&count) {
        order.select_nth_unstable_by(count - 1, better);
    }
    order.truncate(count);
    order.sort_unstable_by(better);
    order
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_largest_are_those_of_a_full_sort() {
        // Few different values, so that many are equal.
        let row: Vec<f32> = test_support::normals(7, 500)
            .into_iter()
            .map(|x| (x * 3.0).round())
            .collect();
        let mut order: Vec<u32> = (0..500).collect();
        order.sort_by(|&a, &b| row[b as usize].total_cmp(&row[a as usize]));
        for count in [0, 1, 2, 77, 499, 500, 600] {
            assert_eq!(largest(&row, count), order[..count.min(500)], "{count}");
        }
        assert!(largest(&[], 3).is_empty());
    }
}
