//! trec_eval's definitions.

use std::cmp::Ordering;
use std::collections::BTreeMap;

use super::Measure;
use crate::run::Hit;

/// Returns the hits in trec_eval's order: by score rounded to f32, descending, then by document id in byte order, descending.
pub fn rank(hits: &[Hit]) -> Vec<&Hit> {
    let mut ranked: Vec<&Hit> = hits.iter().collect();
    ranked.sort_by(|a, b| compare(b, a));
    ranked
}

fn compare(a: &Hit, b: &Hit) -> Ordering {
    let (left, right) = (a.score as f32, b.score as f32);
    left.partial_cmp(&right)
        .unwrap_or(Ordering::Equal)
        .then_with(|| a.id.cmp(&b.id))
}

/// Scores of one query, one per measure.
pub(super) fn scores(
    hits: &[Hit],
    grades: &BTreeMap<String, i32>,
    level: i32,
    measures: &[Measure],
) -> Vec<f64> {
    // Grade of each ranked document; not judged is 0, which no measure distinguishes from judged as not relevant.
    let found: Vec<i32> = rank(hits)
        .into_iter()
        .map(|hit| grades.get(&hit.id).copied().unwrap_or(0).max(0))
        .collect();
    let mut ideal: Vec<i32> = grades
        .values()
        .copied()
        .filter(|&grade| grade > 0)
        .collect();
    ideal.sort_unstable_by(|a, b| b.cmp(a));
    let relevant = ideal.iter().filter(|&&grade| grade >= level).count();
    let first = |k: Option<usize>| &found[..k.unwrap_or(found.len()).min(found.len())];
    let hits_in = |k: usize| {
        first(Some(k))
            .iter()
            .filter(|&&grade| grade >= level)
            .count()
    };
    let score = |measure: &Measure| match *measure {
        Measure::Ndcg(k) => {
            let best = dcg(&ideal[..k.unwrap_or(ideal.len()).min(ideal.len())]);
            if best > 0.0 {
                dcg(first(k)) / best
            } else {
                0.0
            }
        }
        Measure::Map(k) => ratio(precisions(first(k), level), relevant),
        Measure::Mrr(k) => reciprocal_rank(first(k), level),
        Measure::Recall(k) => ratio(hits_in(k) as f64, relevant),
        Measure::Precision(k) => hits_in(k) as f64 / k as f64,
        Measure::Success(k) => f64::from(u8::from(hits_in(k) > 0)),
    };
    measures.iter().map(score).collect()
}

/// Sum of grade / log2(rank + 1).
pub(super) fn dcg(grades: &[i32]) -> f64 {
    let terms = grades.iter().enumerate();
    terms
        .map(|(i, &grade)| f64::from(grade) / (i as f64 + 2.0).log2())
        // The sum of no terms is -0.
        .fold(0.0, |sum, term| sum + term)
}

/// Sum of the precisions at the ranks of relevant documents.
pub(super) fn precisions(grades: &[i32], level: i32) -> f64 {
    let mut relevant = 0;
    let mut sum = 0.0;
    for (i, &grade) in grades.iter().enumerate() {
        if grade >= level {
            relevant += 1;
            sum += f64::from(relevant) / (i as f64 + 1.0);
        }
    }
    sum
}

pub(super) fn reciprocal_rank(grades: &[i32], level: i32) -> f64 {
    let first = grades.iter().position(|&grade| grade >= level);
    first.map_or(0.0, |i| 1.0 / (i as f64 + 1.0))
}

pub(super) fn ratio(part: f64, whole: usize) -> f64 {
    if whole == 0 { 0.0 } else { part / whole as f64 }
}
