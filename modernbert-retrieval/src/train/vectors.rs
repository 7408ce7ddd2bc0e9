//! Vectors of texts on the device: one per text, or one per token.

use burn::tensor::{Bool, Device, Int, Tensor, TensorData};
use modernbert::batch::{TokenOrder, int_tensor};
use modernbert::ops::gather_rows::gather_rows;
use modernbert::ops::linear::linear;
use std::ops::Range;

use crate::maxsim::Masked;

/// Similarity of a document token that does not count: below every dot product of normalized vectors, and finite, so that no gradient
/// becomes NaN.
const NEVER: f32 = -1e30;
/// Smallest norm that a vector is divided by; PyTorch's `normalize` has the same.
const SMALLEST_NORM: f64 = 1e-12;

/// Vectors of several texts, one after the other.
#[derive(Clone, Debug)]
pub struct TextVectors {
    /// `[vectors, dimension]`, f32.
    pub values: Tensor<2>,
    /// First vector of each text, and the number of vectors as the last entry: `[texts + 1]`, ascending from 0.
    pub offsets: Vec<usize>,
    /// `false` for tokens that do not count: `[vectors]`. `None` where each text has one vector.
    pub counts: Option<Vec<bool>>,
}

impl TextVectors {
    /// One vector per text, `[texts, dimension]`.
    pub fn single(values: Tensor<2>) -> Self {
        let [texts, _] = values.dims();
        Self {
            values,
            offsets: (0..=texts).collect(),
            counts: None,
        }
    }

    /// Number of texts.
    pub fn texts(&self) -> usize {
        self.offsets.len() - 1
    }

    /// Components of a vector.
    pub fn dimension(&self) -> usize {
        self.values.dims()[1]
    }

    /// The texts of a range.
    #[must_use]
    pub fn slice(&self, texts: Range<usize>) -> Self {
        let (start, end) = (self.offsets[texts.start], self.offsets[texts.end]);
        let offsets = &self.offsets[texts.start..=texts.end];
        Self {
            values: self.values.clone().narrow(0, start, end - start),
            offsets: offsets.iter().map(|offset| offset - start).collect(),
            counts: self.counts.as_ref().map(|c| c[start..end].to_vec()),
        }
    }

    /// Some of the texts, in the given order, by one gather.
    #[must_use]
    pub fn select(&self, texts: &[usize]) -> Self {
        let (mut ids, mut offsets) = (Vec::new(), vec![0]);
        for &text in texts {
            let own = self.offsets[text]..self.offsets[text + 1];
            ids.extend(own.map(|vector| vector as u32));
            offsets.push(ids.len());
        }
        let counts = self.counts.as_ref();
        let counts = counts.map(|counts| ids.iter().map(|&id| counts[id as usize]).collect());
        Self {
            values: gathered(&self.values, ids),
            offsets,
            counts,
        }
    }

    /// The first `dimension` components of every vector.
    #[must_use]
    pub fn truncated(&self, dimension: usize) -> Self {
        Self {
            values: self.values.clone().narrow(1, 0, dimension),
            ..self.clone()
        }
    }

    /// The vectors scaled to length one.
    #[must_use]
    pub fn normalized(self) -> Self {
        Self {
            values: normalize_rows(self.values),
            ..self
        }
    }
}

/// Scales each row to length one; a row of zeros stays one, with a gradient of zero.
pub(crate) fn normalize_rows(values: Tensor<2>) -> Tensor<2> {
    let squares = values.clone().powf_scalar(2.0).sum_dim(1);
    // Clamped before the root, whose derivative at 0 is infinite.
    let norms = squares.clamp_min(SMALLEST_NORM * SMALLEST_NORM).sqrt();
    values / norms
}

/// Similarity of every query with every document, `[queries, documents]`: the dot product of their vectors, or MaxSim where there are
/// several per text. Cosines are dot products of normalized vectors.
pub fn similarities(queries: &TextVectors, documents: &TextVectors, masked: Masked) -> Tensor<2> {
    if queries.counts.is_none() && documents.counts.is_none() {
        return linear(queries.values.clone(), documents.values.clone(), None);
    }
    let padded = Padded::of(documents);
    let best = padded.largest(queries.values.clone(), masked);
    // The sum over the tokens of a query is a product with a matrix of zeros and ones, as in pooling.
    let device = queries.values.device();
    linear(query_sums(queries, &device), best.transpose(), None)
}

