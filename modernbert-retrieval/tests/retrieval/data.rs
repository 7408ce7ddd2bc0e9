//! Faults of data sets: what is refused with file and line, and what is noted.

use modernbert_retrieval::data::{Dataset, DatasetOptions};

use crate::files::{Place, assert_says, open, query_ids, refusal};

#[test]
fn names_file_and_line_of_what_it_refuses() {
    let corpus = "{\"_id\":\"d1\",\"text\":\"a\"}\n{\"_id\":\"d2\",\"text\":\"b\"}\n{\"_id\":\"d3\",\"text\":\"c\"}\n";
    let cases: [(&str, String, &[&str]); 21] = [
        (
            "corpus.jsonl",
            corpus.replace("\"text\":\"b\"", "\"text\":\"b\",\"text\":\"c\""),
            &["corpus.jsonl:2", "'text' occurs twice"],
        ),
        (
            "corpus.jsonl",
            corpus.replace("\"text\":\"b\"", "\"text\":null"),
            &["corpus.jsonl:2", "'text' is null"],
        ),
        (
            "corpus.jsonl",
            format!("{corpus}{{\"_id\":\"d2\",\"text\":\"again\"}}\n"),
            &["corpus.jsonl:4", "'d2'", "corpus.jsonl:2"],
        ),
        (
            "corpus.jsonl",
            corpus.replace("{\"_id\":\"d2\"", "{\"_id\":\"\""),
            &["corpus.jsonl:2", "document id is empty"],
        ),
        (
            "corpus.jsonl",
            corpus.replace("\"_id\":\"d2\"", "\"key\":\"d2\""),
            &["corpus.jsonl:2", "'_id'", "'key', 'text'"],
        ),
        (
            "corpus.jsonl",
            corpus.replace("\"b\"", "7"),
            &["corpus.jsonl:2", "'text'", "a number", "a string"],
        ),
        (
            "corpus.jsonl",
            format!("{corpus}[1]\n"),
            &["corpus.jsonl:4", "not a JSON object"],
        ),
        (
            "corpus.jsonl",
            format!("{corpus}{{\"_id\""),
            &["corpus.jsonl:4", "not a JSON object"],
        ),
        (
            "corpus.jsonl",
            "\n\n".to_string(),
            &["corpus.jsonl", "no document"],
        ),
        (
            "corpus.jsonl",
            "{\"_id\":\"d1\",\"text\":\"a\"}\n".to_string(),
            &["test.tsv:3", "'d2'", "2 such documents", "--partial"],
        ),
        (
            "queries.jsonl",
            "{\"_id\":\"a\",\"text\":\"x\"}\n{\"_id\":\"a\",\"text\":\"y\"}\n".to_string(),
            &["queries.jsonl:2", "'a'", "queries.jsonl:1"],
        ),
        (
            "queries.jsonl",
            "{\"_id\":\"a\",\"text\":\" \"}\n".to_string(),
            &["queries.jsonl:1", "query 'a' is empty"],
        ),
        (
            "queries.jsonl",
            "{\"_id\":\"a\",\"text\":\"x\"}\n".to_string(),
            &["test.tsv:4", "query 'b'", "--partial"],
        ),
        (
            "qrels/test.tsv",
            "query-id\tcorpus-id\tscore\na\td1\n".to_string(),
            &["test.tsv:2", "2 columns"],
        ),
        (
            "qrels/test.tsv",
            "a\td1\t1\nb\n".to_string(),
            &["test.tsv:2", "1 column where"],
        ),
        (
            "qrels/test.tsv",
            "a\td1\t1.5\n".to_string(),
            &["test.tsv:1", "'1.5'", "not an integer"],
        ),
        (
            "qrels/test.tsv",
            "a\td1\t1\na\td1\t2\n".to_string(),
            &["test.tsv:2", "'a'", "'d1'", "2 here", "1 before"],
        ),
        (
            "qrels/test.tsv",
            "a\t\t1\n".to_string(),
            &["test.tsv:1", "document id is empty"],
        ),
        (
            "qrels/test.tsv",
            "query-id\tcorpus-id\tscore\n".to_string(),
            &["test.tsv", "no judgment"],
        ),
        (
            "qrels/test.tsv",
            "a\td1\t99999999999\n".to_string(),
            &["test.tsv:1", "99999999999"],
        ),
        ("queries.jsonl", String::new(), &["test.tsv:2", "query 'a'"]),
    ];
    for (name, text, parts) in cases {
        let place = Place::beir();
        place.write(name, &text);
        assert_says(&refusal(place.path()), parts);
    }
}

#[test]
fn reads_the_grade_by_each_of_its_names() {
    for name in ["score", "label", "rel", "grade", "qrel", "relevance_score"] {
        let table = format!("query_id\tdoc_id\t{name}\na\td1\t1\nb\td2\t0\n");
        let line = |query: &str, document: &str, grade: u8| {
            format!("{{\"qid\":\"{query}\",\"pid\":\"{document}\",\"{name}\":{grade}}}\n")
        };
        let lines = line("a", "d1", 1) + &line("b", "d2", 0);
        for (file, text) in [("qrels/test.tsv", table), ("qrels/test.jsonl", lines)] {
            let place = Place::beir();
            std::fs::remove_file(place.path().join("qrels/test.tsv")).unwrap();
            place.write(file, &text);
            let set = open(place.path()).unwrap();
            assert_eq!(set.judgments.queries["b"]["d2"], 0, "{file} {name}");
        }
    }
}

