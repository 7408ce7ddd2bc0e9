//! Gradients of a batch: in one pass, or cached (GradCache) in two.
//!
//! A softmax over a batch needs the vectors of all its texts at once, but not their activations. The cached form is
//!
//! ```text
//! 1. v = model(text)                    chunk by chunk, no graph
//! 2. g = ∂loss/∂v                       for some queries at a time
//! 3. ∂(model(text) · g)/∂weights        chunk by chunk, with a graph that is then dropped
//! ```
//!
//! By the chain rule its gradients are those of the single pass. The activations in memory are those of one chunk, whatever the size of
//! the batch. Dropout is a function of its key and drops the same elements in both passes.

use burn::module::Module;
use burn::optim::{GradientsAccumulator, GradientsParams};
use burn::tensor::{Device, Tensor};
use modernbert::batch::{Dropout, LayoutError, PackedBatch};
use modernbert::model::dropout_rates;
use std::ops::Range;

use super::embedder::{Embedder, TextBatch, VectorKind};
use super::losses::{BatchVectors, Loss};
use super::texts::TokenizedText;
use super::vectors::TextVectors;

/// Numbers of the largest matrix of similarities that is in memory.
const LARGEST_MATRIX: usize = 1 << 24;
/// Bits of a dropout key below those of the chunk's number.
const CHUNK_BITS: u32 = 40;
/// Most tokens of a chunk: positions are numbers of 32 bits.
const LARGEST_CHUNK: usize = 1 << 30;

/// Texts of a batch on the host.
#[derive(Clone, Debug)]
pub struct ContrastiveBatch<'a> {
    /// The queries, then the documents column by column.
    pub texts: Vec<&'a TokenizedText>,
    /// Number of queries.
    pub rows: usize,
    /// Documents of a query.
    pub ways: usize,
    /// The teacher's scores, `rows · ways`, row by row; empty where the loss needs none.
    pub teacher: Vec<f32>,
    /// Key of dropout: the seed and the number of the batch in the run.
    pub dropout_key: (u64, u64),
}

/// Computation of a batch's gradients.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct StepOptions {
    /// Tokens of a chunk at most; a batch of more tokens is computed in the cached form.
    pub token_budget: usize,
    /// Queries whose losses are computed at a time in the cached form; `None` for the number whose similarities fit the default memory.
    pub query_chunk: Option<usize>,
}

/// Tokens as a batch of the model.
///
/// # Errors
/// More tokens than 32 bits count.
pub(crate) fn text_batch(
    texts: &[&TokenizedText],
    device: &Device,
) -> Result<TextBatch, LayoutError> {
    let ids: Vec<&[u32]> = texts.iter().map(|text| text.ids.as_slice()).collect();
    Ok(TextBatch {
        packed: PackedBatch::from_sequences(&ids, device)?,
        counts: texts
            .iter()
            .flat_map(|t| t.counts.iter().copied())
            .collect(),
    })
}

/// Ranges of texts of at most `budget` tokens, in order; a longer text is a range of its own.
pub(crate) fn chunks(lengths: &[usize], budget: usize) -> Vec<Range<usize>> {
    let mut ranges = Vec::new();
    let (mut start, mut tokens) = (0, 0);
    for (i, length) in lengths.iter().enumerate() {
        if i > start && tokens + length > budget {
            ranges.push(start..i);
            (start, tokens) = (i, 0);
        }
        tokens += length;
    }
    if start < lengths.len() {
        ranges.push(start..lengths.len());
    }
    ranges
}

