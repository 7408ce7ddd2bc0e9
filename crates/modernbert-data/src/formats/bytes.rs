//! Opening files, unpacked, with a limit on how much they may unpack to.

use std::fs::File;
use std::io::{self, BufRead, BufReader, Read};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

use flate2::bufread::MultiGzDecoder;

use super::FormatError;
use super::kind::Compression;

/// A compressed file of any size may unpack to this many bytes.
const FREE_BYTES: u64 = 256 << 20;
/// Beyond [`FREE_BYTES`] a file may unpack to this many times its size. Text packs 3 to 10 times, logs up to 100.
const MOST_TIMES: u64 = 400;

/// Bytes that were read of a file on disk, shared with the progress display.
pub type ReadBytes = Arc<AtomicU64>;

/// An open file: its unpacked bytes, and the conversion of read errors.
pub(crate) struct Bytes {
    reader: Box<dyn BufRead + Send>,
    path: PathBuf,
    compression: Compression,
}

impl Bytes {
    /// Opens a file and adds to `read` what is read of it.
    pub(crate) fn open(
        path: &Path,
        compression: Compression,
        read: &ReadBytes,
    ) -> Result<Self, FormatError> {
        let file = File::open(path).map_err(|source| FormatError::Read {
            path: path.into(),
            source,
        })?;
        Self::new(Box::new(file), path, compression, read)
    }

    /// The same for bytes from elsewhere, which messages call `path`.
    pub(crate) fn new(
        reader: Box<dyn Read + Send>,
        path: &Path,
        compression: Compression,
        read: &ReadBytes,
    ) -> Result<Self, FormatError> {
        let counted = BufReader::with_capacity(
            1 << 16,
            Counted {
                reader,
                read: read.clone(),
            },
        );
        let guard = |unpacked: Box<dyn Read + Send>| {
            let guarded = Guarded {
                unpacked,
                packed: read.clone(),
                before: read.load(Relaxed),
                out: 0,
            };
            Box::new(BufReader::with_capacity(1 << 16, guarded))
        };
        let reader: Box<dyn BufRead + Send> = match compression {
            Compression::None => Box::new(counted),
            Compression::Gzip => guard(Box::new(MultiGzDecoder::new(counted))),
            Compression::Zstd => guard(zstd(counted, path)?),
        };
        Ok(Self {
            reader,
            path: path.into(),
            compression,
        })
    }

    pub(crate) fn path(&self) -> &Path {
        &self.path
    }

    /// Reads up to and including `\n` into `line`, at most `limit` bytes; returns how many.
    pub(crate) fn line(&mut self, line: &mut Vec<u8>, limit: u64) -> Result<usize, FormatError> {
        let read = (&mut self.reader).take(limit).read_until(b'\n', line);
        read.map_err(|error| self.error(error))
    }

    /// Reads everything into `all`, at most `limit` bytes; returns how many.
    pub(crate) fn rest(&mut self, all: &mut Vec<u8>, limit: u64) -> Result<usize, FormatError> {
        let read = (&mut self.reader).take(limit).read_to_end(all);
        read.map_err(|error| self.error(error))
    }

    fn error(&self, source: io::Error) -> FormatError {
        let path = self.path.clone();
        if source.get_ref().is_some_and(|inner| inner.is::<Bomb>()) {
            return FormatError::Bomb {
                path,
                times: MOST_TIMES,
            };
        }
        match self.compression {
            Compression::None => FormatError::Read { path, source },
            Compression::Gzip => FormatError::Gzip { path, source },
            // The library returns only a message.
            Compression::Zstd if source.to_string().contains("too much memory") => {
                FormatError::ZstdWindow { path }
            }
            Compression::Zstd => FormatError::Zstd { path, source },
        }
    }
}

#[cfg(feature = "zstd")]
fn zstd(
    packed: impl BufRead + Send + 'static,
    path: &Path,
) -> Result<Box<dyn Read + Send>, FormatError> {
    let decoder = ::zstd::Decoder::with_buffer(packed).map_err(|source| FormatError::Zstd {
        path: path.into(),
        source,
    })?;
    Ok(Box::new(decoder))
}

#[cfg(not(feature = "zstd"))]
fn zstd(
    _packed: impl BufRead + Send + 'static,
    path: &Path,
) -> Result<Box<dyn Read + Send>, FormatError> {
    Err(FormatError::NotBuilt {
        path: path.into(),
        format: "Zstandard",
        feature: "zstd",
    })
}

/// Counts what is read.
struct Counted {
    reader: Box<dyn Read + Send>,
    read: ReadBytes,
}

impl Read for Counted {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let count = self.reader.read(buffer)?;
        self.read.fetch_add(count as u64, Relaxed);
        Ok(count)
    }
}

/// Stops reading a file that unpacks to far more than any text.
struct Guarded {
    unpacked: Box<dyn Read + Send>,
    packed: ReadBytes,
    before: u64,
    out: u64,
}

#[derive(Debug, thiserror::Error)]
#[error("the file unpacks to far more than its size")]
struct Bomb;

impl Read for Guarded {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let count = self.unpacked.read(buffer)?;
        self.out += count as u64;
        if self.out > FREE_BYTES {
            let packed = self.packed.load(Relaxed).saturating_sub(self.before);
            if self.out > MOST_TIMES.saturating_mul(packed) {
                return Err(io::Error::new(io::ErrorKind::InvalidData, Bomb));
            }
        }
        Ok(count)
    }
}
