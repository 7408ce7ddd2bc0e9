//! `answer` as a person runs it, on a tiny model of random weights, and against a plain search over all spans.
#![allow(clippy::unwrap_used)] // a test may fail loudly

use modernbert::batch::PackedBatch;
use modernbert::checkpoint::save;
use modernbert::model::{QuestionAnswerer, initialize};
use modernbert::{AnswerOptions, Answerer, Loader};
use std::path::Path;
use std::process::Output;
use tempfile::TempDir;
use tiny_models::programs::{ask, assert_refused, json_lines, stdout};
use tiny_models::{config, tokenizer};

fn model() -> TempDir {
    let folder = tempfile::tempdir().unwrap();
    let device = modernbert::device::select(Some("flex")).unwrap().device;
    let model = initialize(
        QuestionAnswerer::new(&config(), &device).unwrap(),
        &config(),
        1,
    );
    save(&model, &config(), folder.path()).unwrap();
    tokenizer().save(folder.path()).unwrap();
    folder
}

fn answer(folder: &Path, more: &[&str], input: &str) -> Output {
    ask(env!("CARGO_BIN_EXE_answer"), folder, more, input)
}

#[test]
fn an_answer_of_any_length_can_be_asked_for() {
    let folder = model();
    let device = modernbert::device::select(Some("flex")).unwrap().device;
    let loader = Loader::new(folder.path()).device(&device);
    let answers = |max_answer| {
        let options = AnswerOptions {
            n_best: 3,
            max_answer,
            stride: 2,
        };
        let answerer = Answerer::load(&loader).unwrap().with_options(options);
        let found = answerer.answer(&[("two", "one two three one two")]);
        found.unwrap().remove(0).best
    };
    let all = answers(1000);
    assert_eq!(all.len(), 3);
    assert_eq!(answers(usize::MAX), all);
}

#[test]
fn the_best_spans_are_those_of_a_plain_search() {
    let folder = model();
    let device = modernbert::device::select(Some("flex")).unwrap().device;
    let (question, context) = ("two", "one \u{e9} two three one zz two");
    let options = AnswerOptions {
        n_best: 3,
        max_answer: 4,
        stride: 2,
    };
    let loader = Loader::new(folder.path()).device(&device);
    let answerer = Answerer::load(&loader).unwrap().with_options(options);
    let found = answerer.answer(&[(question, context)]).unwrap().remove(0);
    assert_eq!(found.windows, 1);

    let tokenizer = tokenizer();
    let ids = tokenizer.encode_pair(question, context).unwrap();
    let offsets = tokenizer.encode_with_offsets(context).unwrap().offsets;
    let model = QuestionAnswerer::load(&loader).unwrap();
    let batch = PackedBatch::from_sequences(std::slice::from_ref(&ids), &device).unwrap();
    let logits = model.logits(&batch);
    let start: Vec<f32> = logits.start.into_data().try_to_vec().unwrap();
    let end: Vec<f32> = logits.end.into_data().try_to_vec().unwrap();
    let first = tokenizer.encode(question).unwrap().len();
    let count = ids.len() - first - 1;
    let mut spans = Vec::new();
    for i in 0..count {
        for j in i..(i + 4).min(count) {
            let text = context
                .get(offsets[i + 1].0..offsets[j + 1].1)
                .unwrap_or_default();
            spans.push((start[first + i] + end[first + j], text.trim().to_string()));
        }
    }
    spans.sort_by(|a, b| b.0.total_cmp(&a.0));
    let best = spans.iter().find(|(_, text)| !text.is_empty()).unwrap();
    assert_eq!(found.best[0].text, best.1);
    assert!((found.best[0].score - best.0).abs() < 1e-5);
    assert!((found.none_score - start[0] - end[0]).abs() < 1e-5);
    assert!(found.best.len() == 3 && found.best.is_sorted_by(|a, b| a.score >= b.score));
    for answer in &found.best {
        let piece: String = context
            .chars()
            .skip(answer.start)
            .take(answer.end - answer.start)
            .collect();
        assert_eq!(piece, answer.text);
        assert!(answer.probability > 0.0 && answer.probability <= 1.0);
    }
}

#[test]
fn long_contexts_slide_and_every_place_can_answer() {
    let folder = model();
    let context: String = (0..80).map(|i| format!("q{i} ")).collect();
    let line = serde_json::json!({"id": "a", "question": "one?", "context": context}).to_string();
    let ask = |more: &[&str]| {
        let base = ["--json", "--input", "-", "--stride", "8", "--n-best", "5"];
        json_lines(&answer(folder.path(), &[&base[..], more].concat(), &line))
    };
    let found = ask(&[]);
    assert_eq!(found[0]["id"], "a");
    assert!(found[0]["windows"].as_u64().unwrap() > 2);
    let answers = found[0]["answers"].as_array().unwrap();
    assert_eq!(answers.len(), 5);
    for answer in answers {
        let (start, end) = (
            answer["start"].as_u64().unwrap() as usize,
            answer["end"].as_u64().unwrap() as usize,
        );
        assert_eq!(
            answer["text"],
            context[start..end],
            "plain ASCII, so bytes are characters"
        );
    }
    let small = ask(&["--batch-tokens", "1"]);
    assert_eq!(small[0]["answers"][0]["text"], answers[0]["text"]);
}

#[test]
fn a_question_and_a_file_and_what_is_refused() {
    let folder = model();
    let context = folder.path().join("context.txt");
    std::fs::write(&context, "one two three").unwrap();
    let context = context.to_str().unwrap();
    let output = answer(
        folder.path(),
        &["--question", "two?", "--context", context],
        "",
    );
    assert!(
        stdout(&output).starts_with("two?\n  "),
        "{}",
        stdout(&output)
    );
    assert_refused(&answer(folder.path(), &[], ""), &["no question"]);
    assert_refused(
        &answer(folder.path(), &["--input", "-"], "{\"question\":\"a\"}"),
        &["standard input:1", "no field \"context\""],
    );
    let long = "zz ".repeat(100);
    assert_refused(
        &answer(
            folder.path(),
            &["--question", &long, "--context", context],
            "",
        ),
        &["leave no tokens for the context"],
    );
    assert_refused(
        &answer(folder.path(), &["--question", "a", "--context", "/no"], ""),
        &["/no: cannot be read"],
    );
    assert_refused(
        &answer(
            folder.path(),
            &["--json", "--question", "a", "--context", "-"],
            "",
        ),
        &["the text is blank"],
    );
}
