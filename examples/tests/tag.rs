//! `tag` as a person runs it, on a tiny model of random weights.
#![allow(clippy::unwrap_used)] // a test may fail loudly

use modernbert::checkpoint::save;
use modernbert::model::{TokenClassifier, initialize};
use std::path::Path;
use std::process::Output;
use tempfile::TempDir;
use tiny_models::programs::{ask, assert_refused, json_lines, stdout};
use tiny_models::{config, tokenizer};

const LABELS: [&str; 5] = ["O", "B-PER", "I-PER", "B-LOC", "I-LOC"];

fn model() -> TempDir {
    let folder = tempfile::tempdir().unwrap();
    let device = modernbert::device::select(Some("flex")).unwrap().device;
    let mut config = config();
    config.id2label = Some(LABELS.iter().map(|label| label.to_string()).collect());
    config.num_labels = Some(5);
    let model = TokenClassifier::new(&config, 5, &device).unwrap();
    save(&initialize(model, &config, 1), &config, folder.path()).unwrap();
    tokenizer().save(folder.path()).unwrap();
    folder
}

fn tag(folder: &Path, more: &[&str], input: &str) -> Output {
    ask(env!("CARGO_BIN_EXE_tag"), folder, more, input)
}

#[test]
fn tokens_and_entities_know_their_characters() {
    let model = model();
    let text = "one \u{e9}t\u{e9} two  three";
    let found = json_lines(&tag(model.path(), &["--json", "--tokens", text], ""));
    let characters: Vec<char> = text.chars().collect();
    let tags = found[0]["tags"].as_array().unwrap();
    assert_eq!(
        tags.len() + 2,
        found[0]["tokens"].as_u64().unwrap() as usize
    );
    let mut covered = vec![false; characters.len()];
    for tag in tags {
        assert!(LABELS.contains(&tag["label"].as_str().unwrap()));
        let (start, end) = (
            tag["start"].as_u64().unwrap() as usize,
            tag["end"].as_u64().unwrap() as usize,
        );
        covered[start..end].fill(true);
    }
    for (covered, character) in covered.iter().zip(&characters) {
        assert!(*covered || character.is_whitespace());
    }
    for entity in found[0]["entities"].as_array().unwrap() {
        let (start, end) = (
            entity["start"].as_u64().unwrap() as usize,
            entity["end"].as_u64().unwrap() as usize,
        );
        let piece: String = characters[start..end].iter().collect();
        assert_eq!(entity["text"], piece);
        assert!(["PER", "LOC"].contains(&entity["label"].as_str().unwrap()));
    }
    let shifted = tag(
        model.path(),
        &["--json", "--tokens", "--add-prefix-space", "true", "two"],
        "",
    );
    let last = json_lines(&shifted)[0]["tags"]
        .as_array()
        .unwrap()
        .last()
        .unwrap()
        .clone();
    assert_eq!(last["end"], 3, "the space in front is not counted");
}

#[test]
fn words_get_one_label_each_and_the_prefix_space_matters() {
    let model = model();
    let lines = "{\"id\":1,\"w\":[\"two\",\"\",\"three\"]}\n{\"w\":[]}\n";
    let ask = |more: &[&str]| {
        let base = [
            "--json",
            "--input",
            "-",
            "--format",
            "jsonl",
            "--words-field",
            "w",
        ];
        json_lines(&tag(model.path(), &[&base[..], more].concat(), lines))
    };
    let found = ask(&[]);
    assert_eq!(found[0]["id"], 1);
    let labels = found[0]["labels"].as_array().unwrap();
    assert_eq!(labels.len(), 3);
    assert!(labels[0].is_string() && labels[1].is_null() && labels[2].is_string());
    assert_eq!(found[1]["labels"].as_array().unwrap().len(), 0);
    assert_eq!(found, ask(&["--add-prefix-space", "true"]));
    assert_ne!(
        found[0]["scores"],
        ask(&["--add-prefix-space", "false"])[0]["scores"]
    );

    let ids = |prefix| tokenizer().encode_words(&["two"], prefix, 64).unwrap().ids;
    assert_ne!(ids(true)[1], ids(false)[1]);
    assert_eq!(ids(true), tokenizer().encode(" two").unwrap());
    let cut = tokenizer().encode_words(&["two"; 100], true, 9).unwrap();
    assert!(cut.truncated && cut.ids.len() == 9);
    assert_eq!(
        cut.first.iter().flatten().count(),
        cut.first.iter().position(Option::is_none).unwrap()
    );

    let people = tag(model.path(), &["--words", "one two"], "");
    let words: Vec<&str> = stdout(&people).trim().split(' ').collect();
    assert!(
        words[0].starts_with("one/") && words[1].starts_with("two/"),
        "{words:?}"
    );
}

#[test]
fn what_cant_be_tagged_is_named() {
    let model = model();
    let jsonl = ["--input", "-", "--format", "jsonl", "--words-field", "w"];
    let said = ["standard input:1", "not a list of strings"];
    assert_refused(&tag(model.path(), &jsonl, "{\"w\":\"one\"}"), &said);
    assert_refused(
        &tag(model.path(), &["a", "--max-length", "1"], ""),
        &["no token of a text beside the 2 special tokens"],
    );
    assert_refused(&tag(model.path(), &[], ""), &["no text"]);
}