/// Similarity of query `i` with documents `i · ways` to `(i + 1) · ways`, `[queries, ways]`.
///
/// # Panics
/// If the number of documents is not `ways` for each query.
pub fn own_similarities(
    queries: &TextVectors,
    documents: &TextVectors,
    ways: usize,
    masked: Masked,
) -> Tensor<2> {
    let count = queries.texts();
    assert_eq!(
        documents.texts(),
        count * ways,
        "{ways} documents for each query"
    );
    if queries.counts.is_none() && documents.counts.is_none() {
        let dimension = queries.dimension();
        let each = documents.values.clone().reshape([count, ways, dimension]);
        let queries = queries.values.clone().reshape([count, 1, dimension]);
        return (each * queries).sum_dim(2).reshape([count, ways]);
    }
    let padded = Padded::of(documents);
    let width = ways * padded.longest;
    let each = (0..count).map(|i| {
        let own = padded.values.clone().narrow(0, i * width, width);
        linear(queries.slice(i..i + 1).values, own, None)
    });
    let all = Tensor::cat(each.collect(), 0);
    let [tokens, _] = all.dims();
    let device = queries.values.device();
    // The mask of each query's documents, once for each of its tokens.
    let query_of = queries.offsets.windows(2).enumerate();
    let query_of = query_of.flat_map(|(query, pair)| (pair[0]..pair[1]).map(move |_| query as i32));
    let left_out = padded.masked.reshape([count, width]);
    let left_out = left_out.select(0, int_tensor(query_of, &device));
    let all = all.mask_fill(left_out, value_of(masked));
    let shape = [tokens, ways, padded.longest];
    let best = all.reshape(shape).max_dim(2).reshape([tokens, ways]);
    linear(query_sums(queries, &device), best.transpose(), None)
}

/// Similarity that a document token counts as where it is masked.
fn value_of(masked: Masked) -> f32 {
    match masked {
        Masked::NeverWins => NEVER,
        // In PyLate padding is masked like everything else.
        Masked::CountsAsZero => 0.0,
    }
}

/// Rows of `values` by their number.
fn gathered(values: &Tensor<2>, ids: Vec<u32>) -> Tensor<2> {
    let on_device: Tensor<1, Int> = int_tensor(ids.iter().map(|&id| id as i32), &values.device());
    gather_rows(values.clone(), on_device, TokenOrder::new(ids))
}

/// Matrix of zeros and ones, `[queries, tokens]`: the tokens of each query that count.
fn query_sums(queries: &TextVectors, device: &Device) -> Tensor<2> {
    let (texts, total) = (queries.texts(), *queries.offsets.last().unwrap_or(&0));
    let mut weights = vec![0.0f32; texts * total];
    for (text, pair) in queries.offsets.windows(2).enumerate() {
        for token in pair[0]..pair[1] {
            if queries.counts.as_ref().is_none_or(|counts| counts[token]) {
                weights[text * total + token] = 1.0;
            }
        }
    }
    Tensor::from_data(TensorData::new(weights, [texts, total]), device)
}

/// Documents as a rectangle.
struct Padded {
    /// `[documents · longest, dimension]`.
    values: Tensor<2>,
    documents: usize,
    longest: usize,
    /// True for padding and for tokens that do not count, `[1, documents, longest]`.
    masked: Tensor<3, Bool>,
}

impl Padded {
    fn of(documents: &TextVectors) -> Self {
        let device = documents.values.device();
        let texts = documents.texts();
        let lengths = documents.offsets.windows(2).map(|pair| pair[1] - pair[0]);
        let longest = lengths.max().unwrap_or(0).max(1);
        let slots = texts * longest;
        let (mut ids, mut masked) = (vec![0u32; slots], vec![true; slots]);
        for (text, pair) in documents.offsets.windows(2).enumerate() {
            for (at, token) in (pair[0]..pair[1]).enumerate() {
                let slot = text * longest + at;
                ids[slot] = token as u32;
                masked[slot] = documents.counts.as_ref().is_some_and(|c| !c[token]);
            }
        }
        let flags = |flags: Vec<bool>| -> Tensor<3, Bool> {
            Tensor::<1, Bool>::from_data(TensorData::new(flags, [slots]), &device)
                .reshape([1, texts, longest])
        };
        Self {
            values: gathered(&documents.values, ids),
            documents: texts,
            longest,
            masked: flags(masked),
        }
    }

    /// For each query token the largest similarity with a token of each document, `[tokens, documents]`.
    fn largest(&self, queries: Tensor<2>, masked: Masked) -> Tensor<2> {
        let [tokens, _] = queries.dims();
        let shape = [tokens, self.documents, self.longest];
        let all = linear(queries, self.values.clone(), None).reshape(shape);
        let all = all.mask_fill(self.masked.clone().expand(shape), value_of(masked));
        all.max_dim(2).reshape([tokens, self.documents])
    }
}
