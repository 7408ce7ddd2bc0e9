//! `embed` as a person runs it, on a tiny model of random weights.
#![allow(clippy::unwrap_used)] // a test may fail loudly

use modernbert::checkpoint::{TensorFiles, save};
use modernbert::model::{MaskedLm, initialize};
use serde_json::Value;
use std::fs;
use std::path::Path;
use std::process::Output;
use tempfile::TempDir;
use tiny_models::programs::{ask, assert_refused, json_lines, stdout};
use tiny_models::{config, tokenizer};

fn model() -> TempDir {
    let folder = tempfile::tempdir().unwrap();
    let device = modernbert::device::select(Some("flex")).unwrap().device;
    let model = initialize(MaskedLm::new(&config(), &device).unwrap(), &config(), 1);
    save(&model, &config(), folder.path()).unwrap();
    tokenizer().save(folder.path()).unwrap();
    folder
}

fn embed(folder: &Path, more: &[&str], input: &str) -> Output {
    ask(env!("CARGO_BIN_EXE_embed"), folder, more, input)
}

fn vector(value: &Value) -> Vec<f64> {
    let numbers = value["embedding"].as_array().unwrap().iter();
    numbers.map(|x| x.as_f64().unwrap()).collect()
}

fn norm(vector: &[f64]) -> f64 {
    vector.iter().map(|x| x * x).sum::<f64>().sqrt()
}

#[test]
fn arguments_files_and_standard_input_give_the_same_vectors() {
    let model = model();
    let texts = ["one two", "three", "one two three one two"];
    let expected = json_lines(&embed(
        model.path(),
        &[&["--json"], &texts[..]].concat(),
        "",
    ));
    assert_eq!(expected.len(), 3);
    for (i, line) in expected.iter().enumerate() {
        assert_eq!(line["index"], i);
        assert_eq!(vector(line).len(), 32);
        assert!((norm(&vector(line)) - 1.0).abs() < 1e-5);
        assert_eq!(line["truncated"], false);
    }
    let file = model.path().join("texts.txt");
    fs::write(&file, texts.join("\r\n")).unwrap();
    let file = file.to_str().unwrap();
    assert_eq!(
        json_lines(&embed(model.path(), &["--json", "--input", file], "")),
        expected
    );
    let stdin = embed(model.path(), &["--json", "--input", "-"], &texts.join("\n"));
    assert_eq!(json_lines(&stdin), expected);
    let small = embed(
        model.path(),
        &["--json", "--batch-tokens", "1", "--input", file],
        "",
    );
    for (small, expected) in json_lines(&small).iter().zip(&expected) {
        for (a, b) in vector(small).iter().zip(vector(expected)) {
            assert!((a - b).abs() < 1e-5, "{a} {b}");
        }
    }
}

#[test]
fn ids_pairs_pooling_and_raw_lengths() {
    let model = model();
    let lines = "{\"id\":\"x\",\"text\":\"one\",\"pair\":\"two\"}\n\n\"three\"\n";
    let arguments = [
        "--json",
        "--format",
        "jsonl",
        "--no-normalize",
        "--input",
        "-",
    ];
    let mean = json_lines(&embed(model.path(), &arguments, lines));
    assert_eq!(mean.len(), 2);
    assert_eq!(mean[0]["id"], "x");
    assert!(mean[1].get("id").is_none());
    assert!((norm(&vector(&mean[0])) - 1.0).abs() > 1e-3);
    let pooled = |pooling: &str| {
        let arguments = [&arguments[..], &["--pooling", pooling]].concat();
        embed(model.path(), &arguments, lines)
    };
    let mut seen = vec![vector(&mean[0])];
    for pooling in ["cls", "max", "weightedmean"] {
        let found = vector(&json_lines(&pooled(pooling))[0]);
        assert!(!seen.contains(&found), "{pooling}");
        seen.push(found);
    }
    assert_eq!(vector(&json_lines(&pooled("mean"))[0]), seen[0]);
    assert_refused(
        &pooled("best"),
        &["\"best\" is not a pooling", "weightedmean"],
    );
}

#[test]
fn a_safetensors_file_holds_one_row_per_text() {
    let model = model();
    let out = tempfile::tempdir().unwrap();
    let (file, lines) = (out.path().join("v.safetensors"), out.path().join("v.jsonl"));
    let input: String = (0..50).map(|i| format!("one two {i}\n")).collect();
    for path in [&file, &lines] {
        let path = path.to_str().unwrap();
        let output = embed(model.path(), &["--input", "-", "--out", path], &input);
        assert_eq!(stdout(&output), "");
        let stderr = String::from_utf8_lossy(&output.stderr);
        assert!(
            stderr.contains("embed: 50 texts, ") && stderr.contains("flex f32"),
            "{stderr}"
        );
    }
    let (shape, values) = TensorFiles::open(&file)
        .unwrap()
        .read("embeddings")
        .unwrap()
        .unwrap();
    assert_eq!(shape, [50, 32]);
    let text = fs::read_to_string(&lines).unwrap();
    for (line, row) in text.lines().zip(values.chunks(32)) {
        let line: Value = serde_json::from_str(line).unwrap();
        let row: Vec<f64> = row.iter().map(|&x| f64::from(x)).collect();
        for (a, b) in vector(&line).iter().zip(row) {
            assert!((a - b).abs() < 1e-7);
        }
    }
    assert_eq!(
        fs::read_dir(out.path()).unwrap().count(),
        2,
        "nothing temporary is left"
    );
}

