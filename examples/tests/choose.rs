//! `choose` as a user runs it, on a tiny model of random weights.
#![allow(clippy::unwrap_used)] // a test may fail loudly

use tiny_models::programs::{ask, assert_refused, json_lines, stdout};

#[test]
fn choices_come_best_first_and_their_probabilities_add_up() {
    let model = tiny_models::multiple_choice();
    let run = |more: &[&str]| ask(env!("CARGO_BIN_EXE_choose"), model.path(), more, "");
    let found = json_lines(&run(&["--json", "one", "two", "three"]));
    let choices = found[0]["choices"].as_array().unwrap();
    let probabilities: Vec<f64> = choices
        .iter()
        .map(|choice| choice["probability"].as_f64().unwrap())
        .collect();
    assert!(probabilities[0] >= probabilities[1]);
    assert!((probabilities.iter().sum::<f64>() - 1.0).abs() < 1e-5);
    let table = run(&["one", "two", "three"]);
    let best = choices[0]["choice"].as_str().unwrap();
    assert!(stdout(&table).lines().next().unwrap().contains(best));
    let long = "one ".repeat(100);
    assert!(stdout(&run(&[&long, "two", "three"])).contains("truncated to 64 tokens"));
}

#[test]
fn a_model_that_is_not_finetuned_is_refused() {
    let model = tiny_models::masked_lm();
    let output = ask(
        env!("CARGO_BIN_EXE_choose"),
        model.path(),
        &["one", "two", "three"],
        "",
    );
    assert_refused(&output, &["finetune it first"]);
}

#[test]
fn one_choice_alone_is_refused() {
    let model = tiny_models::multiple_choice();
    let output = ask(
        env!("CARGO_BIN_EXE_choose"),
        model.path(),
        &["one", "two"],
        "",
    );
    assert_refused(&output, &["give two or more"]);
}
