//! Measures against pytrec_eval, sentence-transformers and SciPy (`scripts/retrieval_fixtures.py`).

use std::collections::BTreeMap;

use modernbert_retrieval::data::Judgments;
use modernbert_retrieval::metrics::significance::compare;
use modernbert_retrieval::metrics::{
    Convention, EvaluateOptions, Measure, evaluate, mteb_ignores_identical_ids,
};
use modernbert_retrieval::run::{Duplicates, Hit, Run};
use serde::Deserialize;

use crate::files::Place;

type Scores = BTreeMap<String, BTreeMap<String, f64>>;

#[derive(Deserialize)]
struct Case {
    judgments: BTreeMap<String, BTreeMap<String, i32>>,
    rows: Vec<(String, String, f64)>,
    level: i32,
    trec: Scores,
    sentence_transformers: Scores,
}

fn cases() -> Vec<Case> {
    serde_json::from_str(include_str!("../fixtures/measures.json")).unwrap()
}

/// The rows as a file, read back.
fn run_of(case: &Case) -> Run {
    let place = Place::new();
    let rows = case
        .rows
        .iter()
        .map(|(query, document, score)| format!("{query} Q0 {document} 1 {score} x\n"));
    let path = place.write("x.run", &rows.collect::<String>());
    Run::read(&path, Duplicates::KeepBest).unwrap()
}

fn options(case: &Case, scores: &Scores, convention: Convention) -> EvaluateOptions {
    let names = scores.values().next().unwrap().keys();
    EvaluateOptions {
        measures: names.map(|name| name.parse().unwrap()).collect(),
        convention,
        relevance_level: case.level,
        complete: false,
    }
}

#[test]
fn measures_equal_pytrec_evals() {
    for (number, case) in cases().iter().enumerate() {
        let judgments = Judgments {
            queries: case.judgments.clone(),
        };
        let evaluation = evaluate(
            &run_of(case),
            &judgments,
            &options(case, &case.trec, Convention::TrecEval),
        );
        let queries: Vec<&String> = evaluation.queries.keys().collect();
        assert_eq!(
            queries,
            case.trec.keys().collect::<Vec<_>>(),
            "case {number}"
        );
        assert_eq!(
            (evaluation.missing, evaluation.unjudged),
            (1, 1),
            "case {number}"
        );
        for (column, measure) in evaluation.measures.iter().enumerate() {
            let name = measure.to_string();
            let mut sum = 0.0;
            for (query, expected) in &case.trec {
                let ours = evaluation.queries[query][column];
                assert!(
                    (ours - expected[&name]).abs() <= 1e-12,
                    "case {number}, {query}, {name}: {ours}, {}",
                    expected[&name]
                );
                sum += expected[&name];
            }
            assert!(
                (evaluation.means[column] - sum / case.trec.len() as f64).abs() <= 1e-12,
                "{name}"
            );
        }
    }
}

#[test]
fn fixtures_contain_ties_below_f32_and_nonzero_scores() {
    // Otherwise the comparison above would hold for measures that ignore ties.
    let cases = cases();
    let tied = cases
        .iter()
        .flat_map(|case| &case.rows)
        .filter(|row| row.2 != 1.0 && row.2 as f32 == 1.0);
    assert!(tied.count() > 20);
    let scores = cases
        .iter()
        .flat_map(|case| case.trec.values())
        .map(|scores| scores["ndcg@10"]);
    assert!(scores.filter(|score| *score > 0.1 && *score < 0.99).count() > 15);
}

#[test]
fn measures_equal_sentence_transformers() {
    let mut compared = 0;
    for case in cases()
        .iter()
        .filter(|case| !case.sentence_transformers.is_empty())
    {
        let judgments = Judgments {
            queries: case.judgments.clone(),
        };
        let options = options(
            case,
            &case.sentence_transformers,
            Convention::SentenceTransformers,
        );
        let evaluation = evaluate(&run_of(case), &judgments, &options);
        for (query, expected) in &case.sentence_transformers {
            for (ours, measure) in evaluation.queries[query].iter().zip(&evaluation.measures) {
                let theirs = expected[&measure.to_string()];
                assert!(
                    (ours - theirs).abs() <= 1e-12,
                    "{query}, {measure}: {ours}, {theirs}"
                );
                compared += 1;
            }
        }
    }
    assert!(compared > 500, "{compared}");
}

