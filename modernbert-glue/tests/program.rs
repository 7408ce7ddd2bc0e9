//! The program as a person runs it: tasks to results, and what it says to data and models it can't use.
#![allow(clippy::unwrap_used)] // a test may fail loudly

mod common;

use modernbert::config::ModernBertConfig;
use modernbert::model::{MaskedLm, initialize};
use modernbert::tokenizer::{Tokenizer, TrainOptions, train::train};
use modernbert_glue::task::Task;
use serde_json::Value;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};
use tempfile::TempDir;

/// A folder of its own for each test, with a tiny model and tiny CoLA and RTE.
struct Place {
    folder: TempDir,
}

impl Place {
    fn new() -> Self {
        let place = Self {
            folder: tempfile::tempdir().unwrap(),
        };
        save_model(&place.path("model"), 4);
        tokenizer(384).save(place.path("model")).unwrap();
        for task in [Task::Cola, Task::Rte] {
            common::write_task(&place.path("glue"), task, 48, 20);
        }
        place
    }

    fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    /// `run --task TASKS` on the folders of this place, with `more`.
    fn run(&self, tasks: &str, more: &[&str]) -> Output {
        let folders = ["glue", "model", "out"].map(|name| self.path(name));
        let [data, model, out] = folders.each_ref().map(|path| path.to_str().unwrap());
        let mut arguments = vec!["run", "--task", tasks, "--lines", "--device", "flex"];
        for (name, folder) in [("--data", data), ("--model", model), ("--out", out)] {
            if !more.contains(&name) {
                arguments.extend([name, folder]);
            }
        }
        arguments.extend(more);
        Command::new(env!("CARGO_BIN_EXE_modernbert-glue"))
            .args(&arguments)
            .env_remove("MODERNBERT_DEVICE")
            .output()
            .unwrap()
    }

    fn results(&self) -> Value {
        let text = fs::read_to_string(self.path("out/results.json")).unwrap();
        serde_json::from_str(&text).unwrap()
    }

    /// Replaces line `line`, from 1, of a file of the data.
    fn damage(&self, file: &str, line: usize, text: &str) {
        let path = self.path("glue").join(file);
        let content = fs::read_to_string(&path).unwrap();
        let mut lines: Vec<&str> = content.lines().collect();
        lines[line - 1] = text;
        fs::write(path, lines.join("\n") + "\n").unwrap();
    }
}

/// A model of random weights with so many layers, for 384 ids.
fn save_model(folder: &Path, layers: usize) {
    let mut config = ModernBertConfig::of_shape(layers, 32, 48, 2);
    config.vocab_size = 384;
    config.max_position_embeddings = 64;
    config.pad_token_id = None;
    let device = modernbert::device::select(Some("flex")).unwrap().device;
    let model = initialize(MaskedLm::new(&config, &device).unwrap(), &config, 1);
    modernbert::checkpoint::save(&model, &config, folder).unwrap();
}

fn tokenizer(vocab_size: usize) -> Tokenizer {
    let mut numbers = common::Numbers(3);
    let texts: Vec<String> = (0..100).map(|_| numbers.sentence()).collect();
    let options = TrainOptions {
        vocab_size,
        ..TrainOptions::default()
    };
    train(texts, &options).unwrap()
}

/// Exit code 2, one message on standard error that holds every phrase of `said`, no panic.
fn assert_refused(what: &str, output: &Output, said: &[&str]) {
    let stderr = String::from_utf8_lossy(&output.stderr);
    let stdout = String::from_utf8_lossy(&output.stdout);
    let all = format!("{stderr}\n--- stdout\n{stdout}");
    assert_eq!(output.status.code(), Some(2), "{what}: {all}");
    let errors = stderr
        .lines()
        .filter(|line| line.starts_with("error:"))
        .count();
    assert_eq!(errors, 1, "{what}: {all}");
    assert!(!all.contains("panicked"), "{what}: {all}");
    for phrase in said {
        assert!(stderr.contains(phrase), "{what}: no {phrase:?} in: {all}");
    }
}

fn keys(value: &Value) -> Vec<&str> {
    let mut keys: Vec<&str> = value
        .as_object()
        .unwrap()
        .keys()
        .map(String::as_str)
        .collect();
    keys.sort_unstable();
    keys
}

