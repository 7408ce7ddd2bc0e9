//! Text to token ids and back.
//!
//! [`Tokenizer`] wraps a `tokenizer.json` of the [`tokenizers`] library and holds it to what the rest of this project
//! relies on: the five special tokens exist, and one text becomes `[CLS] A [SEP]`, two become `[CLS] A [SEP] B [SEP]`.
//! Ids are always looked up by the token's text, because every tokenizer numbers them differently. [`train`] makes a
//! tokenizer of the same kind from any text.
//!
//! Truncation and padding settings in a file are ignored: sequences are packed, not padded, and a caller that wants a
//! length limit says so with [`Tokenizer::encode_truncated`].

mod error;
mod files;
pub mod train;
mod words;

#[cfg(test)]
mod tests;

use std::path::Path;

use rayon::prelude::*;

pub use error::TokenizerError;
pub use train::TrainOptions;
pub use words::EncodedWords;

/// The ids of the five special tokens of one tokenizer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct SpecialTokens {
    /// `[UNK]`: stands for what cannot be encoded; never produced by a byte-level tokenizer.
    pub unk: u32,
    /// `[CLS]`: opens every sequence.
    pub cls: u32,
    /// `[SEP]`: closes every text.
    pub sep: u32,
    /// `[PAD]`: fills what is left of a row.
    pub pad: u32,
    /// `[MASK]`: a token to predict.
    pub mask: u32,
}

impl SpecialTokens {
    /// All five ids.
    pub fn ids(&self) -> [u32; 5] {
        [self.unk, self.cls, self.sep, self.pad, self.mask]
    }

    /// Whether `id` is one of the five.
    pub fn contains(&self, id: u32) -> bool {
        self.ids().contains(&id)
    }
}

/// A sequence with its special tokens, and whether text was cut off to make it fit.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Encoded {
    /// Token ids, `[CLS]` first and `[SEP]` last.
    pub ids: Vec<u32>,
    /// True if the text was longer than the limit.
    pub truncated: bool,
}

/// A sequence whose tokens know which part of the text they came from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct EncodedOffsets {
    /// Token ids, `[CLS]` first and `[SEP]` last.
    pub ids: Vec<u32>,
    /// For each token the bytes `start..end` of the text it stands for; `(0, 0)` for special tokens of the template.
    pub offsets: Vec<(usize, usize)>,
}

/// A tokenizer with ModernBERT's special tokens and template.
#[derive(Debug, Clone)]
pub struct Tokenizer {
    inner: tokenizers::Tokenizer,
    special: SpecialTokens,
}

impl Tokenizer {
    /// Reads a `tokenizer.json`.
    pub fn from_file(path: impl AsRef<Path>) -> Result<Self, TokenizerError> {
        let path = path.as_ref();
        let bytes = std::fs::read(path).map_err(|source| TokenizerError::Read {
            path: path.into(),
            source,
        })?;
        Self::from_bytes(&bytes, &path.display().to_string())
    }

    /// Reads `tokenizer.json` in a model folder.
    pub fn from_folder(folder: impl AsRef<Path>) -> Result<Self, TokenizerError> {
        Self::from_file(folder.as_ref().join(files::TOKENIZER_FILE))
    }

