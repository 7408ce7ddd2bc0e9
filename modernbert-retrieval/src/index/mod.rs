//! An exact vector index on disk: memory-mapped, checksummed, with atomic changes.
//!
//! | module | contents |
//! |---|---|
//! | [`VectorIndex`] | opens and searches an index |
//! | [`IndexWriter`] | builds and changes an index, under a lock |
//! | `segment` | the files of vectors |
//! | `manifest` | the list of segments and deleted rows |
//! | `names` | names of the files |
//! | `dtype` | f32, f16 and int8 components |
//! | `top` | the best hits of a query |
//! | [`rank_vectors`] | exact search of vectors in memory |
//!
//! A change is written into new files first and published by replacing the manifest. A process that is killed, or a disk that is full,
//! leaves the index as it was. An open [`VectorIndex`] keeps searching the state it opened.

mod dtype;
mod error;
mod manifest;
mod names;
mod rank;
mod search;
mod segment;
mod top;
mod writer;

pub use dtype::Dtype;
pub use error::IndexError;
pub use modernbert_files::sentences::Similarity;
pub use names::has_index_files_only;
pub use rank::{NamedVectors, rank_vectors, similarity_of};
pub use search::{Filter, VectorHit};
pub use writer::IndexWriter;

use std::path::{Path, PathBuf};

use manifest::Manifest;
use segment::Segment;
use serde::{Deserialize, Serialize};

/// Largest number of components.
const MAX_DIMENSION: usize = 65_536;
/// Rows of a full segment.
const SEGMENT_ROWS: usize = 65_536;

/// Identity of the model that made the vectors.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct ModelId {
    /// Name for people.
    pub name: String,
    /// Hash of its files ([`crate::vectors::model_hash`]); empty where it is not known, and then never compared.
    pub hash: String,
}

/// Fixed properties of an index.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct IndexOptions {
    /// Components of a vector, 1 to 65,536.
    pub dimension: usize,
    /// Stored form of the components.
    pub dtype: Dtype,
    /// Score of two vectors. Under the cosine, vectors are normalized when they are added, queries when they are searched.
    pub similarity: Similarity,
    /// The model.
    pub model: ModelId,
}

/// Counts and sizes of an index.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct IndexInfo {
    /// Vectors that can be found.
    pub vectors: usize,
    /// Vectors deleted or replaced whose bytes are still in a file; compaction removes them.
    pub deleted: usize,
    /// Segment files.
    pub segments: usize,
    /// Bytes of the segment files.
    pub bytes: u64,
    /// Number of changes published.
    pub generation: u64,
    /// Fixed properties.
    pub options: IndexOptions,
}

/// An index opened for search: the state it had when it was opened.
#[derive(Debug)]
pub struct VectorIndex {
    folder: PathBuf,
    manifest: Manifest,
    segments: Vec<Segment>,
    /// For each segment, whether a row can be found. `None` if all can.
    live: Vec<Option<Vec<bool>>>,
}

impl VectorIndex {
    /// Opens an index and checks every byte against its checksum.
    ///
    /// # Errors
    /// [`IndexError`]: no index, a damaged file, a newer format.
    pub fn open(folder: &Path) -> Result<Self, IndexError> {
        Self::open_with(folder, true)
    }

    /// Opens an index without reading its vectors: sizes, headers, ids and metadata are checked, the vectors' bytes are not.
    ///
    /// # Errors
    /// As for [`Self::open`].
    pub fn open_unverified(folder: &Path) -> Result<Self, IndexError> {
        Self::open_with(folder, false)
    }

    fn open_with(folder: &Path, verify: bool) -> Result<Self, IndexError> {
        let mut manifest = Manifest::read(folder)?;
        loop {
            match open_segments(folder, &manifest, verify) {
                Ok(segments) => return Ok(Self::new(folder.to_path_buf(), manifest, segments)),
                Err(error) => {
                    // A writer may have compacted the index between our reading its manifest and opening the files.
                    let now = Manifest::read(folder)?;
                    if now.generation == manifest.generation {
                        return Err(error);
                    }
                    manifest = now;
                }
            }
        }
    }

    fn new(folder: PathBuf, manifest: Manifest, segments: Vec<Segment>) -> Self {
        let live = manifest.segments.iter().map(|entry| {
            if entry.deleted.is_empty() {
                return None;
            }
            let mut live = vec![true; entry.rows];
            for &row in &entry.deleted {
                live[row as usize] = false;
            }
            Some(live)
        });
        Self {
            folder,
            live: live.collect(),
            manifest,
            segments,
        }
    }

    /// Number of vectors.
    pub fn len(&self) -> usize {
        self.manifest.live()
    }

    /// `true` if there is no vector.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Returns counts, sizes and properties.
    pub fn info(&self) -> IndexInfo {
        let rows: usize = self.manifest.segments.iter().map(|entry| entry.rows).sum();
        IndexInfo {
            vectors: self.len(),
            deleted: rows - self.len(),
            segments: self.segments.len(),
            bytes: self.segments.iter().map(Segment::bytes).sum(),
            generation: self.manifest.generation,
            options: options(&self.manifest),
        }
    }