/// Mean loss of a batch, `[1]` without a graph, and its gradients times `share`.
///
/// # Errors
/// More tokens than 32 bits count.
///
/// # Panics
/// As [`Loss::rows`].
pub fn gradients(
    model: &Embedder,
    kind: &VectorKind,
    loss: &Loss,
    batch: &ContrastiveBatch<'_>,
    options: StepOptions,
    share: f64,
) -> Result<(Tensor<1>, GradientsParams), LayoutError> {
    let lengths: Vec<usize> = batch.texts.iter().map(|text| text.ids.len()).collect();
    let chunks = chunks(&lengths, options.token_budget.clamp(1, LARGEST_CHUNK));
    let device = model.model.device();
    let rates = dropout_rates(model.model.config());
    let packed = |chunk: usize| -> Result<TextBatch, LayoutError> {
        let mut texts = text_batch(&batch.texts[chunks[chunk].clone()], &device)?;
        let (seed, number) = batch.dropout_key;
        texts.packed = texts.packed.with_dropout(Some(Dropout {
            rates,
            seed,
            batch: number + ((chunk as u64) << CHUNK_BITS),
        }));
        Ok(texts)
    };
    if chunks.len() == 1 {
        let vectors = batch.vectors(model.forward(&packed(0)?, kind));
        let mean = loss.rows(&vectors, 0..batch.rows);
        let value = mean.clone().inner();
        let gradients = (mean * share).backward();
        return Ok((value, GradientsParams::from_grads(gradients, model)));
    }

    let all = {
        let plain = model.valid();
        let parts: Result<Vec<TextVectors>, LayoutError> = (0..chunks.len())
            .map(|chunk| {
                let texts = packed(chunk)?;
                let texts = TextBatch {
                    packed: texts.packed.inner(),
                    ..texts
                };
                Ok(plain.forward(&texts, kind))
            })
            .collect();
        TextVectors::cat(parts?)
    };
    let ends: Vec<Range<usize>> = chunks
        .iter()
        .map(|chunk| all.offsets[chunk.start]..all.offsets[chunk.end])
        .collect();
    let (value, gradient) = vector_gradients(loss, batch, all, options.query_chunk);
    let gradient = gradient * share;

    let mut accumulator = GradientsAccumulator::new();
    for (chunk, vectors) in ends.into_iter().enumerate() {
        let own = gradient.clone().narrow(0, vectors.start, vectors.len());
        let found = model.forward(&packed(chunk)?, kind).values;
        let gradients = (found * Tensor::from_inner(own)).sum().backward();
        accumulator.accumulate(model, GradientsParams::from_grads(gradients, model));
    }
    Ok((value, accumulator.grads()))
}

/// Mean loss, and its gradient by the vectors; both without a graph.
fn vector_gradients(
    loss: &Loss,
    batch: &ContrastiveBatch<'_>,
    vectors: TextVectors,
    query_chunk: Option<usize>,
) -> (Tensor<1>, Tensor<2>) {
    let on_graph = |values: Tensor<2>| TextVectors {
        values,
        ..vectors.clone()
    };
    let at_once = LARGEST_MATRIX / loss.row_numbers(&batch.vectors(vectors.clone())).max(1);
    let step = query_chunk.unwrap_or(at_once).clamp(1, batch.rows);
    let mut value: Option<Tensor<1>> = None;
    let mut gradient = vectors.values.zeros_like();
    for start in (0..batch.rows).step_by(step) {
        // A graph is used up by its backward pass, the slices of the vectors included.
        let leaf = Tensor::from_inner(vectors.values.clone()).require_grad();
        let all = batch.vectors(on_graph(leaf.clone()));
        let part = loss.rows(&all, start..(start + step).min(batch.rows));
        let inner = part.clone().inner();
        value = Some(match value {
            Some(sum) => sum + inner,
            None => inner,
        });
        let mut gradients = part.backward();
        if let Some(own) = leaf.grad_remove(&mut gradients) {
            gradient = gradient + own;
        }
    }
    let value = value.unwrap_or_else(|| Tensor::zeros([1], &gradient.device()));
    (value, gradient)
}

impl ContrastiveBatch<'_> {
    /// Queries and documents of the vectors of all texts.
    fn vectors(&self, all: TextVectors) -> BatchVectors {
        BatchVectors {
            queries: all.slice(0..self.rows),
            documents: all.slice(self.rows..all.texts()),
            ways: self.ways,
            teacher: self.teacher.clone(),
        }
    }
}
