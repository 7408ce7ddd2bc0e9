//! Errors of tokenizers.

use std::path::PathBuf;

/// An error of the tokenizer; each names the place and the remedy.
#[derive(Debug, thiserror::Error)]
pub enum TokenizerError {
    /// A file beside `tokenizer.json` is malformed, or contradicts it.
    #[error("{path}: {reason}; {remedy}")]
    Settings {
        /// The file.
        path: PathBuf,
        /// Description of the fault.
        reason: String,
        /// Remedy.
        remedy: String,
    },
    /// The file cannot be read.
    #[error(
        "{path}: cannot be read ({source}); point to a ModernBERT `tokenizer.json` or to the model folder that holds it"
    )]
    Read {
        /// The file.
        path: PathBuf,
        /// Error of the operating system.
        source: std::io::Error,
    },
    /// The file is no tokenizer.
    #[error(
        "{place}: not a `tokenizer.json` of the tokenizers library ({reason}); {}",
        crate::cached::replace_file(place)
    )]
    Parse {
        /// The file.
        place: String,
        /// Message of the library.
        reason: String,
    },
    /// Two tokens have one id.
    #[error(
        "{place}: the tokens {first:?} and {second:?} both have the id {id}; give each token an id of its own, or copy the file from the model again"
    )]
    SameId {
        /// The file.
        place: String,
        /// The first token.
        first: String,
        /// The second token.
        second: String,
        /// Their id.
        id: u32,
    },
    /// A special token is missing.
    #[error(
        "{place}: has no {token} token, which ModernBERT needs; add it as a special token or use another tokenizer"
    )]
    MissingSpecial {
        /// The file.
        place: String,
        /// The token's text.
        token: String,
    },
    /// The mask token has another role too.
    #[error(
        "{place}: the mask token {token:?} is also the one that opens, closes or pads a sequence; name a token of its own as mask_token in \
         tokenizer_config.json"
    )]
    MaskIsOther {
        /// The file.
        place: String,
        /// The token's text.
        token: String,
    },
    /// The file has another layout of sequences.
    #[error(
        "{place}: its post-processor does not make `[CLS] A [SEP]` and `[CLS] A [SEP] B [SEP]`; \
         set that template (type `TemplateProcessing`) or use another tokenizer"
    )]
    Template {
        /// The file.
        place: String,
    },
    /// The limit leaves no token in addition to the special tokens.
    #[error(
        "a maximum length of {max_length} leaves no token of a text beside the {needed} special tokens; use a longer one"
    )]
    MaxLength {
        /// The limit given.
        max_length: usize,
        /// Tokens that the template adds.
        needed: usize,
    },
    /// The library could not encode a text.
    #[error("the text could not be encoded ({reason}); check the tokenizer file")]
    Encode {
        /// Message of the library.
        reason: String,
    },
    /// A long text has no position at which it can be cut without changing its ids.
    #[error(
        "{mebibytes} MiB of the text have no white space or punctuation to cut at; check that it is text, or split it"
    )]
    NoPlaceToCut {
        /// Length of the text that was searched, in MiB.
        mebibytes: usize,
    },
    /// The library could not decode ids.
    #[error("the ids could not be decoded ({reason}); check that they come from this tokenizer")]
    Decode {
        /// Message of the library.
        reason: String,
    },
    /// The library could not write the tokenizer as JSON.
    #[error(
        "the tokenizer could not be written as JSON ({reason}); check the file it was read from"
    )]
    Serialize {
        /// Message of the library.
        reason: String,
    },
    /// A file cannot be written.
    #[error("{path}: cannot be written ({source}); choose a folder you may write to")]
    Write {
        /// The file.
        path: PathBuf,
        /// Error of the operating system.
        source: std::io::Error,
    },
    /// The vocabulary asked for cannot hold the bytes and the special tokens.
    #[error(
        "a vocabulary of {vocab_size} cannot hold 256 bytes and {specials} special tokens; ask for {smallest} or more"
    )]
    VocabTooSmall {
        /// The size given.
        vocab_size: usize,
        /// Number of special tokens.
        specials: usize,
        /// The smallest size that works.
        smallest: usize,
    },
    /// There was no text to train on.
    #[error("no text to train a tokenizer on; pass at least one document that is not empty")]
    NoText,
}
