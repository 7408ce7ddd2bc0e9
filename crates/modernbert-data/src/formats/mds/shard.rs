//! A shard's file.

use std::path::{Path, PathBuf};

use super::index::{Column, MdsShard};
use crate::formats::bytes::{Bytes, ReadBytes};
use crate::formats::{Compression, FormatError};

/// Shards are limited to some ten megabytes by their writers; offsets reach no further than this.
const LARGEST: u64 = u32::MAX as u64;

/// A shard in memory.
pub(super) struct ShardFile {
    path: PathBuf,
    bytes: Vec<u8>,
    columns: Vec<Column>,
    samples: usize,
}

/// A column's value in a sample.
#[derive(Clone, Copy)]
pub(super) struct Value<'a> {
    pub(super) column: &'a Column,
    pub(super) bytes: &'a [u8],
}

/// The values of a sample.
pub(super) struct Sample<'a>(Vec<Value<'a>>);

impl<'a> Sample<'a> {
    /// The value of the column called `name`.
    pub(super) fn find(&self, name: &str) -> Option<Value<'a>> {
        self.0
            .iter()
            .copied()
            .find(|value| value.column.name == name)
    }
}

impl ShardFile {
    /// Reads the uncompressed file, or the compressed one if it is the only one.
    pub(super) fn open(
        folder: &Path,
        entry: MdsShard,
        read: &ReadBytes,
    ) -> Result<Self, FormatError> {
        let (raw, size) = (folder.join(&entry.raw.0), entry.raw.1);
        let (path, compression) = match &entry.zip {
            Some((zip, compression)) if !raw.exists() => (folder.join(zip), *compression),
            _ => (raw, Compression::None),
        };
        let mut bytes = Vec::new();
        let length = Bytes::open(&path, compression, read)?.rest(&mut bytes, LARGEST + 1)? as u64;
        if length != size {
            let reason = if length > LARGEST {
                "it holds more than 4 GiB, the most a shard can".into()
            } else {
                format!("it holds {length} bytes and the index says {size}")
            };
            return Err(FormatError::Mds { path, reason });
        }
        let shard = Self {
            path,
            bytes,
            columns: entry.columns,
            samples: entry.samples,
        };
        let wrong = |reason: String| FormatError::Mds {
            path: shard.path.clone(),
            reason,
        };
        match shard.word(0) {
            Some(samples) if samples as usize == shard.samples => {}
            Some(samples) => {
                let expected = shard.samples;
                return Err(wrong(format!(
                    "it holds {samples} samples and the index says {expected}"
                )));
            }
            None => return Err(wrong("it is cut short".into())),
        }
        // Otherwise a count without samples would give an error for each.
        if shard.samples > 0 && shard.word(1 + shard.samples).is_none() {
            return Err(wrong("it is cut short".into()));
        }
        Ok(shard)
    }

    pub(super) fn path(&self) -> &Path {
        &self.path
    }

    pub(super) fn len(&self) -> usize {
        self.samples
    }

    /// An error of a sample.
    pub(super) fn bad(&self, sample: usize, reason: String) -> FormatError {
        FormatError::BadSample {
            path: self.path.clone(),
            sample: sample + 1,
            reason,
        }
    }

    fn word(&self, index: usize) -> Option<u32> {
        let bytes = self.bytes.get(4 * index..4 * index + 4)?;
        Some(u32::from_le_bytes(bytes.try_into().ok()?))
    }

    /// The values of sample `index`.
    pub(super) fn sample(&self, index: usize) -> Result<Sample<'_>, FormatError> {
        let read = || {
            let begin = self.word(1 + index)? as usize;
            let end = self.word(2 + index)? as usize;
            let mut rest = self.bytes.get(begin..end)?;
            let mut take = |count: usize| {
                let (taken, left) = rest.split_at_checked(count)?;
                rest = left;
                Some(taken)
            };
            let mut sizes = Vec::with_capacity(self.columns.len());
            for column in &self.columns {
                sizes.push(match column.size {
                    Some(size) => size,
                    None => u32::from_le_bytes(take(4)?.try_into().ok()?) as usize,
                });
            }
            let values = self.columns.iter().zip(sizes);
            values
                .map(|(column, size)| take(size).map(|bytes| Value { column, bytes }))
                .collect::<Option<Vec<_>>>()
        };
        match read() {
            Some(values) => Ok(Sample(values)),
            None => Err(self.bad(index, "it reaches beyond the shard".into())),
        }
    }
}
