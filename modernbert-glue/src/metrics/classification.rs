//! Scores of class predictions. Class ids are small numbers counted from 0.
//!
//! Every function is `None` without examples and when the two slices differ in length.

use modernbert_train::finetune::metrics::Counts;

/// Share of positions at which both slices agree.
pub fn accuracy(truth: &[usize], predicted: &[usize]) -> Option<f64> {
    if truth.is_empty() || truth.len() != predicted.len() {
        return None;
    }
    let correct = truth.iter().zip(predicted).filter(|(t, p)| t == p).count();
    Some(correct as f64 / truth.len() as f64)
}

/// F1 of class 1, `2 tp / (2 tp + fp + fn)`: 0 when class 1 neither occurs nor is predicted.
pub fn f1(truth: &[usize], predicted: &[usize]) -> Option<f64> {
    if truth.is_empty() || truth.len() != predicted.len() {
        return None;
    }
    Some(counts(truth, predicted, 1).f1().unwrap_or(0.0))
}

/// Counts of a class; both slices have the same length.
pub(crate) fn counts(truth: &[usize], predicted: &[usize], class: usize) -> Counts {
    let count = |ids: &[usize]| ids.iter().filter(|&&id| id == class).count();
    let pairs = truth.iter().zip(predicted);
    Counts {
        correct: pairs.filter(|&(&t, &p)| t == class && p == class).count(),
        predicted: count(predicted),
        truth: count(truth),
    }
}

/// Matthews correlation coefficient for any number of classes (Gorodkin 2004, `R_K`), which for two classes is
///
/// ```text
/// (tp tn - fp fn) / sqrt((tp + fp) (tp + fn) (tn + fp) (tn + fn))
/// ```
///
/// 0 if labels or predictions have one class only.
pub fn matthews(truth: &[usize], predicted: &[usize]) -> Option<f64> {
    if truth.is_empty() || truth.len() != predicted.len() {
        return None;
    }
    let classes = 1 + truth.iter().chain(predicted).copied().max().unwrap_or(0);
    let count = |ids: &[usize]| {
        let mut counts = vec![0_i128; classes];
        for id in ids {
            counts[*id] += 1;
        }
        counts
    };
    let dot = |a: &[i128], b: &[i128]| a.iter().zip(b).map(|(a, b)| a * b).sum::<i128>();
    let (in_truth, in_predicted) = (count(truth), count(predicted));
    let n = truth.len() as i128;
    let correct = truth.iter().zip(predicted).filter(|(t, p)| t == p).count() as i128;

    // n^2 times the covariance of the one-hot classes, and the two variances.
    let covariance = n * correct - dot(&in_truth, &in_predicted);
    let variances = (n * n - dot(&in_truth, &in_truth)) as f64
        * (n * n - dot(&in_predicted, &in_predicted)) as f64;
    Some(if variances == 0.0 {
        0.0
    } else {
        covariance as f64 / variances.sqrt()
    })
}
