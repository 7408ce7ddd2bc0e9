//! How many tokens a run may see, shared by schedule and strategy.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

/// Tokens seen and tokens in all; clones share the counters.
#[derive(Clone, Debug)]
pub struct TokenBudget {
    seen: Arc<AtomicU64>,
    total: Arc<AtomicU64>,
}

impl TokenBudget {
    /// Nothing seen yet of `total` tokens.
    pub fn new(total: u64) -> Self {
        Self {
            seen: Arc::new(AtomicU64::new(0)),
            total: Arc::new(AtomicU64::new(total)),
        }
    }

    /// `seen` tokens seen already of `total`.
    pub fn resumed(seen: u64, total: u64) -> Self {
        let budget = Self::new(total);
        budget.add(seen);
        budget
    }

    /// Tokens seen so far, padding not counted.
    pub fn seen(&self) -> u64 {
        self.seen.load(Ordering::Relaxed)
    }

    /// Tokens of the whole run.
    pub fn total(&self) -> u64 {
        self.total.load(Ordering::Relaxed)
    }

    /// Whether the run has seen what it was to see.
    pub fn is_spent(&self) -> bool {
        self.seen() >= self.total()
    }

    pub(super) fn add(&self, tokens: u64) {
        self.seen.fetch_add(tokens, Ordering::Relaxed);
    }

    pub(super) fn shorten(&self, total: u64) {
        self.total.fetch_min(total, Ordering::Relaxed);
    }
}
