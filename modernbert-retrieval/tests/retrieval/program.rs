//! The program as a person runs it.

use std::path::Path;
use std::process::{Command, Output};

use serde_json::Value;

use crate::files::{Place, assert_says};

pub(crate) fn program(arguments: &[&str]) -> Output {
    let mut command = Command::new(env!("CARGO_BIN_EXE_modernbert-retrieval"));
    command.args(arguments).output().unwrap()
}

pub(crate) fn succeeds(arguments: &[&str]) -> String {
    let output = program(arguments);
    let stdout = String::from_utf8(output.stdout).unwrap();
    let stderr = String::from_utf8(output.stderr).unwrap();
    assert!(output.status.success(), "{arguments:?}\n{stderr}\n{stdout}");
    stdout
}

pub(crate) fn refused(arguments: &[&str], parts: &[&str]) {
    let output = program(arguments);
    assert_eq!(output.status.code(), Some(2), "{arguments:?}");
    assert_says(&String::from_utf8(output.stderr).unwrap(), parts);
}

pub(crate) fn text(path: &Path) -> &str {
    path.to_str().unwrap()
}

#[test]
fn evaluate_scores_bm25_and_run_files() {
    let place = Place::beir();
    let results = tempfile::tempdir().unwrap();
    let out = results.path().join("out");
    let run = place.write(
        "mine.run",
        "a Q0 d3 1 2.0 x\na Q0 d1 2 1.5 x\na Q0 zzz 3 0.1 x\n",
    );
    let folder = text(place.path());
    let stdout = succeeds(&[
        "evaluate",
        "--data",
        folder,
        "--run",
        text(&run),
        "--out",
        text(&out),
    ]);
    assert_says(
        &stdout,
        &[
            "4 documents, 2 judged queries",
            "| bm25 ",
            "| mine ",
            "1 of its documents is not in the corpus",
            "lacks 1 of the judged",
        ],
    );

    let report: Value =
        serde_json::from_slice(&std::fs::read(out.join("evaluation.json")).unwrap()).unwrap();
    let systems = &report["sets"][0]["systems"];
    // Only d3 contains the word of query b.
    let ndcg = |system: &str, query: &str| {
        systems[system]["queries"][query]["ndcg@10"]
            .as_f64()
            .unwrap()
    };
    assert_eq!(ndcg("bm25", "b"), 1.0);
    // Query a of mine: d1 (grade 2) at rank 2, ideal is 2 + 1 / log2(3).
    let expected = (2.0 / 3f64.log2()) / (2.0 + 1.0 / 3f64.log2());
    assert!((ndcg("mine", "a") - expected).abs() < 1e-12);
    assert_eq!(systems["mine"]["missing_queries"], 1);

    // Its own results are replaced, other files are not.
    let evaluate = ["evaluate", "--data", folder, "--out"];
    succeeds(&[&evaluate[..], &[text(&out)]].concat());
    refused(&[&evaluate[..], &[folder]].concat(), &["the input"]);
    let inside = place.path().join("out");
    refused(
        &[&evaluate[..], &[text(&inside)]].concat(),
        &["inside the input"],
    );
    let file = results.path().join("notes.txt");
    std::fs::write(&file, "notes").unwrap();
    refused(&[&evaluate[..], &[text(&file)]].concat(), &["a file"]);
    refused(
        &[&evaluate[..], &[text(results.path())]].concat(),
        &["not empty"],
    );
    let own = out.join("bm25");
    refused(
        &[&evaluate[..], &[text(&out), "--run", text(&own)]].concat(),
        &["contains the input"],
    );
    let page = std::fs::read_to_string(out.join("evaluation.md")).unwrap();
    assert!(page.contains("| nDCG@10"), "{page}");
    assert!(
        std::fs::read(out.join("scores.png"))
            .unwrap()
            .starts_with(b"\x89PNG")
    );

    // The run files of BM25 give the same scores when they are read again.
    let again = succeeds(&[
        "evaluate",
        "--data",
        folder,
        "--no-bm25",
        "--run",
        text(&out.join("bm25")),
    ]);
    let row = |stdout: &str| {
        stdout
            .lines()
            .find(|line| line.starts_with("| bm25"))
            .unwrap()
            .to_string()
    };
    let cells = |line: String| {
        line.split('|')
            .map(|cell| cell.trim().to_string())
            .collect::<Vec<_>>()
    };
    let name = place.path().file_name().unwrap().to_str().unwrap();
    assert!(out.join("bm25").join(format!("{name}.run")).is_file());
    let (first, second) = (
        cells(row(&stdout)),
        cells(
            again
                .lines()
                .find(|line| line.contains("bm25 "))
                .unwrap()
                .to_string(),
        ),
    );
    assert_eq!(first[2..], second[2..]);
}

