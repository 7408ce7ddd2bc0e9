//! Exact search of vectors in memory: nothing is written.

use std::collections::{BTreeMap, HashSet};
use std::path::{Path, PathBuf};

use super::manifest::{Entry, Manifest};
use super::segment::SegmentBuilder;
use super::{
    Dtype, IndexError, IndexOptions, ModelId, SEGMENT_ROWS, Similarity, VectorHit, VectorIndex,
    check_dimension, names, prepared,
};
use crate::run::Hit;

/// Vectors with their ids, `[n, dimension]`.
#[derive(Clone, Copy, Debug)]
pub struct NamedVectors<'a> {
    /// Ids, `[n]`; the documents' differ from each other.
    pub ids: &'a [String],
    /// Components, row by row.
    pub values: &'a [f32],
}

impl VectorIndex {
    /// Makes an index in memory, in f32. The scores are bit-identical to those of an f32 index on disk.
    ///
    /// # Errors
    /// [`IndexError`]: a dimension outside 1 to 65,536; as [`IndexWriter::add`](super::IndexWriter::add).
    pub fn in_memory(
        documents: NamedVectors<'_>,
        dimension: usize,
        similarity: Similarity,
    ) -> Result<Self, IndexError> {
        check_dimension(dimension)?;
        let options = IndexOptions {
            dimension,
            dtype: Dtype::F32,
            similarity,
            model: ModelId::default(),
        };
        let mut seen = HashSet::new();
        let (mut entries, mut segments) = (Vec::new(), Vec::new());
        let all = documents.ids.iter().zip(documents.values.chunks(dimension));
        let all: Vec<(&String, &[f32])> = all.collect();
        for (part, rows) in all.chunks(SEGMENT_ROWS).enumerate() {
            let mut builder = SegmentBuilder::new(options.dtype, dimension);
            for (row, &(id, vector)) in rows.iter().enumerate() {
                if id.is_empty() {
                    let number = part * SEGMENT_ROWS + row + 1;
                    return Err(IndexError::EmptyId { number });
                }
                if !seen.insert(id) {
                    return Err(IndexError::DuplicateId { id: id.clone() });
                }
                let vector = prepared(vector, &options, options.dtype, || {
                    format!("document '{id}'")
                })?;
                builder.push(id, &vector, "");
            }
            let file = names::segment(part as u64 + 1);
            segments.push(builder.into_segment(Path::new(&file))?);
            entries.push(Entry {
                file,
                rows: rows.len(),
                checksum: 0,
                deleted: Vec::new(),
            });
        }
        let manifest = Manifest {
            generation: 0,
            next_file: 1 + entries.len() as u64,
            dimension,
            dtype: options.dtype,
            similarity,
            model: options.model,
            segments: entries,
        };
        Ok(Self::new(PathBuf::new(), manifest, segments))
    }
}

/// Returns the similarity of two vectors of one dimension, computed in f64.
pub fn similarity_of(similarity: Similarity, a: &[f32], b: &[f32]) -> f64 {
    let sum = |term: &dyn Fn(f64, f64) -> f64| -> f64 {
        let pairs = a.iter().zip(b);
        pairs.map(|(&a, &b)| term(f64::from(a), f64::from(b))).sum()
    };
    match similarity {
        Similarity::Cosine => {
            let lengths = sum(&|a, _| a * a).sqrt() * sum(&|_, b| b * b).sqrt();
            if lengths > 0.0 {
                (sum(&|a, b| a * b) / lengths).clamp(-1.0, 1.0)
            } else {
                0.0
            }
        }
        Similarity::Dot => sum(&|a, b| a * b),
        Similarity::Euclidean => -sum(&|a, b| (a - b) * (a - b)).sqrt(),
        Similarity::Manhattan => -sum(&|a, b| (a - b).abs()),
    }
}

/// Returns the best `count` documents of each query, in f32, by query id.
///
/// # Errors
/// As [`VectorIndex::in_memory`] and [`VectorIndex::search`].
pub fn rank_vectors(
    documents: NamedVectors<'_>,
    queries: NamedVectors<'_>,
    dimension: usize,
    similarity: Similarity,
    count: usize,
) -> Result<BTreeMap<String, Vec<Hit>>, IndexError> {
    let index = VectorIndex::in_memory(documents, dimension, similarity)?;
    let mut ids = queries.ids.iter();
    let mut ranked = BTreeMap::new();
    index.search_each(queries.values, count, None, |hits| {
        let hit = |hit: VectorHit<'_>| Hit {
            id: hit.id.to_string(),
            score: f64::from(hit.score),
        };
        if let Some(id) = ids.next() {
            ranked.insert(id.clone(), hits.into_iter().map(hit).collect());
        }
    })?;
    Ok(ranked)
}
