//! Counts behind precision, recall and F1.

/// How many things were there, predicted, and both.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counts {
    /// Predicted and right.
    pub correct: usize,
    /// Predicted.
    pub predicted: usize,
    /// There.
    pub truth: usize,
}

impl Counts {
    /// Share of the predictions that are right; `None` without a prediction.
    pub fn precision(&self) -> Option<f64> {
        ratio(self.correct, self.predicted)
    }

    /// Share of what is there that was predicted; `None` if nothing is there.
    pub fn recall(&self) -> Option<f64> {
        ratio(self.correct, self.truth)
    }

    /// Harmonic mean of the two, `2 correct / (predicted + truth)`; `None` if nothing is there and nothing was predicted.
    pub fn f1(&self) -> Option<f64> {
        ratio(2 * self.correct, self.predicted + self.truth)
    }

    /// The counts of both.
    #[must_use]
    pub fn and(self, other: Self) -> Self {
        Self {
            correct: self.correct + other.correct,
            predicted: self.predicted + other.predicted,
            truth: self.truth + other.truth,
        }
    }
}

fn ratio(part: usize, whole: usize) -> Option<f64> {
    (whole > 0).then(|| part as f64 / whole as f64)
}