/// A folder of results is replaced only if every file in it is as the program wrote it.
#[test]
fn evaluate_keeps_what_it_did_not_write() {
    let place = Place::beir();
    let results = tempfile::tempdir().unwrap();
    let out = results.path().join("out");
    let evaluate = [
        "evaluate",
        "--data",
        text(place.path()),
        "--out",
        text(&out),
    ];
    succeeds(&evaluate);
    let mut runs = std::fs::read_dir(out.join("bm25")).unwrap();
    let run = runs.next().unwrap().unwrap().path();
    let written = std::fs::read_to_string(&run).unwrap();
    std::fs::write(&run, "a Q0 d1 1 1.0 mine\n").unwrap();
    refused(&evaluate, &["not empty"]);
    assert_eq!(
        std::fs::read_to_string(&run).unwrap(),
        "a Q0 d1 1 1.0 mine\n"
    );
    std::fs::write(&run, &written).unwrap();
    std::fs::write(out.join("notes.md"), "mine").unwrap();
    refused(&evaluate, &["not empty"]);
    std::fs::remove_file(out.join("notes.md")).unwrap();
    #[cfg(unix)]
    {
        let precious = results.path().join("precious");
        std::fs::rename(out.join("bm25"), &precious).unwrap();
        std::os::unix::fs::symlink(&precious, out.join("bm25")).unwrap();
        refused(&evaluate, &["not empty"]);
        std::fs::remove_file(out.join("bm25")).unwrap();
        std::fs::rename(&precious, out.join("bm25")).unwrap();
    }
    succeeds(&evaluate);
    // A report of someone else.
    let foreign = results.path().join("foreign");
    std::fs::create_dir(&foreign).unwrap();
    std::fs::write(foreign.join("evaluation.json"), "{\"mine\": 1}").unwrap();
    refused(
        &[
            "evaluate",
            "--data",
            text(place.path()),
            "--out",
            text(&foreign),
        ],
        &["not empty"],
    );
    // An error after the work leaves nothing.
    let failed = results.path().join("failed");
    let corpus = std::fs::read_to_string(place.path().join("corpus.jsonl")).unwrap();
    let spaced = "{\"_id\":\"a b\",\"text\":\"cats and cheese\"}\n";
    place.write("corpus.jsonl", &(corpus + spaced));
    refused(
        &[
            "evaluate",
            "--data",
            text(place.path()),
            "--out",
            text(&failed),
        ],
        &["white space"],
    );
    assert!(!failed.exists());
}

/// Settings at the ends of their types.
#[test]
fn evaluate_and_fuse_bound_their_settings() {
    let place = Place::beir();
    let folder = text(place.path());
    let usual = succeeds(&["evaluate", "--data", folder]);
    let all = succeeds(&[
        "evaluate",
        "--data",
        folder,
        "--top",
        "18446744073709551615",
    ]);
    assert_eq!(usual, all);
    let run = place.write("a.run", "a Q0 d1 1 2 x\na Q0 d2 2 1 x\n");
    let only = [
        "evaluate",
        "--data",
        folder,
        "--no-bm25",
        "--run",
        text(&run),
    ];
    for option in [
        ["--k1", "1"],
        ["--b", "0.1"],
        ["--analyzer", "words"],
        ["--top", "9"],
    ] {
        refused(&[&only[..], &option].concat(), &[option[0], "no effect"]);
    }
    let data = ["evaluate", "--data", folder, "--data", folder];
    refused(&data, &["two sets with the name"]);
    let a = place.write("a.run", "a Q0 d1 1 2 x\na Q0 d2 2 1 x\n");
    let out = place.path().join("fused.run");
    let b = place.write("b.run", "a Q0 d1 1 2 x\na Q0 d2 2 1 x\n");
    let twice = ["fuse", text(&a), text(&a), "--out", text(&out)];
    refused(&twice, &["named twice"]);
    let fuse = ["fuse", text(&a), text(&b), "--out", text(&out)];
    let packed = ["fuse", text(&a), text(&b), "--out", "f.run.gz"];
    refused(&packed, &["f.run.gz", ".run or .txt"]);
    for (more, said) in [
        (&["--weights", "0,0"][..], "all 0"),
        (&["--weights", "1e308,1e308"][..], "1e-6 to 1e6"),
        (&["--weights", "1e-320,1"][..], "1e-6 to 1e6"),
        (&["--k", "1e308"][..], "--k is"),
        (&["--top", "0"][..], "--top is 0"),
    ] {
        refused(&[&fuse[..], more].concat(), &[said]);
        assert!(!out.exists());
    }
    succeeds(&[&fuse[..], &["--weights", "0,1", "--k", "0"]].concat());
    assert!(
        std::fs::read_to_string(&out)
            .unwrap()
            .starts_with("a Q0 d1 1 1 ")
    );
}

