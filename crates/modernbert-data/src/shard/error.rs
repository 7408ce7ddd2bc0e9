//! Errors of shards.

use std::path::PathBuf;

use modernbert_files::output::write_remedy;

/// An error of a shard; each names the file and what to do.
#[derive(Debug, thiserror::Error)]
pub enum ShardError {
    /// The file cannot be read.
    #[error("{path}: cannot be read ({source}); check the path, or make the shard again")]
    Read {
        /// The file.
        path: PathBuf,
        /// The system's error.
        source: std::io::Error,
    },
    /// The file became shorter while it was in use.
    #[error(
        "{path}: {actual} bytes long, and {expected} when it was opened; another program cut the shard short: restore it, or make it again"
    )]
    Shrunk {
        /// The file.
        path: PathBuf,
        /// Its length now.
        actual: u64,
        /// Its length then.
        expected: u64,
    },
    /// The file cannot be written.
    #[error(
        "{path}: cannot be written ({source}); {remedy}",
        path = path.display(),
        remedy = write_remedy(source, "choose a folder you may write to, on a disk with enough free space")
    )]
    Write {
        /// The file.
        path: PathBuf,
        /// The system's error.
        source: std::io::Error,
    },
    /// The file is not a shard.
    #[error(
        "{path}: not a token shard (it does not begin with `MBSHARD`); pass a file that this program wrote"
    )]
    Magic {
        /// The file.
        path: PathBuf,
    },
    /// The file is of another version.
    #[error(
        "{path}: version {version} of the shard format is not known here; make the shard again"
    )]
    Version {
        /// The file.
        path: PathBuf,
        /// Its version.
        version: u32,
    },
    /// The width of a token is wrong.
    #[error(
        "{path}: {bytes} bytes per token do not suit a vocabulary of {vocab_size}; the file is damaged, make it again"
    )]
    Width {
        /// The file.
        path: PathBuf,
        /// Bytes per token in its header.
        bytes: u32,
        /// The vocabulary in its header.
        vocab_size: u64,
    },
    /// The file's length contradicts its header.
    #[error(
        "{path}: {actual} bytes long, but its header states {samples} samples with {tokens} tokens, which is another \
         length; the file was cut short or damaged, copy or make it again"
    )]
    Length {
        /// The file.
        path: PathBuf,
        /// Its length.
        actual: u64,
        /// Samples in its header.
        samples: u64,
        /// Tokens in its header.
        tokens: u64,
    },
    /// The offsets do not divide the tokens.
    #[error(
        "{path}: sample {sample} does not begin at the end of the previous one; the file is damaged, make it again"
    )]
    Offsets {
        /// The file.
        path: PathBuf,
        /// The first sample that is wrong.
        sample: usize,
    },
    /// The content was changed after it was written.
    #[error(
        "{path}: its content does not match its SHA-256; the file was changed or damaged, copy or make it again"
    )]
    Hash {
        /// The file.
        path: PathBuf,
    },
    /// An id is out of the vocabulary.
    #[error(
        "{path}: token id {id} is not in a vocabulary of {vocab_size}; make the shard with the tokenizer whose size it \
         is given"
    )]
    Id {
        /// The file.
        path: PathBuf,
        /// The id.
        id: u32,
        /// The vocabulary.
        vocab_size: usize,
    },
    /// The vocabulary is empty or does not fit 32 bits.
    #[error(
        "{path}: a vocabulary of {vocab_size} is not possible; pass the tokenizer's vocab_size"
    )]
    Vocabulary {
        /// The file.
        path: PathBuf,
        /// The vocabulary.
        vocab_size: usize,
    },
    /// The shard was made with another tokenizer.
    #[error(
        "{path}: was made with another tokenizer; use that one, or make the shard again with this one"
    )]
    Tokenizer {
        /// The file.
        path: PathBuf,
    },
}