#[test]
fn people_see_a_line_per_text_and_what_was_cut() {
    let model = model();
    let long = "one ".repeat(200);
    let output = embed(model.path(), &["one two", &long], "");
    let lines: Vec<&str> = stdout(&output).lines().collect();
    assert_eq!(lines.len(), 2);
    assert!(
        lines[0].starts_with("text 1  ") && lines[0].contains("32 numbers"),
        "{}",
        lines[0]
    );
    assert!(lines[1].contains("64 tokens, cut"), "{}", lines[1]);
}

#[test]
fn what_cant_be_embedded_is_named_with_its_place() {
    let model = model();
    let embed = |more: &[&str], input: &str| embed(model.path(), more, input);
    assert_refused(&embed(&[], ""), &["no text", "--input"]);
    assert_refused(
        &embed(&["--input", "/no/file"], ""),
        &["/no/file: cannot be read", "check the path"],
    );
    let jsonl = ["--input", "-", "--format", "jsonl"];
    assert_refused(
        &embed(&jsonl, "\"a\"\n{\n"),
        &["standard input:2", "not JSON"],
    );
    assert_refused(
        &embed(&jsonl, "{\"body\":\"a\"}"),
        &["standard input:1", "--text-field"],
    );
    assert_refused(
        &embed(&["a", "--out", "x.bin"], ""),
        &[".safetensors or .jsonl"],
    );
    assert_refused(
        &embed(&["a", "--out", "/no/x.jsonl"], ""),
        &["/no/x.jsonl", "no folder /no", "--out"],
    );
    assert_refused(&embed(&["a", "--dtype", "f8"], ""), &["invalid value 'f8'"]);
    assert_refused(&embed(&["a", "--batch-tokens", "0"], ""), &["1 or more"]);
    assert_refused(
        &embed(&["a", "--max-length", "65"], ""),
        &["the model takes 64"],
    );
    assert_refused(
        &embed(&["a", "--max-length", "1"], ""),
        &["no token of a text beside the 2 special tokens"],
    );
    assert_refused(&embed(&["a", "--revision", "main"], ""), &["no revisions"]);
    #[cfg(unix)]
    {
        let folder = model.path().to_str().unwrap();
        let program = env!("CARGO_BIN_EXE_embed");
        let arguments = ["--device", "flex", "--model", folder, "a"];
        let closed = tiny_models::programs::without_stdout(program, &arguments);
        assert_refused(&closed, &["standard output is closed"]);
        let out = model.path().with_extension("jsonl");
        let out = ["--out", out.to_str().unwrap()];
        let output =
            tiny_models::programs::without_stdout(program, &[&arguments[..], &out].concat());
        assert!(output.status.success(), "{output:?}");
        fs::remove_file(out[1]).unwrap();
    }
    let other = Path::new("org/model");
    let output = ask(env!("CARGO_BIN_EXE_embed"), other, &["a"], "");
    let said = if cfg!(feature = "hub") {
        "HF_HUB_OFFLINE is set"
    } else {
        "--features hub"
    };
    assert_refused(&output, &["org/model", said]);
    fs::remove_file(model.path().join("tokenizer.json")).unwrap();
    assert_refused(&embed(&["a"], ""), &["tokenizer.json"]);
}

#[test]
fn results_never_replace_what_is_there() {
    let model = model();
    let place = tempfile::tempdir().unwrap();
    let input = place.path().join("texts.jsonl");
    fs::write(&input, "\"one two\"\n").unwrap();
    let taken = place.path().join("taken.safetensors");
    fs::write(&taken, "precious").unwrap();
    let weights = fs::read(model.path().join("model.safetensors")).unwrap();
    for (out, said) in [
        (input.clone(), "same as the input"),
        (model.path().join("model.safetensors"), "inside the input"),
        (model.path().join("new.jsonl"), "inside the input"),
        (taken.clone(), "exists already"),
        (place.path().join("a.jsonl").join("b.jsonl"), "no folder"),
    ] {
        let more = [
            "--input",
            input.to_str().unwrap(),
            "--out",
            out.to_str().unwrap(),
        ];
        assert_refused(&embed(model.path(), &more, ""), &[said]);
    }
    assert_eq!(fs::read_to_string(&taken).unwrap(), "precious");
    assert_eq!(fs::read_to_string(&input).unwrap(), "\"one two\"\n");
    assert_eq!(
        fs::read(model.path().join("model.safetensors")).unwrap(),
        weights
    );
}

/// Killed by any signal while it writes, it leaves no file.
#[cfg(target_os = "linux")]
#[test]
fn an_interrupted_program_leaves_no_file() {
    use std::io::Write;
    use std::process::{Command, Stdio};
    let model = model();
    for signal in ["INT", "TERM", "HUP", "KILL"] {
        let place = tempfile::tempdir().unwrap();
        let out = place.path().join("v.safetensors");
        // Under nohup, or in the background of a script, a process starts with signals ignored.
        let mut child = Command::new("env")
            .args(["--default-signal=INT,HUP", env!("CARGO_BIN_EXE_embed")])
            .args(["--device", "flex", "--input", "-", "--model"])
            .arg(model.path())
            .arg("--out")
            .arg(&out)
            .stdin(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        let mut stdin = child.stdin.take().unwrap();
        // More than the program reads ahead: once all input is read, vectors are being written.
        for i in 0..4000 {
            writeln!(stdin, "one two {i}").unwrap();
        }
        stdin.flush().unwrap();
        let id = child.id().to_string();
        let killed = Command::new("kill").args(["-s", signal, &id]).status();
        assert!(killed.unwrap().success());
        assert!(!child.wait().unwrap().success(), "{signal}");
        drop(stdin);
        let left = fs::read_dir(place.path()).unwrap().count();
        assert_eq!(left, 0, "{signal}");
    }
}
