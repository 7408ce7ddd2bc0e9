//! The best hits of one query.

use std::cmp::Ordering;

/// A row and its score.
#[derive(Clone, Copy, Debug)]
pub(super) struct Candidate {
    pub(super) score: f32,
    pub(super) segment: u32,
    pub(super) row: u32,
}

/// Collects the best `count` candidates. Up to `2 count` candidates are kept before the worse half is removed, so that a candidate costs one comparison.
pub(super) struct Top {
    count: usize,
    /// No candidate below this score can be among the best.
    bar: f32,
    kept: Vec<Candidate>,
}

impl Top {
    pub(super) fn new(count: usize) -> Self {
        Self {
            count,
            bar: f32::NEG_INFINITY,
            kept: Vec::new(),
        }
    }

    pub(super) fn bar(&self) -> f32 {
        self.bar
    }

    /// Adds a candidate whose score is at least the bar. `order` sorts better candidates first and never returns `Equal` for two rows.
    pub(super) fn push(
        &mut self,
        candidate: Candidate,
        order: impl Fn(&Candidate, &Candidate) -> Ordering,
    ) {
        self.kept.push(candidate);
        if self.kept.len() >= self.count.max(8).saturating_mul(2) {
            self.shrink(order);
        }
    }

    fn shrink(&mut self, order: impl Fn(&Candidate, &Candidate) -> Ordering) {
        if self.kept.len() <= self.count {
            return;
        }
        let last = self.count - 1;
        self.kept.select_nth_unstable_by(last, order);
        self.kept.truncate(self.count);
        self.bar = self.kept[last].score;
    }

    pub(super) fn merge(&mut self, other: Self) {
        self.kept.extend(other.kept);
    }

    /// Returns the best candidates, best first.
    pub(super) fn finish(
        mut self,
        order: impl Fn(&Candidate, &Candidate) -> Ordering,
    ) -> Vec<Candidate> {
        self.kept.sort_unstable_by(order);
        self.kept.truncate(self.count);
        self.kept
    }
}
