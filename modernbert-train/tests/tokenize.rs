//! `modernbert-train tokenize` as a person runs it, and a run on its shards.
#![allow(clippy::unwrap_used)] // a test may fail loudly

mod place;

use modernbert::tokenizer::train::{TrainOptions, train};
use place::{Place, WEIGHTS, assert_refused, assert_success, program, recipe, text};
use std::fs;

/// A folder with a tokenizer, rows beside the corpus, and a mixture of both.
fn place() -> Place {
    let place = Place::new();
    let mut texts = Vec::new();
    for entry in fs::read_dir(place.path("corpus")).unwrap() {
        texts.push(fs::read_to_string(entry.unwrap().path()).unwrap());
    }
    texts.sort();
    let options = TrainOptions {
        vocab_size: 384,
        ..TrainOptions::default()
    };
    let tokenizer = train(texts.iter().map(String::as_str), &options).unwrap();
    tokenizer.save(place.path("tokenizer")).unwrap();
    let rows = texts.iter().map(|text| {
        let reversed: Vec<&str> = text.lines().rev().collect();
        serde_json::json!({ "body": reversed.join("\n") }).to_string()
    });
    place.write("rows.jsonl", rows.collect::<Vec<_>>().join("\n"));
    place.write(
        "mixture.toml",
        "[[source]]\nname = \"tales\"\npaths = [\"corpus\"]\nproportion = 0.75\nlicence = \"CC0\"\n\
         [[source]]\nname = \"rows\"\npaths = [\"rows.jsonl\"]\nproportion = 0.25\nlicence = \"unknown\"\ntext_field = \"body\"\n",
    );
    place
}

fn tokenize(place: &Place, more: &[&str]) -> std::process::Output {
    let (tokenizer, out) = (place.path("tokenizer"), place.path("shards"));
    let mut arguments = vec![
        "tokenize",
        "--tokenizer",
        text(&tokenizer),
        "--out",
        text(&out),
    ];
    arguments.extend(["--eval-fraction", "0.1"]);
    arguments.extend(more);
    program(&arguments)
}

/// Also: the effects of activation checkpointing and dropout.
#[test]
fn a_mixture_becomes_shards_and_shards_a_model() {
    let place = place();
    let mixture = place.path("mixture.toml");
    let stdout = assert_success(&tokenize(
        &place,
        &["--mixture", text(&mixture), "--threads", "2"],
    ));
    let last = stdout.lines().last().unwrap();
    assert!(
        last.starts_with("tokenize: documents=80 train_tokens="),
        "{last}"
    );
    assert!(
        stdout.contains("0.25 of the mixture") && stdout.contains("licence: unknown"),
        "{stdout}"
    );

    let shards = place.path("shards");
    let stdout = assert_success(&program(&["inspect", text(&shards), "--json"]));
    let described: serde_json::Value = serde_json::from_str(&stdout).unwrap();
    assert_eq!(described["kind"], "token folder");
    assert_eq!(described["sources"][1]["licence"], "unknown");
    let train = &described["sources"][0]["train"];
    assert!(train["tokens"].as_u64() > Some(0) && described["held_out_tokens"].as_u64() > Some(0));

    place.write("recipe.toml", recipe(&place.path("shards")));
    let stdout = assert_success(&place.run("plain", &[]));
    assert!(
        stdout.contains("source tales: 0.75 of the tokens"),
        "{stdout}"
    );
    let weights = |out: &str| fs::read(place.path(out).join(WEIGHTS)).unwrap();
    let dropout = ["--set", "dropout.attention_output=0.1"];
    assert_success(&place.run("dropout", &dropout));
    let both = [&dropout[..], &["--set", "batch.recompute=true"]].concat();
    assert_success(&place.run("both", &both));
    assert_ne!(weights("plain"), weights("dropout"));
    assert!(
        weights("dropout") == weights("both"),
        "recomputing changes no bit"
    );

    // A shard that was changed after the run began.
    let shard = place.path("shards/tales/train-00000.tokens");
    let mut bytes = fs::read(&shard).unwrap();
    bytes[300] ^= 1;
    fs::write(&shard, bytes).unwrap();
    place.refuses("a changed shard", &[], &["train-00000.tokens", "SHA-256"]);
}

