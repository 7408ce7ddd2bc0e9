#![allow(clippy::unwrap_used)]

use std::collections::{HashMap, HashSet};
use std::fs;
use std::io::Write;
use std::path::Path;

use flate2::Compression;
use flate2::write::GzEncoder;
use proptest::prelude::*;
use tempfile::TempDir;

use super::*;

fn folder(files: &[(&str, &[u8])]) -> TempDir {
    let folder = TempDir::new().unwrap();
    for (name, content) in files {
        let path = folder.path().join(name);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, content).unwrap();
    }
    folder
}

fn gzip(text: &str) -> Vec<u8> {
    let mut encoder = GzEncoder::new(Vec::new(), Compression::default());
    encoder.write_all(text.as_bytes()).unwrap();
    encoder.finish().unwrap()
}

fn names(documents: &[Document]) -> Vec<&str> {
    documents
        .iter()
        .map(|document| document.name.as_str())
        .collect()
}

fn error(files: &[(&str, &[u8])], file: &str) -> String {
    let folder = folder(files);
    let error = Corpus::from_path(folder.path().join(file))
        .unwrap_err()
        .to_string();
    error.replace(&folder.path().display().to_string(), "DIR")
}

#[test]
fn reads_a_folder_in_order() {
    let rows =
        "{\"text\": \"one\"}\n\n{\"id\": \"two\", \"text\": \"2\"}\n{\"id\": 3, \"text\": \" \"}\n";
    let folder = folder(&[
        ("b.txt", "\u{feff}text".as_bytes()),
        ("a/z.md", b"# z"),
        ("a/rows.jsonl", rows.as_bytes()),
        ("c.jsonl.gz", &gzip("{\"id\": 7, \"text\": \"seven\"}")),
        ("main.rs", b"fn main() {}"),
        ("blank.txt", b" \n"),
        ("picture.png", b"\xff\xfe"),
    ]);
    let corpus = Corpus::from_path(folder.path()).unwrap();
    assert_eq!(
        names(&corpus.documents),
        ["a/rows.jsonl:1", "two", "a/z.md", "b.txt", "7", "main.rs"]
    );
    assert_eq!(corpus.documents[3].text, "text");
    assert!(matches!(
        corpus.origin,
        Origin::Path {
            documents: 6,
            skipped: 1,
            ..
        }
    ));
    assert!(corpus.origin.to_string().contains("6 documents"));
    let single = Corpus::from_path(folder.path().join("a/rows.jsonl")).unwrap();
    assert_eq!(names(&single.documents), ["rows.jsonl:1", "two"]);
}

#[test]
fn mistakes_name_the_place_and_the_remedy() {
    let missing = error(&[], "none.txt");
    assert!(
        missing.starts_with("DIR/none.txt: cannot be read"),
        "{missing}"
    );
    let none = error(&[("a.png", b"x")], "");
    assert!(
        none.contains("no documents found") && none.contains(".jsonl") && none.contains("1 file"),
        "{none}"
    );
    let ending = error(&[("a.png", b"x")], "a.png");
    assert!(
        ending.contains("a.png: the format of this file is not known"),
        "{ending}"
    );
    assert!(error(&[("a.txt", b"ab\xffc")], "").contains("a.txt:1: not UTF-8 at byte 2"));
    let rows = b"{\"text\": \"x\"}\n\xc3(\n";
    assert!(error(&[("a.jsonl", rows)], "").contains("a.jsonl:2: not UTF-8 at byte 14"));
    assert!(
        error(&[("a.jsonl", b"{\"text\": \"x\"}\n\n{\"text\": ")], "")
            .contains("a.jsonl:3: not JSON")
    );
    assert!(error(&[("a.jsonl", b"[1]")], "").contains("a.jsonl:1: not a JSON object"));
    assert!(
        error(&[("a.jsonl", b"{\"body\": \"x\"}")], "").contains("a.jsonl:1: no field \"text\"")
    );
    assert!(error(&[("a.jsonl", b"{\"text\": 5}")], "").contains("the field \"text\" is a number"));
    let mut broken = gzip(&"{\"text\": \"some words\"}\n".repeat(50));
    broken.truncate(broken.len() - 9);
    assert!(error(&[("a.jsonl.gz", &broken)], "").contains("a.jsonl.gz: not a whole gzip file"));
    assert!(error(&[("a.jsonl.gz", b"plain text")], "").contains("not a whole gzip file"));
}

