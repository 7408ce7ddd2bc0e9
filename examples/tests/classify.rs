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

/// `(tokens, label scores)` of each line: equal if and only if the model read the same text.
fn read_as(model: &Path, more: &[&str], input: impl AsRef<[u8]>) -> Vec<String> {
    let output = ask(
        env!("CARGO_BIN_EXE_classify"),
        model,
        &[more, &["--json"]].concat(),
        input,
    );
    let lines = json_lines(&output);
    let shown = lines
        .iter()
        .map(|line| format!("{} {}", line["tokens"], line["labels"]));
    shown.collect()
}

#[test]
fn every_format_gives_the_text_alone() {
    let model = model(&["bad", "good"], None);
    let place = tempfile::tempdir().unwrap();
    let texts = ["one two, three", "four \"five\""];
    let expected = read_as(model.path(), &texts, "");
    let mark = "\u{feff}";
    for (name, content) in [
        ("a.txt", "one two, three\nfour \"five\"\n".to_string()),
        (
            "bom.TXT",
            format!("{mark}one two, three\r\nfour \"five\"\r\n"),
        ),
        (
            "a.csv",
            "label,text\ngood,\"one two, three\"\nbad,\"four \"\"five\"\"\"\n".into(),
        ),
        (
            "bom.CSV",
            format!("{mark}text,label\n\"one two, three\",good\n\"four \"\"five\"\"\",bad\n"),
        ),
        (
            "a.tsv",
            "text\tlabel\none two, three\tgood\nfour \"five\"\tbad\n".into(),
        ),
        (
            "a.jsonl",
            "{\"text\":\"one two, three\",\"label\":\"good\"}\n\"four \\\"five\\\"\"\n".into(),
        ),
        (
            "bom.ndJSON",
            format!("{mark}\"one two, three\"\n\"four \\\"five\\\"\"\n"),
        ),
    ] {
        let path = place.path().join(name);
        std::fs::write(&path, &content).unwrap();
        let path = path.to_str().unwrap();
        assert_eq!(
            read_as(model.path(), &["--input", path], ""),
            expected,
            "{name}"
        );
    }
    let csv = ["--input", "-", "--format", "csv"];
    let rows = "text,label\n\"one two, three\",good\n\"four \"\"five\"\"\",bad\n";
    assert_eq!(read_as(model.path(), &csv, rows), expected);
}

#[test]
fn options_for_fields_must_have_fields() {
    let model = model(&["bad", "good"], None);
    let place = tempfile::tempdir().unwrap();
    let csv = place.path().join("a.csv");
    std::fs::write(&csv, "text\none\n").unwrap();
    let csv = csv.to_str().unwrap();
    let output = classify(model.path(), &["--input", csv, "--pair-field", "other"], "");
    assert_refused(&output, &["no row has the field \"other\""]);
    let output = classify(model.path(), &["--text-field", "body", "a text"], "");
    assert_eq!(output.status.code(), Some(2));
    let txt = place.path().join("a.txt");
    std::fs::write(&txt, "one\n").unwrap();
    let output = classify(
        model.path(),
        &["--input", txt.to_str().unwrap(), "--text-field", "x"],
        "",
    );
    assert_refused(&output, &["a text without fields"]);
}

#[test]
fn a_file_of_rows_is_read_strictly() {
    let model = model(&["bad", "good"], None);
    let place = tempfile::tempdir().unwrap();
    let refused = |name: &str, content: &[u8], said: &[&str]| {
        let path = place.path().join(name);
        std::fs::write(&path, content).unwrap();
        let output = classify(model.path(), &["--input", path.to_str().unwrap()], "");
        assert_refused(&output, said);
    };
    refused("a.xlsx", b"one", &["a.xlsx", "not known", "--format"]);
    refused("a.md", b"one", &["a.md", "--format"]);
    refused(
        "open.csv",
        b"text\n\"one\ntwo\n",
        &["open.csv:2", "never closed"],
    );
    refused(
        "a.csv",
        b"body,label\none,good\n",
        &["a.csv:2", "\"body\", \"label\"", "--text-field"],
    );
    refused(
        "twice.csv",
        b"text,text\none,two\n",
        &["twice.csv", "more than one column"],
    );
    refused(
        "latin.txt",
        b"one\ncaf\xe9\n",
        &["latin.txt:2", "not UTF-8"],
    );
    refused(
        "packed.txt",
        b"\x1f\x8b\x08\x00",
        &["packed.txt:1", "gzip", "ending .gz"],
    );
    for name in ["z.safetensors", "z.csv", "z"] {
        let output = classify(model.path(), &["one", "--out", name], "");
        assert_refused(&output, &[name, "ends in .jsonl"]);
    }
    refused(
        "null.jsonl",
        b"{\"text\":null}\n",
        &["null.jsonl:1", "is null"],
    );
    refused(
        "three.jsonl",
        b"{\"text\":3}\n",
        &["three.jsonl:1", "a number"],
    );
    let folder = place.path().to_str().unwrap();
    let output = classify(model.path(), &["--input", folder], "");
    assert_refused(&output, &[folder, "directory"]);
    // With --out the last row is read before the first is computed.
    let rows = place.path().join("rows.jsonl");
    std::fs::write(&rows, "\"one\"\n{\n").unwrap();
    let out = place.path().join("out.jsonl");
    let more = [
        "--input",
        rows.to_str().unwrap(),
        "--out",
        out.to_str().unwrap(),
    ];
    assert_refused(
        &classify(model.path(), &more, ""),
        &["rows.jsonl:2", "not JSON"],
    );
    assert!(!out.exists());
}

/// A result is there before the pipe ends; `| head` ends the program quietly; a full disk is an error.
#[cfg(target_os = "linux")]
#[test]
fn a_pipe_gets_each_result_and_its_end_is_no_fault() {
    use std::io::{BufRead, BufReader, Write};
    use std::process::{Command, Stdio};
    let model = model(&["bad", "good"], None);
    let start = |stdout: Stdio| {
        Command::new(env!("CARGO_BIN_EXE_classify"))
            .args(["--device", "flex", "--input", "-", "--model"])
            .arg(model.path())
            .env_remove("MODERNBERT_DEVICE")
            .stdin(Stdio::piped())
            .stdout(stdout)
            .stderr(Stdio::piped())
            .spawn()
            .unwrap()
    };
    let mut child = start(Stdio::piped());
    let mut stdin = child.stdin.take().unwrap();
    let mut results = BufReader::new(child.stdout.take().unwrap());
    for text in ["one", "two"] {
        writeln!(stdin, "{text}").unwrap();
        let mut line = String::new();
        results.read_line(&mut line).unwrap();
        assert!(line.contains(&format!("{text:?}")), "{line}");
    }
    drop(results);
    writeln!(stdin, "three").unwrap();
    drop(stdin);
    let output = child.wait_with_output().unwrap();
    assert_eq!(output.status.code(), Some(141));
    assert_eq!(String::from_utf8_lossy(&output.stderr), "");

    let full = std::fs::OpenOptions::new()
        .write(true)
        .open("/dev/full")
        .unwrap();
    let mut child = start(full.into());
    writeln!(child.stdin.take().unwrap(), "one").unwrap();
    let output = child.wait_with_output().unwrap();
    assert_refused(&output, &["standard output", "No space left"]);
}