#[test]
fn evaluate_puts_the_papers_rows_beside_known_sets() {
    let place = Place::beir();
    let scifact = place.path().join("scifact");
    std::fs::create_dir(&scifact).unwrap();
    for name in ["corpus.jsonl", "queries.jsonl", "qrels"] {
        std::fs::rename(place.path().join(name), scifact.join(name)).unwrap();
    }
    let stdout = succeeds(&["evaluate", "--data", text(&scifact)]);
    assert_says(
        &stdout,
        &[
            "SciFact*",
            "paper: ColBERT, base",
            "73.0",
            "57.0",
            "partial",
        ],
    );
}

#[test]
fn compare_reports_difference_and_significance() {
    let place = Place::beir();
    let base = place.write(
        "base.run",
        "a Q0 d3 1 1 x\na Q0 d1 2 0.5 x\nb Q0 d1 1 1 x\n",
    );
    let new = place.write("new.run", "a Q0 d1 1 1 x\nb Q0 d3 1 1 x\n");
    let arguments = [
        "compare",
        text(&base),
        text(&new),
        "--data",
        text(place.path()),
        "--measures",
        "mrr@10,p@1",
    ];
    let stdout = succeeds(&arguments);
    // mrr: 0.5 to 1 and 0 to 1; both better, so 2 of 4 sign patterns are as large.
    assert_says(
        &stdout,
        &[
            "2 queries in both runs",
            "| mrr@10 ",
            "0.2500",
            "1.0000",
            "+0.7500",
            "0.50000",
            "all 4 patterns",
        ],
    );
}

#[test]
fn what_cannot_be_evaluated_is_named() {
    let place = Place::beir();
    let folder = text(place.path());
    refused(
        &["evaluate", "--data", "/no/set"],
        &["/no/set", "no such folder"],
    );
    refused(&["evaluate", "--data", folder, "--no-bm25"], &["--run"]);
    refused(&["evaluate", "--data", folder, "--top", "0"], &["--top"]);
    refused(
        &["evaluate", "--data", folder, "--split", "dev"],
        &["'dev'", "'test'"],
    );
    refused(
        &["evaluate", "--data", folder, "--measures", "bleu"],
        &["bleu"],
    );
    refused(
        &["evaluate", "--data", folder, "--b", "2"],
        &["k1 0.9 and b 2"],
    );
    refused(
        &["evaluate", "--data", folder, "--subset", "x"],
        &["--subset"],
    );
    let other = place.write("other.run", "zzz Q0 d1 1 1 x\n");
    refused(
        &["evaluate", "--data", folder, "--run", text(&other)],
        &["other", "another set or split"],
    );
    refused(
        &[
            "evaluate",
            "--data",
            folder,
            "--data",
            folder,
            "--run",
            text(&other),
        ],
        &["2 data sets"],
    );
    let twice = place.write("twice.run", "a Q0 d1 1 1 x\na Q0 d1 2 0.5 x\n");
    refused(
        &["evaluate", "--data", folder, "--run", text(&twice)],
        &["twice.run:2", "--keep-best"],
    );
    succeeds(&[
        "evaluate",
        "--data",
        folder,
        "--run",
        text(&twice),
        "--keep-best",
    ]);
    refused(
        &[
            "compare",
            text(&other),
            text(&twice),
            "--data",
            folder,
            "--keep-best",
        ],
        &["in common"],
    );
}

/// Results that could not be written are not a success.
#[cfg(target_os = "linux")]
#[test]
fn a_full_standard_output_is_an_error() {
    let place = Place::beir();
    let full = std::fs::OpenOptions::new()
        .write(true)
        .open("/dev/full")
        .unwrap();
    let output = std::process::Command::new(env!("CARGO_BIN_EXE_modernbert-retrieval"))
        .args(["evaluate", "--data", text(place.path())])
        .stdout(full)
        .output()
        .unwrap();
    let message = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(2), "{message}");
    assert!(message.contains("standard output"), "{message}");
}
