#![allow(clippy::unwrap_used)]

use std::fs;
use std::io::Write;
use std::path::{Path, PathBuf};

use super::*;

mod inputs;
#[cfg(feature = "parquet")]
mod parquet;
mod rows;

fn input(path: &Path) -> InputFile {
    let found = find_inputs(path).unwrap();
    found.inputs.into_iter().next().unwrap()
}

/// Name and text of every record.
fn texts(path: &Path, fields: &Fields) -> Vec<(String, String)> {
    let records = Records::open(&input(path), fields).unwrap();
    records
        .map(|record| {
            let record = record.unwrap();
            let Content::Text(text) = record.content else {
                panic!("{} is no text", record.name)
            };
            (record.name, text)
        })
        .collect()
}

fn message(path: &Path, fields: &Fields) -> String {
    match Records::open(&input(path), fields) {
        Err(error) => error.to_string(),
        Ok(records) => records
            .into_iter()
            .find_map(Result::err)
            .unwrap()
            .to_string(),
    }
}

fn pairs(values: &[(&str, &str)]) -> Vec<(String, String)> {
    let own = |&(a, b): &(&str, &str)| (a.to_owned(), b.to_owned());
    values.iter().map(own).collect()
}

#[test]
fn compressed_rows_are_those_of_the_plain_file() {
    let folder = tempfile::tempdir().unwrap();
    let rows = "{\"text\": \"one\", \"id\": 7}\n\n{\"text\": \"  \"}\n{\"text\": \"zwei ☃\"}";
    let path = |name: &str| folder.path().join(name);
    fs::write(path("a.jsonl"), rows).unwrap();
    let mut gzip = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
    gzip.write_all(rows.as_bytes()).unwrap();
    fs::write(path("b.json.gz"), gzip.finish().unwrap()).unwrap();
    let fields = Fields::default();
    #[cfg(feature = "zstd")]
    fs::write(
        path("c.jsonl.zst"),
        zstd::encode_all(rows.as_bytes(), 3).unwrap(),
    )
    .unwrap();
    for name in ["a.jsonl", "b.json.gz", "c.jsonl.zst"] {
        if name.ends_with(".zst") && cfg!(not(feature = "zstd")) {
            test_support::skip("c.jsonl.zst: the feature zstd is not compiled in");
            continue;
        }
        let second = format!("{name}:4");
        let expected = pairs(&[("7", "one"), (&second, "zwei ☃")]);
        assert_eq!(texts(&path(name), &fields), expected);
    }
    #[cfg(feature = "zstd")]
    {
        let whole = fs::read(path("c.jsonl.zst")).unwrap();
        fs::write(path("cut.jsonl.zst"), &whole[..whole.len() - 9]).unwrap();
        assert!(
            message(&path("cut.jsonl.zst"), &fields)
                .contains("cut.jsonl.zst: not a whole Zstandard file")
        );
    }
}

#[test]
fn a_bad_row_is_named_and_the_next_one_follows() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("rows.jsonl");
    fs::write(
        &path,
        b"{\"text\": \"a\"}\n{\"text\"\n{\"body\": 1}\n{\"text\": \"\xff\"}\n{\"text\": \"b\"}\n",
    )
    .unwrap();
    let records: Vec<_> = Records::open(&input(&path), &Fields::default())
        .unwrap()
        .collect();
    assert_eq!(records.len(), 5);
    let errors: Vec<String> = records
        .iter()
        .filter_map(|r| r.as_ref().err())
        .map(ToString::to_string)
        .collect();
    for (error, place) in errors.iter().zip([
        "rows.jsonl:2:",
        "rows.jsonl:3:",
        "rows.jsonl:4: not UTF-8 at byte",
    ]) {
        assert!(error.contains(place), "{error}");
    }
    assert!(
        records
            .iter()
            .filter_map(|r| r.as_ref().err())
            .all(FormatError::is_of_a_row)
    );
    assert!(records[0].is_ok() && records[4].is_ok());
}

