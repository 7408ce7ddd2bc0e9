//! A shard's file.

use std::fs::{self, File};
use std::io::{BufReader, Read};
use std::path::{Path, PathBuf};

use flate2::bufread::MultiGzDecoder;

use super::index::{Column, Compression, ShardEntry};
use crate::corpus::CorpusError;

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
    /// Reads the plain file, or the compressed one where that is what there is.
    pub(super) fn open(folder: &Path, entry: ShardEntry) -> Result<Self, CorpusError> {
        let raw = folder.join(&entry.raw);
        let (path, bytes) = match &entry.zip {
            Some((zip, compression)) if !raw.exists() => {
                let path = folder.join(zip);
                let bytes = unpack(&path, *compression)?;
                (path, bytes)
            }
            _ => {
                let bytes = fs::read(&raw).map_err(|source| CorpusError::Read {
                    path: raw.clone(),
                    source,
                })?;
                (raw, bytes)
            }
        };
        let shard = Self {
            path,
            bytes,
            columns: entry.columns,
            samples: entry.samples,
        };
        match shard.word(0) {
            Some(samples) if samples as usize == shard.samples => Ok(shard),
            samples => Err(CorpusError::Mds {
                path: shard.path.clone(),
                reason: match samples {
                    Some(samples) => format!(
                        "it holds {samples} samples and the index says {}",
                        shard.samples
                    ),
                    None => "it is cut short".into(),
                },
            }),
        }
    }

    pub(super) fn path(&self) -> &Path {
        &self.path
    }

    pub(super) fn len(&self) -> usize {
        self.samples
    }

    /// An error of a sample.
    pub(super) fn bad(&self, sample: usize, reason: String) -> CorpusError {
        CorpusError::BadSample {
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
    pub(super) fn sample(&self, index: usize) -> Result<Sample<'_>, CorpusError> {
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

fn unpack(path: &Path, compression: Compression) -> Result<Vec<u8>, CorpusError> {
    let file = File::open(path).map_err(|source| CorpusError::Read {
        path: path.into(),
        source,
    })?;
    let file = BufReader::new(file);
    let mut bytes = Vec::new();
    let read = match compression {
        Compression::Zstd => zstd::Decoder::with_buffer(file)
            .and_then(|unpacked| unpacked.take(LARGEST + 1).read_to_end(&mut bytes))
            .map_err(|source| CorpusError::Zstd {
                path: path.into(),
                source,
            }),
        Compression::Gzip => MultiGzDecoder::new(file)
            .take(LARGEST + 1)
            .read_to_end(&mut bytes)
            .map_err(|source| CorpusError::Gzip {
                path: path.into(),
                source,
            }),
    };
    if read? as u64 > LARGEST {
        return Err(CorpusError::Mds {
            path: path.into(),
            reason: "it unpacks to more than 4 GiB, which no shard is".into(),
        });
    }
    Ok(bytes)
}