#[test]
fn refuses_grades_of_unknown_names_and_two_grades() {
    let ids = "\"qid\":\"a\",\"docid\":\"d1\"";
    let cases: [(&str, String, &[&str]); 9] = [
        (
            "test.tsv",
            "qid\tdocid\tvalue\na\td1\t0\n".to_string(),
            &["test.tsv:1", "'value'", "score"],
        ),
        (
            "test.tsv",
            "qid\tdocid\tscore\na\td1\t1\tjunk\n".to_string(),
            &["test.tsv:2", "4 columns"],
        ),
        (
            "test.tsv",
            "qid\tdocid\tscore\tlabel\na\td1\t1\t0\n".to_string(),
            &["test.tsv:2", "'score' is 1 and 'label' is 0"],
        ),
        (
            "test.tsv",
            "qid\tdocid\tscore\tscore\na\td1\t1\t0\n".to_string(),
            &["test.tsv:1", "'score' occurs twice"],
        ),
        (
            "test.jsonl",
            format!("{{{ids},\"value\":0}}\n"),
            &["test.jsonl:1", "'value'", "score"],
        ),
        (
            "test.jsonl",
            format!("{{{ids},\"value\":\"0\"}}\n"),
            &["test.jsonl:1", "'value'", "score"],
        ),
        (
            "test.jsonl",
            format!("{{{ids},\"score\":1}}\n{{\"qid\":\"b\",\"docid\":\"d1\"}}\n"),
            &["test.jsonl:2", "no grade"],
        ),
        (
            "test.jsonl",
            format!("{{{ids},\"score\":null}}\n"),
            &["test.jsonl:1", "'score' is null"],
        ),
        (
            "test.jsonl",
            format!("{{{ids},\"score\":1,\"label\":0}}\n"),
            &["test.jsonl:1", "'score' is 1 and 'label' is 0"],
        ),
    ];
    for (name, text, parts) in cases {
        let place = Place::beir();
        std::fs::remove_file(place.path().join("qrels/test.tsv")).unwrap();
        place.write(&format!("qrels/{name}"), &text);
        assert_says(&refusal(place.path()), parts);
    }
}

#[test]
fn refuses_two_forms_of_one_file() {
    for (name, second) in [
        ("corpus.jsonl", "corpus.jsonl.gz"),
        ("queries.jsonl", "queries.jsonl.gz"),
        ("test.tsv", "qrels/test.jsonl"),
    ] {
        let place = Place::beir();
        place.write_gz(second, "");
        assert_says(&refusal(place.path()), &[name, second, "two forms"]);
    }
    let place = Place::beir();
    let path = place.path().join("qrels/test.tsv");
    std::fs::rename(&path, path.with_extension("csv")).unwrap();
    assert_says(&refusal(place.path()), &["SPLIT.tsv", "SPLIT.jsonl"]);
}

#[test]
fn refuses_what_is_not_text_or_not_whole() {
    let place = Place::beir();
    place.write_bytes(
        "corpus.jsonl",
        b"{\"_id\":\"d1\",\"text\":\"a\"}\n\xff\xfe\n",
    );
    assert_says(&refusal(place.path()), &["corpus.jsonl:2", "UTF-8"]);

    let place = Place::beir();
    std::fs::remove_file(place.path().join("corpus.jsonl")).unwrap();
    let whole = place.write_gz(
        "corpus.jsonl.gz",
        &"{\"_id\":\"d1\",\"text\":\"abc\"}\n".repeat(50),
    );
    let bytes = std::fs::read(&whole).unwrap();
    std::fs::write(&whole, &bytes[..bytes.len() - 9]).unwrap();
    assert_says(&refusal(place.path()), &["corpus.jsonl.gz:"]);

    let place = Place::new();
    assert_says(
        &refusal(place.path()),
        &["no retrieval data set", "corpus.jsonl"],
    );
    assert_says(
        &refusal(&place.path().join("absent")),
        &["absent", "no such folder"],
    );
    place.write("corpus/a.parquet", "no parquet");
    place.write("queries/a.parquet", "no parquet");
    place.write("qrels/test.tsv", "q\t1\t1\n");
    assert_says(&refusal(place.path()), &["a.parquet", "Parquet"]);
}

#[test]
fn partial_sets_are_accepted_on_request_and_noted() {
    let place = Place::beir();
    place.write("corpus.jsonl", "{\"_id\":\"d1\",\"text\":\"a\"}\n");
    place.write("queries.jsonl", "{\"_id\":\"a\",\"text\":\"x\"}\n");
    let options = DatasetOptions {
        partial: true,
        ..DatasetOptions::default()
    };
    let set = Dataset::open(place.path(), &options).unwrap();
    assert!(set.is_missing_queries());
    assert_eq!(query_ids(&set), ["a"]);
    assert!(!set.judgments.queries.contains_key("b"));
    assert_says(
        &set.notes.join("\n"),
        &["partial: 1 query is judged but absent"],
    );
    let mut stream = set.documents();
    assert_eq!(stream.by_ref().map(Result::unwrap).count(), 1);
    assert_eq!(stream.summary().missing, 2);
}

#[test]
fn notes_repeated_rows_and_queries_without_a_relevant_document() {
    let place = Place::beir();
    place.write("qrels/test.tsv", "a\td1\t1\na\td1\t1\nb\td3\t0\n");
    let set = open(place.path()).unwrap();
    let notes = set.notes.join("\n");
    assert_says(
        &notes,
        &["1 row is repeated", "1 query has no relevant document"],
    );
}
