//! Reading a shard in place.

use std::ops::Range;
use std::path::{Path, PathBuf};

use memmap2::Mmap;
use modernbert_files::output::FileId;
use sha2::{Digest, Sha256};

use super::header::{HEADER_LEN, Header, array};
use super::{ShardError, TokenizerHash};

/// Extent of the checks when a shard is opened.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Check {
    /// Everything, by reading the file once: lengths, offsets, SHA-256, ids.
    #[default]
    Whole,
    /// Lengths and offsets, the checks that safe reading needs.
    Structure,
}

/// A memory-mapped shard: only accessed pages are read.
#[derive(Debug)]
pub struct Shard {
    path: PathBuf,
    id: Option<FileId>,
    map: Mmap,
    header: Header,
    offsets_at: usize,
}

impl Shard {
    /// Opens a shard and checks all of it.
    pub fn open(path: impl AsRef<Path>) -> Result<Self, ShardError> {
        Self::open_with(path, Check::Whole)
    }

    /// Opens a shard; with [`Check::Structure`] the content is not compared with its hash.
    pub fn open_with(path: impl AsRef<Path>, check: Check) -> Result<Self, ShardError> {
        let path = path.as_ref().to_path_buf();
        let open = || {
            let file = modernbert_files::read::open(&path)?;
            // SAFETY: the map is only read, and through bounds-checked slices of bytes, any value of which is valid.
            // As with every mapped file, another program must not truncate it meanwhile; this project replaces files atomically, and
            // checks the length again before it reads, see `check_length`.
            unsafe { Mmap::map(&file) }
        };
        let map = open().map_err(|source| ShardError::Read {
            path: path.clone(),
            source,
        })?;
        let header = Header::parse(&map, &path)?;
        let actual = map.len() as u64;
        let Some((offsets_at, _)) = header.layout().filter(|&(_, end)| end == actual) else {
            let Header {
                samples, tokens, ..
            } = header;
            return Err(ShardError::Length {
                path,
                actual,
                samples,
                tokens,
            });
        };
        let shard = Self {
            id: FileId::of(&path),
            path,
            map,
            header,
            offsets_at: offsets_at as usize,
        };
        shard.check_offsets()?;
        if check == Check::Whole {
            shard.verify()?;
        }
        Ok(shard)
    }

    /// Refuses a file that became shorter since it was opened: the system would end a process that reads beyond its end (SIGBUS). A file that
    /// was replaced or removed is still mapped, and complete.
    ///
    /// # Errors
    /// A file that is shorter now.
    pub fn check_length(&self) -> Result<(), ShardError> {
        let expected = self.map.len() as u64;
        let actual = std::fs::metadata(&self.path).map_or(expected, |data| data.len());
        if actual < expected && FileId::of(&self.path) == self.id {
            return Err(ShardError::Shrunk {
                path: self.path.clone(),
                actual,
                expected,
            });
        }
        Ok(())
    }

    /// Compares the content with its SHA-256 and checks that every id is in the vocabulary.
    pub fn verify(&self) -> Result<(), ShardError> {
        let payload = Sha256::new_with_prefix(&self.map[HEADER_LEN..]);
        if self.header.seal(payload) != self.header {
            return Err(ShardError::Hash {
                path: self.path.clone(),
            });
        }
        let vocab_size = self.vocab_size();
        match self
            .ids(0..self.tokens())
            .find(|&id| id as usize >= vocab_size)
        {
            Some(id) => Err(ShardError::Id {
                path: self.path.clone(),
                id,
                vocab_size,
            }),
            None => Ok(()),
        }
    }

    /// Refuses a shard that was made with another tokenizer.
    pub fn expect_tokenizer(&self, tokenizer: TokenizerHash) -> Result<(), ShardError> {
        if self.header.tokenizer == tokenizer {
            return Ok(());
        }
        Err(ShardError::Tokenizer {
            path: self.path.clone(),
        })
    }

    /// The file.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Samples in the shard.
    pub fn len(&self) -> usize {
        self.header.samples as usize
    }

    /// Returns true if there is no sample.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Tokens of all samples.
    pub fn tokens(&self) -> usize {
        self.header.tokens as usize
    }

    /// Ids are below this.
    pub fn vocab_size(&self) -> usize {
        self.header.vocab_size as usize
    }

    /// The tokenizer the shard was made with.
    pub fn tokenizer(&self) -> TokenizerHash {
        self.header.tokenizer
    }

    /// SHA-256 of the content, as the header has it.
    pub fn sha256(&self) -> [u8; 32] {
        self.header.sha256
    }

    /// Tokens of sample `index`.
    ///
    /// # Panics
    ///
    /// If `index` is not below [`Shard::len`].
    pub fn sample_len(&self, index: usize) -> usize {
        self.range(index).len()
    }

    /// Sample `index`.
    ///
    /// # Panics
    ///
    /// If `index` is not below [`Shard::len`].
    pub fn get(&self, index: usize) -> Vec<u32> {
        self.ids(self.range(index)).collect()
    }

    /// Tokens `range` of sample `index`.
    ///
    /// # Panics
    ///
    /// If `index` is not below [`Shard::len`], or `range` reaches beyond the sample.
    pub fn get_range(&self, index: usize, range: Range<usize>) -> Vec<u32> {
        let sample = self.range(index);
        assert!(
            range.end <= sample.len(),
            "tokens {range:?} of {} in sample {index} of {}",
            sample.len(),
            self.path.display()
        );
        self.ids(sample.start + range.start..sample.start + range.end)
            .collect()
    }

    /// All samples, in the order they were written.
    pub fn iter(&self) -> impl Iterator<Item = Vec<u32>> + '_ {
        (0..self.len()).map(|index| self.get(index))
    }

    fn range(&self, index: usize) -> Range<usize> {
        assert!(
            index < self.len(),
            "sample {index} of {} in {}",
            self.len(),
            self.path.display()
        );
        self.offset(index) as usize..self.offset(index + 1) as usize
    }

    fn offset(&self, index: usize) -> u64 {
        u64::from_le_bytes(array(&self.map, self.offsets_at + 8 * index))
    }

    fn ids(&self, range: Range<usize>) -> impl Iterator<Item = u32> + '_ {
        let width = self.header.width();
        let bytes = &self.map[HEADER_LEN + range.start * width..HEADER_LEN + range.end * width];
        bytes.chunks_exact(width).map(|token| match *token {
            [a, b] => u32::from(u16::from_le_bytes([a, b])),
            [a, b, c, d] => u32::from_le_bytes([a, b, c, d]),
            _ => unreachable!("a token has 2 or 4 bytes"),
        })
    }

    /// Offsets begin at 0, never fall, and end with the last token.
    fn check_offsets(&self) -> Result<(), ShardError> {
        let wrong = |sample| ShardError::Offsets {
            path: self.path.clone(),
            sample,
        };
        let mut before = self.offset(0);
        if before != 0 {
            return Err(wrong(0));
        }
        for sample in 1..=self.len() {
            let offset = self.offset(sample);
            if offset < before || offset > self.header.tokens {
                return Err(wrong(sample));
            }
            before = offset;
        }
        if before != self.header.tokens {
            return Err(wrong(self.len()));
        }
        Ok(())
    }
}
