//! The first bytes of a shard.

use std::path::Path;

use modernbert_files::tokenizer::{Tokenizer, TokenizerError};
use sha2::{Digest, Sha256};

use super::ShardError;

/// Length of the header in bytes.
pub const HEADER_LEN: usize = 128;
/// Bytes of the header that the SHA-256 covers.
const HASHED: usize = 72;
const MAGIC: [u8; 8] = *b"MBSHARD\0";
const VERSION: u32 = 1;
/// Offsets are aligned to this.
const ALIGN: u64 = 8;

/// SHA-256 of a tokenizer's JSON, which identifies the tokenizer.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct TokenizerHash(pub [u8; 32]);

impl TokenizerHash {
    /// The hash of this tokenizer.
    pub fn of(tokenizer: &Tokenizer) -> Result<Self, TokenizerError> {
        Ok(Self(Sha256::digest(tokenizer.to_json()?).into()))
    }
}

/// The header, decoded.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Header {
    pub(super) vocab_size: u64,
    pub(super) samples: u64,
    pub(super) tokens: u64,
    pub(super) tokenizer: TokenizerHash,
    pub(super) sha256: [u8; 32],
}

/// Bytes per token of a vocabulary.
pub(crate) fn width(vocab_size: u64) -> usize {
    if vocab_size <= 1 << 16 { 2 } else { 4 }
}

impl Header {
    /// Bytes per token.
    pub(super) fn width(&self) -> usize {
        width(self.vocab_size)
    }

    /// Zero bytes between tokens and offsets.
    pub(super) fn padding(&self) -> usize {
        // The width is a power of two, so the remainder survives a product that wraps.
        let end = self.tokens.wrapping_mul(self.width() as u64);
        (end.wrapping_neg() % ALIGN) as usize
    }

    /// Positions of the offsets and of the end of the file; `None` if that is beyond any file.
    pub(super) fn layout(&self) -> Option<(u64, u64)> {
        let tokens = self.tokens.checked_mul(self.width() as u64)?;
        let offsets = tokens
            .checked_add(HEADER_LEN as u64)?
            .checked_add(self.padding() as u64)?;
        let end = self
            .samples
            .checked_add(1)?
            .checked_mul(8)?
            .checked_add(offsets)?;
        Some((offsets, end))
    }

    pub(super) fn to_bytes(self) -> [u8; HEADER_LEN] {
        let mut bytes = [0; HEADER_LEN];
        bytes[..8].copy_from_slice(&MAGIC);
        bytes[8..12].copy_from_slice(&VERSION.to_le_bytes());
        bytes[12..16].copy_from_slice(&(self.width() as u32).to_le_bytes());
        bytes[16..24].copy_from_slice(&self.vocab_size.to_le_bytes());
        bytes[24..32].copy_from_slice(&self.samples.to_le_bytes());
        bytes[32..40].copy_from_slice(&self.tokens.to_le_bytes());
        bytes[40..72].copy_from_slice(&self.tokenizer.0);
        bytes[72..104].copy_from_slice(&self.sha256);
        bytes
    }

    /// The hash of a shard, from that of what follows the header.
    pub(super) fn seal(mut self, mut payload: Sha256) -> Self {
        payload.update(&self.to_bytes()[..HASHED]);
        self.sha256 = payload.finalize().into();
        self
    }

    /// Reads a header and makes all checks that need no other part of the file.
    pub(super) fn parse(file: &[u8], path: &Path) -> Result<Self, ShardError> {
        let path = || path.to_path_buf();
        if !file.starts_with(&MAGIC) {
            return Err(ShardError::Magic { path: path() });
        }
        if file.len() < HEADER_LEN {
            return Err(ShardError::Length {
                path: path(),
                actual: file.len() as u64,
                samples: 0,
                tokens: 0,
            });
        }
        let u32_at = |at: usize| u32::from_le_bytes(array(file, at));
        let u64_at = |at: usize| u64::from_le_bytes(array(file, at));
        let version = u32_at(8);
        if version != VERSION {
            return Err(ShardError::Version {
                path: path(),
                version,
            });
        }
        let header = Self {
            vocab_size: u64_at(16),
            samples: u64_at(24),
            tokens: u64_at(32),
            tokenizer: TokenizerHash(array(file, 40)),
            sha256: array(file, 72),
        };
        let bytes = u32_at(12);
        if bytes != header.width() as u32 || header.vocab_size == 0 || header.vocab_size > 1 << 32 {
            return Err(ShardError::Width {
                path: path(),
                bytes,
                vocab_size: header.vocab_size,
            });
        }
        Ok(header)
    }
}

/// `N` bytes from `at`; the caller has checked the length.
pub(super) fn array<const N: usize>(bytes: &[u8], at: usize) -> [u8; N] {
    let mut array = [0; N];
    array.copy_from_slice(&bytes[at..at + N]);
    array
}
