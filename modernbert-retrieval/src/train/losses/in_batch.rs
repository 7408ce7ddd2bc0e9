//! The softmax over the documents of a batch.

use burn::tensor::{Bool, Tensor, TensorData};
use modernbert::batch::int_tensor;
use modernbert::ops::sum::sum;
use std::ops::Range;

use super::{BatchVectors, TextVectors};
use crate::maxsim::Masked;
use crate::train::vectors::similarities;

/// Logit of a pair that is left out: finite, so that no gradient becomes NaN.
const LEFT_OUT: f32 = -1e30;

/// Pairs whose similarities are candidates in the softmax of a query `i` with its positive.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Direction {
    /// The query with every document of the batch. Always there, because it contains the positive.
    QueryToDocument,
    /// The query with every other query.
    QueryToQuery,
    /// Every query with the positive.
    DocumentToQuery,
    /// Every document of another query with the positive.
    DocumentToDocument,
}

/// Softmaxes over several directions.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Partition {
    /// One softmax over the candidates of all directions.
    #[default]
    Joint,
    /// One softmax per direction; the mean of their losses.
    PerDirection,
}

/// Negatives whose logits rise with their similarity.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum HardnessMode {
    /// Documents of other queries.
    InBatchNegatives,
    /// The query's own negatives.
    HardNegatives,
    /// Both.
    AllNegatives,
}

/// Weight of hard negatives: `strength` times the similarity, taken as a constant, is added to the logit of a negative.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Hardness {
    /// The negatives.
    pub mode: HardnessMode,
    /// The strength, 0 or more.
    pub strength: f64,
}

/// Softmax over the documents of the batch: `log Σ exp(logits) - logit of the positive`, where a logit is a similarity times `scale`.
#[derive(Clone, Debug, PartialEq)]
pub struct InBatch {
    /// Factor of similarities: the inverse of a temperature.
    pub scale: f64,
    /// Candidates; the first is [`Direction::QueryToDocument`].
    pub directions: Vec<Direction>,
    /// One softmax, or one per direction.
    pub partition: Partition,
    /// Weight of hard negatives.
    pub hardness: Option<Hardness>,
}

impl Default for InBatch {
    /// The defaults of sentence-transformers: scale 20, queries to documents.
    fn default() -> Self {
        Self {
            scale: 20.0,
            directions: vec![Direction::QueryToDocument],
            partition: Partition::Joint,
            hardness: None,
        }
    }
}

impl InBatch {
    /// Share of the queries `rows` in the mean loss, `[1]`.
    pub(super) fn rows(
        &self,
        batch: &BatchVectors,
        rows: Range<usize>,
        masked: Masked,
    ) -> Tensor<1> {
        let count = batch.rows();
        let (queries, documents) = (&batch.queries, &batch.documents);
        let local_queries = queries.slice(rows.clone());
        let local_positives = documents.slice(rows.clone());
        let to_documents = similarities(&local_queries, documents, masked);
        let device = to_documents.device();
        let mut logits = to_documents.clone() * self.scale;
        if let Some(hardness) = self.hardness.filter(|hardness| hardness.strength > 0.0) {
            let adds = pairs(&rows, count, batch.ways, |own, way| match hardness.mode {
                HardnessMode::InBatchNegatives => !own,
                HardnessMode::HardNegatives => own && way > 0,
                HardnessMode::AllNegatives => !own || way > 0,
            });
            let shape = [rows.len(), count * batch.ways];
            let adds: Vec<f32> = adds.into_iter().map(f32::from).collect();
            let adds = Tensor::<2>::from_data(TensorData::new(adds, shape), &device);
            logits = logits + to_documents.detach() * adds * hardness.strength;
        }
        let own = int_tensor(rows.clone().map(|row| row as i32), &device);
        let positive = logits
            .clone()
            .gather(1, own.reshape([rows.len() as i32, 1]));
        let mut parts = vec![logits];
        let left_out = |logits: Tensor<2>, flags: Vec<bool>| {
            let shape = logits.dims();
            let flags = Tensor::<2, Bool>::from_data(TensorData::new(flags, shape), &device);
            logits.mask_fill(flags, LEFT_OUT)
        };
        let to_positives = |texts: &TextVectors| {
            similarities(texts, &local_positives, masked).transpose() * self.scale
        };
        for direction in self.directions.iter().skip(1) {
            parts.push(match direction {
                Direction::QueryToDocument => continue,
                Direction::QueryToQuery => {
                    let all = similarities(&local_queries, queries, masked) * self.scale;
                    left_out(all, pairs(&rows, count, 1, |own, _| own))
                }
                Direction::DocumentToQuery => to_positives(queries),
                Direction::DocumentToDocument => left_out(
                    to_positives(documents),
                    pairs(&rows, count, batch.ways, |own, _| own),
                ),
            });
        }
        let normalizer = match self.partition {
            Partition::Joint => log_sum_exp(Tensor::cat(parts, 1)),
            Partition::PerDirection => {
                let directions = parts.len() as f64;
                let each = parts.into_iter().map(log_sum_exp);
                Tensor::cat(each.collect(), 1).sum_dim(1) / directions
            }
        };
        sum(normalizer - positive) / count as f64
    }
}

/// A flag for each pair of a query in `rows` and a text of the `ways` columns, row by row; `flag` gets whether the text is of the same
/// query, and its column.
fn pairs(
    rows: &Range<usize>,
    count: usize,
    ways: usize,
    flag: impl Fn(bool, usize) -> bool,
) -> Vec<bool> {
    let mut flags = Vec::with_capacity(rows.len() * count * ways);
    for row in rows.clone() {
        for way in 0..ways {
            flags.extend((0..count).map(|other| flag(other == row, way)));
        }
    }
    flags
}

/// `log Σ exp` of each row, `[rows, 1]`.
fn log_sum_exp(logits: Tensor<2>) -> Tensor<2> {
    // The largest logit is a constant here: it cancels in the derivative.
    let most = logits.clone().detach().max_dim(1);
    (logits - most.clone()).exp().sum_dim(1).log() + most
}
