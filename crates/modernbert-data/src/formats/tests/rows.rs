//! Rows of every format: what is read, what is refused, what is bounded.

use flate2::write::GzEncoder;
use proptest::prelude::*;

use super::*;
use crate::formats::bytes::Bytes;
use crate::formats::text::Lines;

fn file(name: &str, content: impl AsRef<[u8]>) -> (tempfile::TempDir, PathBuf) {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join(name);
    fs::write(&path, content).unwrap();
    (folder, path)
}

fn gzip(content: &[u8]) -> Vec<u8> {
    let mut encoder = GzEncoder::new(Vec::new(), flate2::Compression::best());
    encoder.write_all(content).unwrap();
    encoder.finish().unwrap()
}

/// Every row as JSON, errors as their message.
fn rows(name: &str, content: impl AsRef<[u8]>) -> Vec<Result<serde_json::Value, String>> {
    let (folder, path) = file(name, content);
    let place = format!("{}/", folder.path().display());
    let said = |error: FormatError| error.to_string().replace(&place, "");
    match Rows::open(&path) {
        Err(error) => vec![Err(said(error))],
        Ok(rows) => rows
            .map(|row| row.map(|row| row.to_json()).map_err(said))
            .collect(),
    }
}

fn texts_of(name: &str, content: impl AsRef<[u8]>) -> Vec<String> {
    let (_folder, path) = file(name, content);
    let rows = Rows::open(&path).unwrap();
    rows.map(|row| row.unwrap().take_text("text").unwrap())
        .collect()
}

#[test]
fn a_byte_order_mark_is_no_part_of_any_format() {
    let mark = "\u{feff}";
    for (name, content) in [
        ("a.txt", "a\nb\n"),
        ("a.TXT", "a\r\nb"),
        ("a.jsonl", "{\"text\":\"a\"}\n\"b\"\n"),
        ("a.csv", "text\na\n\"b\"\n"),
        ("a.tsv", "id\ttext\n1\ta\n2\tb"),
    ] {
        let marked = format!("{mark}{content}");
        assert_eq!(texts_of(name, content), ["a", "b"], "{name}");
        assert_eq!(texts_of(name, &marked), ["a", "b"], "{name}");
        let packed = texts_of(&format!("{name}.gz"), gzip(marked.as_bytes()));
        assert_eq!(packed, ["a", "b"], "{name}.gz");
        #[cfg(feature = "zstd")]
        {
            let packed = ::zstd::encode_all(marked.as_bytes(), 1).unwrap();
            assert_eq!(texts_of(&format!("{name}.zst"), packed), ["a", "b"]);
        }
    }
    let (_folder, path) = file("a.md", "\u{feff}a");
    assert_eq!(read_text(&path).unwrap(), "a");
    // Joined files hold one in the middle.
    assert_eq!(
        texts_of("a.jsonl", "{\"text\":\"a\"}\n\u{feff}{\"text\":\"b\"}\n"),
        ["a", "b"]
    );
}

#[test]
fn utf16_is_named() {
    let utf16: Vec<u8> = "\u{feff}text\na\n"
        .encode_utf16()
        .flat_map(u16::to_le_bytes)
        .collect();
    for name in ["a.txt", "a.csv", "a.jsonl"] {
        let found = rows(name, &utf16);
        assert_eq!(found.len(), 1, "{found:?}");
        let message = found[0].as_ref().unwrap_err();
        assert!(
            message.contains(":1: not UTF-8") && message.contains("UTF-16"),
            "{message}"
        );
    }
    let (_folder, path) = file("a.md", &utf16);
    assert!(read_text(&path).unwrap_err().to_string().contains("UTF-16"));
    let packed = gzip(b"text");
    assert!(
        rows("a.txt", packed)[0]
            .as_ref()
            .unwrap_err()
            .contains("packed with gzip: give it the ending .gz")
    );
}

#[test]
fn lines_that_end_in_a_carriage_return_alone_are_not_joined() {
    let found = rows("a.txt", "one\r\ntwo\rthree\nfour");
    assert_eq!(found[0].as_ref().unwrap(), "one");
    let message = found[1].as_ref().unwrap_err();
    assert!(
        message.starts_with("a.txt:2: a carriage return"),
        "{message}"
    );
    assert_eq!(found[2].as_ref().unwrap(), "four");
}

