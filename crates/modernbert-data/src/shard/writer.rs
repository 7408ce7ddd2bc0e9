//! Writing a shard.

use std::fs;
use std::io::{BufWriter, Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};

use modernbert_files::atomic::PendingFile;
use sha2::{Digest, Sha256};

use super::header::{HEADER_LEN, Header};
use super::{ShardError, TokenizerHash};

/// Counts of a finished shard.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ShardInfo {
    /// The file.
    pub path: PathBuf,
    /// Samples in it.
    pub samples: usize,
    /// Tokens in all of them.
    pub tokens: usize,
    /// Its length.
    pub bytes: u64,
    /// SHA-256 of its content.
    pub sha256: [u8; 32],
}

/// Writes samples one by one. The file appears under its name only when it is complete: before that it is a temporary
/// file in the same folder, which is removed if the writer is dropped.
#[derive(Debug)]
pub struct ShardWriter {
    path: PathBuf,
    file: BufWriter<PendingFile>,
    header: Header,
    hash: Sha256,
    offsets: Vec<u64>,
    bytes: Vec<u8>,
}

impl ShardWriter {
    /// Begins a shard at `path`; missing folders are created.
    pub fn create(
        path: impl AsRef<Path>,
        vocab_size: usize,
        tokenizer: TokenizerHash,
    ) -> Result<Self, ShardError> {
        let path = path.as_ref().to_path_buf();
        if vocab_size == 0 || vocab_size as u64 > 1 << 32 {
            return Err(ShardError::Vocabulary { path, vocab_size });
        }
        let header = Header {
            vocab_size: vocab_size as u64,
            samples: 0,
            tokens: 0,
            tokenizer,
            sha256: [0; 32],
        };
        let folder = match path.parent() {
            Some(parent) if !parent.as_os_str().is_empty() => parent,
            _ => Path::new("."),
        };
        let begin = || {
            fs::create_dir_all(folder)?;
            let mut file = BufWriter::new(PendingFile::create(&path)?);
            file.write_all(&[0; HEADER_LEN])?;
            Ok(file)
        };
        let file = begin().map_err(|source| ShardError::Write {
            path: path.clone(),
            source,
        })?;
        Ok(Self {
            path,
            file,
            header,
            hash: Sha256::new(),
            offsets: vec![0],
            bytes: Vec::new(),
        })
    }

    /// Adds a sample: `[CLS] … [SEP]`.
    pub fn push(&mut self, sample: &[u32]) -> Result<(), ShardError> {
        let vocab_size = self.header.vocab_size;
        if let Some(&id) = sample.iter().find(|&&id| u64::from(id) >= vocab_size) {
            return Err(ShardError::Id {
                path: self.path.clone(),
                id,
                vocab_size: vocab_size as usize,
            });
        }
        self.bytes.clear();
        if self.header.width() == 2 {
            self.bytes
                .extend(sample.iter().flat_map(|&id| (id as u16).to_le_bytes()));
        } else {
            self.bytes
                .extend(sample.iter().flat_map(|&id| id.to_le_bytes()));
        }
        self.header.samples += 1;
        self.header.tokens += sample.len() as u64;
        self.offsets.push(self.header.tokens);
        self.emit()
    }

    /// Writes offsets and header, and gives the file its name.
    pub fn commit(mut self) -> Result<ShardInfo, ShardError> {
        self.bytes.clear();
        self.bytes.resize(self.header.padding(), 0);
        self.bytes
            .extend(self.offsets.iter().flat_map(|offset| offset.to_le_bytes()));
        self.emit()?;
        let header = self.header.seal(self.hash);
        let path = self.path;
        let failed = |source: std::io::Error| ShardError::Write {
            path: path.clone(),
            source,
        };

        let mut file = self
            .file
            .into_inner()
            .map_err(|error| failed(error.into_error()))?;
        let bytes = file.stream_position().map_err(failed)?;
        file.seek(SeekFrom::Start(0)).map_err(failed)?;
        file.write_all(&header.to_bytes()).map_err(failed)?;
        file.commit().map_err(failed)?;
        Ok(ShardInfo {
            path,
            samples: header.samples as usize,
            tokens: header.tokens as usize,
            bytes,
            sha256: header.sha256,
        })
    }

    fn emit(&mut self) -> Result<(), ShardError> {
        self.hash.update(&self.bytes);
        self.file
            .write_all(&self.bytes)
            .map_err(|source| ShardError::Write {
                path: self.path.clone(),
                source,
            })
    }
}
