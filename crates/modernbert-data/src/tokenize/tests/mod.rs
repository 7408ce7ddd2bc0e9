#![allow(clippy::unwrap_used)]

use std::collections::BTreeMap;
use std::fs;
use std::ops::ControlFlow;
use std::path::{Path, PathBuf};
use std::sync::LazyLock;

use modernbert_files::tokenizer::Tokenizer;
use modernbert_files::tokenizer::train::{TrainOptions, train};
use tempfile::TempDir;

use super::*;
use crate::formats::Fields;
use crate::loader::{LoaderOptions, TrainStream};
use crate::mask::Masker;
use crate::shard::{Check, Cut, LongDocuments};

mod safety;

static TOKENIZER: LazyLock<Tokenizer> = LazyLock::new(|| {
    let options = TrainOptions {
        vocab_size: 320,
        ..TrainOptions::default()
    };
    let texts: Vec<String> = (0..50).map(document).collect();
    train(texts.iter().map(String::as_str), &options).unwrap()
});

/// Document `i`: 5 to 64 words.
fn document(i: usize) -> String {
    let words = [
        "the", "model", "reads", "long", "rows", "of", "tokens", "and", "guesses",
    ];
    let count = 5 + i * 7 % 60;
    let words: Vec<&str> = (0..count)
        .map(|j| words[(i * 31 + j * j) % words.len()])
        .collect();
    format!("{i} {}.", words.join(" "))
}

fn write(path: &Path, content: impl AsRef<[u8]>) -> PathBuf {
    fs::create_dir_all(path.parent().unwrap()).unwrap();
    fs::write(path, content).unwrap();
    path.into()
}

fn jsonl(documents: impl Iterator<Item = usize>) -> String {
    let row = |i| serde_json::json!({ "text": document(i) }).to_string();
    documents.map(row).collect::<Vec<_>>().join("\n")
}

fn source(name: &str, paths: &[&Path], proportion: f64) -> TokenizeSource {
    TokenizeSource {
        name: name.into(),
        paths: paths.iter().map(|&path| path.into()).collect(),
        proportion,
        licence: "CC0".into(),
        fields: Fields::default(),
    }
}

fn options() -> TokenizeFolderOptions {
    TokenizeFolderOptions {
        eval_fraction: 0.2,
        shard_tokens: 2_000,
        threads: 2,
        ..TokenizeFolderOptions::default()
    }
}

fn make(
    sources: &[TokenizeSource],
    out: &Path,
    options: &TokenizeFolderOptions,
) -> Result<TokenizeReport, TokenizeFolderError> {
    tokenize(&TOKENIZER, sources, out, options, &mut |_| {
        ControlFlow::Continue(())
    })
}

/// Every file below a folder.
fn files(folder: &Path) -> BTreeMap<String, Vec<u8>> {
    let all = crate::formats::files_below(folder).unwrap();
    all.iter()
        .map(|path| {
            (
                crate::formats::relative(folder, path),
                fs::read(path).unwrap(),
            )
        })
        .collect()
}

/// All samples of one split of a folder's first source.
fn samples(folder: &Path, eval: bool) -> Vec<Vec<u32>> {
    let opened = TokenFolder::open(folder, Check::Whole).unwrap();
    let samples = if eval {
        opened.eval_sources(Cut::WHOLE).remove(0).samples
    } else {
        opened.train_sources(Cut::WHOLE).remove(0).samples
    };
    (0..samples.len()).map(|index| samples.get(index)).collect()
}

fn place() -> TempDir {
    tempfile::tempdir().unwrap()
}

#[test]
fn every_document_is_there_once_and_as_the_tokenizer_has_it() {
    let folder = place();
    let rows = write(&folder.path().join("rows.jsonl"), jsonl(0..200));
    let out = folder.path().join("out");
    let report = make(&[source("text", &[&rows], 1.0)], &out, &options()).unwrap();
    let entry = &report.index.sources[0];
    assert_eq!(entry.train.documents + entry.eval.documents, 200);
    assert!(entry.train.shards.len() > 1, "several shards");
    let (train, eval) = (samples(&out, false), samples(&out, true));
    assert_eq!(
        train.iter().map(|ids| ids.len() as u64).sum::<u64>(),
        entry.train.tokens
    );
    assert!(
        (20..=60).contains(&eval.len()),
        "{} of 200 for a share of 0.2",
        eval.len()
    );
    // Both splits together are all documents, and no document is in both.
    let mut found = [train, eval].concat();
    let mut expected: Vec<Vec<u32>> = (0..200)
        .map(|i| TOKENIZER.encode(&document(i)).unwrap())
        .collect();
    found.sort();
    expected.sort();
    assert_eq!(found, expected);
}

