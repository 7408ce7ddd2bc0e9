//! Runs a model on texts in batches of tokens, one result per text.

use burn::tensor::Tensor;

use super::batches::plan;
use super::{BatchOptions, InferenceError, Input};
use crate::batch::PackedBatch;
use crate::config::ModernBertConfig;
use crate::device::read;
use crate::model::ModernBert;
use crate::model::limits::most_tokens;
use crate::parallel::try_map;
use crate::tokenizer::{Encoded, Tokenizer};

/// Progress of a pipeline.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct StreamProgress {
    /// Sequences computed.
    pub done: usize,
    /// Sequences of this call; of a stream, those read so far.
    pub total: usize,
    /// Tokens computed.
    pub tokens: usize,
}

impl StreamProgress {
    /// The progress of two calls, one after the other.
    #[must_use]
    pub fn then(self, more: Self) -> Self {
        Self {
            done: self.done + more.done,
            total: self.done + more.total,
            tokens: self.tokens + more.tokens,
        }
    }
}

/// Token ids of a sequence, and the position of the first token of type 1.
#[derive(Clone, Copy, Debug)]
pub(super) struct Sequence<'a> {
    ids: &'a [u32],
    second: usize,
}

impl<'a> Sequence<'a> {
    /// A sequence whose tokens from position `second` on have type 1.
    pub(super) fn pair(ids: &'a [u32], second: usize) -> Self {
        Self { ids, second }
    }

    /// A sequence of type 0.
    pub(super) fn single(ids: &'a [u32]) -> Self {
        Self::pair(ids, ids.len())
    }

    /// The sequences of encoded inputs.
    pub(super) fn of_all(encoded: &'a [Encoded]) -> Vec<Self> {
        let one = |encoded: &'a Encoded| Self::pair(&encoded.ids, encoded.second);
        encoded.iter().map(one).collect()
    }
}

/// Tokenizes, packs, and puts results back in order; the caller computes them.
#[derive(Debug)]
pub(super) struct Runner {
    pub(super) tokenizer: Tokenizer,
    pub(super) options: BatchOptions,
    /// Tokens of one sequence at most.
    pub(super) max_length: usize,
}

impl Runner {
    pub(super) fn new(
        config: &ModernBertConfig,
        tokenizer: Tokenizer,
        options: BatchOptions,
    ) -> Result<Self, InferenceError> {
        if options.batch_tokens == 0 {
            return Err(InferenceError::NoBudget);
        }
        let limit = config.max_position_embeddings;
        let own = tokenizer.max_length().unwrap_or(limit).min(limit);
        let max_length = options.max_length.unwrap_or(own);
        if max_length > limit {
            return Err(InferenceError::MaxLength { max_length, limit });
        }
        // Vocabularies are padded to a multiple of 64 or more, never to twice their size.
        let (tokens, rows) = (tokenizer.id_bound(), config.vocab_size);
        if tokens > rows || tokens < rows / 2 {
            return Err(InferenceError::Vocabulary { tokens, rows });
        }
        Ok(Self {
            tokenizer,
            options,
            max_length,
        })
    }

    /// Refuses a prompt that leaves no token of a text.
    pub(super) fn check_prompt(&self, prompt: &str) -> Result<(), InferenceError> {
        let max_length = self.max_length;
        // The space at the end becomes a part of the text's first token.
        let tokens = self.tokenizer.encode(prompt.trim_end())?.len();
        match tokens >= max_length {
            true => Err(InferenceError::Prompt { tokens, max_length }),
            false => Ok(()),
        }
    }

    /// The ids of every input, in parallel, truncated to the maximum length.
    pub(super) fn tokenize(&self, inputs: &[Input<'_>]) -> Result<Vec<Encoded>, InferenceError> {
        let encode = |input: &Input<'_>| {
            let pair = input.pair.as_deref();
            Ok(self
                .tokenizer
                .encode_truncated(&input.text, pair, self.max_length)?)
        };
        try_map(inputs, encode)
    }

    /// Runs `forward` on batches of `sequences`; it returns one result per sequence of its batch, in order.
    ///
    /// A result with a value that is not finite is an error that names the sequence, counted from 1.
    pub(super) fn run<T: Finite>(
        &self,
        sequences: &[Sequence<'_>],
        model: &ModernBert,
        progress: &mut dyn FnMut(StreamProgress),
        mut forward: impl FnMut(&PackedBatch) -> Result<Vec<T>, InferenceError>,
    ) -> Result<Vec<T>, InferenceError> {
        let lengths: Vec<usize> = sequences.iter().map(|one| one.ids.len()).collect();
        let has_types = model.config().token_types > 1;
        let device = model.device();
        // A device that bounds its tensors gets smaller batches; only a single text can be too long for it.
        let most = most_tokens(model.config(), &device);
        model.check_tokens(lengths.iter().copied().max().unwrap_or(0))?;
        let plan = plan(&lengths, self.options.batch_tokens.min(most));
        let mut results: Vec<Option<T>> = sequences.iter().map(|_| None).collect();
        let (mut done, mut tokens) = (0, 0);
        for range in plan.batches {
            let members = &plan.order[range];
            let ids: Vec<&[u32]> = members.iter().map(|&i| sequences[i].ids).collect();
            let mut batch = PackedBatch::from_sequences(&ids, &device)?;
            if has_types {
                batch = batch.with_second_texts(members.iter().map(|&i| sequences[i].second));
            }
            for (&i, result) in members.iter().zip(forward(&batch)?) {
                if !result.is_finite() {
                    return Err(InferenceError::NonFinite {
                        index: i + 1,
                        precision: model.precision().name(),
                    });
                }
                results[i] = Some(result);
            }
            done += members.len();
            tokens += batch.layout.total_tokens();
            progress(StreamProgress {
                done,
                total: sequences.len(),
                tokens,
            });
        }
        Ok(results.into_iter().flatten().collect())
    }
}

/// A result whose values can be checked.
pub(super) trait Finite {
    /// Returns false if a value is NaN or infinite.
    fn is_finite(&self) -> bool;
}

impl Finite for f32 {
    fn is_finite(&self) -> bool {
        f32::is_finite(*self)
    }
}

impl<T: Finite> Finite for Vec<T> {
    fn is_finite(&self) -> bool {
        self.iter().all(Finite::is_finite)
    }
}

impl<A: Finite, B: Finite> Finite for (A, B) {
    fn is_finite(&self) -> bool {
        self.0.is_finite() && self.1.is_finite()
    }
}

/// The rows of a matrix, on the host.
pub(super) fn read_rows(tensor: Tensor<2>) -> Result<Vec<Vec<f32>>, InferenceError> {
    let [_, width] = tensor.dims();
    Ok(read(tensor)?
        .chunks(width.max(1))
        .map(<[f32]>::to_vec)
        .collect())
}
