//! Reciprocal rank fusion.

use modernbert_retrieval::fusion::{RRF_K, reciprocal_rank_fusion};
use modernbert_retrieval::run::{Hit, Run};

fn run(name: &str, queries: &[(&str, &[(&str, f64)])]) -> Run {
    let hits = |hits: &[(&str, f64)]| {
        let hit = |&(id, score): &(&str, f64)| Hit {
            id: id.to_string(),
            score,
        };
        hits.iter().map(hit).collect()
    };
    Run {
        name: name.to_string(),
        queries: queries
            .iter()
            .map(|(query, found)| (query.to_string(), hits(found)))
            .collect(),
    }
}

#[test]
fn ranks_decide_and_scores_do_not() {
    let a = run(
        "a",
        &[("q", &[("x", 9.0), ("y", 8.0)]), ("only-a", &[("x", 1.0)])],
    );
    let b = run("b", &[("q", &[("y", 0.2), ("z", 0.1)])]);
    let fused = reciprocal_rank_fusion(&[(&a, 1.0), (&b, 1.0)], RRF_K);
    assert_eq!(fused.name, "rrf(a,b)");
    let found: Vec<(&str, f64)> = fused.queries["q"]
        .iter()
        .map(|hit| (hit.id.as_str(), hit.score))
        .collect();
    assert_eq!(
        found,
        [
            ("y", 1.0 / 62.0 + 1.0 / 61.0),
            ("x", 1.0 / 61.0),
            ("z", 1.0 / 62.0)
        ]
    );
    assert_eq!(fused.queries["only-a"].len(), 1);
}

#[test]
fn weights_scale_and_equal_scores_order_by_id() {
    let a = run("a", &[("q", &[("x", 1.0)])]);
    let b = run("b", &[("q", &[("y", 1.0)])]);
    let order = |weights: [f64; 2]| -> Vec<String> {
        let fused = reciprocal_rank_fusion(&[(&a, weights[0]), (&b, weights[1])], RRF_K);
        fused.queries["q"]
            .iter()
            .map(|hit| hit.id.clone())
            .collect()
    };
    assert_eq!(order([1.0, 1.0]), ["y", "x"]);
    assert_eq!(order([2.0, 1.0]), ["x", "y"]);
}
