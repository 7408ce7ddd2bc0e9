//! The unigram baseline: token frequencies, independent of the context.

use crate::loader::{DataSource, MlmItem};
use crate::shard::ShardError;

/// Number of tokens that give the frequencies with enough precision; a larger corpus is not read a second time.
const COUNTED: u64 = 50_000_000;

/// Token counts of training data.
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
    /// Counts tokens of the training data, of each source the first `COUNTED` times its share.
    ///
    /// # Errors
    /// A shard that became shorter since it was opened.
    pub fn count(sources: &[DataSource]) -> Result<Self, ShardError> {
        let total: f64 = sources.iter().map(|source| source.proportion).sum();
        let mut counts: Vec<u64> = Vec::new();
        for source in sources {
            let mut left = (COUNTED as f64 * source.proportion / total) as u64;
            for index in 0..source.samples.len() {
                let sample = source.samples.read(index)?;
                for &id in &sample {
                    let id = id as usize;
                    if id >= counts.len() {
                        counts.resize(id + 1, 0);
                    }
                    counts[id] += 1;
                }
                match left.checked_sub(sample.len() as u64) {
                    Some(rest) => left = rest,
                    None => break,
                }
            }
        }
        let vocabulary = sources
            .iter()
            .flat_map(|source| source.samples.shards())
            .map(|shard| shard.vocab_size())
            .max();
        counts.resize(vocabulary.unwrap_or(0), 0);
        Ok(Self {
            total: counts.iter().sum(),
            counts,
        })
    }

    /// Scores the labelled tokens, with one added to every count so that no token is impossible; `None` where no token is labelled.
    pub fn score(&self, items: &[MlmItem]) -> Option<UnigramScore> {
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
        let count = labelled as f64;
        (labelled > 0).then(|| UnigramScore {
            loss: loss / count,
            top1: hits as f64 / count,
        })
    }
}
