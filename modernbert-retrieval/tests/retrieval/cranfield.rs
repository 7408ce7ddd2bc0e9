//! The Cranfield collection, where `MODERNBERT_DATA` names a folder that contains it as `retrieval/cranfield/`.

use modernbert_retrieval::bm25::{Analyzer, Bm25, Parameters};
use modernbert_retrieval::metrics::{EvaluateOptions, Measure, evaluate};

use crate::files::open;

#[test]
fn bm25_reaches_its_known_score_on_cranfield() {
    let Some(data) = test_support::data() else {
        return;
    };
    let set = open(&data.join("retrieval/cranfield")).unwrap();
    assert_eq!((set.queries.len(), set.judgments.len()), (225, 1612));
    let mut stream = set.documents();
    let documents: Vec<(String, String)> = stream
        .by_ref()
        .map(|document| document.map(|document| (document.id.clone(), document.full_text())))
        .collect::<Result<_, _>>()
        .unwrap();
    assert_eq!((documents.len(), stream.summary().empty), (1400, 2));
    let mut index = Bm25::new(Analyzer::English, Parameters::default()).unwrap();
    index.add(&documents);
    let queries = set
        .queries
        .iter()
        .map(|query| (query.id.as_str(), query.text.as_str()));
    let run = index.run(queries, 1000);
    let evaluation = evaluate(&run, &set.judgments, &EvaluateOptions::default());
    let ndcg = evaluation.mean(Measure::Ndcg(Some(10))).unwrap();
    assert!((CRANFIELD_NDCG - ndcg).abs() < 1e-4, "nDCG@10 {ndcg}");
    assert_eq!(evaluation.queries.len(), 225);
}

/// nDCG@10 by bm25s (method `lucene`, k1 0.9, b 0.4) on the same words, measured by pytrec_eval (`scripts/retrieval_cranfield.py`).
const CRANFIELD_NDCG: f64 = 0.351_409;
