//! all-MiniLM-L6-v2, a published model with BERT's architecture, against transformers. Its folder is the one that `MODERNBERT_MINILM` names; the numbers are
//! those of `scripts/families_fixtures.py --real`.

use modernbert::batch::PackedBatch;
use modernbert::config::Pooling;
use modernbert::model::ModernBert;
use modernbert::tokenizer::Tokenizer;
use modernbert::{Encoder, Loader};
use serde::Deserialize;
use std::path::Path;
use test_support::{device, read};

/// Largest difference in f32.
const CLOSE: f32 = 1e-5;

#[derive(Deserialize)]
struct Row {
    text: String,
    ids: Vec<u32>,
    vector: Vec<f32>,
    states_of_last_token: Vec<Vec<f32>>,
}

fn difference(found: &[f32], expected: &[f32]) -> f32 {
    assert_eq!(found.len(), expected.len());
    let pairs = found.iter().zip(expected);
    pairs.fold(0.0, |most, (a, b)| most.max((a - b).abs()))
}

#[test]
fn vectors_and_hidden_states_are_those_of_python() {
    let Some(folder) = test_support::variable("MODERNBERT_MINILM") else {
        return;
    };
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/families/minilm.json");
    let rows: Vec<Row> = serde_json::from_slice(&std::fs::read(path).unwrap()).unwrap();
    let loader = || Loader::new(&folder).device(device());
    let tokenizer = Tokenizer::from_folder(&folder).unwrap();
    let encoder = Encoder::load(loader()).unwrap();
    assert_eq!(encoder.max_length(), 256);
    assert_eq!(encoder.options().pooling, Pooling::Mean);
    let texts: Vec<&str> = rows.iter().map(|row| row.text.as_str()).collect();
    let found = encoder.encode(&texts).unwrap();
    for (row, embedding) in rows.iter().zip(&found) {
        let ids = tokenizer
            .encode_truncated(&row.text, None, 256)
            .unwrap()
            .ids;
        assert_eq!(ids, row.ids);
        let error = difference(&embedding.values, &row.vector);
        assert!(error <= CLOSE, "{}: {error}", row.text);
    }
    let model = ModernBert::load(loader()).unwrap();
    for row in rows
        .iter()
        .filter(|row| !row.states_of_last_token.is_empty())
    {
        let batch = PackedBatch::from_sequences(&[&row.ids], &device()).unwrap();
        let states = model.hidden_states(&batch);
        assert_eq!(states.len(), row.states_of_last_token.len());
        for (state, expected) in states.into_iter().zip(&row.states_of_last_token) {
            let values = read(state);
            let error = difference(&values[values.len() - expected.len()..], expected);
            assert!(error <= CLOSE, "{error}");
        }
    }
}
