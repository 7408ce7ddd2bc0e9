#![allow(clippy::unwrap_used)]

use std::path::PathBuf;

use proptest::prelude::*;
use serde::Deserialize;

use super::classification::{accuracy, f1, matthews};
use super::correlation::{pearson, ranks, spearman};
use super::*;
use crate::data::GlueExample;

#[derive(Deserialize)]
struct Fixtures {
    classification: Vec<Classes>,
    correlation: Vec<Numbers>,
}

#[derive(Deserialize)]
struct Classes {
    name: String,
    truth: Vec<usize>,
    predicted: Vec<usize>,
    matthews: f64,
    accuracy: f64,
    f1: Option<f64>,
}

#[derive(Deserialize)]
struct Numbers {
    name: String,
    x: Vec<f64>,
    y: Vec<f64>,
    pearson: Option<f64>,
    spearman: Option<f64>,
}

fn assert_close(ours: Option<f64>, theirs: Option<f64>, name: &str) {
    match (ours, theirs) {
        (Some(ours), Some(theirs)) => assert!(
            (ours - theirs).abs() <= 1e-12,
            "{name}: {ours} is not {theirs}"
        ),
        (ours, theirs) => assert_eq!(ours, theirs, "{name}"),
    }
}

#[test]
fn scores_are_those_of_scikit_learn_and_scipy() {
    let fixtures: Fixtures =
        serde_json::from_str(include_str!("../../tests/fixtures/metrics.json")).unwrap();
    assert!(fixtures.classification.len() > 10 && fixtures.correlation.len() > 10);
    for case in fixtures.classification {
        assert_close(
            matthews(&case.truth, &case.predicted),
            Some(case.matthews),
            &format!("{} matthews", case.name),
        );
        assert_close(
            accuracy(&case.truth, &case.predicted),
            Some(case.accuracy),
            &format!("{} accuracy", case.name),
        );
        if case.f1.is_some() {
            assert_close(
                f1(&case.truth, &case.predicted),
                case.f1,
                &format!("{} f1", case.name),
            );
        }
    }
    for case in fixtures.correlation {
        assert_close(
            pearson(&case.x, &case.y),
            case.pearson,
            &format!("{} pearson", case.name),
        );
        assert_close(
            spearman(&case.x, &case.y),
            case.spearman,
            &format!("{} spearman", case.name),
        );
    }
}

#[test]
fn what_has_no_score_is_none() {
    assert_eq!(
        (accuracy(&[], &[]), f1(&[1], &[]), matthews(&[], &[])),
        (None, None, None)
    );
    assert_eq!(
        (pearson(&[1.0], &[1.0]), spearman(&[1.0, 2.0], &[1.0])),
        (None, None)
    );
    assert_eq!(
        (
            pearson(&[1.0, f64::NAN], &[1.0, 2.0]),
            spearman(&[1.0, f64::NAN], &[1.0, 2.0])
        ),
        (None, None)
    );
    assert_eq!(pearson(&[1.0, f64::INFINITY], &[1.0, 2.0]), None);
}

#[test]
fn equal_values_share_their_rank() {
    assert_eq!(ranks(&[0.3, 0.1, 0.3, 0.2, 0.3]), [4.0, 1.0, 4.0, 2.0, 4.0]);
    assert_eq!(ranks(&[0.0, -0.0]), [1.5, 1.5]);
}

proptest! {
    #[test]
    fn rank_correlation_does_not_see_a_rising_function(pairs in prop::collection::vec((-50_i32..50, -50_i32..50), 2..60)) {
        let (x, y): (Vec<f64>, Vec<f64>) = pairs.into_iter().map(|(x, y)| (f64::from(x), f64::from(y))).unzip();
        let cubed: Vec<f64> = x.iter().map(|x| x.powi(3) - 7.0).collect();
        prop_assert_eq!(spearman(&x, &y), spearman(&cubed, &y));
        prop_assert_eq!(spearman(&x, &y), spearman(&y, &x));
        if let Some(r) = spearman(&x, &y) {
            prop_assert!((-1.0..=1.0).contains(&r));
        }
    }

    #[test]
    fn matthews_of_two_classes_is_the_correlation_of_their_ids(pairs in prop::collection::vec((0_usize..2, 0_usize..2), 1..60)) {
        let (truth, predicted): (Vec<usize>, Vec<usize>) = pairs.into_iter().unzip();
        let numbers = |ids: &[usize]| ids.iter().map(|id| *id as f64).collect::<Vec<_>>();
        let r = pearson(&numbers(&truth), &numbers(&predicted)).unwrap_or(0.0);
        prop_assert!((matthews(&truth, &predicted).unwrap() - r).abs() < 1e-12);
    }
}

#[test]
fn every_metric_of_a_task_comes_in_order() {
    let predictions = [1, 0, 1, 1].map(Prediction::Class);
    let labels = [1, 0, 0, 1].map(Label::Class);
    let metrics = evaluate(Task::Mrpc, &predictions, &labels).unwrap();
    assert_eq!(
        metrics.iter().collect::<Vec<_>>(),
        [("f1", Some(0.8)), ("accuracy", Some(0.75))]
    );
    let predictions = [1.0, 2.0, 3.0].map(Prediction::Score);
    let labels = [0.5, 1.0, 5.0].map(Label::Score);
    let metrics = evaluate(Task::Stsb, &predictions, &labels).unwrap();
    assert_eq!(
        metrics.iter().map(|(name, _)| name).collect::<Vec<_>>(),
        ["spearman", "pearson"]
    );
    assert_close(metrics.get("spearman"), Some(1.0), "spearman");
}

