//! `superglue` as a person runs it, on a tiny model of random weights and files of the benchmark's form: a rule is learned in each of the five tasks.
#![allow(clippy::unwrap_used)] // a test may fail loudly

use modernbert::checkpoint::read_config;
use serde_json::{Value, json};
use std::fs;
use std::path::Path;
use tiny_models::programs::{ask, stdout};

/// An example of a task: the words of its texts by a fixed rule, its class known from one of them.
fn row(task: &str, seed: usize) -> Value {
    let filler = ["two", "three", "two two", "three two", "two three"][seed % 5];
    let told = |is_true: bool| match is_true {
        true => format!("{filler} one"),
        false => filler.to_string(),
    };
    let is_true = (seed % 7).is_multiple_of(2);
    match task {
        "BoolQ" => {
            json!({"question": told(is_true), "passage": filler, "idx": seed, "label": is_true})
        }
        "CB" => {
            let class = seed % 3;
            let word = ["one", "two", "three"][class];
            let label = ["entailment", "contradiction", "neutral"][class];
            json!({"premise": "two", "hypothesis": format!("{word} {word}"), "label": label, "idx": seed})
        }
        "COPA" => {
            let label = usize::from(is_true);
            let question = ["cause", "effect"][seed % 2];
            json!({"premise": "two", "choice1": told(label == 0), "choice2": told(label == 1), "question": question, "label": label, "idx": seed})
        }
        "MultiRC" => {
            let answers: Vec<Value> = (0..3)
                .map(|i| (i, (seed + i).is_multiple_of(3)))
                .map(|(i, right)| json!({"text": told(right), "idx": i, "label": u8::from(right)}))
                .collect();
            let question = json!({"question": "two", "idx": 0, "answers": answers});
            json!({"idx": seed, "passage": {"text": filler, "questions": [question]}})
        }
        "WiC" => {
            json!({"word": "two", "sentence1": filler, "sentence2": told(is_true), "idx": seed, "label": is_true,
                        "start1": 0, "end1": 3, "start2": 0, "end2": 3, "version": 1.1})
        }
        other => panic!("{other}"),
    }
}

fn write(folder: &Path, task: &str, name: &str, seeds: std::ops::Range<usize>) {
    let lines: String = seeds.map(|seed| format!("{}\n", row(task, seed))).collect();
    fs::create_dir_all(folder.join(task)).unwrap();
    fs::write(folder.join(task).join(name), lines).unwrap();
}

#[test]
fn every_task_is_trained_and_scored() {
    let model = tiny_models::masked_lm();
    let place = tempfile::tempdir().unwrap();
    let path = |name: &str| place.path().join(name).to_str().unwrap().to_string();
    for (task, examples, official, labels, metrics) in [
        ("BoolQ", (64, 21), (9427, 3270), 2, &["accuracy"][..]),
        ("CB", (64, 21), (250, 56), 3, &["accuracy", "macro_f1"]),
        ("COPA", (64, 21), (400, 100), 0, &["accuracy"]),
        (
            "MultiRC",
            (192, 63),
            (27_243, 4848),
            2,
            &["f1a", "exact_match"],
        ),
        ("WiC", (64, 21), (5428, 638), 2, &["accuracy"]),
    ] {
        let data = place.path().join("data");
        write(&data, task, "train.jsonl", 0..64);
        write(&data, task, "val.jsonl", 100..121);
        let (name, out, predictions) = (
            task.to_lowercase(),
            path(task),
            path(&format!("{task}.jsonl")),
        );
        let mut arguments = vec!["--task", &name, "--data", data.to_str().unwrap()];
        arguments.extend(["--out", &out, "--predictions", &predictions]);
        arguments.extend([
            "--batch-size",
            "8",
            "--learning-rate",
            "3e-3",
            "--epochs",
            "8",
        ]);
        let output = ask(
            env!("CARGO_BIN_EXE_superglue"),
            model.path(),
            &arguments,
            "",
        );
        let said = stdout(&output);
        let counts = format!(
            "{task}: {} of {} examples to train on, {} of {} to score on",
            examples.0, official.0, examples.1, official.1
        );
        assert!(said.contains(&counts), "{said}");
        let best = said.lines().find(|line| line.starts_with("best at step"));
        let best = best.unwrap_or_else(|| panic!("no best in {said}"));
        for metric in metrics {
            let found = best
                .split([':', ','])
                .find_map(|part| part.trim().strip_prefix(metric));
            let value: f64 = found.unwrap().trim().parse().unwrap();
            assert!(value > 0.9, "{task}: {best}");
        }
        let rows = fs::read_to_string(&predictions).unwrap();
        let rows: Vec<Value> = rows
            .lines()
            .map(|line| serde_json::from_str(line).unwrap())
            .collect();
        assert_eq!(rows.len(), examples.1, "{task}");
        let right = rows.iter().filter(|row| row["label"] == row["prediction"]);
        assert!(right.count() as f64 > 0.9 * rows.len() as f64, "{task}");
        let config = read_config(Path::new(&out)).unwrap();
        let names = config.id2label.map_or(0, |names| names.len());
        assert_eq!(names, labels, "{task}");
    }
}
