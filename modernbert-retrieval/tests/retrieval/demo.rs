//! The demo on a small registry, as a person runs it.

use std::fmt::Write;
use std::path::Path;
use std::time::{Duration, Instant};

use serde_json::Value;
use tempfile::TempDir;

use crate::functions::registry;
use crate::program::{refused, succeeds, text};

const VERBS: [&str; 6] = ["reads", "writes", "counts", "sorts", "parses", "merges"];
const NOUNS: [&str; 6] = ["lines", "numbers", "dates", "paths", "words", "colors"];

/// Six crates, each with a function for every noun.
fn home() -> TempDir {
    let crates: Vec<(String, String)> = VERBS
        .iter()
        .map(|verb| {
            let mut source = format!("//! A crate that {verb}.\n\n");
            for noun in NOUNS {
                writeln!(
                    source,
                    "/// This function {verb} all {noun} of an input.\npub fn {verb}_{noun}(input: &str) -> Vec<String> {{\n    \
                     input.split('{}').map(|{noun}| format!(\"{verb} {{{noun}}}\")).collect()\n}}\n",
                    &noun[..1]
                )
                .unwrap();
            }
            (format!("{verb}-1.0.0/src/lib.rs"), source)
        })
        .collect();
    let files: Vec<(&str, &str)> = crates
        .iter()
        .map(|(name, content)| (name.as_str(), content.as_str()))
        .collect();
    registry(&files)
}

fn demo<'a>(home: &'a Path, out: &'a Path, more: &[&'a str]) -> Vec<&'a str> {
    let mut arguments = vec!["demo", "--lines", "--device", "flex"];
    arguments.extend(["--cargo-home", text(home), "--out", text(out)]);
    arguments.extend(more);
    arguments
}

#[test]
fn a_small_registry_becomes_a_code_search_within_half_a_minute() {
    let home = home();
    let place = tempfile::tempdir().unwrap();
    let out = place.path().join("search");
    let started = Instant::now();
    let shown = succeeds(&demo(home.path(), &out, &["--minutes", "0.2"]));
    assert!(started.elapsed() < Duration::from_secs(30), "{shown}");
    assert!(shown.contains("6 of 1 held-out crate (16.7 %)"), "{shown}");
    assert!(
        shown
            .lines()
            .last()
            .unwrap()
            .starts_with("demo: bm25_ndcg10=")
    );

    let page = std::fs::read_to_string(out.join("results.md")).unwrap();
    for system in [
        "BM25 ",
        "BM25, identifiers split",
        "pretrained encoder",
        "trained encoder",
    ] {
        assert!(page.contains(&format!("| {system}")), "{page}");
    }
    let results: Value =
        serde_json::from_slice(&std::fs::read(out.join("results.json")).unwrap()).unwrap();
    assert_eq!(results["systems"].as_array().unwrap().len(), 5);
    assert_eq!(
        (
            &results["queries"],
            &results["documents"],
            &results["indexed"]
        ),
        (&Value::from(6), &Value::from(6), &Value::from(36))
    );
    // Text of held-out crates is in no file that is trained on.
    let set = std::fs::read_to_string(out.join("held-out/corpus.jsonl")).unwrap();
    let held_out = VERBS
        .iter()
        .find(|verb| set.contains(&format!("fn {verb}_")));
    for file in ["pairs.jsonl", "text.jsonl"] {
        let trained = std::fs::read_to_string(out.join(file)).unwrap();
        assert!(
            !trained.contains(&format!("fn {}_", held_out.unwrap())),
            "{file}"
        );
    }

    let search = ["search", text(&out), "sorts all dates", "--device", "flex"];
    let found = succeeds(&search);
    assert_eq!(found.lines().count(), 10, "{found}");
    let first = found.lines().next().unwrap();
    for part in ["::", "crate=", "file=", "-1.0.0/src/lib.rs", "line="] {
        assert!(first.contains(part), "{found}");
    }
    let only = [&search[..], &["--filter", "crate=sorts"]].concat();
    let found = succeeds(&only);
    assert_eq!(found.matches("  sorts::sorts_").count(), 6, "{found}");

    // The sets and pairs are files of the other commands.
    let evaluated = succeeds(&["evaluate", "--data", text(&out.join("held-out"))]);
    assert!(evaluated.contains("bm25"));
    refused(
        &demo(home.path(), &out, &[]),
        &["search", "not empty", "--out"],
    );
}

#[test]
fn what_the_demo_cannot_use_is_refused_before_the_work() {
    let place = tempfile::tempdir().unwrap();
    let [out, empty] = ["out", "empty"].map(|name| place.path().join(name));
    std::fs::create_dir(&empty).unwrap();
    for (minutes, said) in [
        ("0", "--minutes is 0"),
        ("nan", "--minutes"),
        ("1e9", "1440"),
    ] {
        refused(&demo(&empty, &out, &["--minutes", minutes]), &[said]);
    }
    refused(
        &demo(&empty, &out, &[]),
        &["empty", "registry/src", "cargo fetch"],
    );
    let one = registry(&[(
        "one-1.0.0/src/lib.rs",
        "/// Does one thing only.\nfn f() {}",
    )]);
    refused(
        &demo(one.path(), &out, &[]),
        &["1 pair", "0 of held-out", "--cargo-home"],
    );
    let inside = one.path().join("out");
    refused(&demo(one.path(), &inside, &[]), &["inside the input"]);
    let file = place.path().join("file");
    std::fs::write(&file, "x").unwrap();
    refused(&demo(one.path(), &file, &[]), &["--out is a file"]);
    assert!(!out.exists() && !inside.exists());
}

#[cfg(unix)]
#[test]
fn an_interruption_ends_the_demo_and_says_how_to_go_on() {
    use std::io::{BufRead, BufReader};
    use std::process::{Command, Stdio};
    let home = home();
    let place = tempfile::tempdir().unwrap();
    let out = place.path().join("search");
    let mut demo = Command::new(env!("CARGO_BIN_EXE_modernbert-retrieval"))
        .args(demo(home.path(), &out, &["--minutes", "2"]))
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    let mut lines = BufReader::new(demo.stdout.take().unwrap()).lines();
    let training = lines.find(|line| line.as_ref().unwrap().starts_with("train step"));
    assert!(training.is_some());
    let pid = demo.id().to_string();
    assert!(
        Command::new("kill")
            .args(["-INT", &pid])
            .status()
            .unwrap()
            .success()
    );
    let last = lines.map(Result::unwrap).last().unwrap();
    assert!(
        last.contains("interrupted; remove") && last.contains("--out"),
        "{last}"
    );
    assert_eq!(demo.wait().unwrap().code(), Some(130));
    assert!(!out.join("results.json").exists());
}
