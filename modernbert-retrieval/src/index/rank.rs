//! Exact search of vectors in memory, without an index that stays.

use std::collections::BTreeMap;

use super::{Dtype, IndexError, IndexOptions, IndexWriter, ModelId, Similarity};
use crate::run::Hit;

/// Vectors with their ids, `[n, dimension]`.
#[derive(Clone, Copy, Debug)]
pub struct NamedVectors<'a> {
    /// Ids, `[n]`; the documents' differ from each other.
    pub ids: &'a [String],
    /// Components, row by row.
    pub values: &'a [f32],
}

/// Returns the best `count` documents of each query, in f32, by query id. A temporary index is written for it.
///
/// # Errors
/// As [`IndexWriter::add`] and [`VectorIndex::search`](super::VectorIndex::search); a temporary folder that cannot be made.
pub fn rank_vectors(
    documents: NamedVectors<'_>,
    queries: NamedVectors<'_>,
    dimension: usize,
    similarity: Similarity,
    count: usize,
) -> Result<BTreeMap<String, Vec<Hit>>, IndexError> {
    let place = tempfile::tempdir().map_err(|source| IndexError::Io {
        path: std::env::temp_dir(),
        source,
    })?;
    let options = IndexOptions {
        dimension,
        dtype: Dtype::F32,
        similarity,
        model: ModelId::default(),
    };
    let mut writer = IndexWriter::create(&place.path().join("index"), &options)?;
    for (id, vector) in documents.ids.iter().zip(documents.values.chunks(dimension)) {
        writer.add(id, vector, "")?;
    }
    let index = writer.finish()?;
    let found = index.search(queries.values, count, None)?;
    let hits = found.into_iter().map(|hits| {
        let hit = |hit: super::VectorHit<'_>| Hit {
            id: hit.id.to_string(),
            score: f64::from(hit.score),
        };
        hits.into_iter().map(hit).collect()
    });
    Ok(queries.ids.iter().cloned().zip(hits).collect())
}
