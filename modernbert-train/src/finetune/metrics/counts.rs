//! Counts behind precision, recall and F1.

/// Numbers of true items, of predicted items, and of correct predictions.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counts {
    /// Items that are true and predicted.
    pub correct: usize,
    /// Items that are predicted.
    pub predicted: usize,
    /// Items that are true.
    pub truth: usize,
}

impl Counts {
    /// Share of the predictions that are right; `None` without a prediction.
    pub fn precision(&self) -> Option<f64> {
        ratio(self.correct, self.predicted)
    }

    /// Share of the true items that are predicted; `None` without a true item.
    pub fn recall(&self) -> Option<f64> {
        ratio(self.correct, self.truth)
    }

    /// Harmonic mean of the two, `2 correct / (predicted + truth)`; `None` without true and predicted items.
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
