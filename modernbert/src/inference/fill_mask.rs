//! What could stand at a masked position.

use burn::tensor::activation::softmax;

use crate::batch::{LayoutError, PackedBatch, int_tensor};
use crate::config::ConfigError;
use crate::model::MaskedLm;
use crate::tokenizer::{Tokenizer, TokenizerError};

/// Masks scored at once: a row of scores is as wide as the vocabulary.
const ROWS: usize = 256;

/// A token and how likely the model finds it.
#[derive(Clone, Debug, PartialEq)]
pub struct Candidate {
    /// Id of the token.
    pub id: u32,
    /// The token as text; often with a leading blank, which belongs to it.
    pub token: String,
    /// Probability over the whole vocabulary.
    pub probability: f32,
}

/// Why a text can't be filled in.
#[derive(Debug, thiserror::Error)]
pub enum FillMaskError {
    /// There is nothing to fill in.
    #[error("the text holds no {mask}; put one where a token should be guessed: {text:?}")]
    NoMask {
        /// The mask token of this tokenizer.
        mask: String,
        /// The text.
        text: String,
    },
    /// The text is longer than the model's positions.
    #[error("the text has {tokens} tokens, the model takes {limit}; shorten it")]
    TooLong {
        /// Tokens of the text.
        tokens: usize,
        /// Positions of the model.
        limit: usize,
    },
    /// The vocabulary of the tokenizer and of the model differ.
    #[error(
        "token id {id} is outside the model's vocabulary of {vocab}; the tokenizer belongs to another model"
    )]
    Vocabulary {
        /// The id.
        id: u32,
        /// Size of the model's vocabulary.
        vocab: usize,
    },
    /// The text can't be encoded.
    #[error(transparent)]
    Tokenizer(#[from] TokenizerError),
    /// More tokens than a batch can hold.
    #[error(transparent)]
    Layout(#[from] LayoutError),
    /// The text is more than the device holds at once.
    #[error(transparent)]
    TooLarge(#[from] ConfigError),
    /// The device could not be read.
    #[error("the scores could not be read from the device: {0}")]
    Device(String),
}

/// The `count` likeliest tokens for every mask of `text`, best first, one list per mask in order.
///
/// # Errors
/// A text without mask or beyond the model's positions; a tokenizer that doesn't belong to the model.
pub fn fill_mask(
    model: &MaskedLm,
    tokenizer: &Tokenizer,
    text: &str,
    count: usize,
) -> Result<Vec<Vec<Candidate>>, FillMaskError> {
    let ids = tokenizer.encode(text)?;
    let config = model.model.config();
    if ids.len() > config.max_position_embeddings {
        return Err(FillMaskError::TooLong {
            tokens: ids.len(),
            limit: config.max_position_embeddings,
        });
    }
    if let Some(&id) = ids.iter().find(|&&id| id as usize >= config.vocab_size) {
        return Err(FillMaskError::Vocabulary {
            id,
            vocab: config.vocab_size,
        });
    }
    let mask = tokenizer.special().mask;
    let positions: Vec<i32> = (0..ids.len())
        .filter(|&i| ids[i] == mask)
        .map(|i| i as i32)
        .collect();
    if positions.is_empty() {
        return Err(FillMaskError::NoMask {
            mask: tokenizer.token(mask).unwrap_or_default(),
            text: text.to_string(),
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
        let probabilities: Vec<f32> = softmax(logits, 1)
            .try_into_data()
            .map_err(|error| FillMaskError::Device(error.to_string()))?
            .try_to_vec()
            .map_err(|error| FillMaskError::Device(format!("{error:?}")))?;
        let rows = probabilities.chunks(probabilities.len() / some.len());
        candidates.extend(rows.map(|row| best(row, count, tokenizer)));
    }
    Ok(candidates)
}

fn best(row: &[f32], count: usize, tokenizer: &Tokenizer) -> Vec<Candidate> {
    let mut order: Vec<u32> = (0..row.len() as u32).collect();
    order.sort_by(|&a, &b| row[b as usize].total_cmp(&row[a as usize]).then(a.cmp(&b)));
    order
        .into_iter()
        .take(count)
        .map(|id| Candidate {
            id,
            token: tokenizer.token(id).unwrap_or_default(),
            probability: row[id as usize],
        })
        .collect()
}
