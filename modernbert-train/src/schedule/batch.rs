//! Batch-size warmup: small steps first, which learn more per token early in training.

/// Sizes of a step, in micro-batches, by the tokens seen.
///
/// The sizes rise from `from` by `step` to `to`. With W tokens of warmup and T the sum of the sizes below `to`, size number k ends at
/// `ceil(W/T · (s_1 + … + s_k))` tokens: the tokens of a size are proportional to the size, so each size gets the same number of optimizer steps.
/// Source: `BatchSizeWarmupScheduler` of ModernBERT's training code (`src/scheduler.py`); paper, appendix A.1.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BatchWarmup {
    /// Sizes below the full one, each with the number of tokens at which it ends.
    sizes: Vec<(usize, u64)>,
    full: usize,
}

impl BatchWarmup {
    /// A warmup over `tokens` tokens; 0 of them, or `from` not below `to`, make every step full.
    pub fn new(from: usize, step: usize, to: usize, tokens: u64) -> Self {
        let sizes: Vec<usize> = if tokens == 0 || from == 0 {
            Vec::new()
        } else {
            (from..to).step_by(step.max(1)).collect()
        };
        let total: u128 = sizes.iter().map(|&size| size as u128).sum();
        let mut sum = 0u128;
        let ends = sizes.iter().map(|&size| {
            sum += size as u128;
            let end = (u128::from(tokens) * sum).div_ceil(total.max(1));
            (size, u64::try_from(end).unwrap_or(u64::MAX))
        });
        Self {
            sizes: ends.collect(),
            full: to,
        }
    }

    /// Every step of this size.
    pub fn none(size: usize) -> Self {
        Self::new(size, 1, size, 0)
    }

    /// Micro-batches of a step that begins after `tokens_seen` tokens, padding not counted.
    pub fn size(&self, tokens_seen: u64) -> usize {
        let under_way = self.sizes.iter().find(|(_, end)| *end > tokens_seen);
        under_way.map_or(self.full, |&(size, _)| size)
    }

    /// The largest size.
    pub fn full(&self) -> usize {
        self.full
    }

    /// The sizes below the largest, each with the number of tokens at which it ends.
    pub fn sizes(&self) -> &[(usize, u64)] {
        &self.sizes
    }
}
