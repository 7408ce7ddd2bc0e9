//! Definitions of sentence-transformers' `InformationRetrievalEvaluator`: relevant or not, ties by document id, ascending.

use std::cmp::Ordering;
use std::collections::BTreeMap;

use super::Measure;
use super::trec::{dcg, precisions, ratio, reciprocal_rank};
use crate::run::Hit;

pub(super) fn scores(
    hits: &[Hit],
    grades: &BTreeMap<String, i32>,
    level: i32,
    measures: &[Measure],
) -> Vec<f64> {
    let mut ranked: Vec<&Hit> = hits.iter().collect();
    ranked.sort_by(|a, b| {
        let by_score = b.score.partial_cmp(&a.score).unwrap_or(Ordering::Equal);
        by_score.then_with(|| a.id.cmp(&b.id))
    });
    let is_relevant =
        |hit: &&Hit| i32::from(grades.get(&hit.id).is_some_and(|&grade| grade >= level));
    let found: Vec<i32> = ranked.iter().map(is_relevant).collect();
    let relevant = grades.values().filter(|&&grade| grade >= level).count();
    let first = |k: Option<usize>| &found[..k.unwrap_or(found.len()).min(found.len())];
    let hits_in = |k: usize| first(Some(k)).iter().filter(|&&hit| hit > 0).count();
    let score = |measure: &Measure| match *measure {
        Measure::Ndcg(k) => {
            let best = dcg(&vec![1; relevant.min(k.unwrap_or(relevant))]);
            if best > 0.0 {
                dcg(first(k)) / best
            } else {
                0.0
            }
        }
        Measure::Map(k) => ratio(precisions(first(k), 1), relevant.min(k.unwrap_or(relevant))),
        Measure::Mrr(k) => reciprocal_rank(first(k), 1),
        Measure::Recall(k) => ratio(hits_in(k) as f64, relevant),
        Measure::Precision(k) => hits_in(k) as f64 / k as f64,
        Measure::Success(k) => f64::from(u8::from(hits_in(k) > 0)),
    };
    measures.iter().map(score).collect()
}
