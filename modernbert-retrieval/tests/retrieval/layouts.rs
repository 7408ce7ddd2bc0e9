//! Every layout of a data set.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;

use modernbert_retrieval::data::{Dataset, DatasetOptions, FolderLayout, Judgments};
use parquet::data_type::{ByteArray, ByteArrayType, DoubleType};
use parquet::file::properties::WriterProperties;
use parquet::file::writer::SerializedFileWriter;
use parquet::schema::parser::parse_message_type;

use crate::files::{Place, assert_says, documents, open, open_subset, query_ids};

/// A Parquet file of text columns and, if given, a column of numbers.
fn write_parquet(path: &Path, columns: &[(&str, &[&str])], numbers: Option<(&str, &[f64])>) {
    let mut schema = "message rows {".to_string();
    for (name, _) in columns {
        schema.push_str(&format!(" REQUIRED BINARY {name} (UTF8);"));
    }
    if let Some((name, _)) = numbers {
        schema.push_str(&format!(" REQUIRED DOUBLE {name};"));
    }
    schema.push('}');
    std::fs::create_dir_all(path.parent().unwrap()).unwrap();
    let file = std::fs::File::create(path).unwrap();
    let schema = Arc::new(parse_message_type(&schema).unwrap());
    let properties = Arc::new(WriterProperties::builder().build());
    let mut writer = SerializedFileWriter::new(file, schema, properties).unwrap();
    let mut group = writer.next_row_group().unwrap();
    for (_, texts) in columns {
        let mut column = group.next_column().unwrap().unwrap();
        let values: Vec<ByteArray> = texts.iter().map(|text| ByteArray::from(*text)).collect();
        column
            .typed::<ByteArrayType>()
            .write_batch(&values, None, None)
            .unwrap();
        column.close().unwrap();
    }
    if let Some((_, values)) = numbers {
        let mut column = group.next_column().unwrap().unwrap();
        column
            .typed::<DoubleType>()
            .write_batch(values, None, None)
            .unwrap();
        column.close().unwrap();
    }
    group.close().unwrap();
    writer.close().unwrap();
}

#[test]
fn reads_a_beir_folder() {
    let place = Place::beir();
    let set = open(place.path()).unwrap();
    assert_eq!(set.layout, FolderLayout::Beir);
    assert_eq!(query_ids(&set), ["a", "b"]);
    assert_eq!(set.judgments.len(), 4);
    assert_eq!(set.judgments.queries["a"]["d1"], 2);
    assert!(set.notes.is_empty(), "{:?}", set.notes);
    let mut stream = set.documents();
    let read: Vec<_> = stream.by_ref().map(Result::unwrap).collect();
    let texts: Vec<String> = read.iter().map(|document| document.full_text()).collect();
    assert_eq!(
        texts,
        [
            "Cats Cats chase mice.",
            "Dogs chase cats and cats run.",
            "Mice eat cheese.",
            ""
        ]
    );
    assert_eq!(stream.summary().empty, 1);
    assert_eq!(stream.summary().notes(), ["1 document without text"]);
}

#[test]
fn reads_compressed_files_byte_order_marks_and_crlf() {
    let place = Place::beir();
    let corpus = std::fs::read_to_string(place.path().join("corpus.jsonl")).unwrap();
    std::fs::remove_file(place.path().join("corpus.jsonl")).unwrap();
    place.write_gz("corpus.jsonl.gz", &corpus);
    place.write(
        "qrels/test.tsv",
        "\u{feff}query-id\tcorpus-id\tscore\r\na\td1\t2\r\n\r\nb\td3\t1\r\n",
    );
    let set = open(place.path()).unwrap();
    assert_eq!(set.judgments.len(), 2);
    assert_eq!(documents(&set).unwrap().len(), 4);
}

#[test]
fn reads_judgments_with_and_without_header() {
    let place = Place::new();
    let forms = [
        (
            "header.tsv",
            "query-id\tcorpus-id\tscore\na\td1\t2\nb\td3\t1\n",
        ),
        (
            "other-order.tsv",
            "score\tcorpus-id\tquery-id\n2\td1\ta\n1\td3\tb\n",
        ),
        ("bare.tsv", "a\td1\t2\nb\td3\t1\n"),
        ("trec.txt", "a 0 d1 2\nb\t0\td3\t1\n"),
        (
            "rows.jsonl",
            "{\"query-id\":\"a\",\"corpus-id\":\"d1\",\"score\":2}\n{\"query-id\":\"b\",\"corpus-id\":\"d3\",\"score\":1.0}\n",
        ),
    ];
    for (name, text) in forms {
        let path = place.write(name, text);
        let judgments = Judgments::read(&[path]).unwrap();
        assert_eq!(judgments.len(), 2, "{name}");
        assert_eq!(judgments.queries["a"]["d1"], 2, "{name}");
        assert_eq!(judgments.queries["b"]["d3"], 1, "{name}");
    }
}

