//! `fill-mask` as a person runs it, on a tiny model of random weights.
#![allow(clippy::unwrap_used)] // a test may fail loudly

use modernbert::config::ModernBertConfig;
use modernbert::model::{MaskedLm, initialize};
use modernbert::tokenizer::{Tokenizer, TrainOptions, train::train};
use serde_json::Value;
use std::fs;
use std::path::PathBuf;
use std::process::{Command, Output};

/// A model folder that is removed at the end of its test.
struct Model(PathBuf);

impl Model {
    fn new(test: &str) -> Self {
        let folder = std::env::temp_dir().join(format!("fill-mask-{test}-{}", std::process::id()));
        let _ = fs::remove_dir_all(&folder);
        let options = TrainOptions {
            vocab_size: 320,
            ..TrainOptions::default()
        };
        let tokenizer = train(["one two three one two one two three"], &options).unwrap();
        let mut config = ModernBertConfig::of_shape(4, 32, 48, 2);
        config.vocab_size = tokenizer.vocab_size();
        config.max_position_embeddings = 64;
        config.initializer_range = 0.2;
        config.pad_token_id = None;
        let device = modernbert::device::select(Some("flex")).unwrap().device;
        let model = initialize(MaskedLm::new(&config, &device).unwrap(), &config, 1);
        modernbert::checkpoint::save(&model, &config, &folder).unwrap();
        tokenizer.save(&folder).unwrap();
        Self(folder)
    }

    fn ask(&self, more: &[&str]) -> Output {
        Command::new(env!("CARGO_BIN_EXE_fill-mask"))
            .args(["--device", "flex", "--model"])
            .arg(&self.0)
            .args(more)
            .env_remove("MODERNBERT_DEVICE")
            .output()
            .unwrap()
    }
}

impl Drop for Model {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}

fn stdout(output: &Output) -> &str {
    let stderr = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{stderr}");
    std::str::from_utf8(&output.stdout).unwrap()
}

fn assert_refused(output: &Output, said: &[&str]) {
    let stderr = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(2), "{stderr}");
    let errors = stderr
        .lines()
        .filter(|line| line.starts_with("error:"))
        .count();
    assert_eq!(errors, 1, "{stderr}");
    assert!(!stderr.contains("panicked"), "{stderr}");
    for phrase in said {
        assert!(stderr.contains(phrase), "no {phrase:?} in: {stderr}");
    }
}

#[test]
fn five_guesses_stand_below_each_mask_best_first() {
    let model = Model::new("table");
    let output = model.ask(&["one [MASK] three [MASK]"]);
    let lines: Vec<&str> = stdout(&output).lines().collect();
    assert_eq!(lines.len(), 12, "{lines:?}");
    for (mask, lines) in lines.chunks(6).enumerate() {
        assert_eq!(lines[0], format!("mask {} of 2", mask + 1));
        let percent: Vec<f64> = lines[1..]
            .iter()
            .map(|line| {
                let (number, token) = line.trim().split_once(" %  ").unwrap();
                assert!(token.starts_with('"') && token.ends_with('"'), "{line}");
                number.trim().parse().unwrap()
            })
            .collect();
        assert!(percent.is_sorted_by(|a, b| a >= b), "{percent:?}");
        assert!(
            percent.iter().all(|p| (0.0..=100.0).contains(p)),
            "{percent:?}"
        );
    }
}

#[test]
fn json_holds_the_candidates_of_each_mask_with_falling_probabilities() {
    let model = Model::new("json");
    let tokenizer = Tokenizer::from_folder(&model.0).unwrap();
    let text = "one [MASK] three [MASK]";
    for (more, count) in [
        (&[][..], 5),
        (&["--top", "9"], 9),
        (&["--top", "1000"], 320),
    ] {
        let output = model.ask(&[&[text, "--json"], more].concat());
        let answer: Value = serde_json::from_str(stdout(&output)).unwrap();
        assert_eq!(answer["text"], text);
        assert_eq!(answer["device"], "flex");
        let masks = answer["masks"].as_array().unwrap();
        assert_eq!(masks.len(), 2);
        for candidates in masks {
            let candidates = candidates.as_array().unwrap();
            assert_eq!(candidates.len(), count);
            let probabilities: Vec<f64> = candidates
                .iter()
                .map(|candidate| candidate["probability"].as_f64().unwrap())
                .collect();
            assert!(
                probabilities.is_sorted_by(|a, b| a >= b),
                "{probabilities:?}"
            );
            assert!(probabilities.iter().all(|p| (0.0..=1.0).contains(p)));
            let sum: f64 = probabilities.iter().sum();
            assert!(sum < 1.0 + 1e-4, "{sum}");
            if count == 320 {
                assert!(sum > 1.0 - 1e-4, "the whole vocabulary has {sum}");
            }
            for candidate in candidates {
                let id = candidate["id"].as_u64().unwrap() as u32;
                assert_eq!(candidate["token"], tokenizer.token(id).unwrap());
            }
        }
    }
    let (first, second) = (model.ask(&[text, "--json"]), model.ask(&[text, "--json"]));
    assert_eq!(stdout(&first), stdout(&second));
}

#[test]
fn what_cant_be_filled_in_is_named() {
    let model = Model::new("faults");
    assert_refused(&model.ask(&["one two three"]), &["[MASK]", "one two three"]);
    assert_refused(&model.ask(&[""]), &["[MASK]"]);
    let long = format!("{}[MASK]", "one ".repeat(100));
    assert_refused(&model.ask(&[&long]), &["the model takes 64", "shorten it"]);
    fs::remove_file(model.0.join("model.safetensors")).unwrap();
    let said = ["holds neither model.safetensors", "is it a model folder?"];
    assert_refused(&model.ask(&["[MASK]"]), &said);
    fs::remove_dir_all(&model.0).unwrap();
    let said = ["there is no folder", "config.json and model.safetensors"];
    assert_refused(&model.ask(&["[MASK]"]), &said);
}
