//! What the tests of the programs share: models of random weights in folders that vanish, runs, and refusals.
#![allow(dead_code)] // each test program uses a part of this page

use modernbert::config::ModernBertConfig;
use modernbert::tokenizer::{Tokenizer, TrainOptions, train::train};
use serde_json::Value;
use std::io::Write;
use std::path::Path;
use std::process::{Command, Output, Stdio};

pub(crate) fn tokenizer() -> Tokenizer {
    let options = TrainOptions {
        vocab_size: 320,
        ..TrainOptions::default()
    };
    train(["one two three one two one two three"], &options).unwrap()
}

pub(crate) fn config() -> ModernBertConfig {
    let mut config = ModernBertConfig::of_shape(4, 32, 48, 2);
    config.vocab_size = tokenizer().vocab_size();
    config.max_position_embeddings = 64;
    config.initializer_range = 0.2;
    config.pad_token_id = None;
    config
}

/// Runs `program` on the model in `folder`, with `input` on its standard input.
pub(crate) fn ask(program: &str, folder: &Path, more: &[&str], input: &str) -> Output {
    let mut child = Command::new(program)
        .args(["--device", "flex", "--model"])
        .arg(folder)
        .args(more)
        .env_remove("MODERNBERT_DEVICE")
        .env("HF_HUB_OFFLINE", "1")
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    // A program that refuses its arguments reads nothing.
    let _ = child.stdin.take().unwrap().write_all(input.as_bytes());
    child.wait_with_output().unwrap()
}

pub(crate) fn stdout(output: &Output) -> &str {
    let stderr = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{stderr}");
    std::str::from_utf8(&output.stdout).unwrap()
}

pub(crate) fn json_lines(output: &Output) -> Vec<Value> {
    stdout(output)
        .lines()
        .map(|line| serde_json::from_str(line).unwrap())
        .collect()
}

pub(crate) fn assert_refused(output: &Output, said: &[&str]) {
    let stderr = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(2), "{stderr}");
    let errors = stderr.lines().filter(|line| line.starts_with("error:"));
    assert_eq!(errors.count(), 1, "{stderr}");
    assert!(!stderr.contains("panicked"), "{stderr}");
    for phrase in said {
        assert!(stderr.contains(phrase), "no {phrase:?} in: {stderr}");
    }
}
