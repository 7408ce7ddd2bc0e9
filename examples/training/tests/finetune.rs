//! `finetune` and a program of a GLUE task as a person runs them, on a tiny model of random weights.
#![allow(clippy::unwrap_used)] // a test may fail loudly

use modernbert::checkpoint::{TensorFiles, read_config, save};
use modernbert::model::{MaskedLm, initialize};
use modernbert::{Loader, Tagger, TextClassifier};
use std::collections::BTreeMap;
use std::fs;
use std::path::Path;
use std::process::Output;
use tempfile::TempDir;
use tiny_models::programs::{ask, assert_refused, stdout};
use tiny_models::{config, tokenizer};

/// A folder with a model, and files of rows whose label is the word in them.
fn place() -> TempDir {
    let folder = tempfile::tempdir().unwrap();
    let device = modernbert::device::select(Some("flex")).unwrap().device;
    let model = initialize(MaskedLm::new(&config(), &device).unwrap(), &config(), 1);
    save(&model, &config(), folder.path()).unwrap();
    tokenizer().save(folder.path()).unwrap();
    let words = ["one", "two", "three"];
    let mut csv = "review,stars\n".to_string();
    let mut json = String::new();
    for i in 0..96 {
        let word = words[i % 3];
        csv += &format!("\"{word}, {word}\",{word} star\n");
        json += &format!("{{\"review\":\"{word}, {word}\",\"stars\":\"{word} star\"}}\n");
    }
    fs::write(folder.path().join("train.csv"), csv).unwrap();
    fs::write(folder.path().join("dev.jsonl"), json).unwrap();
    folder
}

fn finetune(folder: &Path, more: &[&str]) -> Output {
    let path = |name: &str| folder.join(name).to_str().unwrap().to_string();
    let (train, dev) = (path("train.csv"), path("dev.jsonl"));
    let mut arguments = vec!["--train", &train, "--dev", &dev];
    arguments.extend(more);
    ask(env!("CARGO_BIN_EXE_finetune"), folder, &arguments, "")
}

#[test]
fn own_labels_are_learned_and_classify_knows_them() {
    let place = place();
    let elsewhere = tempfile::tempdir().unwrap();
    let out = elsewhere.path().join("reviews");
    let output = finetune(
        place.path(),
        &[
            "--text",
            "review",
            "--label",
            "stars",
            "--epochs",
            "12",
            "--batch-size",
            "16",
            "--learning-rate",
            "3e-3",
            "--out",
            out.to_str().unwrap(),
        ],
    );
    let text = stdout(&output);
    assert!(
        text.contains("labels: one star, three star, two star"),
        "{text}"
    );
    assert!(text.contains("accuracy 1.0000"), "{text}");
    let classifier = TextClassifier::load(Loader::new(&out).device("flex")).unwrap();
    let predictions = classifier.classify(&["two, two", "three, three"]).unwrap();
    let best = predictions
        .iter()
        .map(|p| &classifier.labels()[p.ranking()[0]]);
    assert_eq!(best.collect::<Vec<_>>(), ["two star", "three star"]);
    // The folder names its head, and programs for other heads refuse it.
    let config = read_config(&out).unwrap();
    assert_eq!(
        config.architectures,
        ["ModernBertForSequenceClassification"]
    );
    let message = Tagger::load(&out).unwrap_err().to_string();
    assert!(
        message.contains("ModernBertForSequenceClassification"),
        "{message}"
    );
}

#[test]
fn what_cannot_be_used_is_named_with_its_place() {
    let place = place();
    let reviews = ["--text", "review", "--label", "stars"];
    let refused = |more: &[&str], said: &[&str]| {
        assert_refused(
            &finetune(place.path(), &[&reviews[..], more].concat()),
            said,
        );
    };
    refused(&["--regression"], &["train.csv:2", "not a number"]);
    refused(
        &["--pair", "second"],
        &["train.csv", "no column \"second\""],
    );
    refused(&["--epochs", "0"], &["epochs is 0"]);
    for rate in ["0", "-1", "nan", "inf", "1e-320", "1e300"] {
        let argument = format!("--learning-rate={rate}");
        refused(&[&argument], &["--learning-rate is", "positive", "f32"]);
    }
    refused(
        &["--max-length", "2"],
        &["a maximum length of 2 leaves no token of a text"],
    );
    refused(&["--max-length", "4000"], &["--max-length is 4000 tokens"]);
    let elsewhere = tempfile::tempdir().unwrap();
    let missing = elsewhere.path().join("typo");
    refused(
        &["--resume", "--out", missing.to_str().unwrap()],
        &["typo", "there is no run", "leave --resume out"],
    );
    refused(&["--predictions", "p.csv"], &["p.csv", ".jsonl"]);
    refused(
        &["--dtype", "f16"],
        &["invalid value 'f16' for '--dtype", "f32, bf16"],
    );
    let dev = place.path().join("dev.jsonl");
    let unknown =
        "{\"review\":\"a\",\"stars\":\"one star\"}\n{\"review\":\"a\",\"stars\":\"four\"}\n";
    fs::write(dev, unknown).unwrap();
    refused(&[], &["dev.jsonl:2", "\"four\"", "one star, three star"]);
}

