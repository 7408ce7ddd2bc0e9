//! `train`, `mine` and `search` with a text, as a person runs them.

use std::path::{Path, PathBuf};

use modernbert::model::ModernBert;
use serde_json::{Value, json};
use tempfile::TempDir;

use crate::files::Place;
use crate::program::{program, refused, succeeds, text};

/// Rows of distinct texts; `negatives` of each.
fn rows(count: usize, negatives: usize, scores: bool) -> String {
    let words = |i: usize, kind: usize| -> String {
        let word = |at: usize| ["one", "two", "three"][(i / 3usize.pow(at as u32)) % 3];
        format!("{} {} {} {} {kind}", word(0), word(1), word(2), word(3))
    };
    let row = |i: usize| -> String {
        let mut row = json!({ "query": words(i, 0), "positive": words(i, 1) });
        let list: Vec<String> = (0..negatives).map(|n| words(i, 2 + n)).collect();
        if negatives > 0 {
            row["negatives"] = json!(list);
        }
        if scores {
            let values: Vec<f64> = (0..=negatives).map(|n| 1.0 - 0.3 * n as f64).collect();
            row["scores"] = json!(values);
        }
        format!("{row}\n")
    };
    (0..count).map(row).collect()
}

struct Setting {
    model: TempDir,
    set: Place,
    place: TempDir,
}

impl Setting {
    fn new() -> Self {
        Self {
            model: tiny_models::folder(&tiny_models::config(), ModernBert::new),
            set: Place::beir(),
            place: tempfile::tempdir().unwrap(),
        }
    }

    fn file(&self, name: &str, content: &str) -> PathBuf {
        let path = self.place.path().join(name);
        std::fs::write(&path, content).unwrap();
        path
    }

    fn path(&self, name: &str) -> PathBuf {
        self.place.path().join(name)
    }

