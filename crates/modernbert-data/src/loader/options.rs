//! Settings of a stream.

use serde::{Deserialize, Serialize};

/// Settings of a stream.
#[derive(Clone, Debug)]
pub struct LoaderOptions {
    /// Tokens of a packed row.
    pub row_length: usize,
    /// Micro-batches (rows) of a full step, the number of rows that the packer fills at once. A smaller step, as in a batch-size warmup, takes
    /// fewer rows of the same stream.
    pub micro_batches: usize,
    /// Padding id.
    pub pad_id: u32,
    /// Seed of order and masks.
    pub seed: u64,
    /// If set, packing is off: a training row contains at most this many sequences and no padding.
    pub sequences: Option<usize>,
    /// If set, sequences are short at first.
    pub length_warmup: Option<LengthWarmup>,
}

/// Sequence-length warmup: the longest sequence of training rows grows from `from` to `to`, by `step` at a time. A longer sequence is cut to
/// its beginning, and keeps its last token, `[SEP]`.
///
/// The length is a function of the number of a row alone, so that it does not depend on threads and ranks, nor on the moment of a resume.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct LengthWarmup {
    /// Longest sequence of the first rows, in tokens.
    pub from: usize,
    /// Tokens by which the length grows at a time, 1 or more.
    pub step: usize,
    /// Longest sequence after the warmup; `from` or more.
    pub to: usize,
    /// Tokens of rows of the warmup, padding included.
    pub tokens: u64,
}

impl LengthWarmup {
    /// The longest sequence of rows before which there are `tokens` tokens of rows: `from + floor((to - from) tokens / self.tokens)`, rounded
    /// down to a multiple of `step` above `from`.
    pub fn length(&self, tokens: u64) -> usize {
        if tokens >= self.tokens {
            return self.to;
        }
        let distance = self.to.saturating_sub(self.from) as u128;
        let risen = (distance * u128::from(tokens) / u128::from(self.tokens)) as usize;
        self.from + risen / self.step.max(1) * self.step.max(1)
    }
}