/// A registry of 30 crates, two versions of each, 4 files in each.
fn registry() -> TempDir {
    let folder = TempDir::new().unwrap();
    for krate in 0..30 {
        for version in ["0.9.0", "0.10.0"] {
            for file in 0..4 {
                let path = folder.path().join(format!(
                    "registry/src/index/some-{krate}-{version}/src/{file}.rs"
                ));
                fs::create_dir_all(path.parent().unwrap()).unwrap();
                // Crates 0 and 1 hold the same files.
                let text = format!("// {} {version} {file}\n", krate.max(1)).repeat(50);
                fs::write(path, text).unwrap();
            }
        }
    }
    folder
}

fn options(home: &Path) -> RegistryOptions {
    RegistryOptions {
        cargo_home: Some(home.into()),
        ..RegistryOptions::default()
    }
}

#[test]
fn a_sample_of_the_registry() {
    let home = registry();
    let corpus = Corpus::from_registry(&options(home.path())).unwrap();
    // The newest versions alone, and equal files once.
    assert_eq!(corpus.documents.len(), 29 * 4);
    assert!(
        corpus
            .documents
            .iter()
            .all(|document| document.name.contains("-0.10.0/src/"))
    );
    assert!(
        corpus
            .documents
            .iter()
            .all(|document| document.group.starts_with("some-"))
    );
    assert_eq!(
        corpus.origin.to_string(),
        "cargo registry: 29 crates, 116 files, 0.1 MB"
    );
    let place = home.path().display().to_string();
    assert!(!format!("{corpus:?}").contains(&place));
    assert_eq!(
        corpus,
        Corpus::from_registry(&options(home.path())).unwrap()
    );
}

#[test]
fn a_small_sample_is_of_many_crates() {
    let home = registry();
    let small = RegistryOptions {
        max_bytes: 10_000,
        crate_bytes: 500,
        ..options(home.path())
    };
    let corpus = Corpus::from_registry(&small).unwrap();
    assert!(
        corpus.bytes() <= 10_000 && corpus.bytes() > 9_000,
        "{}",
        corpus.bytes()
    );
    let groups: HashSet<&str> = corpus
        .documents
        .iter()
        .map(|document| document.group.as_str())
        .collect();
    assert!(groups.len() >= 10, "{}", groups.len());
}

#[test]
fn crates_that_are_left_out_give_no_document() {
    let home = folder(&[
        ("registry/src/index/one-1.0.0/src/lib.rs", &[b'1'; 300]),
        ("registry/src/index/one-1.0.0/README.md", &[b'2'; 300]),
        ("registry/src/index/one-0.9.0/src/lib.rs", &[b'3'; 300]),
        ("registry/src/index/two-1.0.0/src/lib.rs", &[b'4'; 300]),
    ]);
    let mut crates = registry_crates(Some(home.path()));
    crates.sort_by(|a, b| a.name.cmp(&b.name));
    let found: Vec<_> = crates
        .iter()
        .map(|one| (one.name.as_str(), one.version.as_str()))
        .collect();
    assert_eq!(found, [("one", "1.0.0"), ("two", "1.0.0")]);
    let files = crates[0].rust_files();
    assert_eq!(files.len(), 1);
    assert_eq!(files[0].0, "src/lib.rs");
    let options = RegistryOptions {
        without: ["one".to_string()].into(),
        ..options(home.path())
    };
    let corpus = Corpus::from_registry(&options).unwrap();
    assert_eq!(names(&corpus.documents), ["two-1.0.0/src/lib.rs"]);
}

#[test]
fn without_a_registry() {
    let own = folder(&[
        ("one/Cargo.toml", b"x"),
        ("one/src/lib.rs", b"//! One."),
        ("one/src/deep/mod.rs", b"//! Deep."),
        ("target/x.rs", b"generated"),
    ]);
    let home = TempDir::new().unwrap();
    let options = RegistryOptions {
        own_sources: Some(own.path().into()),
        ..options(home.path())
    };
    let corpus = Corpus::from_registry(&options).unwrap();
    assert_eq!(
        names(&corpus.documents),
        ["one/src/deep/mod.rs", "one/src/lib.rs"]
    );
    assert!(
        corpus
            .origin
            .to_string()
            .starts_with("no cargo registry found")
    );
    let nothing = RegistryOptions {
        own_sources: Some(home.path().into()),
        ..options
    };
    assert!(matches!(
        Corpus::from_registry(&nothing),
        Err(CorpusError::NoRegistry)
    ));
}

