//! Reciprocal rank fusion: several runs combined by their ranks alone.

use std::collections::BTreeMap;

use crate::metrics::rank;
use crate::run::{Hit, Run};

/// The constant of Cormack, Clarke and Büttcher (SIGIR 2009).
pub const RRF_K: f64 = 60.0;

/// Combines runs, each with a weight: `score(d) = Σ weight / (k + rank(d))` over the runs that contain the document, with ranks from 1 in
/// evaluation order. A query of any run is a query of the result.
pub fn reciprocal_rank_fusion(runs: &[(&Run, f64)], k: f64) -> Run {
    let mut scores: BTreeMap<&str, BTreeMap<&str, f64>> = BTreeMap::new();
    for (run, weight) in runs {
        for (query, hits) in &run.queries {
            let of_query = scores.entry(query).or_default();
            for (i, hit) in rank(hits).into_iter().enumerate() {
                *of_query.entry(&hit.id).or_insert(0.0) += weight / (k + (i + 1) as f64);
            }
        }
    }
    let hits = |scores: BTreeMap<&str, f64>| {
        let mut hits: Vec<Hit> = scores
            .into_iter()
            .map(|(id, score)| Hit {
                id: id.to_string(),
                score,
            })
            .collect();
        hits.sort_by(|a, b| b.score.total_cmp(&a.score).then_with(|| b.id.cmp(&a.id)));
        hits
    };
    let names: Vec<&str> = runs.iter().map(|(run, _)| run.name.as_str()).collect();
    Run {
        name: format!("rrf({})", names.join(",")),
        queries: scores
            .into_iter()
            .map(|(query, scores)| (query.to_string(), hits(scores)))
            .collect(),
    }
}
