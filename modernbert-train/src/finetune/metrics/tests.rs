#![allow(clippy::unwrap_used)]
use super::*;
use modernbert::inference::TagScheme;
use serde_json::Value;

/// Scores of seqeval, scikit-learn and SQuAD's rules in transformers; `scripts/kinds_fixtures.py` writes them.
fn fixtures() -> Value {
    serde_json::from_str(include_str!("../../../tests/fixtures/kinds.json")).unwrap()
}

fn strings(value: &Value) -> Vec<&str> {
    let list = value.as_array().unwrap().iter();
    list.map(|entry| entry.as_str().unwrap()).collect()
}

fn close(found: f64, expected: &Value, what: &str) {
    let expected = expected.as_f64().unwrap();
    assert!(
        (found - expected).abs() < 1e-12,
        "{what}: {found} {expected}"
    );
}

#[test]
fn span_scores_equal_those_of_seqeval() {
    let fixtures = fixtures();
    let cases = fixtures["spans"].as_array().unwrap();
    assert!(cases.len() >= 60);
    let mut differ = 0;
    for case in cases {
        let scheme = TagScheme::of(&strings(&case["tags"]));
        let mut f1 = Vec::new();
        for (matching, mode) in [(Matching::Lenient, "default"), (Matching::Strict, "strict")] {
            let mut scores = SpanScores::default();
            let sentences = case["truth"].as_array().unwrap().iter();
            for (truth, predicted) in sentences.zip(case["predicted"].as_array().unwrap()) {
                scores.add(&scheme, matching, strings(truth), strings(predicted));
            }
            let (expected, total) = (&case[mode], scores.total());
            let what = format!("{} {mode}", case["name"]);
            close(
                total.precision().unwrap_or(0.0),
                &expected["precision"],
                &what,
            );
            close(total.recall().unwrap_or(0.0), &expected["recall"], &what);
            close(total.f1().unwrap_or(0.0), &expected["f1"], &what);
            close(
                scores.macro_f1().unwrap_or(0.0),
                &expected["macro_f1"],
                &what,
            );
            let kinds = expected["kinds"].as_object().unwrap();
            assert_eq!(scores.kinds.len(), kinds.len(), "{what}");
            for (kind, expected) in kinds {
                let counts = &scores.kinds[kind];
                close(counts.f1().unwrap(), &expected["f1"], &what);
                close(counts.truth as f64, &expected["support"], &what);
            }
            f1.push(total.f1());
        }
        differ += usize::from(f1[0] != f1[1]);
    }
    // Ill-formed sequences are among them.
    assert!(differ > 10, "{differ}");
}

#[test]
fn scores_of_nothing_are_undefined() {
    let scheme = TagScheme::of(&["O", "B-X", "I-X"]);
    let mut scores = SpanScores::default();
    scores.add(&scheme, Matching::Lenient, ["O", "O"], ["O", "O"]);
    let total = scores.total();
    assert_eq!(
        (total.precision(), total.recall(), total.f1()),
        (None, None, None)
    );
    assert_eq!(scores.macro_f1(), None);
    scores.add(&scheme, Matching::Lenient, ["B-X"], ["O"]);
    let total = scores.total();
    assert_eq!((total.precision(), total.f1()), (None, Some(0.0)));
    let table = scores.table();
    assert!(
        table.contains("  X            -  0.0000  0.0000      1          0"),
        "{table}"
    );
    let labels = LabelScores::of(&[Vec::new()], &[vec![-1.0, -2.0]]);
    assert_eq!((labels.micro_f1(), labels.macro_f1()), (None, None));
    assert_eq!(labels.exact_match(), Some(1.0));
}

#[test]
fn label_scores_equal_those_of_scikit_learn() {
    let fixtures = fixtures();
    let cases = fixtures["labels"].as_array().unwrap();
    assert!(cases.len() >= 10);
    for case in cases {
        let rows = case["truth"].as_array().unwrap().iter();
        let truth: Vec<Vec<u32>> = rows
            .map(|row| {
                let ids = row.as_array().unwrap().iter();
                ids.map(|id| id.as_u64().unwrap() as u32).collect()
            })
            .collect();
        let rows = case["outputs"].as_array().unwrap().iter();
        let outputs: Vec<Vec<f32>> = rows
            .map(|row| {
                let values = row.as_array().unwrap().iter();
                values.map(|value| value.as_f64().unwrap() as f32).collect()
            })
            .collect();
        let scores = LabelScores::of(&truth, &outputs);
        close(scores.micro_f1().unwrap(), &case["micro_f1"], "micro");
        close(scores.macro_f1().unwrap(), &case["macro_f1"], "macro");
        close(scores.exact_match().unwrap(), &case["exact_match"], "exact");
    }
}

#[test]
fn answer_scores_equal_those_of_squad() {
    let fixtures = fixtures();
    let cases = fixtures["answers"].as_array().unwrap();
    assert!(cases.len() >= 100);
    for case in cases {
        let right = strings(&case["right"]);
        let predicted = case["predicted"].as_str().unwrap();
        let what = format!("{predicted:?} {right:?}");
        close(exact_match(predicted, &right), &case["exact"], &what);
        close(answer_f1(predicted, &right), &case["f1"], &what);
    }
}
