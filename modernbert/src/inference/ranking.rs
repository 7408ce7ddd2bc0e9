//! The best spans of a context, and the softmax over all of its spans.

use std::collections::BTreeMap;

/// Span of tokens: first and last.
pub(super) type Span = (usize, usize);

/// Spans are added window by window. A span is counted once, with the best of its scores, and memory is bounded by the spans of one window,
/// not by those of the context.
#[derive(Debug)]
pub(super) struct Ranking {
    /// Spans that may be in the next window too.
    open: BTreeMap<Span, f32>,
    /// The best of the others, in no order, at most four times as many as are kept.
    closed: Vec<(Span, f32)>,
    keep: usize,
    /// Largest score of all closed spans.
    largest: f32,
    /// Sum of `exp(score - largest)` over all closed spans.
    sum: f64,
}

impl Ranking {
    /// A ranking that can give `best` different texts. Spans that differ in blanks alone have the same text, so more are kept.
    pub(super) fn new(best: usize) -> Self {
        Self {
            open: BTreeMap::new(),
            closed: Vec::new(),
            keep: best.saturating_mul(16).saturating_add(256),
            largest: f32::NEG_INFINITY,
            sum: 0.0,
        }
    }

    /// Adds a span of a window.
    pub(super) fn add(&mut self, span: Span, score: f32) {
        let best = self.open.entry(span).or_insert(score);
        *best = best.max(score);
    }

    /// Closes the spans that begin before the token `first`, where the next window begins; all of them after the last window.
    pub(super) fn close(&mut self, first: Option<usize>) {
        let later = match first {
            Some(first) => self.open.split_off(&(first, 0)),
            None => BTreeMap::new(),
        };
        for (span, score) in std::mem::replace(&mut self.open, later) {
            if score > self.largest {
                self.sum *= f64::from(self.largest - score).exp();
                self.largest = score;
            }
            self.sum += f64::from(score - self.largest).exp();
            self.closed.push((span, score));
            if self.closed.len() >= self.keep.saturating_mul(4) {
                self.closed.select_nth_unstable_by(self.keep, better);
                self.closed.truncate(self.keep);
            }
        }
    }

    /// The closed spans with their scores and probabilities, best first.
    pub(super) fn ranked(mut self) -> impl Iterator<Item = (Span, f32, f32)> {
        self.closed.sort_by(better);
        let (largest, sum) = (self.largest, self.sum);
        self.closed.into_iter().map(move |(span, score)| {
            let probability = f64::from(score - largest).exp() / sum;
            (span, score, probability as f32)
        })
    }
}

fn better(a: &(Span, f32), b: &(Span, f32)) -> std::cmp::Ordering {
    b.1.total_cmp(&a.1).then(a.0.cmp(&b.0))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn windows_give_what_a_list_of_all_spans_gives() {
        let score = |span: Span| ((span.0 * 37 + span.1 * 11) % 101) as f32 / 7.0;
        let mut all: BTreeMap<Span, f32> = BTreeMap::new();
        let mut ranking = Ranking::new(1);
        // Windows of 40 tokens that share 8, of a context of 1000, and spans of up to 6 tokens.
        let starts: Vec<usize> = (0..=960).step_by(32).collect();
        for (i, &start) in starts.iter().enumerate() {
            for first in start..start + 40 {
                for last in first..(first + 6).min(start + 40) {
                    // A span has another score in each window.
                    let score = score((first, last)) + i as f32 / 100.0;
                    ranking.add((first, last), score);
                    let best = all.entry((first, last)).or_insert(score);
                    *best = best.max(score);
                }
            }
            ranking.close(starts.get(i + 1).copied());
        }
        let mut expected: Vec<(Span, f32)> = all.into_iter().collect();
        expected.sort_by(better);
        let largest = expected[0].1;
        let sum: f64 = expected
            .iter()
            .map(|(_, s)| f64::from(s - largest).exp())
            .sum();
        assert!(ranking.closed.len() < expected.len());
        for ((span, score, probability), expected) in ranking.ranked().zip(&expected).take(200) {
            assert_eq!((span, score), *expected);
            let exact = f64::from(expected.1 - largest).exp() / sum;
            assert!((f64::from(probability) - exact).abs() < 1e-7 * exact + 1e-12);
        }
    }
}