#[test]
fn reads_hub_folders_and_chooses_among_nanobeir_sets() {
    let place = Place::new();
    let all = place.path().join("NanoBEIR-en");
    for set in ["NanoSciFact", "NanoNQ"] {
        let file = |part: &str| all.join(format!("{part}/{set}-00000-of-00001.parquet"));
        write_parquet(
            &file("corpus"),
            &[("_id", &["1", "2", "3"]), ("text", &["one", "", set])],
            None,
        );
        write_parquet(
            &file("queries"),
            &[("_id", &["q", "empty"]), ("text", &["what", " "])],
            None,
        );
        write_parquet(
            &file("qrels"),
            &[("query-id", &["q", "empty"]), ("corpus-id", &["3", "1"])],
            None,
        );
    }
    assert_eq!(Dataset::subsets(&all).unwrap(), ["NanoNQ", "NanoSciFact"]);
    assert_says(
        &open(&all).unwrap_err().to_string(),
        &["--subset", "'NanoNQ', 'NanoSciFact'"],
    );
    assert_says(
        &open_subset(&all, "NanoX").unwrap_err().to_string(),
        &["'NanoX'", "'NanoNQ'"],
    );
    let set = open_subset(&all, "NanoSciFact").unwrap();
    assert_eq!(
        (set.name.as_str(), set.layout),
        ("NanoSciFact", FolderLayout::Hub)
    );
    // NanoBEIR leaves out what has no text.
    assert_eq!(query_ids(&set), ["q"]);
    let texts: Vec<String> = documents(&set)
        .unwrap()
        .into_iter()
        .map(|document| document.text)
        .collect();
    assert_eq!(texts, ["one", "NanoSciFact"]);

    let one = place.path().join("NanoFiQA2018");
    let file = |part: &str| one.join(format!("{part}/train-00000-of-00001.parquet"));
    write_parquet(
        &file("corpus"),
        &[("_id", &["1"]), ("text", &["one"])],
        None,
    );
    write_parquet(
        &file("queries"),
        &[("_id", &["q"]), ("text", &["what"])],
        None,
    );
    write_parquet(
        &file("qrels"),
        &[("query-id", &["q"]), ("corpus-id", &["1"])],
        None,
    );
    let set = open(&one).unwrap();
    assert_eq!(
        set.judgments.queries["q"],
        BTreeMap::from([("1".to_string(), 1)])
    );
}

#[test]
fn reads_coir_by_language_with_judgments_of_the_split() {
    let place = Place::new();
    for language in ["go", "ruby"] {
        let file = |part: &str, name: &str| {
            place
                .path()
                .join(format!("{language}-{part}/{name}-00000-of-00001.parquet"))
        };
        let partitions: (&str, &[&str]) = ("partition", &["train", "test"]);
        write_parquet(
            &file("corpus", "corpus"),
            &[
                ("_id", &["c1", "c2"]),
                partitions,
                ("text", &["a", "b"]),
                ("title", &["", ""]),
            ],
            None,
        );
        write_parquet(
            &file("queries", "queries"),
            &[("_id", &["q1", "q2"]), partitions, ("text", &["x", "y"])],
            None,
        );
        for (split, query, document) in [("train", "q1", "c1"), ("test", "q2", "c2")] {
            let pair: [(&str, &[&str]); 2] = [("query-id", &[query]), ("corpus-id", &[document])];
            write_parquet(&file("qrels", split), &pair, Some(("score", &[1.0])));
        }
    }
    assert_eq!(Dataset::subsets(place.path()).unwrap(), ["go", "ruby"]);
    let set = open_subset(place.path(), "ruby").unwrap();
    assert_eq!(set.layout, FolderLayout::Coir);
    assert!(set.name.ends_with("/ruby"), "{}", set.name);
    assert_eq!(query_ids(&set), ["q2"]);
    assert_eq!(documents(&set).unwrap().len(), 2);
    let options = DatasetOptions {
        split: "dev".to_string(),
        subset: Some("go".to_string()),
        partial: false,
    };
    let refused = Dataset::open(place.path(), &options)
        .unwrap_err()
        .to_string();
    assert_says(&refused, &["go-qrels", "'dev'", "'test', 'train'"]);
}

#[test]
fn reads_mldr_with_judgments_inside_the_queries() {
    let place = Place::new();
    let release = "mldr-v1.0-en";
    place.write_gz(
        &format!("{release}/corpus.jsonl.gz"),
        "{\"docid\":\"doc-1\",\"text\":\"one\"}\n{\"docid\":\"doc-2\",\"text\":\"two\"}\n",
    );
    let query = "{\"query_id\":\"q-1\",\"query\":\"which?\",\"positive_passages\":[{\"docid\":\"doc-2\",\"text\":\"two\"}],\"negative_passages\":[]}\n";
    place.write_gz(&format!("{release}/test.jsonl.gz"), query);
    for set in [
        open_subset(place.path(), "en"),
        open(place.path()),
        open(&place.path().join(release)),
    ] {
        let set = set.unwrap();
        assert_eq!(set.layout, FolderLayout::Mldr);
        assert_eq!(query_ids(&set), ["q-1"]);
        assert_eq!(set.judgments.queries["q-1"]["doc-2"], 1);
        assert_eq!(documents(&set).unwrap().len(), 2);
    }
    let options = DatasetOptions {
        split: "dev".to_string(),
        ..DatasetOptions::default()
    };
    let refused = Dataset::open(&place.path().join(release), &options).unwrap_err();
    assert_says(&refused.to_string(), &["'dev'", "'test'"]);
}
