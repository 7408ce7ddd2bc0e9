//! Chosen rows of attention and of its gradient in f64: a check of sequences that are too long for the whole reference.

use std::ops::Range;

use crate::case::Case;
use burn_packed::ops::attention::rotary_table;
use test_support::{device, read, wide};

/// Attention of one head in f64, row by row, with the angles of the op's table.
pub(crate) struct Rows<'a> {
    case: &'a Case,
    /// Cosines and sines of each position, `[total, head_dim]`.
    table: Vec<f64>,
    /// Keys visible on each side, or all.
    window: Option<usize>,
}

impl<'a> Rows<'a> {
    pub(crate) fn of(case: &'a Case, theta: f64, window: Option<usize>) -> Self {
        assert_eq!(case.heads, 1);
        let table = rotary_table(case.total(), case.head_dim, theta, &device());
        let table = wide(&read(table));
        Self {
            case,
            table,
            window,
        }
    }

    /// q, k or v (part 0, 1, 2) of a row.
    fn raw(&self, row: usize, part: usize) -> Vec<f64> {
        wide(&self.case.qkv[self.case.place(row, part, 0)..][..self.case.head_dim])
    }

    fn d_out(&self, row: usize) -> Vec<f64> {
        let dim = self.case.head_dim;
        wide(&self.case.d_out[row * dim..][..dim])
    }

    /// A vector of a row with RoPE applied; against its direction for `sign` -1.
    fn rope(&self, x: &[f64], row: usize, sign: f64) -> Vec<f64> {
        let half = x.len() / 2;
        let (cos, sin) = self.table[row * x.len()..][..x.len()].split_at(half);
        let first = (0..half).map(|d| x[d] * cos[d] - sign * x[d + half] * sin[d]);
        let second = (0..half).map(|d| x[d + half] * cos[d] + sign * x[d] * sin[d]);
        first.chain(second).collect()
    }

    /// q or k (part 0, 1) of a row after RoPE.
    fn with_rope(&self, row: usize, part: usize) -> Vec<f64> {
        self.rope(&self.raw(row, part), row, 1.0)
    }

    /// Rows that see a row, which are the rows that it sees.
    fn visible(&self, row: usize) -> Range<usize> {
        let last = self.case.total();
        match self.window {
            Some(window) => row.saturating_sub(window)..last.min(row + window + 1),
            None => 0..last,
        }
    }

    /// Probabilities of the visible keys of a query.
    fn softmax(&self, query: usize) -> Vec<f64> {
        let q = self.with_rope(query, 0);
        let score = |key| dot(&q, &self.with_rope(key, 1)) * self.case.scale();
        let weights: Vec<f64> = self.visible(query).map(|key| score(key).exp()).collect();
        let sum: f64 = weights.iter().sum();
        weights.iter().map(|weight| weight / sum).collect()
    }

    /// Output of a query.
    pub(crate) fn output(&self, query: usize) -> Vec<f64> {
        let mut out = vec![0.0; self.case.head_dim];
        for (key, p) in self.visible(query).zip(self.softmax(query)) {
            add(&mut out, &self.raw(key, 2), p);
        }
        out
    }

    /// Probabilities of a query, and the gradients of its scores.
    fn scores_backward(&self, query: usize) -> (Vec<f64>, Vec<f64>) {
        let (p, d_out) = (self.softmax(query), self.d_out(query));
        let values = self
            .visible(query)
            .map(|key| dot(&d_out, &self.raw(key, 2)));
        let d_p: Vec<f64> = values.collect();
        let mean = dot(&p, &d_p);
        let d_score = p
            .iter()
            .zip(&d_p)
            .map(|(p, d_p)| p * (d_p - mean) * self.case.scale());
        let d_score = d_score.collect();
        (p, d_score)
    }

    /// Gradients of q, k and v of a row.
    pub(crate) fn gradients(&self, row: usize) -> [Vec<f64>; 3] {
        let zeros = || vec![0.0; self.case.head_dim];
        let (mut d_q, mut d_k, mut d_v) = (zeros(), zeros(), zeros());
        let (_, d_scores) = self.scores_backward(row);
        for (key, d_score) in self.visible(row).zip(d_scores) {
            add(&mut d_q, &self.with_rope(key, 1), d_score);
        }
        for query in self.visible(row) {
            let (p, d_scores) = self.scores_backward(query);
            let at = row - self.visible(query).start;
            add(&mut d_k, &self.with_rope(query, 0), d_scores[at]);
            add(&mut d_v, &self.d_out(query), p[at]);
        }
        [self.rope(&d_q, row, -1.0), self.rope(&d_k, row, -1.0), d_v]
    }
}

fn dot(a: &[f64], b: &[f64]) -> f64 {
    a.iter().zip(b).map(|(a, b)| a * b).sum()
}

fn add(sum: &mut [f64], x: &[f64], factor: f64) {
    for (sum, x) in sum.iter_mut().zip(x) {
        *sum += factor * x;
    }
}
