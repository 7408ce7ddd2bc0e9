//! MaxSim against its definition.

use modernbert_retrieval::maxsim::{Masked, MaxSimError, TokenVectors, maxsim};

use crate::files::numbers;

const DIMENSION: usize = 9;

fn tokens<'a>(
    values: &'a [f32],
    offsets: &'a [usize],
    mask: Option<&'a [bool]>,
) -> TokenVectors<'a> {
    TokenVectors {
        values,
        dimension: DIMENSION,
        offsets,
        mask,
    }
}

/// The definition in f64: score and winners.
fn reference(
    query: TokenVectors<'_>,
    documents: TokenVectors<'_>,
    document: usize,
    masked: Masked,
) -> (f64, Vec<Option<u32>>) {
    let counts =
        |tokens: &TokenVectors<'_>, token: usize| tokens.mask.is_none_or(|mask| mask[token]);
    let vector = |tokens: &TokenVectors<'_>, token: usize| {
        tokens.values[token * DIMENSION..(token + 1) * DIMENSION].to_vec()
    };
    let (start, end) = (documents.offsets[document], documents.offsets[document + 1]);
    let (mut score, mut winners) = (0.0, Vec::new());
    for token in 0..query.values.len() / DIMENSION {
        if !counts(&query, token) {
            winners.push(None);
            continue;
        }
        let mut best = (f64::NEG_INFINITY, None);
        for other in start..end {
            let pairs = vector(&query, token)
                .into_iter()
                .zip(vector(&documents, other));
            let mut similarity: f64 = pairs.map(|(a, b)| f64::from(a) * f64::from(b)).sum();
            if !counts(&documents, other) {
                match masked {
                    Masked::NeverWins => continue,
                    Masked::CountsAsZero => similarity = 0.0,
                }
            }
            if similarity > best.0 {
                best = (similarity, Some((other - start) as u32));
            }
        }
        score += best.0;
        winners.push(best.1);
    }
    (score, winners)
}

#[test]
fn equals_its_definition_with_and_without_masks() {
    // Lengths around the panels of 16 and the query groups of 6.
    let offsets = [0, 1, 17, 17, 33, 65, 112];
    let documents = numbers(112 * DIMENSION, 1);
    let document_mask: Vec<bool> = (0..112).map(|i| i % 3 != 0).collect();
    for query_tokens in [1, 5, 6, 7, 13, 32] {
        let query = numbers(query_tokens * DIMENSION, query_tokens as u64);
        let query_offsets = [0, query_tokens];
        let query_mask: Vec<bool> = (0..query_tokens).map(|i| i % 4 != 1).collect();
        for (query_mask, document_mask) in [
            (None, None),
            (Some(&query_mask[..]), Some(&document_mask[..])),
        ] {
            let query = tokens(&query, &query_offsets, query_mask);
            let documents = tokens(&documents, &offsets, document_mask);
            for masked in [Masked::NeverWins, Masked::CountsAsZero] {
                let found = maxsim(query, documents, masked).unwrap();
                assert_eq!(found.len(), 6);
                for (i, found) in found.iter().enumerate() {
                    let (score, winners) = reference(query, documents, i, masked);
                    assert_eq!(found.winners, winners, "document {i}");
                    let same = f64::from(found.score) == score
                        || (f64::from(found.score) - score).abs() < 1e-4;
                    assert!(same, "document {i}: {} {score}", found.score);
                }
            }
        }
    }
}

#[test]
fn a_masked_token_never_wins_over_negative_similarities() {
    let query = [1.0; DIMENSION];
    // The first token is the query itself, but masked; the second points the other way.
    let documents = [[1.0; DIMENSION], [-1.0; DIMENSION]].concat();
    let mask = [false, true];
    let score = |masked| {
        let found = maxsim(
            tokens(&query, &[0, 1], None),
            tokens(&documents, &[0, 2], Some(&mask)),
            masked,
        )
        .unwrap();
        (found[0].score, found[0].winners[0])
    };
    assert_eq!(score(Masked::NeverWins), (-9.0, Some(1)));
    assert_eq!(score(Masked::CountsAsZero), (0.0, Some(0)));
}

#[test]
fn a_document_without_tokens_is_worst() {
    let query = [1.0; DIMENSION];
    let found = maxsim(
        tokens(&query, &[0, 1], None),
        tokens(&[], &[0, 0], None),
        Masked::NeverWins,
    )
    .unwrap();
    assert_eq!(
        (found[0].score, found[0].winners[0]),
        (f32::NEG_INFINITY, None)
    );
}

#[test]
fn scores_are_bit_identical_alone_and_among_others() {
    let documents = numbers(60 * DIMENSION, 3);
    let query = numbers(32 * DIMENSION, 4);
    let query = tokens(&query, &[0, 32], None);
    let all = maxsim(
        query,
        tokens(&documents, &[0, 20, 60], None),
        Masked::NeverWins,
    )
    .unwrap();
    let alone = maxsim(
        query,
        tokens(&documents[20 * DIMENSION..], &[0, 40], None),
        Masked::NeverWins,
    )
    .unwrap();
    assert_eq!(all[1], alone[0]);
}

#[test]
fn shapes_that_disagree_are_refused() {
    let good = [1.0; DIMENSION];
    let query = tokens(&good, &[0, 1], None);
    let fails = |query, documents| maxsim(query, documents, Masked::NeverWins).unwrap_err();
    assert!(matches!(
        fails(query, tokens(&good, &[0, 2], None)),
        MaxSimError::Shape {
            what: "documents",
            ..
        }
    ));
    assert!(matches!(
        fails(query, tokens(&good, &[1, 1], None)),
        MaxSimError::Shape { .. }
    ));
    assert!(matches!(
        fails(query, tokens(&good, &[0, 1], Some(&[]))),
        MaxSimError::Shape { .. }
    ));
    assert!(matches!(
        fails(query, tokens(&good, &[], None)),
        MaxSimError::Shape { .. }
    ));
    let other = TokenVectors {
        dimension: 3,
        ..tokens(&good, &[0, 3], None)
    };
    assert!(matches!(
        fails(query, other),
        MaxSimError::Dimension {
            query: 9,
            documents: 3
        }
    ));
    let mut bad = good;
    bad[4] = f32::NAN;
    let error = fails(query, tokens(&bad, &[0, 1], None)).to_string();
    assert!(error.contains("component 4 of token 0 is NaN"), "{error}");
}
