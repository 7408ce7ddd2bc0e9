//! `finetune` for every task as a person runs it, on a tiny model of random weights: a rule is learned, and the saved folder gives the same
//! predictions.
#![allow(clippy::unwrap_used)] // a test may fail loudly

use modernbert::checkpoint::read_config;
use modernbert::config::ProblemType;
use modernbert::inference::AnswerOptions;
use modernbert::{Answerer, Chooser, Loader, Tagger, TextClassifier};
use serde_json::Value;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Output;
use tempfile::TempDir;
use tiny_models::programs::{ask, assert_refused, run, stdout};

const WORDS: [&str; 3] = ["one", "two", "three"];

/// A model, two files, and output paths beside the model.
struct Place {
    model: TempDir,
    more: TempDir,
}

impl Place {
    fn new() -> Self {
        Self {
            model: tiny_models::masked_lm(),
            more: tempfile::tempdir().unwrap(),
        }
    }

    fn path(&self, name: &str) -> PathBuf {
        self.more.path().join(name)
    }

    /// Runs `finetune` on files of this ending.
    fn run(&self, task: &str, ending: &str, train: &str, dev: &str, more: &[&str]) -> Output {
        let text = |path: &Path| path.to_str().unwrap().to_string();
        let [train_file, dev_file] =
            ["train", "dev"].map(|name| self.path(&format!("{name}.{ending}")));
        fs::write(&train_file, train).unwrap();
        fs::write(&dev_file, dev).unwrap();
        let (train, dev) = (text(&train_file), text(&dev_file));
        let (out, predictions) = (
            text(&self.path("out")),
            text(&self.path("predictions.jsonl")),
        );
        let mut arguments = vec![
            "--task",
            task,
            "--train",
            &train,
            "--dev",
            &dev,
            "--out",
            &out,
            "--predictions",
            &predictions,
            "--batch-size",
            "8",
            "--learning-rate",
            "3e-3",
        ];
        arguments.extend(more);
        ask(
            env!("CARGO_BIN_EXE_finetune"),
            self.model.path(),
            &arguments,
            "",
        )
    }

    fn loader(&self) -> Loader {
        Loader::new(self.path("out")).device("flex")
    }

    fn predictions(&self) -> Vec<Value> {
        let lines = fs::read_to_string(self.path("predictions.jsonl")).unwrap();
        lines
            .lines()
            .map(|line| serde_json::from_str(line).unwrap())
            .collect()
    }
}

/// Words drawn at random, the same for a seed everywhere.
fn words(seed: usize, count: usize) -> Vec<&'static str> {
    let mut state = (seed as u64).wrapping_mul(0x9e37_79b9_7f4a_7c15);
    let mut draw = |_| {
        state = state
            .wrapping_mul(6_364_136_223_846_793_005)
            .wrapping_add(1_442_695_040_888_963_407);
        WORDS[(state >> 33) as usize % 3]
    };
    (0..count).map(&mut draw).collect()
}

/// The last line that names the best scores, as numbers by name.
fn best(output: &Output, name: &str) -> f64 {
    let text = stdout(output);
    let line = text.lines().find(|line| line.starts_with("best at step"));
    let line = line.unwrap_or_else(|| panic!("no best in {text}"));
    let found = line
        .split([':', ','])
        .find_map(|part| part.trim().strip_prefix(name));
    found
        .and_then(|value| value.trim().parse().ok())
        .unwrap_or_else(|| panic!("no {name} in {line}"))
}

/// `two` after `one` continues the span that `one` began.
fn tags(words: &[&str]) -> Vec<&'static str> {
    let tag = |i: usize| match words[i] {
        "one" => "B-A",
        "two" if i > 0 && words[i - 1] == "one" => "I-A",
        "three" => "B-B",
        _ => "O",
    };
    (0..words.len()).map(tag).collect()
}

/// Sentences of these seeds, one word and its tag per line.
fn conll(seeds: std::ops::Range<usize>) -> String {
    seeds
        .map(|seed| {
            let words = words(seed, 3 + seed % 6);
            let lines = words.iter().zip(tags(&words));
            lines
                .map(|(word, tag)| format!("{word} X {tag}\n"))
                .collect::<String>()
                + "\n"
        })
        .collect()
}

#[test]
fn tags_of_words_are_learned_and_tag_gives_them() {
    let place = Place::new();
    let output = place.run(
        "tag",
        "conll",
        &conll(0..120),
        &conll(200..230),
        &["--epochs", "4", "--strict"],
    );
    let text = stdout(&output);
    assert!(best(&output, "f1") > 0.95, "{text}");
    assert!(
        text.contains("tags: O, B-A, B-B, I-A") && text.contains("precision  recall"),
        "{text}"
    );
    let tagger = Tagger::load(place.loader())
        .unwrap()
        .with_prefix_space(true);
    let sentences: Vec<Vec<&str>> = (200..230).map(|seed| words(seed, 3 + seed % 6)).collect();
    let tagged = tagger.tag_words(&sentences).unwrap();
    for (tagged, row) in tagged.iter().zip(place.predictions()) {
        let names = tagged.tags.iter().flatten();
        let names: Vec<&str> = names
            .map(|tag| tagger.labels()[tag.label].as_str())
            .collect();
        assert_eq!(row["prediction"], serde_json::json!(names));
    }
}

