#![allow(clippy::unwrap_used)]

use std::fs;
use std::io::Write;
use std::path::Path;
use std::sync::Arc;

use ::parquet::basic::{Compression, ZstdLevel};
use ::parquet::data_type::{ByteArray, ByteArrayType, Int32Type};
use ::parquet::file::properties::WriterProperties;
use ::parquet::file::writer::SerializedFileWriter;
use ::parquet::schema::parser::parse_message_type;

use super::*;

fn input(path: &Path) -> Input {
    let (found, _) = inputs(path).unwrap();
    found.into_iter().next().unwrap()
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

/// A Parquet file with an optional text, an id and a number for each row.
pub(crate) fn write_parquet(path: &Path, rows: &[Option<&str>], compression: Compression) {
    let schema =
        "message rows { OPTIONAL BYTE_ARRAY text (UTF8); REQUIRED INT32 id; REQUIRED INT32 year; }";
    let schema = Arc::new(parse_message_type(schema).unwrap());
    let properties = WriterProperties::builder()
        .set_compression(compression)
        .build();
    let file = fs::File::create(path).unwrap();
    let mut writer = SerializedFileWriter::new(file, schema, Arc::new(properties)).unwrap();
    // Two row groups, as large files have several.
    let mut id = 0;
    for rows in rows.chunks(rows.len().div_ceil(2).max(1)) {
        let mut group = writer.next_row_group().unwrap();
        let values: Vec<ByteArray> = rows.iter().flatten().map(|&text| text.into()).collect();
        let levels: Vec<i16> = rows.iter().map(|text| i16::from(text.is_some())).collect();
        let mut column = group.next_column().unwrap().unwrap();
        column
            .typed::<ByteArrayType>()
            .write_batch(&values, Some(&levels), None)
            .unwrap();
        column.close().unwrap();
        let ids: Vec<i32> = rows.iter().map(|_| (id, id += 1).0).collect();
        for _ in 0..2 {
            let mut column = group.next_column().unwrap().unwrap();
            column
                .typed::<Int32Type>()
                .write_batch(&ids, None, None)
                .unwrap();
            column.close().unwrap();
        }
        group.close().unwrap();
    }
    writer.close().unwrap();
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
    fs::write(
        path("c.jsonl.zst"),
        zstd::encode_all(rows.as_bytes(), 3).unwrap(),
    )
    .unwrap();
    let fields = Fields::default();
    for name in ["a.jsonl", "b.json.gz", "c.jsonl.zst"] {
        let second = format!("{name}:4");
        let expected = pairs(&[("7", "one"), (&second, "zwei ☃")]);
        assert_eq!(texts(&path(name), &fields), expected);
    }
    let whole = fs::read(path("c.jsonl.zst")).unwrap();
    fs::write(path("cut.jsonl.zst"), &whole[..whole.len() - 9]).unwrap();
    assert!(
        message(&path("cut.jsonl.zst"), &fields)
            .contains("cut.jsonl.zst: not a whole Zstandard file")
    );
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
        "rows.jsonl: not UTF-8 at byte",
    ]) {
        assert!(error.contains(place), "{error}");
    }
    assert!(
        records
            .iter()
            .filter_map(|r| r.as_ref().err())
            .all(CorpusError::is_of_a_row)
    );
    assert!(records[0].is_ok() && records[4].is_ok());
}

#[test]
fn parquet_rows_of_every_compression() {
    let folder = tempfile::tempdir().unwrap();
    let rows = [Some("one"), Some("zwei ☃"), Some(" "), Some("four")];
    let expected = pairs(&[("0", "one"), ("1", "zwei ☃"), ("3", "four")]);
    for (name, compression) in [
        ("plain", Compression::UNCOMPRESSED),
        ("snappy", Compression::SNAPPY),
        ("gzip", Compression::GZIP(Default::default())),
        ("zstd", Compression::ZSTD(ZstdLevel::default())),
    ] {
        let path = folder.path().join(format!("{name}.parquet"));
        write_parquet(&path, &rows, compression);
        assert_eq!(texts(&path, &Fields::default()), expected, "{name}");
    }
    let path = folder.path().join("null.parquet");
    write_parquet(&path, &[Some("a"), None, Some("b")], Compression::SNAPPY);
    assert!(message(&path, &Fields::default()).contains("null.parquet:2: the row has no \"text\""));
    let fields = Fields {
        text: "body".into(),
        ..Fields::default()
    };
    let missing = message(&path, &fields);
    assert!(
        missing.contains("no column body; it has text, id, year"),
        "{missing}"
    );
    let broken = folder.path().join("broken.parquet");
    let whole = fs::read(&path).unwrap();
    fs::write(&broken, &whole[..whole.len() / 2]).unwrap();
    assert!(message(&broken, &Fields::default()).contains("broken.parquet: not a Parquet file"));
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
    fs::write(&shard, &bytes[..2]).unwrap();
    assert!(message(folder.path(), &fields).contains("cut short"));
    fs::write(&shard, [9, 0, 0, 0]).unwrap();
    assert!(message(folder.path(), &fields).contains("it holds 9 samples and the index says 4"));
    fs::remove_file(&shard).unwrap();
    assert!(message(folder.path(), &fields).contains("shard.00000.mds: cannot be read"));

    let index = folder.path().join("index.json");
    let text = fs::read_to_string(&index).unwrap();
    let rewritten = |from: &str, to: &str| {
        assert!(text.contains(from));
        fs::write(&index, text.replace(from, to)).unwrap();
        message(folder.path(), &fields)
    };
    assert!(rewritten("\"shard.00000.mds\"", "\"../secret\"").contains("outside of the folder"));
    assert!(rewritten("\"mds\"", "\"csv\"").contains("a shard of format \"csv\""));
    assert!(
        rewritten("\"text\"", "\"body\"")
            .contains("no column text or input_ids; it has id, body, year")
    );
}

#[test]
fn a_folder_gives_its_files_in_order_and_leaves_others_out() {
    let folder = tempfile::tempdir().unwrap();
    for name in [
        "b.txt",
        "a/z.py",
        "a/index.json",
        "picture.png",
        "c/shard.00000.mds",
    ] {
        let path = folder.path().join(name);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, "{\"shards\": 5}").unwrap();
    }
    fs::create_dir(folder.path().join("mds")).unwrap();
    for name in ["index.json", "shard.00000.mds"] {
        fs::copy(
            fixture("text").join(name),
            folder.path().join("mds").join(name),
        )
        .unwrap();
    }
    let (found, skipped) = inputs(folder.path()).unwrap();
    let names: Vec<(&str, bool)> = found
        .iter()
        .map(|input| (input.name.as_str(), input.is_mds))
        .collect();
    assert_eq!(names, [("a/z.py", false), ("b.txt", false), ("mds", true)]);
    assert_eq!(skipped, 3);
}