#[test]
fn predictions_that_do_not_fit_are_refused() {
    let class = [Prediction::Class(1)];
    let error = evaluate(Task::Rte, &class, &[]).unwrap_err();
    assert_eq!(
        error,
        MetricError::Length {
            task: Task::Rte,
            predictions: 1,
            labels: 0
        }
    );
    assert_eq!(
        evaluate(Task::Rte, &[], &[]).unwrap_err(),
        MetricError::Empty { task: Task::Rte }
    );
    for label in [Label::Hidden, Label::Score(1.0), Label::Class(2)] {
        assert!(matches!(
            evaluate(Task::Rte, &class, &[label]),
            Err(MetricError::Label { index: 0, .. })
        ));
    }
    for prediction in [Prediction::Score(1.0), Prediction::Class(2)] {
        let scored = evaluate(Task::Rte, &[prediction], &[Label::Class(0)]);
        assert!(matches!(
            scored,
            Err(MetricError::Prediction { index: 0, .. })
        ));
    }
    assert!(evaluate(Task::Stsb, &class, &[Label::Score(1.0)]).is_err());
}

#[test]
fn outputs_of_a_diverged_or_foreign_model_are_refused() {
    assert_eq!(
        Prediction::from_outputs(Task::Mnli, &[0.1, 0.7, 0.7]).unwrap(),
        Prediction::Class(1)
    );
    assert_eq!(
        Prediction::from_outputs(Task::Stsb, &[2.5]).unwrap(),
        Prediction::Score(2.5)
    );
    let message = Prediction::from_outputs(Task::Rte, &[0.0, f32::NAN])
        .unwrap_err()
        .to_string();
    assert!(
        message.contains("rte") && message.contains("NaN"),
        "{message}"
    );
    assert!(Prediction::from_outputs(Task::Rte, &[0.0; 3]).is_err());
}

fn split(name: &'static str, ids: &[usize]) -> Split {
    let example = |(index, id): (usize, &usize)| GlueExample {
        index,
        text_a: String::new(),
        text_b: None,
        label: Label::Class(*id),
    };
    Split {
        name,
        path: PathBuf::new(),
        examples: ids.iter().enumerate().map(example).collect(),
        official_rows: 0,
        partial: false,
        skipped: Vec::new(),
        empty_sentences: 0,
    }
}

#[test]
fn mnli_is_the_mean_of_matched_and_mismatched() {
    let dev = vec![
        split("dev_matched", &[0, 1]),
        split("dev_mismatched", &[2, 2]),
    ];
    let mut data = TaskData {
        task: Task::Mnli,
        train: split("train", &[0]),
        dev,
        missing: Vec::new(),
    };
    let mut predictions = vec![vec![Prediction::Class(0); 2], vec![Prediction::Class(2); 2]];
    let metrics = evaluate_dev(&data, &predictions).unwrap();
    let expected = [
        ("accuracy", Some(0.75)),
        ("accuracy_matched", Some(0.5)),
        ("accuracy_mismatched", Some(1.0)),
    ];
    assert_eq!(metrics.iter().collect::<Vec<_>>(), expected);

    data.dev.pop();
    assert!(matches!(
        evaluate_dev(&data, &predictions),
        Err(MetricError::Splits { .. })
    ));
    predictions.pop();
    let metrics = evaluate_dev(&data, &predictions).unwrap();
    assert_eq!(
        metrics.to_string(),
        "accuracy 50.0, accuracy_matched 50.0, accuracy_mismatched n/a"
    );
}

#[test]
fn metrics_keep_their_order_in_json_and_write_null_for_undefined() {
    let metrics: Metrics = [
        ("f1", Some(0.5)),
        ("accuracy", Some(0.25)),
        ("b", Some(f64::NAN)),
    ]
    .into_iter()
    .collect();
    let json = serde_json::to_string(&metrics).unwrap();
    assert_eq!(json, r#"{"f1":0.5,"accuracy":0.25,"b":null}"#);
    assert_eq!(serde_json::from_str::<Metrics>(&json).unwrap(), metrics);
}

#[test]
fn a_mean_does_not_hide_an_undefined_run() {
    let run = |a, b| [("a", Some(a)), ("b", b)].into_iter().collect::<Metrics>();
    let mean = Metrics::mean([&run(0.0, Some(1.0)), &run(1.0, None)]);
    assert_eq!(
        mean.iter().collect::<Vec<_>>(),
        [("a", Some(0.5)), ("b", None)]
    );
    assert!(Metrics::mean([]).is_empty());
}

#[test]
fn the_spread_is_the_sample_deviation_and_needs_two_runs() {
    let run = |value: Option<f64>| Metrics::from_iter([("accuracy", value)]);
    let runs = [run(Some(0.5)), run(Some(0.7)), run(Some(0.6))];
    let spread = Metrics::spread(&runs).get("accuracy").unwrap();
    assert!((spread - 0.1).abs() < 1e-12, "{spread}");
    assert_eq!(Metrics::spread(&runs[..1]).get("accuracy"), None);
    let undefined = [run(Some(0.5)), run(None)];
    assert_eq!(Metrics::spread(&undefined).get("accuracy"), None);
}