/// The short program `ner`, scored on sentences that it was not trained on; without training it finds few of their entities.
#[test]
fn ner_learns_entities_and_tags_a_sentence() {
    let place = Place::new();
    let files = [("train.conll", 0..240), ("dev.conll", 300..340)].map(|(name, seeds)| {
        fs::write(place.path(name), conll(seeds)).unwrap();
        place.path(name)
    });
    let ner = |rate: &str| -> (f64, String) {
        let [train, dev] = files.each_ref().map(|path| path.to_str().unwrap());
        let model = place.model.path().to_str().unwrap();
        let settings = ["--epochs", "8", "--learning-rate", rate, "--device", "flex"];
        let arguments = [&[model, train, dev, "two one two three"][..], &settings].concat();
        let output = run(env!("CARGO_BIN_EXE_ner"), &arguments, &[]);
        let text = stdout(&output).to_string();
        // precision, recall, F1, spans, predicted
        let all = text
            .lines()
            .find_map(|line| line.trim().strip_prefix("all "));
        let all: Vec<f64> = all
            .unwrap_or_else(|| panic!("no scores in {text}"))
            .split_whitespace()
            .map(|number| number.parse().unwrap())
            .collect();
        assert!(all[3] > 50.0, "{text}");
        (all[2], text)
    };
    let (f1, text) = ner("3e-3");
    assert!(f1 > 0.95, "{text}");
    let mut kinds = text
        .lines()
        .filter_map(|line| line.split_whitespace().next());
    assert!(
        kinds.any(|kind| kind == "A") && kinds.any(|kind| kind == "B"),
        "{text}"
    );
    let tagged = ["  two  O", "  one  B-A", "  two  I-A", "  three  B-B"];
    assert!(text.ends_with(&(tagged.join("\n") + "\n")), "{text}");
    // Rates of almost nothing leave the random weights as they are.
    let (untrained, text) = ner("1e-12");
    assert!(untrained < 0.6, "{text}");
}

#[test]
fn spans_of_texts_are_learned_and_tag_finds_them() {
    let place = Place::new();
    let rows = |seeds: std::ops::Range<usize>| -> String {
        seeds
            .map(|seed| {
                let words = words(seed, 3 + seed % 6);
                let text = words.join(" ");
                let spans: Vec<String> = text
                    .match_indices("three")
                    .map(|(at, word)| {
                        format!(
                            "{{\"start\":{at},\"end\":{},\"label\":\"N\"}}",
                            at + word.len()
                        )
                    })
                    .collect();
                format!("{{\"text\":\"{text}\",\"spans\":[{}]}}\n", spans.join(","))
            })
            .collect()
    };
    let output = place.run(
        "tag",
        "jsonl",
        &rows(0..80),
        &rows(200..220),
        &["--epochs", "4"],
    );
    assert!(best(&output, "f1") > 0.95, "{}", stdout(&output));
    let tagger = Tagger::load(place.loader()).unwrap();
    let tagged = tagger.tag(&["one three two"]).unwrap();
    let entities = tagger.entities(&tagged[0].tags);
    assert_eq!(entities.len(), 1);
    assert_eq!(
        (
            entities[0].label.as_str(),
            entities[0].start,
            entities[0].end
        ),
        ("N", 4, 9)
    );
}

#[test]
fn answers_are_learned_and_answer_gives_them() {
    let place = Place::new();
    // The answer is `three`; a context without it has none.
    let rows = |seeds: std::ops::Range<usize>| -> Vec<(String, String)> {
        seeds
            .map(|seed| {
                let mut words = words(seed, 3 + seed % 6);
                words.retain(|word| *word != "three");
                if seed % 4 > 0 {
                    words.insert(seed % (words.len() + 1), "three");
                }
                words.push("one");
                let context = words.join(" ");
                let answers = match context.find("three") {
                    Some(at) => format!("[{{\"text\":\"three\",\"answer_start\":{at}}}]"),
                    None => "[]".to_string(),
                };
                let row = format!(
                    "{{\"question\":\"two\",\"context\":\"{context}\",\"answers\":{answers}}}\n"
                );
                (context, row)
            })
            .collect()
    };
    let text =
        |rows: &[(String, String)]| rows.iter().map(|(_, row)| row.as_str()).collect::<String>();
    let (train, dev) = (rows(0..120), rows(200..230));
    let more = ["--epochs", "4", "--stride", "4"];
    let output = place.run("answer", "jsonl", &text(&train), &text(&dev), &more);
    assert!(best(&output, "f1") > 0.95, "{}", stdout(&output));
    assert_eq!(best(&output, "f1"), best(&output, "exact_match"));
    let options = AnswerOptions {
        stride: 4,
        ..AnswerOptions::default()
    };
    let answerer = Answerer::load(place.loader())
        .unwrap()
        .with_options(options);
    let questions: Vec<(&str, &str)> = dev
        .iter()
        .map(|(context, _)| ("two", context.as_str()))
        .collect();
    for (found, row) in answerer
        .answer(&questions)
        .unwrap()
        .iter()
        .zip(place.predictions())
    {
        let none = found.best[0].score < found.none_score;
        let answer = if none { "" } else { &found.best[0].text };
        assert_eq!(row["prediction"], answer);
        assert!((row["score"].as_f64().unwrap() as f32 - found.best[0].score).abs() < 1e-4);
    }
}

