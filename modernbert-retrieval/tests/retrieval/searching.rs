//! Exact search against its definition.

use std::collections::BTreeMap;

use modernbert_retrieval::index::{
    Dtype, IndexOptions, IndexWriter, ModelId, NamedVectors, Similarity, VectorIndex, rank_vectors,
    similarity_of,
};

use crate::files::{Place, numbers};

const DIMENSION: usize = 24;

pub(crate) fn options(dtype: Dtype, similarity: Similarity) -> IndexOptions {
    IndexOptions {
        dimension: DIMENSION,
        dtype,
        similarity,
        model: ModelId::default(),
    }
}

/// An index of `count` random vectors with ids `000`, `001`, … and metadata `{"even":true}` or `{"even":false}`.
fn build(
    place: &Place,
    dtype: Dtype,
    similarity: Similarity,
    count: usize,
) -> (VectorIndex, Vec<f32>) {
    let values = numbers(count * DIMENSION, 5);
    let mut writer =
        IndexWriter::create(&place.path().join("index"), &options(dtype, similarity)).unwrap();
    for (i, vector) in values.chunks_exact(DIMENSION).enumerate() {
        writer
            .add(
                &format!("{i:03}"),
                vector,
                &format!("{{\"even\":{}}}", i % 2 == 0),
            )
            .unwrap();
    }
    (writer.finish().unwrap(), values)
}

fn length(vector: &[f32]) -> f64 {
    vector
        .iter()
        .map(|&value| f64::from(value) * f64::from(value))
        .sum::<f64>()
        .sqrt()
}

/// Scores by id in f64, of the vectors before they were stored.
fn scores(values: &[f32], query: &[f32], similarity: Similarity) -> BTreeMap<String, f64> {
    let score = |(i, vector): (usize, &[f32])| {
        let dot: f64 = vector
            .iter()
            .zip(query)
            .map(|(&a, &b)| f64::from(a) * f64::from(b))
            .sum();
        let differences = vector.iter().zip(query);
        let differences = differences.map(|(&a, &b)| (f64::from(a) - f64::from(b)).abs());
        let score = match similarity {
            Similarity::Dot => dot,
            Similarity::Cosine => dot / length(vector) / length(query),
            Similarity::Euclidean => -differences.map(|x| x * x).sum::<f64>().sqrt(),
            Similarity::Manhattan => -differences.sum::<f64>(),
        };
        (format!("{i:03}"), score)
    };
    values
        .chunks_exact(DIMENSION)
        .enumerate()
        .map(score)
        .collect()
}

#[test]
fn finds_what_the_definition_finds() {
    // f16 rounds components to 2^-12 of their size, int8 to 1/254 of the largest.
    let tolerances = [(Dtype::F32, 2e-6), (Dtype::F16, 3e-3), (Dtype::Int8, 3e-2)];
    let queries = numbers(13 * DIMENSION, 9);
    for (dtype, tolerance) in tolerances {
        for similarity in Similarity::ALL {
            let place = Place::new();
            let (index, values) = build(&place, dtype, similarity, 203);
            assert_eq!(index.len(), 203);
            for (query, found) in queries
                .chunks_exact(DIMENSION)
                .zip(index.search(&queries, 10, None).unwrap())
            {
                let expected = scores(&values, query, similarity);
                let mut best: Vec<f64> = expected.values().copied().collect();
                best.sort_by(|a, b| b.total_cmp(a));
                assert_eq!(found.len(), 10);
                for (rank, hit) in found.iter().enumerate() {
                    let of_id = expected[hit.id];
                    let row = hit.id.parse::<usize>().unwrap() * DIMENSION;
                    let alone = similarity_of(similarity, query, &values[row..row + DIMENSION]);
                    assert!((alone - of_id).abs() < 1e-12, "{alone} {of_id}");
                    // Sums of differences are large, and rounded to their size.
                    let tolerance = match similarity {
                        Similarity::Manhattan => tolerance * of_id.abs(),
                        _ => tolerance,
                    };
                    assert!(
                        (f64::from(hit.score) - of_id).abs() < tolerance,
                        "{dtype:?} {}: {} {of_id}",
                        hit.id,
                        hit.score
                    );
                    assert!(
                        (of_id - best[rank]).abs() < 2.0 * tolerance,
                        "{dtype:?}, rank {rank}"
                    );
                }
                assert!(found.windows(2).all(|pair| pair[0].score >= pair[1].score));
            }
        }
    }
}

#[test]
fn scores_do_not_depend_on_other_queries_or_threads() {
    for dtype in [Dtype::F32, Dtype::F16, Dtype::Int8] {
        let place = Place::new();
        let (index, _) = build(&place, dtype, Similarity::Cosine, 150);
        let queries = numbers(20 * DIMENSION, 2);
        let all = index.search(&queries, 150, None).unwrap();
        for (query, expected) in queries.chunks_exact(DIMENSION).zip(&all) {
            assert_eq!(
                index.search(query, 150, None).unwrap()[0],
                *expected,
                "{dtype:?}"
            );
        }
        for threads in [1, 3] {
            let pool = rayon::ThreadPoolBuilder::new()
                .num_threads(threads)
                .build()
                .unwrap();
            assert_eq!(
                pool.install(|| index.search(&queries, 150, None)).unwrap(),
                all
            );
        }
    }
}

