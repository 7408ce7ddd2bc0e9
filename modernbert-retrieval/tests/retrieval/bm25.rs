//! BM25 against bm25s, the stemmer against NLTK's (`scripts/retrieval_fixtures.py`).

use modernbert_retrieval::bm25::{Analyzer, Bm25, Parameters, stem};
use serde::Deserialize;

#[derive(Deserialize)]
struct Fixture {
    documents: Vec<Vec<String>>,
    queries: Vec<Vec<String>>,
    cases: Vec<Case>,
}

#[derive(Deserialize)]
struct Case {
    k1: f64,
    b: f64,
    scores: Vec<Vec<f64>>,
}

fn fixture() -> Fixture {
    serde_json::from_str(include_str!("../fixtures/bm25.json")).unwrap()
}

fn texts(documents: &[Vec<String>]) -> Vec<(String, String)> {
    let named = documents.iter().enumerate();
    named
        .map(|(i, words)| (format!("{i:03}"), words.join(" ")))
        .collect()
}

#[test]
fn scores_equal_bm25s() {
    let fixture = fixture();
    let documents = texts(&fixture.documents);
    for case in &fixture.cases {
        let parameters = Parameters {
            k1: case.k1,
            b: case.b,
        };
        let mut index = Bm25::new(Analyzer::Words, parameters).unwrap();
        // In pieces, because a corpus is added in pieces.
        for piece in documents.chunks(7) {
            index.add(piece);
        }
        for (query, expected) in fixture.queries.iter().zip(&case.scores) {
            let found = index.search(&query.join(" "), 1000);
            let positive = expected.iter().filter(|score| **score > 0.0).count();
            assert_eq!(found.len(), positive);
            for hit in &found {
                let theirs = expected[hit.id.parse::<usize>().unwrap()];
                assert!(
                    (hit.score - theirs).abs() < 1e-9,
                    "{}: {} {theirs}",
                    hit.id,
                    hit.score
                );
            }
            for hit in &found {
                let text = &documents[hit.id.parse::<usize>().unwrap()].1;
                let alone = index.score(&query.join(" "), text);
                assert_eq!(alone.to_bits(), hit.score.to_bits(), "{}", hit.id);
            }
            for pair in found.windows(2) {
                let (a, b) = (pair[0].score as f32, pair[1].score as f32);
                assert!(a > b || (a == b && pair[0].id > pair[1].id), "{pair:?}");
            }
            for count in [0, 1, 5] {
                assert_eq!(
                    index.search(&query.join(" "), count),
                    found[..count.min(found.len())]
                );
            }
        }
    }
}

#[test]
fn a_run_equals_its_searches_and_has_every_query() {
    let fixture = fixture();
    let mut index = Bm25::new(Analyzer::Words, Parameters::default()).unwrap();
    index.add(&texts(&fixture.documents));
    let texts: Vec<String> = fixture
        .queries
        .iter()
        .map(|words| words.join(" "))
        .collect();
    let mut queries: Vec<(&str, &str)> = ["a", "b", "c"]
        .into_iter()
        .zip(texts.iter().map(String::as_str))
        .collect();
    queries.push(("nothing", "unknown words"));
    let run = index.run(queries.iter().copied(), 10);
    for (id, text) in queries {
        assert_eq!(run.queries[id], index.search(text, 10));
    }
    assert!(run.queries["nothing"].is_empty());
}

#[test]
fn repeated_query_words_count_repeatedly() {
    let mut index = Bm25::new(Analyzer::Words, Parameters::default()).unwrap();
    index.add(&[
        ("1".to_string(), "a b".to_string()),
        ("2".to_string(), "b".to_string()),
    ]);
    let once = index.search("a", 1)[0].score;
    assert!((index.search("a a", 1)[0].score - 2.0 * once).abs() < 1e-15);
}

#[test]
fn nothing_to_search_finds_nothing() {
    let mut index = Bm25::new(Analyzer::English, Parameters::default()).unwrap();
    assert!(index.search("a word", 10).is_empty());
    index.add(&[
        ("1".to_string(), String::new()),
        ("2".to_string(), "The of".to_string()),
    ]);
    assert_eq!(index.len(), 2);
    assert!(index.search("the word", 10).is_empty());
}

#[test]
fn parameters_outside_their_range_are_refused() {
    for (k1, b) in [
        (-0.1, 0.4),
        (f64::NAN, 0.4),
        (0.9, 1.1),
        (0.9, -0.1),
        (f64::INFINITY, 0.4),
    ] {
        let error = Bm25::new(Analyzer::English, Parameters { k1, b })
            .unwrap_err()
            .to_string();
        assert!(error.contains("k1 is finite"), "{error}");
    }
}

#[test]
fn stems_equal_nltks() {
    let pairs: Vec<(String, String)> =
        serde_json::from_str(include_str!("../fixtures/stems.json")).unwrap();
    assert!(pairs.len() >= 1000);
    let wrong: Vec<(String, String, String)> = pairs
        .into_iter()
        .map(|(word, expected)| (stem(&word), word, expected))
        .filter(|(ours, _, expected)| ours != expected)
        .collect();
    assert!(
        wrong.is_empty(),
        "{} stems differ, (ours, word, expected): {:?}",
        wrong.len(),
        &wrong[..wrong.len().min(10)]
    );
}

#[test]
fn english_words_are_those_of_lucenes_analyzer() {
    let words =
        Analyzer::English.words("The aircraft's wings, and U.S. models: re-entry at 3.5 km!");
    assert_eq!(
        words,
        [
            "aircraft", "wing", "u.", "model", "re", "entri", "3.5", "km"
        ]
    );
    assert_eq!(Analyzer::Words.words("The RÉSUMÉS"), ["the", "résumés"]);
    let long = "x".repeat(300);
    let lengths: Vec<usize> = Analyzer::Words
        .words(&long)
        .iter()
        .map(String::len)
        .collect();
    assert_eq!(lengths, [255, 45]);
}

/// A text that is not in the index has the score of the formula, with the index's frequencies and mean length.
#[test]
fn a_text_outside_of_the_index_is_scored() {
    let mut index = Bm25::new(Analyzer::Words, Parameters::default()).unwrap();
    let documents = [("1", "a b"), ("2", "a c c d"), ("3", "e")];
    let documents = documents.map(|(id, text)| (id.to_string(), text.to_string()));
    index.add(&documents);
    // Mean length 7 / 3; of 3 documents 2 have a and none has z.
    let idf = |frequency: f64| (1.0 + (3.0 - frequency + 0.5) / (frequency + 0.5)).ln();
    let term = |count: f64| count / (count + 0.9 * (1.0 - 0.4 + 0.4 * 4.0 / (7.0 / 3.0)));
    let expected = idf(2.0) * term(1.0) + idf(0.0) * term(2.0);
    let found = index.score("a z y", "z a z q");
    assert!((found - expected).abs() < 1e-12, "{found} {expected}");
    assert_eq!(index.score("b", "a"), 0.0);
}
