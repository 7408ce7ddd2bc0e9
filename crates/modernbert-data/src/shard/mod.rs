//! Token shards: tokenized samples in one file that is read in place.
//!
//! A shard is a header of [`HEADER_LEN`] bytes, the tokens of all samples one behind the other (u16 where the vocabulary
//! allows it, else u32), zero bytes up to a multiple of 8, and where each sample begins, as u64. All numbers are
//! little-endian. The header holds the counts, a SHA-256 of everything else and the hash of the tokenizer, so that a
//! file cut short, changed or made with another tokenizer is noticed before it trains a model.
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
mod header;
mod pieces;
mod reader;
mod samples;
mod tokenize;
mod writer;

#[cfg(test)]
mod tests;

pub use error::ShardError;
pub use header::{HEADER_LEN, TokenizerHash};
pub use pieces::encode_document;
pub use reader::{Check, Shard};
pub use samples::{Cut, Samples};
pub use tokenize::{
    LongDocuments, TokenizeError, TokenizeOptions, tokenize_documents, write_shard,
};
pub use writer::{ShardInfo, ShardWriter};