#[test]
fn quotes_of_csv_are_read_strictly() {
    for (content, said) in [
        (
            "label,text\ngood,a\nbad,\"b\ngood,c\nbad,d\n",
            "a.csv:3: the double quote that opens",
        ),
        ("text\n\"", "a.csv:2: the double quote that opens"),
        ("text\n\"a\"\"", "a.csv:2: the double quote that opens"),
        (
            "label,text\ngood,\"abc\"def\n",
            "a.csv:2: text follows the double quote",
        ),
        (
            "label,text\ngood,\"a\" \n",
            "a.csv:2: text follows the double quote",
        ),
        (
            "label,text\ngood,a \"b\" c\n",
            "a.csv:2: a double quote inside a field",
        ),
        (
            "label,text\ngood, \"a, b\"\n",
            "a.csv:2: a double quote inside a field",
        ),
        ("label,text\rgood,a\r", "a.csv:1: a carriage return"),
        (
            "\"label,text\ngood,a\n",
            "a.csv:1: the double quote that opens",
        ),
    ] {
        let found = rows("a.csv", content);
        let message = found.last().unwrap().as_ref().unwrap_err();
        assert!(message.starts_with(said), "{message}");
    }
    let fine = rows(
        "a.csv",
        "label,text\r\n,\"\"\r\n\"x\",\"a \"\"b\"\", c\r\nd\"\n\r\n\n3,'\n",
    );
    let fine: Vec<_> = fine.into_iter().map(Result::unwrap).collect();
    assert_eq!(fine[0], serde_json::json!({"label": "", "text": ""}));
    assert_eq!(
        fine[1],
        serde_json::json!({"label": "x", "text": "a \"b\", c\r\nd"})
    );
    assert_eq!(fine[2], serde_json::json!({"label": "3", "text": "'"}));
    // A row of another width is an error of that row alone: the next row is read.
    let found = rows("a.csv", "a,b\n1,2\n1\n3,4\n");
    assert!(found[0].is_ok() && found[1].is_err() && found[2].is_ok());
}

#[test]
fn columns_that_come_twice_or_have_no_name() {
    for (name, content) in [("a.csv", "a,b,a\n1,2,3\n"), ("a.tsv", "a\tb\ta\n1\t2\t3\n")] {
        let found = rows(name, content);
        assert!(
            found[0]
                .as_ref()
                .unwrap_err()
                .contains("more than one column is named \"a\""),
            "{found:?}"
        );
        // The column is not read.
        let (_folder, path) = file(name, content);
        let row = Rows::open_columns(&path, &["b"])
            .unwrap()
            .next()
            .unwrap()
            .unwrap();
        assert_eq!(row.text("b").unwrap(), "2");
        assert!(matches!(
            Rows::open_columns(&path, &["a"]),
            Err(FormatError::DuplicateColumn { .. })
        ));
    }
    let found = rows("a.csv", ",a,\n1,2,3\n");
    assert_eq!(found, [Ok(serde_json::json!({"a": "2"}))]);
}

#[test]
fn large_numbers_stay_apart() {
    let found = rows(
        "a.jsonl",
        "{\"id\":18446744073709551616,\"x\":1.5}\n{\"id\":18446744073709551617}",
    );
    assert_eq!(
        found,
        [
            Ok(serde_json::json!({"id": "18446744073709551616", "x": 1.5})),
            Ok(serde_json::json!({"id": "18446744073709551617"}))
        ]
    );
}

#[test]
fn a_text_that_is_none_is_named_by_its_fault() {
    for (row, said) in [
        ("{\"text\":null}", "a.jsonl:1: the field \"text\" is null"),
        ("{\"text\":5}", "a.jsonl:1: the field \"text\" is a number"),
        (
            "{\"text\":[\"a\"]}",
            "a.jsonl:1: the field \"text\" is a list",
        ),
        (
            "{\"body\":\"a\"}",
            "a.jsonl:1: no field \"text\" (the row has \"body\")",
        ),
        ("{}", "a.jsonl:1: no field \"text\" (the row has none)"),
    ] {
        let (_folder, path) = file("a.jsonl", row);
        let row = Rows::open(&path).unwrap().next().unwrap().unwrap();
        let message = row.text("text").unwrap_err().to_string();
        assert!(message.contains(said), "{message}");
    }
}

#[test]
fn lines_and_documents_without_end_are_bounded() {
    let lines = |content: &[u8]| {
        let reader = Box::new(std::io::Cursor::new(content.to_vec()));
        let bytes = Bytes::new(
            reader,
            Path::new("a"),
            Compression::None,
            &ReadBytes::default(),
        )
        .unwrap();
        Lines::new(bytes).with_limit(1 << 20)
    };
    let long = vec![b'x'; (1 << 20) + 1];
    let found: Vec<_> = lines(&[b"a\n", &long[..], b"\nb\n"].concat()).collect();
    assert_eq!(found.len(), 2);
    assert!(
        matches!(&found[1], Err(error @ FormatError::TooLong { line: 2, .. }) if error.to_string().contains("longer than 1 MiB"))
    );
    let exact: Vec<_> = lines(&long[1..]).collect();
    assert!(exact.len() == 1 && exact[0].is_ok());
    // A quoted field may span lines, but must end.
    let many = ["text\n\"".as_bytes(), "line\n".repeat(1 << 18).as_bytes()].concat();
    let mut rows = super::super::delimited::Delimited::open(
        lines(&many),
        super::super::delimited::Style::Csv,
        None,
    )
    .unwrap();
    assert!(matches!(
        rows.next(),
        Some(Err(FormatError::Syntax { line: 2, .. }))
    ));
    assert!(rows.next().is_none());
    let (_folder, path) = file("a.txt", &long);
    let limited =
        |limit| super::super::text::whole(&path, Compression::None, &ReadBytes::default(), limit);
    assert!(matches!(limited(1 << 20), Err(FormatError::TooLong { .. })));
    assert!(limited(long.len() as u64).is_ok());
}