#[test]
fn the_number_of_threads_changes_no_byte() {
    let folder = place();
    let rows = write(&folder.path().join("rows.jsonl"), jsonl(0..150));
    let sources = [source("text", &[&rows], 1.0)];
    let made = [1, 2, 4].map(|threads| {
        let out = folder.path().join(format!("out-{threads}"));
        make(
            &sources,
            &out,
            &TokenizeFolderOptions {
                threads,
                ..options()
            },
        )
        .unwrap();
        files(&out)
    });
    assert!(made[0].len() >= 5 && made.iter().all(|files| *files == made[0]));
}

#[test]
fn equal_documents_are_on_one_side() {
    let folder = place();
    let rows = jsonl((0..80).chain(0..80).chain(40..120));
    let rows = write(&folder.path().join("rows.jsonl"), rows);
    let out = folder.path().join("out");
    make(&[source("text", &[&rows], 1.0)], &out, &options()).unwrap();
    let (train, eval) = (samples(&out, false), samples(&out, true));
    assert!(!eval.is_empty() && eval.iter().all(|sample| !train.contains(sample)));
    // Another seed holds other documents out.
    let other = folder.path().join("other");
    make(
        &[source("text", &[&rows], 1.0)],
        &other,
        &TokenizeFolderOptions {
            seed: 18,
            ..options()
        },
    )
    .unwrap();
    assert_ne!(samples(&other, true), eval);
}

#[test]
fn tokens_from_elsewhere_get_their_ends() {
    let fixtures = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/mds/tokens-static");
    let folder = place();
    let out = folder.path().join("out");
    let options = TokenizeFolderOptions {
        eval_fraction: 0.0,
        min_length: 3,
        ..options()
    };
    // Ids up to 50282 are not in this vocabulary.
    let refused = make(&[source("mds", &[&fixtures], 1.0)], &out, &options)
        .unwrap_err()
        .to_string();
    assert!(
        refused.contains("token id 50281 is not in a vocabulary of 320"),
        "{refused}"
    );
    assert!(!out.exists());

    let small = folder.path().join("small");
    fs::create_dir(&small).unwrap();
    let entry = serde_json::json!({
        "column_encodings": ["bytes"], "column_names": ["input_ids"], "column_sizes": [null], "compression": null, "format": "mds",
        "hashes": [], "raw_data": {"basename": "shard.00000.mds", "bytes": 72, "hashes": {}}, "samples": 2, "version": 2, "zip_data": null
    });
    write(
        &small.join("index.json"),
        serde_json::json!({ "version": 2, "shards": [entry] }).to_string(),
    );
    let special = TOKENIZER.special();
    let ended = [special.cls, 40, 41, special.sep];
    let mut bytes = Vec::new();
    for word in [2u32, 16, 16 + 4 + 16, 16 + 4 + 16 + 4 + 32] {
        bytes.extend(word.to_le_bytes());
    }
    for ids in [&[40u32, 41][..], &ended] {
        bytes.extend((8 * ids.len() as u32).to_le_bytes());
        bytes.extend(ids.iter().flat_map(|&id| i64::from(id).to_le_bytes()));
    }
    write(&small.join("shard.00000.mds"), bytes);
    make(&[source("mds", &[&small], 1.0)], &out, &options).unwrap();
    assert_eq!(samples(&out, false), [ended.to_vec(), ended.to_vec()]);
}

#[test]
fn mistakes_name_the_place_and_leave_no_index() {
    let folder = place();
    let rows = jsonl(0..40) + "\n{\"text\"\n" + &jsonl(40..80);
    let rows = write(&folder.path().join("rows.jsonl"), rows);
    let out = folder.path().join("out");
    let sources = [source("text", &[&rows], 1.0)];
    let says = |options: &TokenizeFolderOptions, words: &str| {
        let message = make(&sources, &out, options).unwrap_err().to_string();
        assert!(message.contains(words), "{message}");
        assert!(!out.exists());
    };
    says(&options(), "rows.jsonl:41: not JSON");
    says(
        &TokenizeFolderOptions {
            eval_fraction: 1.0,
            ..options()
        },
        "--eval-fraction 1",
    );
    let skipping = TokenizeFolderOptions {
        skip_unreadable: true,
        ..options()
    };
    says(
        &TokenizeFolderOptions {
            min_length: 10_000,
            ..skipping.clone()
        },
        "lower --min-length",
    );

    let mut seen = Vec::new();
    let report = tokenize(&TOKENIZER, &sources, &out, &skipping, &mut |event| {
        if let TokenizeEvent::Unreadable(error) = event {
            seen.push(error.to_string());
        }
        ControlFlow::Continue(())
    })
    .unwrap();
    assert!(
        seen.len() == 1 && seen[0].contains("rows.jsonl:41:"),
        "{seen:?}"
    );
    assert_eq!(report.index.sources[0].unreadable, 1);
    let again = make(&sources, &out, &skipping).unwrap_err().to_string();
    assert!(again.contains("--overwrite"), "{again}");
    let replacing = TokenizeFolderOptions {
        overwrite: true,
        ..skipping
    };
    assert_eq!(make(&sources, &out, &replacing).unwrap(), report);

    let nothing = place();
    let message = make(&[source("text", &[nothing.path()], 1.0)], &out, &replacing).unwrap_err();
    assert!(message.to_string().contains("no documents found"));
}