    /// Checks that vectors of this model may be compared with the index's: both hashes are equal, or one is not known.
    ///
    /// # Errors
    /// [`IndexError::OtherModel`].
    pub fn check_model(&self, model: &ModelId) -> Result<(), IndexError> {
        check_model(&self.folder, &self.manifest.model, model)
    }

    /// Checks that a vector, `[dimension]`, can be searched for.
    ///
    /// # Errors
    /// As for [`Self::search`].
    pub fn check_query(&self, query: &[f32]) -> Result<(), IndexError> {
        prepared(query, &self.info().options, Dtype::F32, || {
            "query".to_string()
        })
        .map(|_| ())
    }

    /// Returns the ids and metadata of all vectors that can be found, in stored order.
    pub fn entries(&self) -> impl Iterator<Item = (&str, &str)> {
        let rows = self
            .segments
            .iter()
            .zip(&self.live)
            .flat_map(|(segment, live)| {
                let is_live = move |row: &usize| live.as_ref().is_none_or(|live| live[*row]);
                (0..segment.rows)
                    .filter(is_live)
                    .map(move |row| (segment, row))
            });
        rows.map(|(segment, row)| (segment.id(row), segment.metadata(row)))
    }

    /// Returns the stored vector of an id, decoded to f32, `[dimension]`. Takes time proportional to the size of the index.
    pub fn vector(&self, id: &str) -> Option<Vec<f32>> {
        self.segments
            .iter()
            .zip(&self.live)
            .find_map(|(segment, live)| {
                let is_live = |row: usize| live.as_ref().is_none_or(|live| live[row]);
                let row = (0..segment.rows).find(|&row| is_live(row) && segment.id(row) == id)?;
                Some(segment.vector(row))
            })
    }
}

fn options(manifest: &Manifest) -> IndexOptions {
    IndexOptions {
        dimension: manifest.dimension,
        dtype: manifest.dtype,
        similarity: manifest.similarity,
        model: manifest.model.clone(),
    }
}

fn check_dimension(dimension: usize) -> Result<(), IndexError> {
    if dimension == 0 || dimension > MAX_DIMENSION {
        return Err(IndexError::BadDimension { found: dimension });
    }
    Ok(())
}

fn open_segments(
    folder: &Path,
    manifest: &Manifest,
    verify: bool,
) -> Result<Vec<Segment>, IndexError> {
    let open = |entry: &manifest::Entry| {
        let path = folder.join(&entry.file);
        let segment = Segment::open(&path, entry.checksum, verify)?;
        let fits = segment.rows == entry.rows
            && segment.dimension == manifest.dimension
            && segment.dtype == manifest.dtype;
        if fits {
            Ok(segment)
        } else {
            Err(IndexError::damaged(
                &path,
                "not the segment that the manifest lists",
            ))
        }
    };
    manifest.segments.iter().map(open).collect()
}

fn check_model(folder: &Path, index: &ModelId, other: &ModelId) -> Result<(), IndexError> {
    let known = !index.hash.is_empty() && !other.hash.is_empty();
    if known && index.hash != other.hash {
        return Err(IndexError::OtherModel {
            path: folder.to_path_buf(),
            index_name: index.name.clone(),
            index_hash: index.hash.clone(),
            name: other.name.clone(),
            hash: other.hash.clone(),
        });
    }
    Ok(())
}

/// Checks a vector and returns it as it is stored or searched: normalized under [`Similarity::Cosine`] alone.
fn prepared(
    vector: &[f32],
    options: &IndexOptions,
    dtype: Dtype,
    what: impl Fn() -> String,
) -> Result<Vec<f32>, IndexError> {
    if vector.len() != options.dimension {
        return Err(IndexError::Dimension {
            what: what(),
            found: vector.len(),
            expected: options.dimension,
        });
    }
    if let Some((component, &value)) = vector
        .iter()
        .enumerate()
        .find(|(_, value)| !value.is_finite())
    {
        return Err(IndexError::NotFinite {
            what: what(),
            component,
            value,
        });
    }
    if options.similarity != Similarity::Cosine {
        if let Some((component, &value)) = vector
            .iter()
            .enumerate()
            .find(|(_, value)| value.abs() > dtype.largest())
        {
            return Err(IndexError::TooLarge {
                what: what(),
                component,
                value,
                dtype: dtype.name(),
            });
        }
        let largest = vector
            .iter()
            .fold(0.0f32, |most, value| most.max(value.abs()));
        if largest > 0.0 && largest < dtype.smallest() {
            return Err(IndexError::TooSmall {
                what: what(),
                value: largest,
                dtype: dtype.name(),
            });
        }
        return Ok(vector.to_vec());
    }
    let length = vector
        .iter()
        .map(|&value| f64::from(value) * f64::from(value))
        .sum::<f64>()
        .sqrt();
    if length == 0.0 {
        return Err(IndexError::Zero { what: what() });
    }
    Ok(vector
        .iter()
        .map(|&value| (f64::from(value) / length) as f32)
        .collect())
}