#[test]
fn tasks_become_results_and_a_table() {
    let place = Place::new();
    let settings = ["--epochs", "1", "--max-rows", "32", "--seeds", "2"];
    let output = place.run("cola,rte", &settings);
    let stdout = String::from_utf8_lossy(&output.stdout);
    let stderr = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{stderr}\n---\n{stdout}");

    let results = place.results();
    assert_eq!(keys(&results), ["cola", "rte"]);
    for (task, metrics) in [
        ("cola", &["accuracy", "matthews"][..]),
        ("rte", &["accuracy"]),
    ] {
        let result = &results[task];
        let fields = [
            "baseline",
            "dev_rows",
            "metrics",
            "partial",
            "seeds",
            "train_rows",
        ];
        assert_eq!(keys(result), fields, "{task}");
        assert_eq!(result["train_rows"], 32, "{task}");
        assert_eq!(result["dev_rows"], 20, "{task}");
        assert_eq!(result["partial"], true, "{task}");
        let seeds = result["seeds"].as_array().unwrap();
        let numbers: Vec<u64> = seeds
            .iter()
            .map(|run| run["seed"].as_u64().unwrap())
            .collect();
        assert_eq!(numbers, [1618, 42], "{task}");
        let runs = seeds.iter().map(|run| &run["metrics"]);
        for scores in runs.chain([&result["metrics"], &result["baseline"]]) {
            assert_eq!(keys(scores), metrics, "{task}");
            for (name, score) in scores.as_object().unwrap() {
                let score = score.as_f64().unwrap();
                assert!((-1.0..=1.0).contains(&score), "{task}: {name} {score}");
            }
        }
        let accuracy = |value: &Value| value["metrics"]["accuracy"].as_f64().unwrap();
        let mean = seeds.iter().map(accuracy).sum::<f64>() / 2.0;
        assert!((mean - accuracy(result)).abs() < 1e-12, "{task}");
    }

    let head = stdout
        .lines()
        .find(|line| line.starts_with("task "))
        .unwrap();
    for column in [
        "metric", "score", "baseline", "delta", "train", "dev", "seeds",
    ] {
        assert!(head.contains(column), "{head}");
    }
    for row in ["CoLA*", "RTE*"] {
        let found = stdout.lines().any(|line| line.starts_with(row));
        assert!(found, "no row {row}: {stdout}");
    }
    assert!(stdout.contains("fewer rows than the official"), "{stdout}");
    let last = stdout.lines().last().unwrap();
    assert!(
        last.starts_with("glue: tasks=2 failed=0 seconds="),
        "{last}"
    );
}

#[test]
fn the_same_command_gives_the_same_results_and_keeps_those_of_other_tasks() {
    let place = Place::new();
    let settings = ["--epochs", "1", "--max-rows", "32"];
    assert!(place.run("cola", &settings).status.success());
    let first = place.results();
    assert!(place.run("rte", &settings).status.success());
    assert!(place.run("cola", &settings).status.success());
    let both = place.results();
    assert_eq!(keys(&both), ["cola", "rte"]);
    assert_eq!(both["cola"], first["cola"]);
}

#[test]
fn a_bad_row_is_named_by_file_and_line() {
    let place = Place::new();
    place.damage("CoLA/train.tsv", 3, "mu01\t1");
    place.damage("RTE/dev.tsv", 5, "3\tone\ttwo\tperhaps");
    let few = ["CoLA/train.tsv:3", "2 columns where 4 belong", "repair"];
    assert_refused("too few columns", &place.run("cola", &[]), &few);
    let label = ["RTE/dev.tsv:5", "unknown label 'perhaps'", "not_entailment"];
    assert_refused("unknown label", &place.run("rte", &[]), &label);
    assert!(!place.path("out/results.json").exists());

    let bytes = b"index\tsentence1\tsentence2\tlabel\n0\t\xff\tb\tentailment\n";
    fs::write(place.path("glue/RTE/train.tsv"), bytes).unwrap();
    let said = ["RTE/train.tsv:2", "not UTF-8", "convert"];
    assert_refused("not UTF-8", &place.run("rte", &[]), &said);
    fs::write(place.path("glue/RTE/train.tsv"), "sentence1\tlabel\n").unwrap();
    let said = ["RTE/train.tsv", "no column 'sentence2'"];
    assert_refused("no such column", &place.run("rte", &[]), &said);
    fs::write(place.path("glue/RTE/train.tsv"), "").unwrap();
    let said = ["RTE/train.tsv", "holds no rows"];
    assert_refused("empty", &place.run("rte", &[]), &said);
}

#[test]
fn what_is_not_there_is_named_with_a_remedy() {
    let place = Place::new();
    let nowhere = place.path("nowhere");
    let nowhere = nowhere.to_str().unwrap();
    let said = [nowhere, "no such folder", "give the folder that holds"];
    assert_refused("data", &place.run("cola", &["--data", nowhere]), &said);
    let said = ["STS-B", "no such folder", "train.tsv, dev.tsv"];
    assert_refused("task folder", &place.run("stsb", &[]), &said);
    fs::remove_file(place.path("glue/RTE/dev.tsv")).unwrap();
    let said = ["RTE/dev.tsv", "no such file", "download"];
    assert_refused("file", &place.run("rte", &[]), &said);
    let said = ["'squad'", "cola, sst2"];
    assert_refused("task", &place.run("cola,squad", &[]), &said);
    let said = ["ax has no training set", "another task"];
    assert_refused("untrainable", &place.run("ax", &[]), &said);
    let said = ["--task", "cola,rte,stsb"];
    assert_refused("no task", &place.run(",", &[]), &said);
    let said = [nowhere, "config.json and model.safetensors"];
    assert_refused("model", &place.run("cola", &["--model", nowhere]), &said);
    assert!(!place.path("out/results.json").exists());
}

