//! `classify` as a person runs it, on a tiny model of random weights.
#![allow(clippy::unwrap_used)] // a test may fail loudly

use modernbert::checkpoint::save;
use modernbert::config::ProblemType;
use modernbert::model::{MaskedLm, SequenceClassifier, initialize};
use std::path::Path;
use std::process::Output;
use tempfile::TempDir;
use tiny_models::programs::{ask, assert_refused, json_lines, stdout};
use tiny_models::{config, tokenizer};

fn model(labels: &[&str], problem: Option<ProblemType>) -> TempDir {
    let folder = tempfile::tempdir().unwrap();
    let device = modernbert::device::select(Some("flex")).unwrap().device;
    let mut config = config();
    config.id2label = Some(labels.iter().map(|label| label.to_string()).collect());
    config.num_labels = Some(labels.len());
    config.problem_type = problem;
    let model = SequenceClassifier::new(&config, labels.len(), &device).unwrap();
    save(&initialize(model, &config, 1), &config, folder.path()).unwrap();
    tokenizer().save(folder.path()).unwrap();
    folder
}

fn classify(folder: &Path, more: &[&str], input: &str) -> Output {
    ask(env!("CARGO_BIN_EXE_classify"), folder, more, input)
}

#[test]
fn probabilities_fall_and_add_up_to_one() {
    let model = model(&["bad", "good", "odd"], None);
    let lines = "{\"id\":3,\"text\":\"one\",\"pair\":\"two\"}\n\"three\"\n";
    let output = classify(
        model.path(),
        &["--json", "--format", "jsonl", "--input", "-"],
        lines,
    );
    let found = json_lines(&output);
    assert_eq!(found.len(), 2);
    assert_eq!(found[0]["id"], 3);
    for line in &found {
        let scores: Vec<f64> = line["labels"]
            .as_array()
            .unwrap()
            .iter()
            .map(|label| {
                assert!(["bad", "good", "odd"].contains(&label["label"].as_str().unwrap()));
                label["score"].as_f64().unwrap()
            })
            .collect();
        assert_eq!(scores.len(), 3);
        assert!(scores.is_sorted_by(|a, b| a >= b));
        assert!((scores.iter().sum::<f64>() - 1.0).abs() < 1e-5);
    }
    let top = classify(model.path(), &["--json", "--top", "1", "three"], "");
    assert_eq!(json_lines(&top)[0]["labels"].as_array().unwrap().len(), 1);
    let best = found[1]["labels"][0]["label"].as_str().unwrap();
    let people = classify(model.path(), &["three"], "");
    let line = stdout(&people).trim();
    assert!(
        line.starts_with(best) && line.ends_with("\"three\""),
        "{line}"
    );
}

#[test]
fn regression_gives_numbers_and_a_file_takes_the_lines() {
    let model = model(&["score"], Some(ProblemType::Regression));
    let elsewhere = tempfile::tempdir().unwrap();
    let out = elsewhere.path().join("out.jsonl");
    let output = classify(
        model.path(),
        &["one", "two", "--out", out.to_str().unwrap()],
        "",
    );
    assert_eq!(stdout(&output), "");
    let stderr = String::from_utf8_lossy(&output.stderr);
    assert!(stderr.contains("classify: 2 texts"), "{stderr}");
    assert_eq!(std::fs::read_to_string(out).unwrap().lines().count(), 2);
}

#[test]
fn what_is_no_classifier_is_refused() {
    let folder = tempfile::tempdir().unwrap();
    let device = modernbert::device::select(Some("flex")).unwrap().device;
    let model = initialize(MaskedLm::new(&config(), &device).unwrap(), &config(), 1);
    save(&model, &config(), folder.path()).unwrap();
    tokenizer().save(folder.path()).unwrap();
    assert_refused(
        &classify(folder.path(), &["one"], ""),
        &["`classifier.weight` is missing"],
    );
    assert_refused(
        &classify(folder.path(), &["one", "--top", "0"], ""),
        &["--top is 0"],
    );
    assert_refused(&classify(folder.path(), &[], ""), &["no text"]);
}
