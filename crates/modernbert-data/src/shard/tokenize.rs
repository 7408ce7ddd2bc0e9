//! Tokenizes documents into samples.

use std::path::Path;

use modernbert_files::parallel::try_map;
use modernbert_files::tokenizer::{Tokenizer, TokenizerError};
use serde::{Deserialize, Serialize};

use super::{ShardError, ShardInfo, ShardWriter, TokenizerHash};
use crate::corpus::Document;

/// Documents tokenized before their samples are written: enough for every core, few enough to keep in memory.
const DOCUMENTS_AT_A_TIME: usize = 256;

/// Treatment of a document that is longer than a sample.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum LongDocuments {
    /// Cut it into samples, so that all of its text is used.
    #[default]
    Split,
    /// Keep its beginning, as ModernBERT's training did.
    Truncate,
}

/// Rules that make samples of documents.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct TokenizeOptions {
    /// Tokens in a sample at most, `[CLS]` and `[SEP]` included.
    pub max_length: usize,
    /// Samples with fewer tokens, `[CLS]` and `[SEP]` included, are dropped.
    pub min_length: usize,
    /// Treatment of longer documents.
    pub long_documents: LongDocuments,
}

impl Default for TokenizeOptions {
    fn default() -> Self {
        Self {
            max_length: 1024,
            min_length: 8,
            long_documents: LongDocuments::Split,
        }
    }
}

/// An error of tokenizing documents.
#[derive(Debug, thiserror::Error)]
pub enum TokenizeError {
    /// A document could not be tokenized.
    #[error("{document}: {source}")]
    Document {
        /// The document's name.
        document: String,
        /// The tokenizer's error.
        source: TokenizerError,
    },
    /// The tokenizer is unusable.
    #[error(transparent)]
    Tokenizer(#[from] TokenizerError),
    /// The shard could not be written.
    #[error(transparent)]
    Shard(#[from] ShardError),
    /// Samples have no space for text.
    #[error(
        "samples of {max_length} tokens have no space for text between [CLS] and [SEP]; use 3 or more"
    )]
    MaxLength {
        /// The length given.
        max_length: usize,
    },
    /// No sample was long enough.
    #[error("no document gave a sample of {min_length} tokens or more; add text")]
    NoSamples {
        /// The least number of tokens.
        min_length: usize,
    },
}

/// All samples, each `[CLS] … [SEP]`, in the order of the documents. Documents are tokenized in parallel.
pub fn tokenize_documents(
    tokenizer: &Tokenizer,
    documents: &[Document],
    options: &TokenizeOptions,
) -> Result<Vec<Vec<u32>>, TokenizeError> {
    let TokenizeOptions { max_length, .. } = *options;
    if max_length < 3 {
        return Err(TokenizeError::MaxLength { max_length });
    }
    let samples = try_map(documents, |document| {
        let ids = tokenizer.encode_plain(&document.text);
        let ids = ids.map_err(|source| TokenizeError::Document {
            document: document.name.clone(),
            source,
        })?;
        Ok::<_, TokenizeError>(samples_of(&ids, tokenizer, options))
    })?;
    Ok(samples.into_iter().flatten().collect())
}

/// Tokenizes documents into a shard at `path`; only a few documents are in memory as tokens at a time.
pub fn write_shard(
    tokenizer: &Tokenizer,
    documents: &[Document],
    options: &TokenizeOptions,
    path: impl AsRef<Path>,
) -> Result<ShardInfo, TokenizeError> {
    let mut writer =
        ShardWriter::create(path, tokenizer.vocab_size(), TokenizerHash::of(tokenizer)?)?;
    let mut samples = 0;
    for some in documents.chunks(DOCUMENTS_AT_A_TIME) {
        for sample in tokenize_documents(tokenizer, some, options)? {
            writer.push(&sample)?;
            samples += 1;
        }
    }
    if samples == 0 {
        return Err(TokenizeError::NoSamples {
            min_length: options.min_length,
        });
    }
    Ok(writer.commit()?)
}

fn samples_of(ids: &[u32], tokenizer: &Tokenizer, options: &TokenizeOptions) -> Vec<Vec<u32>> {
    let special = tokenizer.special();
    let pieces = match options.long_documents {
        LongDocuments::Split => usize::MAX,
        LongDocuments::Truncate => 1,
    };
    ids.chunks(options.max_length - 2)
        .take(pieces)
        .filter(|piece| piece.len() + 2 >= options.min_length)
        .map(|piece| [&[special.cls], piece, &[special.sep]].concat())
        .collect()
}