/// The number of times that `three` occurs is learned, in texts of six words that training has not seen.
#[test]
fn numbers_are_predicted_with_regression() {
    let place = place();
    let mut numbers = Numbers(11);
    let mut rows = |count: usize| -> Vec<(String, usize)> {
        let row = |_| {
            // Each number of times is as likely as the others.
            let wanted = numbers.below(7);
            let mut words: Vec<&str> = (0..6)
                .map(|i| {
                    if i < wanted {
                        "three"
                    } else {
                        WORDS[numbers.below(2)]
                    }
                })
                .collect();
            for i in (1..words.len()).rev() {
                words.swap(i, numbers.below(i + 1));
            }
            (words.join(" "), wanted)
        };
        (0..count).map(row).collect()
    };
    let (train, dev) = (rows(192), rows(32));
    let csv = |rows: &[(String, usize)]| -> String {
        let lines = rows.iter().map(|(text, count)| format!("{text},{count}\n"));
        "text,label\n".to_string() + &lines.collect::<String>()
    };
    let elsewhere = tempfile::tempdir().unwrap();
    let [train_file, dev_file, predictions, out] =
        ["train.csv", "dev.csv", "predictions.jsonl", "out"]
            .map(|name| elsewhere.path().join(name));
    fs::write(&train_file, csv(&train)).unwrap();
    fs::write(&dev_file, csv(&dev)).unwrap();
    let [train_file, dev_file, predictions, out] =
        [&train_file, &dev_file, &predictions, &out].map(|path| path.to_str().unwrap());
    let arguments = [
        "--train",
        train_file,
        "--dev",
        dev_file,
        "--regression",
        "--epochs",
        "10",
        "--batch-size",
        "16",
        "--learning-rate",
        "3e-3",
        "--predictions",
        predictions,
        "--out",
        out,
    ];
    let output = ask(env!("CARGO_BIN_EXE_finetune"), place.path(), &arguments, "");
    let text = stdout(&output);
    assert!(best(text, "pearson") > 0.9, "{text}");
    // The best weights of the saved folder give the predictions, and these the score.
    let read = fs::read_to_string(predictions).unwrap();
    let found: Vec<f64> = read
        .lines()
        .map(|line| serde_json::from_str::<serde_json::Value>(line).unwrap())
        .map(|row| row["prediction"].as_f64().unwrap())
        .collect();
    let truth: Vec<f64> = dev.iter().map(|(_, count)| *count as f64).collect();
    assert_eq!(found.len(), 32);
    // Correlations do not depend on the scale, which only training gives: labels are from 0 to 6.
    let errors = truth
        .iter()
        .zip(&found)
        .map(|(truth, found)| (truth - found).abs());
    let error = errors.sum::<f64>() / truth.len() as f64;
    assert!(error < 0.6, "{error}");
    let computed = pearson(&truth, &found);
    assert!(
        (computed - best(text, "pearson")).abs() < 1e-3,
        "{computed}"
    );
    let classifier = TextClassifier::load(Loader::new(out).device("flex")).unwrap();
    let texts: Vec<&str> = dev.iter().map(|(text, _)| text.as_str()).collect();
    for (again, found) in classifier.classify(&texts).unwrap().iter().zip(&found) {
        assert!((f64::from(again.scores[0]) - found).abs() < 1e-3);
    }
}

/// Pearson's correlation by its definition.
fn pearson(a: &[f64], b: &[f64]) -> f64 {
    let mean = |values: &[f64]| values.iter().sum::<f64>() / values.len() as f64;
    let (mean_a, mean_b) = (mean(a), mean(b));
    let sum = |f: &dyn Fn(f64, f64) -> f64| -> f64 {
        a.iter()
            .zip(b)
            .map(|(a, b)| f(a - mean_a, b - mean_b))
            .sum()
    };
    sum(&|a, b| a * b) / (sum(&|a, _| a * a) * sum(&|_, b| b * b)).sqrt()
}