/// Folders that MosaicML's own writer made (scripts/mds-fixture.py).
fn fixture(name: &str) -> std::path::PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("tests/fixtures/mds")
        .join(name)
}

#[test]
fn mds_text_plain_compressed_and_in_several_shards() {
    let four = "four ".repeat(40);
    let expected = pairs(&[
        ("doc-0", "one\n"),
        ("doc-1", "zwei: größer ☃"),
        ("doc-3", &four),
    ]);
    for name in ["text", "text-zstd", "text-shards"] {
        if name == "text-zstd" && cfg!(not(feature = "zstd")) {
            test_support::skip("text-zstd: the feature zstd is not compiled in");
            continue;
        }
        assert!(input(&fixture(name)).is_mds);
        assert_eq!(
            texts(&fixture(name), &Fields::default()),
            expected,
            "{name}"
        );
    }
}

#[test]
fn mds_tokens_in_every_encoding() {
    let expected: [Vec<u32>; 4] = [
        vec![1, 2, 3],
        vec![50281, 7, 50282],
        (0..300).collect(),
        vec![9],
    ];
    for name in ["tokens-static", "tokens-dynamic", "tokens-bytes"] {
        let records = Records::open(&input(&fixture(name)), &Fields::default()).unwrap();
        let found: Vec<Vec<u32>> = records
            .map(|record| match record.unwrap().content {
                Content::Tokens(ids) => ids,
                Content::Text(text) => panic!("{text:?} is text"),
            })
            .collect();
        assert_eq!(found, expected, "{name}");
    }
}

#[test]
fn damaged_mds_is_named() {
    let folder = tempfile::tempdir().unwrap();
    let copy = |name: &str| {
        for entry in fs::read_dir(fixture(name)).unwrap() {
            let entry = entry.unwrap();
            fs::copy(entry.path(), folder.path().join(entry.file_name())).unwrap();
        }
    };
    let fields = Fields::default();
    let shard = folder.path().join("shard.00000.mds");
    copy("text");
    // An offset that points outside, sample 2's end.
    let mut bytes = fs::read(&shard).unwrap();
    bytes[12..16].copy_from_slice(&u32::MAX.to_le_bytes());
    fs::write(&shard, &bytes).unwrap();
    let said = message(folder.path(), &fields);
    assert!(
        said.contains("shard.00000.mds:2: this sample can't be read"),
        "{said}"
    );
    // The samples before and after are still read: 1, and 4, which the next offset doesn't concern.
    let good = Records::open(&input(folder.path()), &fields)
        .unwrap()
        .filter(Result::is_ok)
        .count();
    assert_eq!(good, 2);
    let says = |bytes: &[u8], words: &str| {
        fs::write(&shard, bytes).unwrap();
        let said = message(folder.path(), &fields);
        assert!(said.contains(words), "{said}");
    };
    says(&bytes[..2], "it holds 2 bytes and the index says");
    bytes[0] = 9;
    says(&bytes, "it holds 9 samples and the index says 4");
    fs::remove_file(&shard).unwrap();
    assert!(message(folder.path(), &fields).contains("shard.00000.mds: cannot be read"));

    let index = folder.path().join("index.json");
    let text = fs::read_to_string(&index).unwrap();
    let rewritten = |from: &str, to: &str| {
        assert!(text.contains(from));
        fs::write(&index, text.replace(from, to)).unwrap();
        message(folder.path(), &fields)
    };
    assert!(rewritten("\"shard.00000.mds\"", "\"../secret\"").contains("outside the folder"));
    assert!(rewritten("\"mds\"", "\"csv\"").contains("a shard of format \"csv\""));
    assert!(rewritten("\"text\"", "\"body\"").contains(
        "no column \"text or input_ids\" in the header, which has \"id\", \"body\", \"year\""
    ));
}