#[test]
fn a_changed_shard_is_noticed() {
    let folder = place();
    let rows = write(&folder.path().join("rows.jsonl"), jsonl(0..100));
    let out = folder.path().join("out");
    let report = make(&[source("text", &[&rows], 1.0)], &out, &options()).unwrap();
    let shard = out.join(&report.index.sources[0].train.shards[0].file);
    let good = fs::read(&shard).unwrap();
    let message = |check| TokenFolder::open(&out, check).unwrap_err().to_string();
    let mut bad = good.clone();
    bad[200] ^= 1;
    fs::write(&shard, &bad).unwrap();
    assert!(message(Check::Whole).contains("does not match its SHA-256"));
    // Another valid shard in its place, which only the index detects.
    let other = out.join(&report.index.sources[0].train.shards[1].file);
    fs::copy(&other, &shard).unwrap();
    assert!(message(Check::Structure).contains("the folder's index lists"));
    fs::write(&shard, &good).unwrap();
    assert!(TokenFolder::open(&out, Check::Whole).is_ok());
    fs::remove_file(&shard).unwrap();
    assert!(message(Check::Structure).contains("train-00000.tokens: cannot be read"));
    fs::remove_file(out.join(INDEX_FILE)).unwrap();
    assert!(message(Check::Structure).contains("tokenize` wrote to its end"));
}

#[test]
fn a_mixture_is_drawn_in_its_proportions() {
    let folder = place();
    let long = write(
        &folder.path().join("long.jsonl"),
        jsonl((0..120).filter(|i| i * 7 % 60 > 30)),
    );
    let short = write(
        &folder.path().join("short.jsonl"),
        jsonl((120..400).filter(|i| i * 7 % 60 < 20)),
    );
    let tiny = write(&folder.path().join("tiny.jsonl"), jsonl(400..430));
    let sources = [
        source("long", &[&long], 0.55),
        source("short", &[&short], 0.15),
        source("tiny", &[&tiny], 0.3),
    ];
    let out = folder.path().join("out");
    make(&sources, &out, &options()).unwrap();
    let opened = TokenFolder::open(&out, Check::Whole).unwrap();
    let cut = Cut {
        max_length: 128,
        min_length: 8,
        long_documents: LongDocuments::Split,
    };
    let sources = opened.train_sources(cut);
    let owner: BTreeMap<Vec<u32>, usize> = sources
        .iter()
        .enumerate()
        .flat_map(|(source, of)| {
            (0..of.samples.len()).map(move |index| (of.samples.get(index), source))
        })
        .collect();
    let special = opened.tokenizer.special();
    // Labels and inputs together are the original text.
    let masker = Masker::new(&opened.tokenizer, 0.3, false).unwrap();
    let loader = LoaderOptions {
        row_length: 256,
        micro_batches: 4,
        pad_id: special.pad,
        seed: 3,
        sequences: None,
        length_warmup: None,
    };
    let mut steps = TrainStream::of_sources(sources, masker, loader)
        .unwrap()
        .steps()
        .unwrap();
    let mut tokens = [0usize; 3];
    for _ in 0..600 {
        let item = steps.next_row().unwrap();
        let mut ids = item.input_ids.clone();
        for (&position, &label) in item.labels.positions[..item.labelled]
            .iter()
            .zip(&item.labels.labels)
        {
            ids[position as usize] = label;
        }
        for range in item.layout.ranges() {
            if let Some(&source) = owner.get(&ids[range.clone()]) {
                tokens[source] += range.len();
            }
        }
    }
    let all: usize = tokens.iter().sum();
    for (found, expected) in tokens.iter().zip([0.55, 0.15, 0.3]) {
        let share = *found as f64 / all as f64;
        assert!(
            (share - expected).abs() < 0.01,
            "{share} instead of {expected}"
        );
    }
}