/// The label is whether both texts have the same word: the two texts are independent of it, each alone, so that a model of one of them is right
/// in half of the rows.
#[test]
fn the_relation_of_a_pair_is_learned_and_no_text_alone_gives_it() {
    let place = place();
    let mut numbers = Numbers(5);
    let mut csv = |count: usize| {
        let mut text = "first,second,label\n".to_string();
        for i in 0..count {
            let first = i % 3;
            let is_same = i / 3 % 2 == 0;
            let second = if is_same {
                first
            } else {
                (first + 1 + numbers.below(2)) % 3
            };
            let label = if is_same { "same" } else { "other" };
            text += &format!("{},{},{label}\n", WORDS[first], WORDS[second]);
        }
        text
    };
    let elsewhere = tempfile::tempdir().unwrap();
    let [train_file, dev_file, out] =
        ["train.csv", "dev.csv", "out"].map(|name| elsewhere.path().join(name));
    fs::write(&train_file, csv(192)).unwrap();
    fs::write(&dev_file, csv(60)).unwrap();
    let [train_file, dev_file, out] =
        [&train_file, &dev_file, &out].map(|path| path.to_str().unwrap());
    let finetune = |more: &[&str]| {
        let arguments = [
            "--train",
            train_file,
            "--dev",
            dev_file,
            "--batch-size",
            "16",
        ];
        let settings = [
            "--learning-rate",
            "3e-3",
            "--epochs",
            "20",
            "--patience",
            "0",
        ];
        let arguments = [&arguments[..], &settings, &["--text", "first"], more].concat();
        let output = ask(env!("CARGO_BIN_EXE_finetune"), place.path(), &arguments, "");
        best(stdout(&output), "accuracy")
    };
    let pair = finetune(&["--pair", "second", "--out", out]);
    assert!(pair > 0.95, "{pair}");
    let alone = finetune(&[]);
    assert!(alone < 0.6, "{alone}");
    // The saved folder relates texts too.
    let classifier = TextClassifier::load(Loader::new(out).device("flex")).unwrap();
    let pairs = [
        ("two", "two"),
        ("two", "three"),
        ("three", "two"),
        ("one", "one"),
    ];
    let found = classifier.classify(&pairs).unwrap();
    let found = found
        .iter()
        .map(|one| classifier.labels()[one.ranking()[0]].as_str());
    assert_eq!(
        found.collect::<Vec<_>>(),
        ["same", "other", "other", "same"]
    );
}

/// The last value of `name` in the line of the best scores.
fn best(text: &str, name: &str) -> f64 {
    let line = text.lines().find(|line| line.starts_with("best at step"));
    let line = line.unwrap_or_else(|| panic!("no best in {text}"));
    let mut parts = line.split([':', ',']);
    let found = parts.find_map(|part| part.trim().strip_prefix(name));
    let found = found.and_then(|value| value.trim().parse().ok());
    found.unwrap_or_else(|| panic!("no {name} in {line}"))
}

const WORDS: [&str; 3] = ["one", "two", "three"];

/// A stream of numbers that is the same everywhere.
struct Numbers(u64);

impl Numbers {
    /// The next number below `bound`.
    fn below(&mut self, bound: usize) -> usize {
        self.0 = self
            .0
            .wrapping_mul(6_364_136_223_846_793_005)
            .wrapping_add(1_442_695_040_888_963_407);
        (self.0 >> 33) as usize % bound
    }
}

/// A correlation with one prediction for all rows is undefined, and no weights are the best.
#[test]
fn undefined_scores_are_never_called_the_best() {
    let place = place();
    let train = (0..8).map(|i| format!("{},{}\n", ["one", "two"][i % 2], i % 3));
    let train = "text,label\n".to_string() + &train.collect::<String>();
    let dev = (0..4).map(|i| format!("{{\"text\":\"one\",\"label\":{i}}}\n"));
    fs::write(place.path().join("train.csv"), train).unwrap();
    fs::write(place.path().join("dev.jsonl"), dev.collect::<String>()).unwrap();
    let output = finetune(place.path(), &["--regression", "--epochs", "1"]);
    let said = stdout(&output);
    let warning = String::from_utf8_lossy(&output.stderr);
    assert!(
        said.contains("last at step") && said.contains("pearson undefined"),
        "{said}"
    );
    assert!(!said.contains("best at step"), "{said}");
    assert!(
        warning.contains("no evaluation had a defined score"),
        "{warning}"
    );
}