#[test]
fn choices_are_learned_and_choose_makes_them() {
    let place = Place::new();
    let rows = |seeds: std::ops::Range<usize>| -> String {
        let row = |seed: usize| {
            let label = seed % 3;
            let mut endings =
                [words(seed, 2), words(seed + 1, 3), words(seed + 2, 2)].map(|words| {
                    let words = words
                        .iter()
                        .map(|&word| if word == "three" { "two" } else { word });
                    words.collect::<Vec<_>>().join(" ")
                });
            endings[label] += " three";
            format!("{seed},one two,one,{},{label}\n", endings.join(","))
        };
        "id,sent1,sent2,ending0,ending1,ending2,label\n".to_string()
            + &seeds.map(row).collect::<String>()
    };
    let output = place.run(
        "choose",
        "csv",
        &rows(0..90),
        &rows(200..221),
        &["--epochs", "6"],
    );
    assert!(best(&output, "accuracy") > 0.95, "{}", stdout(&output));
    let chooser = Chooser::load(place.loader()).unwrap();
    let dev = fs::read_to_string(place.path("dev.csv")).unwrap();
    for (line, row) in dev.lines().skip(1).zip(place.predictions()) {
        let cells: Vec<&str> = line.split(',').collect();
        let choices = cells[3..6].iter().map(|ending| format!("one {ending}"));
        let found = chooser
            .choose(&[(cells[1], choices.collect::<Vec<_>>())])
            .unwrap();
        assert_eq!(row["prediction"], found[0].best);
    }
}

#[test]
fn several_labels_are_learned_and_classify_gives_them() {
    let place = Place::new();
    let csv = |seeds: std::ops::Range<usize>| -> String {
        let row = |seed: usize| {
            let words = words(seed, 1 + seed % 4);
            let there: Vec<&str> = WORDS
                .into_iter()
                .filter(|word| words.contains(word))
                .collect();
            format!("{},{}\n", words.join(" "), there.join("|"))
        };
        "text,label\n".to_string() + &seeds.map(row).collect::<String>()
    };
    let more = [
        "--epochs",
        "6",
        "--separator",
        "|",
        "--weight-decay",
        "0",
        "--evaluate-every",
        "10",
        "--patience",
        "0",
    ];
    let output = place.run("multi-label", "csv", &csv(0..120), &csv(200..230), &more);
    assert!(best(&output, "micro_f1") > 0.95, "{}", stdout(&output));
    assert!(best(&output, "macro_f1") > 0.9);
    let config = read_config(&place.path("out")).unwrap();
    assert_eq!(config.problem_type, Some(ProblemType::MultiLabel));
    let classifier = TextClassifier::load(place.loader()).unwrap();
    let dev = fs::read_to_string(place.path("dev.csv")).unwrap();
    let texts: Vec<&str> = dev
        .lines()
        .skip(1)
        .filter_map(|line| line.split(',').next())
        .collect();
    for (found, row) in classifier
        .classify(&texts)
        .unwrap()
        .iter()
        .zip(place.predictions())
    {
        let labels = classifier.labels().iter().zip(&found.scores);
        let labels: Vec<&String> = labels
            .filter(|(_, score)| **score > 0.5)
            .map(|(label, _)| label)
            .collect();
        assert_eq!(row["prediction"], serde_json::json!(labels));
    }
}

#[test]
fn what_cannot_be_used_is_named_with_its_place() {
    let place = Place::new();
    let good = "one O\ntwo B-X\n";
    for (task, ending, train, dev, said) in [
        ("tag", "conll", good, "one B-Y\n", "dev.conll:1"),
        ("tag", "conll", "one O\n", good, "no row has a label"),
        ("tag", "conll", "one O\ntwo\n", good, "train.conll:2"),
        (
            "choose",
            "csv",
            "prompt,choice0,choice1,label\na,b,c,2\n",
            "",
            "train.csv:2",
        ),
        (
            "multi-label",
            "csv",
            "text,label\na,\"x,,y\"\n",
            "",
            "train.csv:2",
        ),
        (
            "answer",
            "jsonl",
            "{\"question\":\"a\",\"context\":\"b\",\"answers\":[{\"text\":\"c\",\"answer_start\":0}]}\n",
            "",
            "train.jsonl:1",
        ),
    ] {
        let output = place.run(task, ending, train, dev, &[]);
        assert_refused(&output, &[said]);
    }
    assert!(!place.path("out").exists());
    assert_refused(
        &place.run("tag", "conll", good, good, &["--weight-decay", "1"]),
        &["--weight-decay is 1"],
    );
}