fn corpus(documents: Vec<Document>) -> Corpus {
    let origin = Origin::OwnSources {
        files: documents.len(),
        bytes: bytes(&documents),
    };
    Corpus { documents, origin }
}

fn document(name: &str, group: &str, text: String) -> Document {
    Document {
        name: name.into(),
        group: group.into(),
        text,
    }
}

#[test]
fn groups_stay_together() {
    let documents: Vec<_> = (0..400)
        .map(|i| {
            document(
                &i.to_string(),
                &(i % 40).to_string(),
                format!("text {}", i % 390),
            )
        })
        .collect();
    let split = split(corpus(documents.clone()), EvalSize::Fraction(0.1), 1).unwrap();
    assert_eq!((split.by, split.duplicates), (SplitBy::Group, 10));
    let groups = |side: &[Document]| {
        side.iter()
            .map(|one| one.group.clone())
            .collect::<HashSet<_>>()
    };
    let texts = |side: &[Document]| {
        side.iter()
            .map(|one| one.text.clone())
            .collect::<HashSet<_>>()
    };
    assert!(groups(&split.train).is_disjoint(&groups(&split.eval)));
    assert!(texts(&split.train).is_disjoint(&texts(&split.eval)));
    assert_eq!(split.train.len() + split.eval.len(), 390);
    let share = bytes(&split.eval) as f64 / (bytes(&split.eval) + bytes(&split.train)) as f64;
    assert!((0.05..=0.1).contains(&share), "{share}");
    assert_eq!(
        split,
        super::split(corpus(documents.clone()), EvalSize::Fraction(0.1), 1).unwrap()
    );
    assert_ne!(
        split.eval,
        super::split(corpus(documents), EvalSize::Fraction(0.1), 2)
            .unwrap()
            .eval
    );
}

#[test]
fn one_group_is_split_by_document_and_one_document_by_lines() {
    let documents: Vec<_> = (0..50)
        .map(|i| document(&i.to_string(), "one", format!("text number {i}")))
        .collect();
    let by_document = split(corpus(documents), EvalSize::Bytes(60), 1).unwrap();
    assert_eq!(
        (by_document.by, by_document.eval.len()),
        (SplitBy::Document, 4)
    );

    let text: String = (0..1000).map(|i| format!("line {i}\n")).collect();
    let by_lines = split(
        corpus(vec![document("a", "a", text.clone())]),
        EvalSize::Fraction(0.05),
        1,
    )
    .unwrap();
    assert_eq!(by_lines.by, SplitBy::Lines);
    assert_eq!(
        format!("{}{}", by_lines.train[0].text, by_lines.eval[0].text),
        text
    );
    assert!(by_lines.eval[0].text.starts_with("line "));
    let share = by_lines.eval[0].text.len() as f64 / text.len() as f64;
    assert!((0.04..=0.05).contains(&share), "{share}");
}

#[test]
fn a_small_corpus_gives_a_fifth_at_most() {
    let documents: Vec<_> = (0..100)
        .map(|i| {
            document(
                &i.to_string(),
                &i.to_string(),
                format!("text number {i:03}"),
            )
        })
        .collect();
    let small = split(corpus(documents.clone()), EvalSize::Bytes(1 << 20), 1).unwrap();
    assert_eq!((small.train.len(), small.eval.len()), (80, 20));
    assert_eq!(small.limited_to, Some(300));
    let fine = split(corpus(documents), EvalSize::Bytes(100), 1).unwrap();
    assert_eq!((fine.eval.len(), fine.limited_to), (6, None));
}

#[test]
fn a_few_long_documents_do_not_lose_half() {
    let documents = vec![
        document("a", "a", "long line\n".repeat(500)),
        document("b", "b", "other\n".repeat(900)),
    ];
    let split = split(corpus(documents), EvalSize::Fraction(0.05), 1).unwrap();
    assert_eq!(
        (split.by, split.train.len(), split.eval.len()),
        (SplitBy::Lines, 2, 1)
    );
}