/// Every tensor of a model folder.
fn tensors(folder: &Path) -> BTreeMap<String, Vec<f32>> {
    let files = TensorFiles::open(folder).unwrap();
    let names: Vec<String> = files.names().map(ToString::to_string).collect();
    let read = |name: String| {
        let (_, values) = files.read(&name).unwrap().unwrap();
        (name, values.clone())
    };
    names.into_iter().map(read).collect()
}

/// Largest difference of two tensors, which must be of one size.
fn apart(a: &[f32], b: &[f32]) -> f32 {
    assert_eq!(a.len(), b.len());
    a.iter()
        .zip(b)
        .map(|(a, b)| (a - b).abs())
        .fold(0.0, f32::max)
}

/// CoLA in one command: a folder of the official files to a finetuned model, which learns that one word makes a sentence acceptable.
#[test]
fn cola_is_learned_from_its_folder() {
    let place = place();
    let glue = place.path().join("glue");
    let mut rows = String::new();
    for i in 0..96 {
        let word = ["one", "two"][i % 2];
        rows += &format!("mu01\t{}\t\t{word}, {word}\n", i % 2);
    }
    fs::create_dir_all(glue.join("CoLA")).unwrap();
    for split in ["train", "dev"] {
        fs::write(glue.join(format!("CoLA/{split}.tsv")), &rows).unwrap();
    }
    let elsewhere = tempfile::tempdir().unwrap();
    let out = elsewhere.path().join("cola");
    let arguments = [
        "--data",
        glue.to_str().unwrap(),
        "--batch-size",
        "16",
        "--epochs",
        "12",
        "--learning-rate",
        "3e-3",
        "--out",
        out.to_str().unwrap(),
    ];
    let trained = ask(
        env!("CARGO_BIN_EXE_glue-cola"),
        place.path(),
        &arguments,
        "",
    );
    let text = stdout(&trained);
    assert!(text.contains("matthews 1.0000"), "{text}");
    let classifier = TextClassifier::load(Loader::new(&out).device("flex")).unwrap();
    assert_eq!(classifier.labels(), ["unacceptable", "acceptable"]);
    let predictions = classifier.classify(&["one, one", "two, two"]).unwrap();
    let best = predictions.iter().map(|p| p.ranking()[0]);
    assert_eq!(best.collect::<Vec<_>>(), [0, 1]);
}

#[test]
fn rte_starts_from_the_encoder_and_head_of_mnli() {
    let place = place();
    let glue = place.path().join("glue");
    // The first sentence decides the label.
    let rows = |label: &str, labels: &[&str]| {
        let mut text = format!("index\tsentence1\tsentence2\t{label}\n");
        for i in 0..96 {
            let (word, label) = (["one", "two", "three"][i % 3], labels[i % 3]);
            text += &format!("{i}\t{word}, {word}\tfour\t{label}\n");
        }
        text
    };
    let nli = rows("gold_label", &["entailment", "neutral", "contradiction"]);
    let rte = rows("label", &["entailment", "not_entailment", "entailment"]);
    for (file, text) in [
        ("MNLI/train", &nli),
        ("MNLI/dev_matched", &nli),
        ("MNLI/dev_mismatched", &nli),
        ("RTE/train", &rte),
        ("RTE/dev", &rte),
    ] {
        let path = glue.join(format!("{file}.tsv"));
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, text).unwrap();
    }
    let elsewhere = tempfile::tempdir().unwrap();
    let glue = glue.to_str().unwrap();
    let (mnli, rte) = (elsewhere.path().join("mnli"), elsewhere.path().join("rte"));
    let settings = ["--data", glue, "--epochs", "12", "--batch-size", "16"];
    let out = ["--learning-rate", "3e-3", "--out", mnli.to_str().unwrap()];
    let trained = ask(
        env!("CARGO_BIN_EXE_glue-mnli"),
        place.path(),
        &[&settings[..], &out].concat(),
        "",
    );
    let text = stdout(&trained);
    assert!(text.contains("dev_mismatched 1.0000"), "{text}");
    // At a rate of almost nothing, and without decay, the weights stay where they start.
    let out = [
        "--learning-rate",
        "1e-12",
        "--weight-decay",
        "0",
        "--out",
        rte.to_str().unwrap(),
    ];
    let begun = ask(
        env!("CARGO_BIN_EXE_glue-rte"),
        &mnli,
        &[&settings[..], &out].concat(),
        "",
    );
    let text = stdout(&begun);
    assert!(text.contains("train is partial: 96 of 2490 rows"), "{text}");
    let [pretrained, mnli, rte] = [place.path(), mnli.as_path(), rte.as_path()].map(tensors);
    assert!(mnli.len() > 10 && mnli.contains_key("head.dense.weight"));
    for (name, values) in &mnli {
        if name.starts_with("classifier.") {
            assert_ne!(rte[name].len(), values.len(), "{name}");
            continue;
        }
        assert!(apart(&rte[name], values) < 1e-8, "{name}");
        // MNLI's training changed all tensors except those without a gradient.
        let moved = apart(&pretrained[name], values);
        assert!(moved > 1e-5, "{name}: {moved}");
    }
    let spread = rte["classifier.weight"]
        .iter()
        .fold(0.0f32, |most, x| most.max(x.abs()));
    assert!(spread > 0.0);
}

