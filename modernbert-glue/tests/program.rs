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
        self.command("run", tasks, more)
    }

    fn command(&self, command: &str, tasks: &str, more: &[&str]) -> Output {
        let folders = ["glue", "model", "out"].map(|name| self.path(name));
        let [data, model, out] = folders.each_ref().map(|path| path.to_str().unwrap());
        let mut arguments = vec![command, "--task", tasks, "--lines", "--device", "flex"];
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
            "failed",
            "metrics",
            "notes",
            "partial",
            "seeds",
            "spread",
            "start",
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
        // RTE would start from MNLI, of which there is no model here.
        assert_eq!(result["start"], "pretrained", "{task}");
        let note = result["notes"][0].as_str().unwrap();
        assert!(note.starts_with("train is partial: 32 of "), "{note}");
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
        last.starts_with("glue: tasks=2 failed=0 runs=4 kept=0 seconds="),
        "{last}"
    );
}

/// `run.json` of a seed without its times.
fn record(place: &Place, task: &str, seed: u64) -> Value {
    let path = place.path(&format!("out/runs/{task}/seed-{seed}/run.json"));
    let mut record: Value = serde_json::from_str(&fs::read_to_string(path).unwrap()).unwrap();
    for timed in ["train_seconds", "eval_seconds"] {
        record.as_object_mut().unwrap().remove(timed).unwrap();
    }
    record
}

#[test]
fn a_job_goes_on_where_it_stopped_and_refuses_to_mix_settings() {
    let place = Place::new();
    let settings = ["--epochs", "2", "--max-rows", "32", "--seeds", "2"];
    assert!(place.run("cola,rte", &settings).status.success());
    let (results, first) = (place.results(), record(&place, "cola", 42));
    // One model per task, that of the better seed.
    for task in ["cola", "rte"] {
        let models = [1618, 42].map(|seed| {
            place.path(&format!(
                "out/runs/{task}/seed-{seed}/model/model.safetensors"
            ))
        });
        let kept = models.iter().filter(|path| path.is_file()).count();
        assert_eq!(kept, 1, "{task}");
    }

    // As a killed process leaves it: a model half written, and no record.
    let folder = place.path("out/runs/cola/seed-42");
    fs::remove_file(folder.join("run.json")).unwrap();
    fs::create_dir_all(folder.join("model")).unwrap();
    fs::write(folder.join("model/model.safetensors"), "half").unwrap();
    fs::remove_file(place.path("out/results.json")).unwrap();
    let output = place.run("cola,rte", &settings);
    let stdout = String::from_utf8_lossy(&output.stdout);
    assert!(output.status.success(), "{stdout}");
    let last = stdout.lines().last().unwrap();
    assert!(last.contains("runs=1 kept=3"), "{last}");
    assert!(stdout.contains("seed 1618 is done already"), "{stdout}");
    assert_eq!(record(&place, "cola", 42), first);
    assert_eq!(place.results(), results);

    let other = ["--epochs", "1", "--max-rows", "32", "--seeds", "2"];
    let said = ["run.json", "epochs 2 instead of 1", "--again"];
    assert_refused("other settings", &place.run("cola", &other), &said);
    let again = [&other[..], &["--again"]].concat();
    assert!(place.run("cola", &again).status.success());
    assert_eq!(record(&place, "cola", 42)["settings"]["epochs"], 1);
}

