//! Vectors of many texts on the host.

use modernbert::device::read;

use super::embedder::{Embedder, VectorKind};
use super::error::TrainError;
use super::step::text_batch;
use super::texts::TokenizedText;

/// Tokens of a batch.
const BATCH_TOKENS: usize = 16_384;

/// Vectors of texts, in order.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct EncodedTexts {
    /// Components of a vector.
    pub dimension: usize,
    /// `[vectors, dimension]`.
    pub values: Vec<f32>,
    /// First vector of each text, and the number of vectors as the last entry: `[texts + 1]`.
    pub offsets: Vec<usize>,
}

/// Encodes texts with a model on a device without gradients. Meanwhile texts are sorted by length and packed into batches of 16384 tokens.
/// Tokens that do not count have no vector in the result.
///
/// # Errors
/// A device that can't be read; a vector that is not finite.
pub fn encode(
    model: &Embedder,
    kind: &VectorKind,
    texts: &[TokenizedText],
) -> Result<EncodedTexts, TrainError> {
    let device = model.model.device();
    let mut order: Vec<usize> = (0..texts.len()).collect();
    // The longest first: a batch that does not fit the device fails at once.
    order.sort_by_key(|&i| std::cmp::Reverse(texts[i].ids.len()));
    let lengths: Vec<usize> = order.iter().map(|&i| texts[i].ids.len()).collect();
    let mut dimension = 0;
    let mut vectors: Vec<Vec<f32>> = vec![Vec::new(); texts.len()];
    for range in super::step::chunks(&lengths, BATCH_TOKENS) {
        let members = &order[range];
        let batch: Vec<&TokenizedText> = members.iter().map(|&i| &texts[i]).collect();
        let found = model.forward(&text_batch(&batch, &device)?, kind);
        dimension = found.dimension();
        let values = read(found.values)?;
        for (text, &i) in members.iter().enumerate() {
            let own = found.offsets[text]..found.offsets[text + 1];
            let counts = |vector: &usize| found.counts.as_ref().is_none_or(|c| c[*vector]);
            for vector in own.filter(counts) {
                let components = &values[vector * dimension..(vector + 1) * dimension];
                if components.iter().any(|value| !value.is_finite()) {
                    return Err(TrainError::NotFinite {
                        what: format!("text {}", i + 1),
                    });
                }
                vectors[i].extend_from_slice(components);
            }
        }
    }
    let mut offsets = vec![0];
    for own in &vectors {
        let before = offsets[offsets.len() - 1];
        offsets.push(before + own.len() / dimension.max(1));
    }
    Ok(EncodedTexts {
        dimension,
        values: vectors.concat(),
        offsets,
    })
}
