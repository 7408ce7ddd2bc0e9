//! Scores that GLUE doesn't have.

use std::collections::{BTreeMap, BTreeSet};

use crate::metrics::classification::counts;

/// Mean F1 of the classes that occur or are predicted, as scikit-learn's macro average; `None` without examples, and when the slices differ
/// in length.
pub fn macro_f1(truth: &[usize], predicted: &[usize]) -> Option<f64> {
    if truth.is_empty() || truth.len() != predicted.len() {
        return None;
    }
    let classes: BTreeSet<usize> = truth.iter().chain(predicted).copied().collect();
    // Every class occurs or is predicted, so that its F1 exists.
    let f1 = classes.iter();
    let f1 = f1.filter_map(|&class| counts(truth, predicted, class).f1());
    Some(f1.sum::<f64>() / classes.len() as f64)
}

/// Share of the groups all of whose examples are predicted right; `None` without examples, and when the slices differ in length.
pub fn exact_by_group(truth: &[usize], predicted: &[usize], groups: &[usize]) -> Option<f64> {
    if truth.is_empty() || truth.len() != predicted.len() || truth.len() != groups.len() {
        return None;
    }
    let mut exact: BTreeMap<usize, bool> = BTreeMap::new();
    for ((truth, predicted), &group) in truth.iter().zip(predicted).zip(groups) {
        *exact.entry(group).or_insert(true) &= truth == predicted;
    }
    let right = exact.values().filter(|&&right| right).count();
    Some(right as f64 / exact.len() as f64)
}