#[test]
fn too_small_to_split() {
    let one = |text: &str| corpus(vec![document("a", "a", text.into())]);
    assert!(matches!(
        split(one("x"), EvalSize::Fraction(0.5), 1),
        Err(CorpusError::TooSmall { bytes: 1 })
    ));
    assert!(matches!(
        split(corpus(vec![]), EvalSize::Bytes(5), 1),
        Err(CorpusError::TooSmall { bytes: 0 })
    ));
    assert!(matches!(
        split(one("x y"), EvalSize::Fraction(1.5), 1),
        Err(CorpusError::Fraction(_))
    ));
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn nothing_is_on_both_sides(
        texts in prop::collection::vec(("[a-c]", "[a-zé\n ]{1,12}"), 1..20),
        share in 0.01f64..0.99,
        seed: u64,
    ) {
        let documents: Vec<_> =
            texts.iter().enumerate().map(|(i, (group, text))| document(&i.to_string(), group, text.clone())).collect();
        let distinct: HashSet<&str> = texts.iter().map(|(_, text)| text.as_str()).collect();
        let total = distinct.iter().map(|text| text.len()).sum::<usize>();
        // At most half is held out, and at least one byte.
        let target = ((total as f64 * share) as usize).clamp(1, (total / 2).max(1));
        // Sizes of what is never divided: groups, or the documents of a single group. The first of equal texts stays.
        let mut kept: Vec<&Document> = Vec::new();
        for one in &documents {
            if kept.iter().all(|before| before.text != one.text) {
                kept.push(one);
            }
        }
        let single = kept.iter().all(|one| one.group == kept[0].group);
        let mut units: HashMap<&str, usize> = HashMap::new();
        for one in &kept {
            *units.entry(if single { &one.name } else { &one.group }).or_default() += one.text.len();
        }
        let whole_units_fit = units.len() > 1 && units.values().any(|&size| size <= 2 * target);
        let split = match split(corpus(documents.clone()), EvalSize::Fraction(share), seed) {
            Ok(split) => split,
            // Only a text that must be cut and has no position to cut at is refused.
            Err(CorpusError::TooSmall { bytes }) => {
                prop_assert_eq!(bytes, total);
                prop_assert!(!whole_units_fit, "{texts:?}");
                return Ok(());
            }
            Err(error) => return Err(TestCaseError::fail(error.to_string())),
        };
        let by = match (whole_units_fit, single) {
            (false, _) => SplitBy::Lines,
            (true, true) => SplitBy::Document,
            (true, false) => SplitBy::Group,
        };
        prop_assert_eq!(split.by, by);
        prop_assert!(!split.train.is_empty() && !split.eval.is_empty());
        prop_assert_eq!(bytes(&split.train) + bytes(&split.eval), total);
        let texts_of = |side: &[Document]| -> Vec<String> {
            side.iter().map(|one| one.text.clone()).collect()
        };
        let (train, eval) = (texts_of(&split.train), texts_of(&split.eval));
        if split.by == SplitBy::Lines {
            // One document is cut in two; every other one is trained on whole.
            prop_assert_eq!(eval.len(), 1);
            let mut cut = distinct.iter().filter(|text| train.iter().all(|one| one != *text));
            let (whole, next) = (cut.next(), cut.next());
            prop_assert!(whole.is_some() && next.is_none());
            let joined = train.iter().map(|one| format!("{one}{}", eval[0]));
            prop_assert!(joined.into_iter().any(|text| whole == Some(&text.as_str())));
        } else {
            prop_assert!(eval.iter().all(|one| !train.contains(one)));
            // Whole units fit the share, but for a smallest one of at most twice its size.
            prop_assert!(bytes(&split.eval) <= 2 * target, "{} of {target}", bytes(&split.eval));
            let groups = |side: &[Document]| -> HashSet<String> {
                side.iter().map(|one| one.group.clone()).collect()
            };
            if split.by == SplitBy::Group {
                prop_assert!(groups(&split.train).is_disjoint(&groups(&split.eval)));
            }
        }
    }

    /// Of many documents of similar size the share is held out, to within one of them.
    #[test]
    fn the_share_is_held_out(
        count in 40usize..120,
        one_group: bool,
        share in 0.05f64..0.5,
        seed: u64,
    ) {
        let documents: Vec<_> = (0..count)
            .map(|i| {
                let group = if one_group { "one".to_string() } else { i.to_string() };
                document(&i.to_string(), &group, format!("text number {i:03}"))
            })
            .collect();
        let size = documents[0].text.len();
        let split = split(corpus(documents), EvalSize::Fraction(share), seed).unwrap();
        let target = (count * size) as f64 * share;
        let held = bytes(&split.eval) as f64;
        prop_assert!(held <= target && held > target - size as f64, "{held} of {target}");
    }
}