#[test]
fn a_model_that_is_not_whole_is_named_by_its_tensor_or_file() {
    let place = Place::new();
    let weights = place.path("model/model.safetensors");
    let whole = fs::read(&weights).unwrap();

    fs::write(&weights, &whole[..whole.len() - 10]).unwrap();
    let said = ["model.safetensors", "not a valid safetensors file", "again"];
    assert_refused("cut short", &place.run("cola", &[]), &said);

    save_model(&place.path("smaller"), 3);
    fs::copy(place.path("smaller/model.safetensors"), &weights).unwrap();
    let said = ["model.safetensors", "tensor `model.layers.3.", "is missing"];
    assert_refused("a layer too few", &place.run("cola", &[]), &said);

    save_model(&place.path("larger"), 5);
    fs::copy(place.path("larger/model.safetensors"), &weights).unwrap();
    let said = ["model.safetensors", "unknown tensor", "`model.layers.4."];
    assert_refused("a layer too many", &place.run("cola", &[]), &said);

    fs::remove_file(&weights).unwrap();
    let said = ["holds neither model.safetensors"];
    assert_refused("no weights", &place.run("cola", &[]), &said);

    fs::write(&weights, whole).unwrap();
    tokenizer(512).save(place.path("model")).unwrap();
    let said = ["the tokenizer has 512 ids, the model 384"];
    assert_refused("another tokenizer", &place.run("cola", &[]), &said);
    fs::remove_file(place.path("model/tokenizer.json")).unwrap();
    let said = ["tokenizer.json", "cannot be read"];
    assert_refused("no tokenizer", &place.run("cola", &[]), &said);
    assert!(!place.path("out/results.json").exists());
}

#[test]
fn settings_that_make_no_sense_are_named() {
    let place = Place::new();
    for (more, said) in [
        (&["--epochs", "0"][..], &["--epochs is 0", "at least 1"][..]),
        (&["--batch-size", "0"], &["--batch-size is 0", "at least 1"]),
        (&["--seeds", "0"], &["--seeds is 0", "at least 1"]),
        (&["--max-rows", "0"], &["--max-rows is 0", "at least 1"]),
        (&["--max-length", "4"], &["--max-length is 4", "at least 8"]),
        (&["--warmup", "1.5"], &["--warmup is 1.5", "from 0 up to 1"]),
        (&["--learning-rate", "0"], &["--learning-rate", "above 0"]),
        (
            &["--weight-decay", "2"],
            &["--weight-decay", "from 0 up to 1"],
        ),
        (&["--dtype", "f8"], &["unknown dtype `f8`", "f32, bf16"]),
    ] {
        assert_refused(more[0], &place.run("cola", more), said);
    }
    let file = place.path("model/config.json");
    let more = ["--out", file.to_str().unwrap()];
    assert_refused(
        "out is a file",
        &place.run("cola", &more),
        &["config.json", "--out"],
    );
    fs::create_dir_all(place.path("out")).unwrap();
    fs::write(place.path("out/results.json"), "precious").unwrap();
    let said = ["results.json", "not a results file", "move it away"];
    assert_refused("other results", &place.run("cola", &[]), &said);
    let kept = fs::read_to_string(place.path("out/results.json")).unwrap();
    assert_eq!(kept, "precious");
}

#[test]
fn a_training_that_diverges_has_no_result() {
    let place = Place::new();
    let output = place.run("cola", &["--epochs", "1", "--learning-rate", "1e30"]);
    let said = [
        "tasks failed: cola: the model puts out NaN",
        "lower the learning rate",
    ];
    assert_refused("diverged", &output, &said);
    assert!(!place.path("out/results.json").exists());
}

#[test]
fn a_task_that_fails_leaves_the_others_their_results() {
    for tasks in ["cola,rte", "rte,cola"] {
        let place = Place::new();
        place.damage("RTE/train.tsv", 2, "0\tone\ttwo\tperhaps");
        let output = place.run(tasks, &["--epochs", "1", "--max-rows", "16"]);
        let said = ["1 of 2 tasks failed", "rte", "RTE/train.tsv:2"];
        assert_refused(tasks, &output, &said);
        assert_eq!(keys(&place.results()), ["cola"], "{tasks}");
        let stdout = String::from_utf8_lossy(&output.stdout);
        assert!(
            stdout.lines().any(|line| line.starts_with("CoLA*")),
            "{stdout}"
        );
    }
}
