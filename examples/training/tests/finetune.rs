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
    // The folder says what it holds, and other heads refuse it.
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

#[test]
fn numbers_are_predicted_with_regression() {
    let place = place();
    let mut rows = "text,label\n".to_string();
    for i in 0..32 {
        rows += &format!("{},{}\n", ["one", "two"][i % 2], i % 2 * 3);
    }
    fs::write(place.path().join("train.csv"), &rows).unwrap();
    fs::write(
        place.path().join("dev.jsonl"),
        "{\"text\":\"one\",\"label\":0}\n{\"text\":\"two\",\"label\":3.0}\n",
    )
    .unwrap();
    let output = finetune(place.path(), &["--regression", "--epochs", "1"]);
    assert!(stdout(&output).contains("pearson"), "{}", stdout(&output));
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
        // MNLI's training moved it, but for what no loss reaches.
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
    let roundabout = taken.join("../empty/model.safetensors");
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