    /// Reads the content of a `tokenizer.json`; `place` is what errors call it.
    pub fn from_bytes(bytes: &[u8], place: &str) -> Result<Self, TokenizerError> {
        let mut inner = files::parse(bytes).map_err(|reason| TokenizerError::Parse {
            place: place.into(),
            reason,
        })?;
        inner.with_padding(None);
        inner
            .with_truncation(None)
            .map_err(|error| TokenizerError::Parse {
                place: place.into(),
                reason: error.to_string(),
            })?;
        let id = |token: &'static str| {
            inner
                .token_to_id(token)
                .ok_or_else(|| TokenizerError::MissingSpecial {
                    place: place.into(),
                    token,
                })
        };
        let special = SpecialTokens {
            unk: id("[UNK]")?,
            cls: id("[CLS]")?,
            sep: id("[SEP]")?,
            pad: id("[PAD]")?,
            mask: id("[MASK]")?,
        };
        let tokenizer = Self { inner, special };
        // The methods below put the special tokens in place themselves: a file that means another layout must not pass.
        let SpecialTokens { cls, sep, .. } = special;
        if tokenizer.with_template("")? != [cls, sep]
            || tokenizer.with_template(("", ""))? != [cls, sep, sep]
        {
            return Err(TokenizerError::Template {
                place: place.into(),
            });
        }
        Ok(tokenizer)
    }

    /// The ids of the special tokens.
    pub fn special(&self) -> SpecialTokens {
        self.special
    }

    /// How many ids there are, added tokens included.
    pub fn vocab_size(&self) -> usize {
        self.inner.get_vocab_size(true)
    }

    /// `[CLS] text [SEP]`.
    pub fn encode(&self, text: &str) -> Result<Vec<u32>, TokenizerError> {
        self.with_template(text)
    }

    /// `[CLS] first [SEP] second [SEP]`.
    pub fn encode_pair(&self, first: &str, second: &str) -> Result<Vec<u32>, TokenizerError> {
        self.with_template((first, second))
    }

    /// The tokens of `text` alone, without `[CLS]` and `[SEP]`.
    pub fn encode_plain(&self, text: &str) -> Result<Vec<u32>, TokenizerError> {
        self.inner
            .encode_fast(text, false)
            .map(|encoding| encoding.get_ids().to_vec())
            .map_err(encode_error)
    }

    /// Every text as `[CLS] text [SEP]`, in parallel, in the order given.
    pub fn encode_batch<S: AsRef<str> + Sync>(
        &self,
        texts: &[S],
    ) -> Result<Vec<Vec<u32>>, TokenizerError> {
        texts
            .par_iter()
            .map(|text| self.encode(text.as_ref()))
            .collect()
    }

    /// `[CLS] text [SEP]` with the place in the text of every token.
    pub fn encode_with_offsets(&self, text: &str) -> Result<EncodedOffsets, TokenizerError> {
        let encoding = self.inner.encode(text, true).map_err(encode_error)?;
        Ok(EncodedOffsets {
            ids: encoding.get_ids().to_vec(),
            offsets: encoding.get_offsets().to_vec(),
        })
    }

    /// One text or a pair in at most `max_length` tokens.
    ///
    /// Text is cut on the right, and `[CLS]` and every `[SEP]` stay. Of a pair the longer text is cut first; once both
    /// are equally long they are cut alike, and the text that was longer keeps the odd token.
    pub fn encode_truncated(
        &self,
        first: &str,
        second: Option<&str>,
        max_length: usize,
    ) -> Result<Encoded, TokenizerError> {
        let added = if second.is_some() { 3 } else { 2 };
        if max_length < added {
            return Err(TokenizerError::MaxLength {
                max_length,
                needed: added,
            });
        }
        let SpecialTokens { cls, sep, .. } = self.special;
        let first = self.encode_plain(first)?;
        let second = second.map(|text| self.encode_plain(text)).transpose()?;
        let room = max_length - added;
        let second_len = second.as_ref().map_or(0, Vec::len);
        let (keep_first, keep_second) = longest_first(first.len(), second_len, room);

        let mut ids = Vec::with_capacity(keep_first + keep_second + added);
        ids.push(cls);
        ids.extend_from_slice(&first[..keep_first]);
        ids.push(sep);
        if let Some(second) = second {
            ids.extend_from_slice(&second[..keep_second]);
            ids.push(sep);
        }
        Ok(Encoded {
            ids,
            truncated: keep_first + keep_second < first.len() + second_len,
        })
    }

    /// The text of a sequence, special tokens included.
    pub fn decode(&self, ids: &[u32]) -> Result<String, TokenizerError> {
        self.inner
            .decode(ids, false)
            .map_err(|error| TokenizerError::Decode {
                reason: error.to_string(),
            })
    }

    /// The readable text of a single token, for example `" Paris"`; `None` if no token has this id.
    ///
    /// A token that is only part of a character has no text of its own and is shown in the byte alphabet of the file.
    pub fn token(&self, id: u32) -> Option<String> {
        let raw = self.inner.id_to_token(id)?;
        match self.decode(&[id]) {
            Ok(text) if !text.contains(char::REPLACEMENT_CHARACTER) => Some(text),
            _ => Some(raw),
        }
    }

    /// The tokenizer as JSON, the same text for equal tokenizers: what a hash of a tokenizer is taken of.
    pub fn to_json(&self) -> Result<String, TokenizerError> {
        self.inner
            .to_string(false)
            .map_err(|error| TokenizerError::Serialize {
                reason: error.to_string(),
            })
    }

    fn with_template<'s>(
        &self,
        input: impl Into<tokenizers::EncodeInput<'s>>,
    ) -> Result<Vec<u32>, TokenizerError> {
        self.inner
            .encode_fast(input, true)
            .map(|encoding| encoding.get_ids().to_vec())
            .map_err(encode_error)
    }
}

/// How many tokens of two texts fit into `room` when the longer one is cut first.
fn longest_first(first: usize, second: usize, room: usize) -> (usize, usize) {
    if first + second <= room {
        return (first, second);
    }
    let shorter = first.min(second).min(room / 2);
    let longer = room - shorter;
    if first > second {
        (longer, shorter)
    } else {
        (shorter, longer)
    }
}

fn encode_error(error: tokenizers::Error) -> TokenizerError {
    TokenizerError::Encode {
        reason: error.to_string(),
    }
}