#[test]
fn what_cant_be_tokenized_is_named_with_a_remedy() {
    let place = place();
    let rows = place.path("rows.jsonl");
    let whole = fs::read_to_string(&rows).unwrap();
    place.write("rows.jsonl", whole.clone() + "\n{\"body\": \n");
    let paths = [text(&rows), "--text-field", "body"];
    let refused = tokenize(&place, &paths);
    assert_refused("a bad row", &refused, &["rows.jsonl:41: not JSON"]);
    let skipping = [&paths[..], &["--skip-unreadable"]].concat();
    let output = tokenize(&place, &skipping);
    let stdout = assert_success(&output);
    assert!(
        stdout.lines().last().unwrap().contains(" unreadable=1 "),
        "{stdout}"
    );
    let stderr = String::from_utf8_lossy(&output.stderr);
    assert!(
        stderr.contains("skipped: ") && stderr.contains("rows.jsonl:41"),
        "{stderr}"
    );

    place.write("alone.txt", "a text");
    let alone = place.path("alone.txt");
    for option in ["--text-field", "--token-field"] {
        let refused = tokenize(&place, &[text(&alone), option, "body"]);
        assert_refused(option, &refused, &[option, "has no effect"]);
    }
    assert_refused(
        "contains shards",
        &tokenize(&place, &paths),
        &["--overwrite"],
    );
    for (what, more, said) in [
        (
            "no such file",
            &["missing.jsonl", "--overwrite"][..],
            "missing.jsonl: cannot be read",
        ),
        (
            "another field",
            &[text(&rows), "--overwrite"],
            "rows.jsonl:1: no field \"text\"",
        ),
        (
            "below three tokens",
            &[text(&rows), "--overwrite", "--max-length", "2"],
            "set 3 or more",
        ),
        (
            "all held out",
            &[text(&rows), "--overwrite", "--eval-fraction=1"],
            "--eval-fraction",
        ),
    ] {
        let arguments: Vec<&str> = more.to_vec();
        let output = if what == "all held out" {
            let (tokenizer, out) = (place.path("tokenizer"), place.path("shards"));
            let base = [
                "tokenize",
                "--tokenizer",
                text(&tokenizer),
                "--out",
                text(&out),
            ];
            program(&[&base[..], &arguments].concat())
        } else {
            tokenize(&place, &arguments)
        };
        assert_refused(what, &output, &[said]);
    }
}

#[test]
fn what_is_read_is_no_place_for_shards() {
    let place = place();
    let (corpus, rows, tokenizer) = (
        place.path("corpus"),
        place.path("rows.jsonl"),
        place.path("tokenizer"),
    );
    let inside = corpus.join("shards");
    for (out, said) in [
        (&tokenizer, "same as the input"),
        (&corpus, "same as the input"),
        (&inside, "inside the input"),
        (&rows, "is a file"),
    ] {
        let arguments = [
            "tokenize",
            "--tokenizer",
            text(&tokenizer),
            "--out",
            text(out),
            text(&corpus),
            "--overwrite",
        ];
        assert_refused(said, &program(&arguments), &[said, "--out"]);
    }
    assert!(!inside.exists());
    for threads in ["0", "100000"] {
        let arguments = [text(&corpus), "--overwrite", "--threads", threads];
        let said = ["--threads", "1 to 1024"];
        assert_refused(threads, &tokenize(&place, &arguments), &said);
    }
}

#[test]
fn an_index_that_leads_out_of_its_folder_is_refused() {
    let place = place();
    let corpus = place.path("corpus");
    assert_success(&tokenize(&place, &[text(&corpus)]));
    let index = place.path("shards/shards.json");
    let good = fs::read_to_string(&index).unwrap();
    for path in ["../../etc/passwd", "/etc/passwd", "text/../../x", ""] {
        fs::write(&index, good.replace("text/train-00000.tokens", path)).unwrap();
        let setting = format!("data.corpus={:?}", text(&place.path("shards")));
        place.refuses(
            path,
            &["--set", &setting],
            &["shards.json", "outside the folder"],
        );
    }
}