/// 300 MiB of blank lines, compressed to a thousandth of the size.
#[test]
fn a_file_that_unpacks_to_far_more_than_text_is_refused() {
    let member = gzip(&b" \n".repeat(1 << 19));
    let packed = member.repeat(300);
    assert!(packed.len() * 400 < 256 << 20, "{} bytes", packed.len());
    let (_folder, path) = file("bomb.jsonl.gz", packed);
    let last = Rows::open(&path).unwrap().last().unwrap().unwrap_err();
    assert!(matches!(last, FormatError::Bomb { .. }), "{last}");
}

#[cfg(feature = "zstd")]
#[test]
fn a_large_zstd_window_says_how_to_compress_again() {
    let mut encoder = ::zstd::Encoder::new(Vec::new(), 1).unwrap();
    encoder.long_distance_matching(true).unwrap();
    encoder.window_log(28).unwrap();
    encoder.include_contentsize(false).unwrap();
    encoder.write_all(b"{\"text\": \"a\"}\n").unwrap();
    encoder.flush().unwrap();
    let packed = encoder.finish().unwrap();
    let found = rows("a.jsonl.zst", packed);
    let message = found[0].as_ref().unwrap_err();
    assert!(message.contains("--long=27"), "{message}");
}

#[test]
fn rows_of_a_pipe() {
    let reader = Box::new(std::io::Cursor::new(gzip(b"id,text\n1,a\n")));
    let mut rows =
        Rows::from_reader(reader, "standard input", Format::Csv, Compression::Gzip).unwrap();
    let row = rows.next().unwrap().unwrap();
    assert_eq!(
        (row.place(), row.text("text").unwrap()),
        ("standard input:2".into(), "a")
    );
    let parquet = Rows::from_reader(
        Box::new(std::io::empty()),
        "-",
        Format::Parquet,
        Compression::None,
    );
    assert!(parquet.is_err());
    let (_folder, path) = file("noending", "a\n");
    assert!(matches!(Rows::open(&path), Err(FormatError::Ending { .. })));
    let mut rows = Rows::open_as(&path, Format::Text).unwrap();
    assert_eq!(rows.next().unwrap().unwrap().text("any").unwrap(), "a");
}

#[cfg(not(feature = "parquet"))]
#[test]
fn what_is_not_compiled_in_is_named_by_its_feature() {
    for (name, feature) in [("a.parquet", "parquet"), ("a.jsonl.zst", "zstd")] {
        let message = rows(name, "x")[0].clone().unwrap_err();
        assert!(
            message.contains(&format!("--features {feature}")),
            "{message}"
        );
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(128))]

    #[test]
    fn any_table_comes_back_from_csv(
        table in prop::collection::vec(prop::collection::vec("[a,\"\r\n é\t]{0,5}", 3), 0..6), crlf: bool, quote_all: bool,
    ) {
        let end = if crlf { "\r\n" } else { "\n" };
        let mut content = format!("a,b,c{end}");
        for row in &table {
            let cells: Vec<String> = row.iter().map(|cell| {
                if quote_all || cell.contains(['"', ',', '\r', '\n']) { format!("\"{}\"", cell.replace('"', "\"\"")) } else { cell.clone() }
            }).collect();
            content += &(cells.join(",") + end);
        }
        let found: Vec<_> = rows("a.csv", content).into_iter().map(Result::unwrap).collect();
        let expected: Vec<_> = table.iter().map(|row| serde_json::json!({"a": row[0], "b": row[1], "c": row[2]})).collect();
        prop_assert_eq!(found, expected);
    }

    #[test]
    fn any_bytes_are_rows_or_errors(content in prop::collection::vec(prop::sample::select(b"ab\",\t\n\r{}[]:\xff\xef\xbb\xbf".to_vec()), 0..60)) {
        for name in ["a.csv", "a.tsv", "a.jsonl", "a.txt", "a.jsonl.gz"] {
            let _ = rows(name, &content);
        }
    }
}