#[test]
fn absent_queries_count_as_zero_on_request() {
    let judgments = Judgments {
        queries: [("a", "d"), ("b", "d")]
            .map(|(query, document)| {
                (
                    query.to_string(),
                    BTreeMap::from([(document.to_string(), 1)]),
                )
            })
            .into(),
    };
    let hit = Hit {
        id: "d".to_string(),
        score: 1.0,
    };
    let run = Run {
        name: String::new(),
        queries: BTreeMap::from([("a".to_string(), vec![hit])]),
    };
    let mut options = EvaluateOptions::default();
    let ndcg = Measure::Ndcg(Some(10));
    assert_eq!(evaluate(&run, &judgments, &options).mean(ndcg), Some(1.0));
    options.complete = true;
    assert_eq!(evaluate(&run, &judgments, &options).mean(ndcg), Some(0.5));
}

#[test]
fn names_of_measures_are_read_back() {
    for name in [
        "ndcg",
        "ndcg@10",
        "map",
        "map@100",
        "mrr",
        "mrr@10",
        "recall@100",
        "p@5",
        "success@1",
    ] {
        assert_eq!(name.parse::<Measure>().unwrap().to_string(), name);
    }
    for name in ["recall", "p", "ndcg@0", "ndcg@x", "bleu", ""] {
        let error = name.parse::<Measure>().unwrap_err().to_string();
        assert!(error.contains("known are"), "{error}");
    }
}

#[test]
fn identical_ids_are_left_out_where_mteb_leaves_them_out() {
    assert!(
        ["arguana", "FiQA2018", "msmarco", "fever", "quora"]
            .into_iter()
            .all(mteb_ignores_identical_ids)
    );
    assert!(
        !["cranfield", "scifact", "climate-fever", "nq"]
            .into_iter()
            .any(mteb_ignores_identical_ids)
    );
    let hits = ["q", "d"].map(|id| Hit {
        id: id.to_string(),
        score: 1.0,
    });
    let mut run = Run {
        name: String::new(),
        queries: BTreeMap::from([("q".to_string(), hits.to_vec())]),
    };
    assert_eq!(run.drop_identical_ids(), 1);
    assert_eq!(run.queries["q"][0].id, "d");
}

#[derive(Deserialize)]
struct Paired {
    first: Vec<f64>,
    second: Vec<f64>,
    p: f64,
}

#[test]
fn exact_p_values_equal_scipys() {
    let cases: Vec<Paired> =
        serde_json::from_str(include_str!("../fixtures/significance.json")).unwrap();
    for case in cases {
        let pairs: Vec<(f64, f64)> = case
            .first
            .iter()
            .copied()
            .zip(case.second.iter().copied())
            .collect();
        let result = compare(&pairs, 10, 0);
        assert!(result.exact);
        assert!(
            (result.p_value - case.p).abs() < 1e-12,
            "{} {}",
            result.p_value,
            case.p
        );
    }
}

#[test]
fn sampled_p_values_approach_the_exact_one_and_repeat() {
    // 40 queries better by the same amount: only the two patterns of one sign reach the sum.
    let clear: Vec<(f64, f64)> = (0..40).map(|_| (0.5, 0.6)).collect();
    let result = compare(&clear, 2_000, 1);
    assert!(!result.exact);
    assert_eq!(
        (result.better, result.worse, result.patterns),
        (40, 0, 2_001)
    );
    assert_eq!(result.p_value, 1.0 / 2_001.0);
    // 20 queries, 12 better and 8 worse: P(|2 X - 20| >= 4) for X of a fair coin is 0.503445.
    let even: Vec<(f64, f64)> = (0..20)
        .map(|i| if i < 12 { (0.0, 0.25) } else { (0.25, 0.0) })
        .collect();
    let result = compare(&even, 40_000, 3);
    assert!(
        (result.p_value - 0.503_445).abs() < 0.012,
        "{}",
        result.p_value
    );
    assert_eq!(result, compare(&even, 40_000, 3));
    assert_eq!(compare(&[], 10, 0).p_value, 1.0);
}