#[test]
fn rte_starts_from_the_model_of_mnli_and_a_report_and_test_files_come_of_it() {
    let place = Place::new();
    common::write_task(&place.path("glue"), Task::Mnli, 48, 20);
    let settings = ["--epochs", "1", "--max-rows", "32"];
    let output = place.run("rte,mnli", &settings);
    let stdout = String::from_utf8_lossy(&output.stdout);
    let stderr = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{stderr}\n---\n{stdout}");
    let results = place.results();
    assert_eq!(results["rte"]["start"], "mnli");
    assert_eq!(results["mnli"]["start"], "pretrained");
    let (rte, mnli) = (record(&place, "rte", 1618), record(&place, "mnli", 1618));
    let start = |record: &Value| record["settings"]["start_sha256"].clone();
    assert_ne!(start(&rte), start(&mnli));

    // From random weights, for comparison, and without the second round.
    let out = place.path("random");
    let random = [
        &settings[..],
        &[
            "--random-init",
            "--mnli",
            "off",
            "--out",
            out.to_str().unwrap(),
        ],
    ]
    .concat();
    assert!(place.run("rte,mnli", &random).status.success());

    let program = |arguments: &[&str]| {
        Command::new(env!("CARGO_BIN_EXE_modernbert-glue"))
            .args(arguments)
            .env_remove("MODERNBERT_DEVICE")
            .output()
            .unwrap()
    };
    let path = |name: &str| place.path(name).to_str().unwrap().to_string();
    let (run, random) = (path("out"), path("random"));
    let output = program(&["report", &run, "--against", &random]);
    let stdout = String::from_utf8_lossy(&output.stdout);
    assert!(output.status.success(), "{stdout}");
    assert!(stdout.contains("## out against random"), "{stdout}");
    assert!(stdout.contains("one seed each"), "{stdout}");
    assert_eq!(
        fs::read_to_string(place.path("out/glue.md"))
            .unwrap()
            .trim(),
        stdout.split("report: ").next().unwrap().trim()
    );
    for picture in ["glue-scores.png", "glue-curves.png"] {
        let bytes = fs::read(place.path("out").join(picture)).unwrap();
        assert!(bytes.starts_with(b"\x89PNG"), "{picture}");
    }
    let nothing = program(&["report", &path("glue")]);
    assert_refused("no results", &nothing, &["no results.json there"]);

    // Test files: AX and MNLI by MNLI's model, RTE by its own.
    let pairs = "index\tsentence1\tsentence2\n0\tba do\tki\n1\tlu\tme na\n";
    for file in [
        "RTE/test",
        "MNLI/test_matched",
        "MNLI/test_mismatched",
        "AX/diagnostic",
    ] {
        let path = place.path(&format!("glue/{file}.tsv"));
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, pairs).unwrap();
    }
    let (data, out) = (path("glue"), path("submission"));
    let arguments = [
        "predict", "--run", &run, "--data", &data, "--out", &out, "--device", "flex",
    ];
    let output = program(&arguments);
    let stdout = String::from_utf8_lossy(&output.stdout);
    assert!(output.status.success(), "{stdout}");
    assert!(stdout.contains("predict: files=4 failed=0"), "{stdout}");
    for (file, labels) in [
        ("RTE", &["entailment", "not_entailment"][..]),
        ("MNLI-m", &["entailment", "neutral", "contradiction"]),
        ("MNLI-mm", &["entailment", "neutral", "contradiction"]),
        ("AX", &["entailment", "neutral", "contradiction"]),
    ] {
        let text = fs::read_to_string(place.path(&format!("submission/{file}.tsv"))).unwrap();
        let lines: Vec<&str> = text.lines().collect();
        assert_eq!(lines.len(), 3, "{text}");
        assert_eq!(lines[0], "index\tprediction");
        for (i, line) in lines[1..].iter().enumerate() {
            let (index, label) = line.split_once('\t').unwrap();
            assert_eq!(index, i.to_string());
            assert!(labels.contains(&label), "{file}: {label}");
        }
    }
    let arguments = [&arguments[..], &["--task", "sst2"]].concat();
    assert_refused(
        "no model",
        &program(&arguments),
        &["sst2", "no finetuned model"],
    );
}

#[test]
fn a_sweep_finds_the_best_combination_and_goes_on_where_it_stopped() {
    let place = Place::new();
    let grid = [
        "--learning-rates",
        "1e-3,1e-4",
        "--weight-decays",
        "1e-6",
        "--epochs",
        "1,2",
        "--max-rows",
        "24",
    ];
    let output = place.command("sweep", "cola", &grid);
    let stdout = String::from_utf8_lossy(&output.stdout);
    assert!(output.status.success(), "{stdout}");
    assert!(stdout.contains("runs=4 kept=0"), "{stdout}");
    let text = fs::read_to_string(place.path("out/sweep.json")).unwrap();
    let sweep: Value = serde_json::from_str(&text).unwrap();
    let rows = sweep["cola"]["rows"].as_array().unwrap();
    assert_eq!(rows.len(), 4);
    let scores = rows.iter().filter_map(|row| row["score"].as_f64());
    let highest = scores.fold(f64::NEG_INFINITY, f64::max);
    let best = rows
        .iter()
        .find(|row| row["settings"] == sweep["cola"]["best"])
        .unwrap();
    assert_eq!(best["score"].as_f64().unwrap(), highest);

    fs::remove_file(place.path("out/sweep/cola/lr1e-4_wd1e-6_ep2/seed-1618/run.json")).unwrap();
    let output = place.command("sweep", "cola", &grid);
    let stdout = String::from_utf8_lossy(&output.stdout);
    assert!(stdout.contains("runs=1 kept=3"), "{stdout}");
    assert_eq!(
        fs::read_to_string(place.path("out/sweep.json")).unwrap(),
        text
    );

    // A run takes what the sweep found.
    let (sweep_folder, out) = (place.path("out"), place.path("tuned"));
    let more = [
        "--sweep",
        sweep_folder.to_str().unwrap(),
        "--max-rows",
        "24",
        "--out",
        out.to_str().unwrap(),
    ];
    assert!(place.run("cola", &more).status.success());
    let text = fs::read_to_string(place.path("tuned/runs/cola/seed-1618/run.json")).unwrap();
    let record: Value = serde_json::from_str(&text).unwrap();
    let best = &sweep["cola"]["best"];
    assert_eq!(record["settings"]["epochs"], best["epochs"]);
    assert_eq!(record["metrics"]["matthews"].as_f64().unwrap(), highest);
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
    assert!(!place.path("out/runs").exists());
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
    let steps = ["--epochs", "1", "--batch-size", "16"];
    let output = place.run("cola", &[&steps[..], &["--learning-rate", "1e30"]].concat());
    let said = [
        "tasks failed: cola: seed 1618: the loss of step",
        "training diverged; lower the learning rate",
    ];
    assert_refused("diverged", &output, &said);
    let result = &place.results()["cola"];
    assert_eq!(result["seeds"].as_array().unwrap().len(), 0);
    let failed = result["failed"][0].as_str().unwrap();
    assert!(failed.contains("training diverged"), "{failed}");
    assert!(!place.path("out/runs/cola/seed-1618").exists());
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
