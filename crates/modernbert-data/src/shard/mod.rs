//! Token shards: tokenized samples in one file that is read in place.
//!
//! A shard is a header of [`HEADER_LEN`] bytes, the tokens of all samples in order (u16 where the vocabulary
//! allows it, else u32), zero bytes up to a multiple of 8, and the offset of each sample, as u64. All numbers are
//! little-endian. The header contains the counts, a SHA-256 of everything else and the hash of the tokenizer, so that a
//! truncated or changed file, or one made with another tokenizer, is detected before a model is trained on it.
//!
//! | bytes | content |
//! |---|---|
//! | 0..8 | magic `MBSHARD\0` |
//! | 8..12 | version, u32 |
//! | 12..16 | bytes per token (2 or 4), u32 |
//! | 16..24 | vocabulary size, u64 |
//! | 24..32 | samples, u64 |
//! | 32..40 | tokens, u64 |
//! | 40..72 | hash of the tokenizer |
//! | 72..104 | SHA-256 of tokens, zero bytes and offsets, then of bytes 0..72 |
//! | 104..128 | zero |

mod error;
pub(crate) mod header;
mod reader;
mod samples;
mod tokenize;
mod writer;

#[cfg(test)]
mod tests;

pub use error::ShardError;
pub use header::{HEADER_LEN, TokenizerHash};
pub use reader::{Check, Shard};
pub use samples::{Cut, Samples};
pub use tokenize::{
    LongDocuments, TokenizeError, TokenizeOptions, tokenize_documents, write_shard,
};
pub use writer::{ShardInfo, ShardWriter};
