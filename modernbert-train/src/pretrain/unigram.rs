//! The baseline every masked language model must beat: token frequencies, with no look at the context.

use crate::loader::MlmItem;
use crate::shard::Shard;

/// Token counts of a training shard.
pub struct Unigram {
    counts: Vec<u64>,
    total: u64,
}

/// The baseline on the labelled tokens of evaluation batches.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct UnigramScore {
    /// Mean cross-entropy in nats.
    pub loss: f64,
    /// Share of the tokens that are the most frequent token of the training data.
    pub top1: f64,
}

impl Unigram {
    /// Counts the tokens of a shard.
    pub fn count(shard: &Shard) -> Self {
        let mut counts = vec![0u64; shard.vocab_size()];
        let mut total = 0;
        for sample in shard.iter() {
            total += sample.len() as u64;
            for id in sample {
                counts[id as usize] += 1;
            }
        }
        Self { counts, total }
    }

    /// Scores the labelled tokens, with one added to every count so that no token is impossible.
    pub fn score(&self, items: &[MlmItem]) -> UnigramScore {
        let best = (0..self.counts.len()).max_by_key(|&id| self.counts[id]);
        let denominator = (self.total + self.counts.len() as u64) as f64;
        let (mut loss, mut hits, mut labelled) = (0.0, 0usize, 0usize);
        for item in items {
            for &label in &item.labels.labels[..item.labelled] {
                let label = label as usize;
                loss -= ((self.counts[label] + 1) as f64 / denominator).ln();
                hits += usize::from(Some(label) == best);
                labelled += 1;
            }
        }
        let count = labelled.max(1) as f64;
        UnigramScore {
            loss: loss / count,
            top1: hits as f64 / count,
        }
    }
}
