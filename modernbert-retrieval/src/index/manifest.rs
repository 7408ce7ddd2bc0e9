//! The manifest: which segment files and rows make up the index. Replacing it publishes a change.
//!
//! The file `manifest` has two lines: the format and the CRC-32 of the second line, then the contents as JSON.

use std::collections::HashSet;
use std::path::Path;

use modernbert_files::atomic::write_atomically;
use serde::{Deserialize, Serialize};

use super::names::{self, MANIFEST};
use super::{Dtype, IndexError, ModelId, Similarity, segment};

#[derive(Serialize, Deserialize)]
struct Head {
    format: u32,
    crc32: u32,
}

/// Contents of an index.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(crate) struct Manifest {
    /// Counts the changes, from 1.
    pub(crate) generation: u64,
    /// Number in the name of the next segment file. Names are never used twice.
    pub(crate) next_file: u64,
    pub(crate) dimension: usize,
    pub(crate) dtype: Dtype,
    pub(crate) similarity: Similarity,
    pub(crate) model: ModelId,
    pub(crate) segments: Vec<Entry>,
}

/// A segment file and its deleted rows.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(crate) struct Entry {
    pub(crate) file: String,
    pub(crate) rows: usize,
    pub(crate) checksum: u32,
    /// Ascending.
    pub(crate) deleted: Vec<u32>,
}

impl Manifest {
    /// Vectors that are not deleted.
    pub(crate) fn live(&self) -> usize {
        let live = |entry: &Entry| entry.rows - entry.deleted.len();
        self.segments.iter().map(live).sum()
    }

    pub(crate) fn exists(folder: &Path) -> bool {
        folder.join(MANIFEST).is_file()
    }

    pub(crate) fn read(folder: &Path) -> Result<Self, IndexError> {
        let path = folder.join(MANIFEST);
        let bytes = match modernbert_files::read::bytes(&path) {
            Ok(bytes) => bytes,
            Err(error)
                if matches!(
                    error.kind(),
                    std::io::ErrorKind::NotFound | std::io::ErrorKind::NotADirectory
                ) =>
            {
                return Err(IndexError::NoIndex {
                    path: folder.to_path_buf(),
                });
            }
            Err(source) => return Err(IndexError::Io { path, source }),
        };
        let end = bytes.iter().position(|byte| *byte == b'\n');
        let (first, rest) =
            bytes.split_at(end.ok_or_else(|| IndexError::damaged(&path, "cut short"))?);
        let body = &rest[1..];
        let head: Head = serde_json::from_slice(first)
            .map_err(|_| IndexError::damaged(&path, "its first line is not a manifest's"))?;
        if head.format != segment::FORMAT {
            return Err(IndexError::Format {
                path,
                found: head.format,
                known: segment::FORMAT,
            });
        }
        if head.crc32 != crc32fast::hash(body) {
            return Err(IndexError::damaged(&path, "its checksum differs"));
        }
        let manifest: Self = modernbert_files::json::parse(body)
            .map_err(|error| IndexError::damaged(&path, error.to_string()))?;
        manifest.check(&path)?;
        Ok(manifest)
    }

    fn check(&self, path: &Path) -> Result<(), IndexError> {
        let mut seen = HashSet::new();
        for entry in &self.segments {
            let is_name = names::is_segment(&entry.file) && seen.insert(&entry.file);
            let ascends = entry.deleted.windows(2).all(|pair| pair[0] < pair[1]);
            let inside = entry
                .deleted
                .last()
                .is_none_or(|last| (*last as usize) < entry.rows);
            if !is_name || !ascends || !inside {
                return Err(IndexError::damaged(
                    path,
                    format!("impossible entry {}", entry.file),
                ));
            }
        }
        Ok(())
    }

    /// Replaces the manifest in one step.
    pub(crate) fn publish(&self, folder: &Path) -> Result<(), IndexError> {
        let path = folder.join(MANIFEST);
        let failed = |error: serde_json::Error| IndexError::damaged(&path, error.to_string());
        let body = serde_json::to_vec(self).map_err(failed)?;
        let head = Head {
            format: segment::FORMAT,
            crc32: crc32fast::hash(&body),
        };
        let mut content = serde_json::to_vec(&head).map_err(failed)?;
        content.push(b'\n');
        content.extend_from_slice(&body);
        write_atomically(&path, &content).map_err(IndexError::io(&path))
    }
}