#[test]
fn equal_scores_order_by_id_whatever_the_order_of_adding() {
    let vector = numbers(DIMENSION, 1);
    let ids: Vec<String> = (0..60).map(|i| format!("{:02}", i * 37 % 60)).collect();
    let place = Place::new();
    let mut writer = IndexWriter::create(
        &place.path().join("index"),
        &options(Dtype::F16, Similarity::Cosine),
    )
    .unwrap();
    for id in &ids {
        writer.add(id, &vector, "").unwrap();
    }
    let index = writer.finish().unwrap();
    for count in [1, 7, 60, 100] {
        let found = &index.search(&vector, count, None).unwrap()[0];
        let found: Vec<&str> = found.iter().map(|hit| hit.id).collect();
        let expected: Vec<String> = (0..count.min(60)).map(|i| format!("{i:02}")).collect();
        assert_eq!(found, expected);
    }
    assert!(index.search(&vector, 0, None).unwrap()[0].is_empty());
    assert!(index.search(&[], 5, None).unwrap().is_empty());
}

#[test]
fn filters_see_id_and_metadata() {
    let place = Place::new();
    let (index, values) = build(&place, Dtype::F32, Similarity::Dot, 100);
    let query = numbers(DIMENSION, 8);
    let filter = |id: &str, metadata: &str| metadata.contains("true") && id != "010";
    let found = &index.search(&query, 200, Some(&filter)).unwrap()[0];
    assert_eq!(found.len(), 49);
    assert!(
        found
            .iter()
            .all(|hit| hit.id.parse::<usize>().unwrap() % 2 == 0 && hit.id != "010")
    );
    assert!(found.iter().all(|hit| hit.metadata == "{\"even\":true}"));
    // The best of those left are found even where better ones were filtered out.
    let mut expected = scores(&values, &query, Similarity::Dot);
    expected.retain(|id, _| {
        filter(
            id,
            if id.parse::<usize>().unwrap() % 2 == 0 {
                "true"
            } else {
                ""
            },
        )
    });
    let best = expected.iter().max_by(|a, b| a.1.total_cmp(b.1)).unwrap();
    assert_eq!(found[0].id, best.0);
}

#[test]
fn any_number_of_vectors_can_be_asked_for() {
    let place = Place::new();
    let (index, values) = build(&place, Dtype::F32, Similarity::Cosine, 40);
    let query = &values[..DIMENSION];
    let all = index.search(query, 40, None).unwrap();
    for count in [41, usize::MAX / 2, usize::MAX] {
        assert_eq!(index.search(query, count, None).unwrap(), all);
    }
}

#[test]
fn queries_that_cannot_be_searched_are_refused() {
    let place = Place::new();
    let (index, _) = build(&place, Dtype::F16, Similarity::Cosine, 3);
    let refusal = |query: &[f32]| index.search(query, 1, None).unwrap_err().to_string();
    let good = numbers(DIMENSION, 1);
    let mut bad = [good.clone(), good].concat();
    bad[DIMENSION + 3] = f32::INFINITY;
    for (query, part) in [
        (&bad[..], "query 2: component 3 is inf"),
        (
            &[1.0; DIMENSION + 1][..],
            "query 2: 1 components, the index has 24",
        ),
        (&[0.0; DIMENSION][..], "query 1: all components are 0"),
    ] {
        let message = refusal(query);
        assert!(message.contains(part), "{message}");
    }
}

/// More queries than are compared at a time: the results of each equal those of a search of an index on disk for this query alone.
#[test]
fn a_search_in_memory_is_that_of_an_index_on_disk() {
    let place = Place::new();
    let (index, values) = build(&place, Dtype::F32, Similarity::Cosine, 150);
    let queries = numbers(1100 * DIMENSION, 4);
    let named = |prefix: &str, count: usize| -> Vec<String> {
        (0..count).map(|i| format!("{prefix}{i:03}")).collect()
    };
    let (ids, query_ids) = (named("", 150), named("q", 1100));
    let documents = NamedVectors {
        ids: &ids,
        values: &values,
    };
    let of = |ids| NamedVectors {
        ids,
        values: &queries,
    };
    let found = rank_vectors(documents, of(&query_ids), DIMENSION, Similarity::Cosine, 7).unwrap();
    assert_eq!(found.len(), 1100);
    for (id, query) in query_ids.iter().zip(queries.chunks_exact(DIMENSION)) {
        let expected = &index.search(query, 7, None).unwrap()[0];
        let hits: Vec<(&str, f64)> = expected
            .iter()
            .map(|hit| (hit.id, f64::from(hit.score)))
            .collect();
        let own: Vec<(&str, f64)> = found[id]
            .iter()
            .map(|hit| (hit.id.as_str(), hit.score))
            .collect();
        assert_eq!(own, hits, "{id}");
    }
    let twice = NamedVectors {
        ids: &["a".to_string(), "a".to_string()],
        values: &values[..2 * DIMENSION],
    };
    let refused = rank_vectors(twice, of(&query_ids), DIMENSION, Similarity::Cosine, 7);
    assert!(refused.unwrap_err().to_string().contains("'a'"));
}
