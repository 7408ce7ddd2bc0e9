//! F1 of rows with several labels.

use super::Counts;

/// Counts of each label over the rows.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LabelScores {
    /// Counts by label id.
    pub labels: Vec<Counts>,
    /// Rows whose labels are all predicted, and no others.
    pub exact: usize,
    /// Rows.
    pub rows: usize,
}

impl LabelScores {
    /// Compares the labels of rows with the outputs of a model with one output a label: a label is predicted where its probability is
    /// above 0.5, which is an output above 0.
    pub fn of(truth: &[Vec<u32>], outputs: &[Vec<f32>]) -> Self {
        let labels = outputs.first().map_or(0, Vec::len);
        let mut scores = Self {
            labels: vec![Counts::default(); labels],
            exact: 0,
            rows: truth.len(),
        };
        for (truth, outputs) in truth.iter().zip(outputs) {
            let mut is_exact = true;
            for (label, (counts, &output)) in scores.labels.iter_mut().zip(outputs).enumerate() {
                let (there, predicted) = (truth.contains(&(label as u32)), output > 0.0);
                counts.truth += usize::from(there);
                counts.predicted += usize::from(predicted);
                counts.correct += usize::from(there && predicted);
                is_exact &= there == predicted;
            }
            scores.exact += usize::from(is_exact);
        }
        scores
    }

    /// F1 of all decisions together; `None` where no row has a label and none was predicted.
    pub fn micro_f1(&self) -> Option<f64> {
        let labels = self.labels.iter().copied();
        labels.fold(Counts::default(), Counts::and).f1()
    }

    /// Mean F1 of the labels, 0 for one that no row has and none was predicted to have, as in scikit-learn; `None` where that is so of all
    /// labels.
    pub fn macro_f1(&self) -> Option<f64> {
        let sum: f64 = self.labels.iter().filter_map(Counts::f1).sum();
        self.micro_f1().map(|_| sum / self.labels.len() as f64)
    }

    /// Share of the rows whose labels are all right; `None` without rows.
    pub fn exact_match(&self) -> Option<f64> {
        (self.rows > 0).then(|| self.exact as f64 / self.rows as f64)
    }
}
