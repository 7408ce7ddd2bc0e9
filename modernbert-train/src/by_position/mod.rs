//! Held-out loss by the position of a token in its sequence.
//!
//! The loss by position shows the effect of context extension: a model trained on short sequences alone gets worse beyond their length, an
//! extended model does not, and neither may get worse on the first tokens.

#[cfg(test)]
mod tests;

use modernbert::batch::PackedBatch;
use modernbert::device::{ReadError, read};
use modernbert::model::{MaskedLm, MaskedTokens};
use serde::{Deserialize, Serialize};

use crate::loader::MlmItem;

/// First positions of the buckets; the last bucket ends at 8192.
pub const EDGES: [usize; 8] = [0, 128, 512, 1024, 2048, 4096, 6144, 8192];

/// Scores of the labelled tokens at some positions.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct PositionScores {
    /// First position of the bucket, counted from 0 at the start of a token's own sequence.
    pub from: usize,
    /// The position it ends before.
    pub to: usize,
    /// Labelled tokens in it.
    pub tokens: usize,
    /// Their mean cross-entropy in nats; NaN where there are none.
    pub loss: f64,
    /// Share of them predicted correctly; NaN where there are none.
    pub masked_accuracy: f64,
}

/// Reason why the scores can't be computed.
#[derive(Debug, thiserror::Error)]
pub enum PositionError {
    /// The buckets' edges do not rise.
    #[error("buckets need at least two edges, each above the one before; they are {0:?}")]
    Edges(Vec<usize>),
    /// The device could not be read.
    #[error(transparent)]
    Device(#[from] ReadError),
}

/// Scores of evaluation items by position: a bucket from each of `edges` to the next. Tokens beyond the last edge are left out, and
/// sequences of fewer than `shortest` tokens: buckets can be compared with each other where all hold the same sequences.
///
/// Each item's losses are read back from the device, one item at a time.
///
/// # Errors
/// Edges that don't rise, a device that can't be read.
pub fn scores_by_position(
    model: &MaskedLm,
    items: &[MlmItem],
    edges: &[usize],
    shortest: usize,
) -> Result<Vec<PositionScores>, PositionError> {
    if edges.len() < 2 || edges.windows(2).any(|pair| pair[0] >= pair[1]) {
        return Err(PositionError::Edges(edges.to_vec()));
    }
    let device = model.model.device();
    let mut sums = vec![(0usize, 0.0f64, 0.0f64); edges.len() - 1];
    for item in items {
        let batch = PackedBatch::new(&item.input_ids, item.layout.clone(), &device);
        let labels = &item.labels;
        let masked = MaskedTokens::new(&labels.positions, &labels.labels, &labels.weights, &device);
        let scores = model.token_scores(model.model.forward(&batch), &masked);
        let (losses, hits) = (read(scores.losses)?, read(scores.hits)?);
        let positions = item.layout.positions();
        let cu_seqlens = item.layout.cu_seqlens();
        for (row, &token) in labels.positions[..item.labelled].iter().enumerate() {
            let sequence = cu_seqlens.partition_point(|&start| start <= token);
            if ((cu_seqlens[sequence] - cu_seqlens[sequence - 1]) as usize) < shortest {
                continue;
            }
            let position = positions[token as usize] as usize;
            let bucket = edges.partition_point(|&edge| edge <= position);
            if (1..edges.len()).contains(&bucket) {
                let (tokens, loss, hit) = &mut sums[bucket - 1];
                *tokens += 1;
                *loss += f64::from(losses[row]);
                *hit += f64::from(hits[row]);
            }
        }
    }
    let buckets = edges.windows(2).zip(sums);
    Ok(buckets
        .map(|(edges, (tokens, loss, hits))| PositionScores {
            from: edges[0],
            to: edges[1],
            tokens,
            loss: loss / tokens as f64,
            masked_accuracy: hits / tokens as f64,
        })
        .collect())
}