    fn arguments<'a>(&'a self, rows: &'a Path, out: &'a Path, more: &[&'a str]) -> Vec<&'a str> {
        let mut all = vec![
            "train",
            "--device",
            "flex",
            "--lines",
            "--learning-rate",
            "1e-3",
        ];
        all.extend(["--model", text(self.model.path()), "--train", text(rows)]);
        all.extend(["--out", text(out)]);
        all.extend(more);
        all
    }
}

fn copy(from: &Path, to: &Path) {
    std::fs::create_dir_all(to).unwrap();
    for entry in std::fs::read_dir(from).unwrap() {
        let entry = entry.unwrap();
        let target = to.join(entry.file_name());
        if entry.path().is_dir() {
            copy(&entry.path(), &target);
        } else {
            std::fs::copy(entry.path(), target).unwrap();
        }
    }
}

/// Step, split, loss and score of each row of a log.
fn log(folder: &Path) -> Vec<(u64, Value, Value, Value)> {
    let text = std::fs::read_to_string(folder.join("metrics.jsonl")).unwrap();
    let row = |line: &str| {
        let row: Value = serde_json::from_str(line).unwrap();
        let get = |key: &str| row[key].clone();
        (
            row["step"].as_u64().unwrap(),
            get("split"),
            get("loss"),
            get("score"),
        )
    };
    text.lines().map(row).collect()
}

#[test]
fn a_run_resumes_bit_for_bit() {
    let setting = Setting::new();
    let pairs = setting.file("pairs.jsonl", &rows(24, 1, false));
    let scored = setting.file("scored.jsonl", &rows(24, 3, true));
    let eval = text(setting.set.path()).to_string();
    for (name, rows, more) in [
        (
            "single",
            &pairs,
            &["--accumulate", "2", "--token-budget", "40"][..],
        ),
        (
            "tokens",
            &scored,
            &[
                "--per-token",
                "--loss",
                "distill",
                "--query-length",
                "12",
                "--document-length",
                "20",
            ][..],
        ),
    ] {
        let mut more = more.to_vec();
        more.extend(["--batch", "4", "--steps", "8", "--save-every", "3"]);
        more.extend(["--evaluate-every", "4", "--eval", &eval]);
        let whole = setting.path(&format!("{name}-whole"));
        let stdout = succeeds(&setting.arguments(rows, &whole, &more));
        assert!(stdout.contains("nDCG@10"), "{stdout}");
        // The folder as a process leaves it that is killed after its checkpoint of step 6.
        let killed = setting.path(&format!("{name}-killed"));
        copy(&whole, &killed);
        std::fs::remove_dir_all(killed.join("checkpoints/step-00000008")).unwrap();
        std::fs::remove_file(killed.join("model.safetensors")).unwrap();
        let arguments = setting.arguments(rows, &killed, &more);
        refused(&arguments, &["--out"]);
        let resumed = [&arguments[..], &["--resume"]].concat();
        let stdout = succeeds(&resumed);
        assert!(stdout.contains("resuming from step 6 of 8"), "{stdout}");
        let weights = |folder: &Path| std::fs::read(folder.join("model.safetensors")).unwrap();
        assert!(weights(&whole) == weights(&killed), "{name}: other weights");
        assert_eq!(log(&whole), log(&killed), "{name}");
        if name == "tokens" {
            let projection =
                |folder: &Path| std::fs::read(folder.join("1_Dense/model.safetensors")).unwrap();
            assert!(projection(&whole) == projection(&killed));
        }
        if name == "tokens" {
            // Options of the other kind do not change the folder's settings.
            let out = setting.path("pooled");
            let mut arguments =
                setting.arguments(rows, &out, &["--steps", "1", "--pooling", "cls"]);
            let at = arguments.iter().position(|a| *a == "--model").unwrap();
            arguments[at + 1] = text(&whole);
            refused(&arguments, &["--pooling", "its folder says so"]);
        }
        // Other settings are another run.
        let other = [&resumed[..], &["--seed", "5"]].concat();
        std::fs::remove_file(killed.join("model.safetensors")).unwrap();
        let said = ["other data, another model or other settings"];
        refused(&other, &said);
        // Another evaluation set is another run too, because it decides the best weights.
        let judgments = setting.set.path().join("qrels/test.tsv");
        let before = std::fs::read_to_string(&judgments).unwrap();
        std::fs::write(&judgments, format!("{before}b\td2\t1\n")).unwrap();
        refused(&resumed, &said);
        std::fs::write(&judgments, before).unwrap();
        succeeds(&resumed);
    }
}

#[test]
fn losses_and_files_of_rows_are_read() {
    let setting = Setting::new();
    let csv = "anchor,positive,negative\none two,two,three three\nthree,one one,two two\n";
    let csv = setting.file("rows.csv", csv);
    let scored = setting.file(
        "scored.jsonl",
        "{\"query\":\"one\",\"documents\":[\"two\",\"three\"],\"scores\":[0.9,0.1]}\n\
         {\"question\":\"two two\",\"documents\":[\"one one\",\"three one\"],\"scores\":[1,-2.5e-1]}\n",
    );
    for (name, rows, more) in [
        (
            "all",
            &csv,
            &[
                "--directions",
                "query-query,document-query,document-document",
            ][..],
        ),
        (
            "symmetric",
            &csv,
            &["--directions", "document-query", "--per-direction"][..],
        ),
        (
            "hard",
            &csv,
            &["--hardness", "all", "--hardness-strength", "5"][..],
        ),
        (
            "matryoshka",
            &csv,
            &["--matryoshka", "32,16,8", "--pooling", "weighted-mean"][..],
        ),
        ("mse", &scored, &["--loss", "mse"][..]),
        (
            "margin",
            &scored,
            &["--loss", "margin-mse", "--no-normalize"][..],
        ),
        (
            "distill",
            &scored,
            &[
                "--loss",
                "distill-temperature",
                "--student-temperature",
                "2",
            ][..],
        ),
    ] {
        let out = setting.path(name);
        let more = [more, &["--batch", "2", "--steps", "2"]].concat();
        succeeds(&setting.arguments(rows, &out, &more));
        assert!(out.join("modules.json").is_file(), "{name}");
        assert!(!out.join("checkpoints").exists(), "{name}");
    }
}

#[test]
fn prompts_without_effect_and_runs_that_are_not_there_are_refused() {
    let setting = Setting::new();
    let good = setting.file("good.jsonl", &rows(4, 1, false));
    let out = setting.path("out");
    let long = "one two three one two three ";
    let options = ["--query-prompt", long, "--max-length", "6"];
    refused(
        &setting.arguments(&good, &out, &options),
        &["prompt", "shorten"],
    );
    refused(
        &setting.arguments(&good, &out, &["--resume"]),
        &["out", "there is no run", "--resume"],
    );
    let pooling = setting.model.path().join("1_Pooling");
    std::fs::create_dir(&pooling).unwrap();
    std::fs::write(pooling.join("config.json"), "{\"include_prompt\": false}").unwrap();
    refused(
        &setting.arguments(&good, &out, &["--query-prompt", "q: "]),
        &["include_prompt"],
    );
    assert!(!out.exists());
}

#[test]
fn rows_and_settings_that_cannot_be_used_are_refused() {
    let setting = Setting::new();
    let good = setting.file("good.jsonl", &rows(4, 1, false));
    let out = setting.path("out");
    for (name, content, parts) in [
        ("empty.jsonl", "", &["holds no rows"][..]),
        (
            "text.jsonl",
            "\"only a text\"\n",
            &["text.jsonl:1", "query"][..],
        ),
        (
            "blank.jsonl",
            "{\"query\":\"a\",\"positive\":\"b\"}\n{\"query\":\" \",\"positive\":\"c\"}\n",
            &["blank.jsonl:2", "the query is empty"][..],
        ),
        (
            "uneven.jsonl",
            "{\"query\":\"a\",\"positive\":\"b\",\"negatives\":[\"c\"]}\n{\"query\":\"d\",\"positive\":\"e\"}\n",
            &["uneven.jsonl:2", "1 document for", "has 2"][..],
        ),
        (
            "nan.csv",
            "query,positive,negative,scores\na,b,c,\"[1, NaN]\"\n",
            &["nan.csv:2", "scores"][..],
        ),
        (
            "large.jsonl",
            "{\"query\":\"a\",\"documents\":[\"b\"],\"scores\":[1e999]}\n",
            &["large.jsonl:1", "number"][..],
        ),
        (
            "short.jsonl",
            "{\"query\":\"a\",\"documents\":[\"b\",\"c\"],\"scores\":[1]}\n",
            &["short.jsonl:1", "1 score for 2 documents"][..],
        ),
        (
            "same.jsonl",
            "{\"query\":\"a\",\"positive\":\"b\"}\n{\"query\":\"a\",\"positive\":\"b\"}\n",
            &["--batch", "1 of 2"][..],
        ),
        (
            "own.jsonl",
            "{\"query\":\"a\",\"positive\":\"b\",\"negative\":\"c\"}\n{\"query\":\"d\",\"positive\":\"e\",\"negative\":\"e\"}\n",
            &["row 2", "its own negative", "--allow-duplicates"][..],
        ),
        (
            "two-queries.jsonl",
            "{\"query\":\"a\",\"anchor\":\"b\",\"positive\":\"c\"}\n",
            &["two-queries.jsonl:1", "\"query\" and \"anchor\""][..],
        ),
        (
            "two-positives.jsonl",
            "{\"query\":\"a\",\"positive\":\"b\",\"answer\":\"c\"}\n",
            &["two-positives.jsonl:1", "\"positive\" and \"answer\""][..],
        ),
        (
            "scored.jsonl",
            "{\"query\":\"a\",\"positive\":\"b\",\"score\":1}\n{\"query\":\"c\",\"positive\":\"d\",\"score\":0}\n",
            &["scored.jsonl:1", "this loss ignores", "--loss", "mse"][..],
        ),
        (
            "labelled.jsonl",
            "{\"query\":\"a\",\"positive\":\"b\",\"label\":1}\n{\"query\":\"c\",\"positive\":\"d\",\"label\":0}\n",
            &["labelled.jsonl:1", "\"label\" is not read", "\"score\""][..],
        ),
        (
            "two-scores.jsonl",
            "{\"query\":\"a\",\"positive\":\"b\",\"score\":1,\"scores\":[0.2]}\n",
            &["two-scores.jsonl:1", "\"scores\" and \"score\""][..],
        ),
        (
            "hard.csv",
            "query,positive,hard_negative\na,b,c\nd,e,f\n",
            &[
                "hard.csv:2",
                "\"hard_negative\" is not read",
                "name it \"negative\"",
            ][..],
        ),
        (
            "capital.csv",
            "query,positive,Negative\na,b,c\nd,e,f\n",
            &["capital.csv:2", "\"Negative\" is not read"][..],
        ),
        (
            "itself.jsonl",
            "{\"query\":\"a\",\"positive\":\"b\",\"negative\":\"c\"}\n{\"query\":\"d\",\"positive\":\"e\",\"negative\":\"d\"}\n",
            &["row 2", "has its query \"d\" as a negative"][..],
        ),
        (
            "equal.jsonl",
            "{\"query\":\"a\",\"positive\":\"a\"}\n{\"query\":\"d\",\"positive\":\"d\"}\n",
            &["its query as its positive", "--allow-duplicates"][..],
        ),
        (
            "gap.jsonl",
            "{\"query\":\"a\",\"positive\":\"b\",\"negative_1\":null,\"negative_2\":\"c\"}\n",
            &[
                "gap.jsonl:1",
                "\"negative_2\"",
                "\"negative_1\"",
                "without gaps",
            ][..],
        ),
        (
            "numbers.jsonl",
            "{\"query\":\"a\",\"positive\":\"b\",\"negative_1\":\"c\",\"negative_3\":\"d\"}\n",
            &["numbers.jsonl:1", "\"negative_3\" follows", "without gaps"][..],
        ),
    ] {
        let file = setting.file(name, content);
        let arguments = setting.arguments(&file, &out, &["--batch", "2", "--steps", "1"]);
        refused(&arguments, parts);
        assert!(!out.join("model.safetensors").exists(), "{name}");
        let _ = std::fs::remove_dir_all(&out);
    }
    for (more, parts) in [
        (&["--loss", "mse"][..], &["scores"][..]),
        (&["--loss", "mse", "--scale", "3"][..], &["--scale"][..]),
        (&["--batch", "0"][..], &["--batch is 0"][..]),
        (
            &["--accumulate", "9223372036854775807"][..],
            &["--accumulate", "at most"][..],
        ),
        (&["--patience", "2"][..], &["--patience", "--eval"][..]),
        (
            &["--evaluate-every", "2"][..],
            &["--evaluate-every", "--eval"][..],
        ),
        (&["--learning-rate", "0"][..], &["--learning-rate is 0"][..]),
        (
            &["--learning-rate", "1e-320"][..],
            &["--learning-rate is 1e-320", "f32"][..],
        ),
        (&["--matryoshka", "64"][..], &["--matryoshka", "32"][..]),
        (
            &["--per-token", "--matryoshka", "8"][..],
            &["--matryoshka"][..],
        ),
        (
            &["--query-length", "8"][..],
            &[
                "--query-length",
                "a vector per token",
                "one vector per text",
            ][..],
        ),
        (
            &["--no-query-expansion"][..],
            &["--no-query-expansion", "a vector per token"][..],
        ),
        (
            &["--preset", "paper-multi", "--pooling", "cls"][..],
            &["--pooling", "one vector per text", "--preset says so"][..],
        ),
        (
            &["--per-token", "--similarity", "dot"][..],
            &["--similarity", "one vector per text", "--per-token"][..],
        ),
        (
            &["--teacher-temperature", "2"][..],
            &["--teacher-temperature", "distill-temperature"][..],
        ),
        (
            &["--per-token", "--query-length", "2"][..],
            &["the longest query is 2"][..],
        ),
        (
            &["--per-token", "--query-prefix", "[nothing]"][..],
            &["[nothing]", "--query-prefix"][..],
        ),
        (
            &["--directions", "query-query", "--per-direction"][..],
            &["--per-direction"][..],
        ),
        (&["--hardness", "all"][..], &["--hardness-strength"][..]),
        (
            &["--hardness", "all", "--hardness-strength", "1e300"][..],
            &["--hardness-strength is 1e300", "f32"][..],
        ),
        (&["--scale", "1e300"][..], &["--scale is 1e300", "f32"][..]),
        (&["--split", "dev"][..], &["--split", "--eval"][..]),
        (
            &["--save-every-minutes", "1e300"][..],
            &["--save-every-minutes is 1e300", "ten years"][..],
        ),
    ] {
        let mut arguments = setting.arguments(&good, &out, &["--steps", "1"]);
        if let Some(at) = arguments
            .iter()
            .position(|a| *a == "--learning-rate")
            .filter(|_| more[0] == "--learning-rate")
        {
            arguments.drain(at..at + 2);
        }
        arguments.extend(more);
        refused(&arguments, parts);
        let _ = std::fs::remove_dir_all(&out);
    }
    let pairs = setting.file("pairs.jsonl", &rows(4, 0, false));
    let single = setting.arguments(&pairs, &out, &["--steps", "1", "--batch", "1"]);
    refused(&single, &["--batch is 1", "nothing is compared"]);
    let _ = std::fs::remove_dir_all(&out);
    let mut long = setting.arguments(&good, &out, &["--epochs", "1e300"]);
    refused(&long, &["--epochs", "at most"]);
    let _ = std::fs::remove_dir_all(&out);
    // A folder of other files is not a run that can be resumed.
    let mine = setting.path("mine");
    std::fs::create_dir(&mine).unwrap();
    std::fs::write(mine.join("model.safetensors"), "mine").unwrap();
    long = setting.arguments(&good, &mine, &["--steps", "1", "--resume"]);
    refused(&long, &["not empty", "leave --resume out"]);
    assert_eq!(
        std::fs::read(mine.join("model.safetensors")).unwrap(),
        b"mine"
    );
    let inside = setting.model.path().join("inside");
    refused(
        &setting.arguments(&good, &inside, &["--steps", "1"]),
        &["--out"],
    );
    let full = setting.path("full");
    std::fs::create_dir(&full).unwrap();
    std::fs::write(full.join("notes.txt"), "mine").unwrap();
    refused(
        &setting.arguments(&good, &full, &["--steps", "1"]),
        &["not empty"],
    );
}

#[test]
fn mined_negatives_are_rows_to_train_on_and_never_held_out() {
    let setting = Setting::new();
    let pairs = setting.file(
        "pairs.jsonl",
        "{\"query\":\"cats\",\"positive\":\"cats purr\"}\n\
         {\"query\":\"dogs\",\"positive\":\"dogs bark at cats\"}\n\
         {\"query\":\"cats and dogs\",\"positive\":\"cats and dogs sleep\"}\n",
    );
    let held_out = tempfile::tempdir().unwrap();
    std::fs::create_dir(held_out.path().join("qrels")).unwrap();
    for (name, content) in [
        (
            "corpus.jsonl",
            "{\"_id\":\"1\",\"text\":\"dogs  bark at cats\"}\n",
        ),
        ("queries.jsonl", "{\"_id\":\"q\",\"text\":\"a query\"}\n"),
        ("qrels/test.tsv", "query-id\tcorpus-id\tscore\nq\t1\t1\n"),
    ] {
        std::fs::write(held_out.path().join(name), content).unwrap();
    }
    let out = setting.path("mined.jsonl");
    let folder = text(held_out.path());
    let sets = ["--corpus", folder, "--held-out", folder];
    let mine = ["mine", "--train", text(&pairs), "--out"];
    refused(
        &[&mine[..], &[text(&out)], &sets].concat(),
        &["--corpus", "none can be a negative"],
    );
    refused(&[&mine[..], &["mined.txt"]].concat(), &["ends in .jsonl"]);
    let scored = setting.file(
        "scored.jsonl",
        "{\"query\":\"a\",\"positive\":\"b\",\"score\":0}\n",
    );
    refused(
        &[
            "mine",
            "--train",
            text(&scored),
            "--out",
            "scored-out.jsonl",
        ],
        &["scored.jsonl:1", "remove the scores"],
    );
    let arguments = [
        "mine",
        "--train",
        text(&pairs),
        "--negatives",
        "1",
        "--out",
        text(&out),
    ];
    let stdout = succeeds(&arguments);
    assert!(stdout.contains("3 rows"), "{stdout}");
    let mined = std::fs::read_to_string(&out).unwrap();
    let first: Value = serde_json::from_str(mined.lines().next().unwrap()).unwrap();
    assert_eq!(first["positive"], "cats purr");
    assert_eq!(first["negatives"].as_array().unwrap().len(), 1);
    refused(&arguments, &["exists already"]);
    let clean = setting.path("clean.jsonl");
    let arguments = [
        "mine",
        "--train",
        text(&pairs),
        "--negatives",
        "1",
        "--out",
        text(&clean),
    ];
    succeeds(&[&arguments[..], &["--held-out", text(held_out.path())]].concat());
    let mined = std::fs::read_to_string(&clean).unwrap();
    for line in mined.lines() {
        let row: Value = serde_json::from_str(line).unwrap();
        assert_ne!(row["negatives"][0], "dogs bark at cats", "{row}");
    }
    // The positive "dogs bark at cats" is held out and no candidate; its score still bounds those of negatives.
    let bounded = setting.path("bounded.jsonl");
    let mut arguments = arguments;
    arguments[6] = text(&bounded);
    let held_out = ["--held-out", text(held_out.path()), "--share", "1"];
    succeeds(&[&arguments[..], &held_out].concat());
    let mined = std::fs::read_to_string(&bounded).unwrap();
    assert!(mined.contains("\"query\":\"dogs\""), "{mined}");
    // A model without files that say how it makes vectors is refused; a trained one ranks, and the result is trained on.
    let model = text(setting.model.path());
    let by_model = setting.path("by-model.jsonl");
    let arguments = [
        "mine",
        "--train",
        text(&pairs),
        "--negatives",
        "1",
        "--out",
        text(&by_model),
    ];
    refused(
        &[&arguments[..], &["--model", model]].concat(),
        &["modules.json"],
    );
    let trained = setting.path("trained");
    let more = ["--batch", "2", "--steps", "1", "--allow-duplicates"];
    succeeds(&setting.arguments(&out, &trained, &more));
    succeeds(
        &[
            &arguments[..],
            &["--device", "flex", "--model", text(&trained)],
        ]
        .concat(),
    );
    assert_eq!(
        std::fs::read_to_string(&by_model).unwrap().lines().count(),
        3
    );
    let output = program(
        &[
            &arguments[..4],
            &["0", "--out", text(&setting.path("x.jsonl"))],
        ]
        .concat(),
    );
    assert_eq!(output.status.code(), Some(2));
}