#[test]
fn a_model_never_replaces_what_is_there() {
    let place = place();
    let elsewhere = tempfile::tempdir().unwrap();
    let taken = elsewhere.path().join("taken");
    fs::create_dir(&taken).unwrap();
    fs::write(taken.join("model.safetensors"), "precious").unwrap();
    let weights = fs::read(place.path().join("model.safetensors")).unwrap();
    for (out, said) in [
        (place.path().to_path_buf(), "same as the input"),
        (place.path().join("better"), "inside the input"),
        (taken.clone(), "not empty"),
        (taken.join("model.safetensors"), "is a file"),
    ] {
        let more = [
            "--text",
            "review",
            "--label",
            "stars",
            "--out",
            out.to_str().unwrap(),
        ];
        assert_refused(&finetune(place.path(), &more), &[said, "--out"]);
    }
    assert_eq!(
        fs::read_to_string(taken.join("model.safetensors")).unwrap(),
        "precious"
    );
    assert_eq!(
        fs::read(place.path().join("model.safetensors")).unwrap(),
        weights
    );
    assert!(!place.path().join("better").exists());
    // Nothing in the folder is a run to go on with.
    let usual = ["--text", "review", "--label", "stars"];
    let more = [&usual[..], &["--resume", "--out", taken.to_str().unwrap()]].concat();
    let output = finetune(place.path(), &more);
    assert_refused(&output, &["not empty", "leave --resume out"]);
    assert_eq!(
        fs::read_to_string(taken.join("model.safetensors")).unwrap(),
        "precious"
    );
    // Predictions would replace the model, by whatever name the folder is called.
    let empty = elsewhere.path().join("empty");
    fs::create_dir(&empty).unwrap();
    let roundabout = taken.join("../empty/predictions.jsonl");
    let files = ["--out", empty.to_str().unwrap(), "--predictions"];
    let more = [&usual[..], &files, &[roundabout.to_str().unwrap()]].concat();
    let output = finetune(place.path(), &more);
    assert_refused(&output, &["--predictions is inside of --out"]);
    let more = [&usual[..], &["--regression", "--task", "tag"]].concat();
    assert_refused(&finetune(place.path(), &more), &["--regression and --task"]);
    // Options of other tasks.
    let more = [&usual[..], &["--strict"]].concat();
    assert_refused(
        &finetune(place.path(), &more),
        &["--strict has no effect with --task classify"],
    );
}

#[test]
fn a_resumed_run_replaces_only_its_own_model() {
    let place = place();
    let elsewhere = tempfile::tempdir().unwrap();
    let out = elsewhere.path().join("out");
    let usual = ["--text", "review", "--label", "stars", "--save-every", "4"];
    let more = [&usual[..], &["--out", out.to_str().unwrap()]].concat();
    stdout(&finetune(place.path(), &more));
    let again = [&more[..], &["--resume"]].concat();
    // Another spelling of the model's folder is the same model.
    let spelled = place.path().join(".");
    stdout(&finetune(&spelled, &again));
    let config = out.join("config.json");
    fs::write(&config, "mine").unwrap();
    assert_refused(
        &finetune(place.path(), &again),
        &["config.json", "did not write this file"],
    );
    assert_eq!(fs::read_to_string(&config).unwrap(), "mine");
}
