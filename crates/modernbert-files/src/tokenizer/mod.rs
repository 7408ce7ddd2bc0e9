//! Text to token ids and back.
//!
//! [`Tokenizer`] wraps a `tokenizer.json` of the [`tokenizers`] library and checks what the rest of this project relies on:
//! the five special tokens exist, and one text becomes `[CLS] A [SEP]`, two become `[CLS] A [SEP] B [SEP]`, or RoBERTa's `[CLS] A [SEP] [SEP] B [SEP]`. The special
//! tokens may have other texts: `tokenizer_config.json` and `special_tokens_map.json` of the folder are read, and ids are
//! always looked up by the token's text, because every tokenizer numbers them differently. [`train`] makes a tokenizer of
//! the same kind from any text.
//!
//! Truncation and padding settings in a file are ignored: sequences are packed, not padded, and a caller sets a
//! length limit with [`Tokenizer::encode_truncated`]. A panic of the library is an error.

mod error;
mod files;
mod guard;
mod offsets;
mod pieces;
mod roles;
pub mod train;
mod wordpiece;
mod words;

#[cfg(test)]
mod robust_tests;
#[cfg(test)]
mod tests;

use std::collections::HashMap;
use std::path::Path;

use crate::parallel::try_map;
pub use error::TokenizerError;
pub use files::FILES;
use guard::{Reason, guarded};
use pieces::PIECE;
use roles::{Claim, ClaimKind, Roles};
pub use train::TrainOptions;
pub use words::EncodedWords;

/// The remedy for a token that one of a tokenizer's files lacks.
const TOGETHER: &str = "copy both files from the same model, or correct one of them";

/// The ids of the five special tokens of one tokenizer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct SpecialTokens {
    /// `[UNK]`: a piece of text that cannot be encoded. A byte-level tokenizer never produces it; where the file has none, it
    /// is `[PAD]`.
    pub unk: u32,
    /// `[CLS]`: opens every sequence.
    pub cls: u32,
    /// `[SEP]`: closes every text.
    pub sep: u32,
    /// `[PAD]`: padding.
    pub pad: u32,
    /// `[MASK]`: a token to predict.
    pub mask: u32,
}

impl SpecialTokens {
    /// All five ids.
    pub fn ids(&self) -> [u32; 5] {
        [self.unk, self.cls, self.sep, self.pad, self.mask]
    }

    /// Returns true if `id` is one of the five.
    pub fn contains(&self, id: u32) -> bool {
        self.ids().contains(&id)
    }
}

/// A sequence with its special tokens, truncated or not.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Encoded {
    /// Token ids, `[CLS]` first and `[SEP]` last.
    pub ids: Vec<u32>,
    /// True if the text was longer than the limit.
    pub truncated: bool,
    /// Position of the first token of type 1; the number of ids where there is none.
    pub second: usize,
}

/// A sequence with the position of each token in the text.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct EncodedOffsets {
    /// Token ids, `[CLS]` first and `[SEP]` last.
    pub ids: Vec<u32>,
    /// For each token its bytes `start..end` in the original text, for any normalizer; `(0, 0)` for `[CLS]` and `[SEP]`.
    pub offsets: Vec<(usize, usize)>,
}

/// A tokenizer with ModernBERT's special tokens and template.
#[derive(Debug, Clone)]
pub struct Tokenizer {
    inner: tokenizers::Tokenizer,
    special: SpecialTokens,
    /// Tokens of a sequence at most, as `tokenizer_config.json` has it.
    max_length: Option<usize>,
    /// Largest id plus 1.
    id_bound: usize,
    /// `[SEP]` between the texts of a pair: 1, in RoBERTa 2.
    separators: usize,
    /// True if the second text of a pair has type 1.
    second_type: bool,
    /// True if a model of this tokenizer reads types of tokens, as far as the files say it.
    types: Option<bool>,
}

impl Tokenizer {
    /// Reads a `tokenizer.json`, and the names of its special tokens from the files beside it.
    ///
    /// # Errors
    /// A file that can't be read or is no tokenizer; one without the special tokens or with another template; one on which the library
    /// panics.
    pub fn from_file(path: impl AsRef<Path>) -> Result<Self, TokenizerError> {
        let path = path.as_ref();
        let bytes = crate::read::bytes(path).map_err(|source| TokenizerError::Read {
            path: path.into(),
            source,
        })?;
        let roles = Roles::read(path.parent().unwrap_or(Path::new("")))?;
        Self::with_roles(&bytes, &path.display().to_string(), roles)
    }

    /// Reads `tokenizer.json` in a model folder, or BERT's `vocab.txt` in a folder without it.
    ///
    /// # Errors
    /// As [`Self::from_file`].
    pub fn from_folder(folder: impl AsRef<Path>) -> Result<Self, TokenizerError> {
        let folder = folder.as_ref();
        match wordpiece::of_vocabulary(folder)? {
            Some((json, path)) => {
                let roles = Roles::read(folder)?;
                Self::with_roles(json.as_bytes(), &path.display().to_string(), roles)
            }
            None => Self::from_file(folder.join(files::TOKENIZER_FILE)),
        }
    }

    /// Reads the content of a `tokenizer.json`; `place` is its name in errors.
    ///
    /// # Errors
    /// As [`Self::from_file`].
    pub fn from_bytes(bytes: &[u8], place: &str) -> Result<Self, TokenizerError> {
        Self::with_roles(bytes, place, Roles::default())
    }

    fn with_roles(bytes: &[u8], place: &str, roles: Roles) -> Result<Self, TokenizerError> {
        let wrong = |reason: Reason| TokenizerError::Parse {
            place: place.into(),
            reason: reason.to_string(),
        };
        let inner = guarded(|| -> Result<_, Reason> {
            let mut inner = files::parse(bytes)?;
            let direction = inner.get_truncation().map(|cut| cut.direction);
            inner.with_padding(None);
            let cut = inner.with_truncation(None).map(|_| ());
            cut.map_err(Reason::new)?;
            Ok((inner, direction))
        });
        let (inner, direction) = inner.flatten().map_err(wrong)?;
        // transformers takes it as truncation_side.
        if direction == Some(tokenizers::TruncationDirection::Left) {
            return Err(TokenizerError::Settings {
                path: place.into(),
                reason: "truncation.direction is \"Left\", which is not supported (texts are cut at their end)".to_string(),
                remedy: "set \"Right\", or set truncation to null".to_string(),
            });
        }
        let mut tokenizer = Self {
            inner,
            special: SpecialTokens {
                unk: 0,
                cls: 0,
                sep: 0,
                pad: 0,
                mask: 0,
            },
            max_length: roles.max_length,
            id_bound: 0,
            separators: 1,
            second_type: false,
            types: roles.types,
        };
        tokenizer.probe().map_err(wrong)?;
        tokenizer.special = tokenizer.find_special(&roles, place)?;
        tokenizer.check_claims(&roles)?;
        // The methods below insert the special tokens themselves: a file with another layout must not pass.
        let SpecialTokens { cls, sep, .. } = tokenizer.special;
        let pair = tokenizer.encoded_with_template(("", ""))?;
        let (one, two) = (
            pair.get_ids() == [cls, sep, sep],
            pair.get_ids() == [cls, sep, sep, sep],
        );
        if tokenizer.with_template("")? != [cls, sep] || !(one || two) {
            return Err(TokenizerError::Template {
                place: place.into(),
            });
        }
        tokenizer.separators = if two { 2 } else { 1 };
        tokenizer.second_type =
            pair.get_type_ids().last() == Some(&1) && roles.types.unwrap_or(true);
        let ids = tokenizer.inner.get_vocab(true);
        let mut tokens = HashMap::new();
        for (token, id) in &ids {
            if let Some(first) = tokens.insert(*id, token) {
                let (first, second) = if first < token {
                    (first, token)
                } else {
                    (token, first)
                };
                return Err(TokenizerError::SameId {
                    place: place.into(),
                    first: first.clone(),
                    second: second.clone(),
                    id: *id,
                });
            }
        }
        tokenizer.id_bound = ids.values().max().map_or(0, |&id| id as usize + 1);
        Ok(tokenizer)
    }

    /// Tries the tokenizer on a few texts, so that a file on which the library panics is refused when it is loaded.
    fn probe(&self) -> Result<(), Reason> {
        for text in guard::PROBES {
            guarded(|| {
                let encoding = self.inner.encode(text, true)?;
                self.inner.encode_fast(text, false)?;
                self.inner.encode_fast((text, text), true)?;
                self.inner.decode(encoding.get_ids(), false)
            })?
            .map_err(|error: tokenizers::Error| {
                Reason::new(format!("it can't encode {text:?}: {error}"))
            })?;
        }
        Ok(())
    }

    /// The ids of the special tokens: by the names that the files give, by the usual names, by the template.
    fn find_special(&self, roles: &Roles, place: &str) -> Result<SpecialTokens, TokenizerError> {
        let template = self.with_template("")?;
        let by_template = |at: usize| template.get(at).copied().filter(|_| template.len() == 2);
        let named = |given: &Option<String>, usual: &[&str], other: Option<u32>| {
            let found = match given {
                Some(name) => self.inner.token_to_id(name),
                None => usual
                    .iter()
                    .find_map(|name| self.inner.token_to_id(name))
                    .or(other),
            };
            found.ok_or_else(|| TokenizerError::MissingSpecial {
                place: place.into(),
                token: given.clone().unwrap_or_else(|| usual[0].to_string()),
            })
        };
        let pad = named(&roles.pad, &["[PAD]", "<pad>", "<|padding|>"], None)?;
        let special = SpecialTokens {
            // A tokenizer without an unknown token never produces one.
            unk: named(&roles.unk, &["[UNK]", "<unk>"], Some(pad)).unwrap_or(pad),
            cls: named(&roles.cls, &["[CLS]", "<s>", "<bos>"], by_template(0))?,
            sep: named(&roles.sep, &["[SEP]", "</s>", "<eos>"], by_template(1))?,
            pad,
            mask: named(&roles.mask, &["[MASK]", "<mask>"], None)?,
        };
        let SpecialTokens {
            cls,
            sep,
            pad,
            mask,
            ..
        } = special;
        match [cls, sep, pad].contains(&mask) {
            true => Err(TokenizerError::MaskIsOther {
                place: place.into(),
                token: self.inner.id_to_token(mask).unwrap_or_default(),
            }),
            false => Ok(special),
        }
    }

    /// Compares the tokenizer with the statements of the other files: Python's libraries change the tokenizer by them when they load it.
    fn check_claims(&self, roles: &Roles) -> Result<(), TokenizerError> {
        let prefix = self
            .inner
            .get_pre_tokenizer()
            .and_then(|part| serde_json::to_value(part).ok())
            .and_then(|part| part.get("add_prefix_space")?.as_bool());
        let added = self.inner.get_added_tokens_decoder();
        for Claim { path, kind } in &roles.claims {
            let wrong = |reason: String, remedy: &str| {
                Err(TokenizerError::Settings {
                    path: path.clone(),
                    reason,
                    remedy: remedy.to_string(),
                })
            };
            match kind {
                ClaimKind::Token {
                    key,
                    content,
                    id,
                    flags,
                } => match (self.inner.token_to_id(content), id) {
                    (None, _) => {
                        let fault = format!(
                            "{key} has the token {content:?}, which tokenizer.json does not have"
                        );
                        wrong(fault, TOGETHER)?;
                    }
                    (Some(found), Some(id)) if found != *id => {
                        let fault = format!(
                            "{key} has the token {content:?}, whose id in tokenizer.json is {found}"
                        );
                        wrong(fault, TOGETHER)?;
                    }
                    (Some(found), _) => {
                        let token = added.get(&found);
                        let differs = |(flag, value): &&(&str, bool)| {
                            token.is_some_and(|token| flag_of(token, flag) != *value)
                        };
                        if let Some((flag, value)) = flags.iter().find(differs) {
                            let fault = format!(
                                "{key}.{flag} is {value}, and tokenizer.json has {} for the token {content:?}",
                                !value
                            );
                            wrong(fault, "make the two agree")?;
                        }
                    }
                },
                ClaimKind::PrefixSpace(flag) => {
                    if let Some(found) = prefix.filter(|found| found != flag) {
                        let fault = format!(
                            "add_prefix_space is {flag}, and the pre_tokenizer of tokenizer.json has {found}"
                        );
                        wrong(fault, "make the two agree")?;
                    }
                }
            }
        }
        Ok(())
    }

    /// The same tokenizer for a model that takes at most `tokens` tokens; written to `tokenizer_config.json` by [`Self::save`].
    #[must_use]
    pub fn with_max_length(mut self, tokens: usize) -> Self {
        self.max_length = Some(tokens);
        self
    }

    /// Tokens of a sequence at most, special tokens included, as `tokenizer_config.json` has it; `None` without a limit.
    pub fn max_length(&self) -> Option<usize> {
        self.max_length
    }

    /// The ids of the special tokens.
    pub fn special(&self) -> SpecialTokens {
        self.special
    }

    /// The id of the token with exactly this text, as the file spells it; `None` if there is none.
    pub fn id(&self, token: &str) -> Option<u32> {
        self.inner.token_to_id(token)
    }

    /// Least number of rows of the embedding of a model for this tokenizer: the largest id plus 1.
    pub fn id_bound(&self) -> usize {
        self.id_bound
    }

    /// Number of tokens, added ones included.
    pub fn vocab_size(&self) -> usize {
        self.inner.get_vocab_size(true)
    }

    /// `[CLS] text [SEP]`.
    ///
    /// # Errors
    /// A text that the library can't encode; 8 MiB of text without white space or punctuation to cut at.
    pub fn encode(&self, text: &str) -> Result<Vec<u32>, TokenizerError> {
        let mut ids = vec![self.special.cls];
        ids.append(&mut self.encode_plain(text)?);
        ids.push(self.special.sep);
        Ok(ids)
    }

    /// `[SEP]` between the two texts of a pair: 1, in RoBERTa 2.
    pub fn separators(&self) -> usize {
        self.separators
    }

    /// Position of the first token of type 1 in a pair of `length` ids whose second text begins at `start`: `start`, or `length` where both texts have
    /// type 0.
    pub fn second(&self, start: usize, length: usize) -> usize {
        match self.second_type {
            true => start,
            false => length,
        }
    }

    /// `[CLS] first [SEP] second [SEP]`; in RoBERTa with two `[SEP]` between the texts.
    ///
    /// # Errors
    /// As [`Self::encode`].
    pub fn encode_pair(&self, first: &str, second: &str) -> Result<Vec<u32>, TokenizerError> {
        let mut ids = self.encode(first)?;
        ids.extend(std::iter::repeat_n(self.special.sep, self.separators - 1));
        ids.append(&mut self.encode_plain(second)?);
        ids.push(self.special.sep);
        Ok(ids)
    }

    /// Returns the ids of `text` alone, without `[CLS]` and `[SEP]`. A long text is encoded in pieces, which bounds the memory; its ids
    /// are those of the whole text.
    ///
    /// # Errors
    /// As [`Self::encode`].
    pub fn encode_plain(&self, text: &str) -> Result<Vec<u32>, TokenizerError> {
        let mut ids = Vec::new();
        self.for_each_piece(text, PIECE, |_, piece| {
            ids.append(&mut self.encode_piece(piece)?);
            Ok(())
        })?;
        Ok(ids)
    }

    /// Returns the ids of `piece`, encoded at once.
    fn encode_piece(&self, piece: &str) -> Result<Vec<u32>, TokenizerError> {
        let encoding = guarded(|| self.inner.encode_fast(piece, false)).map_err(encode_error)?;
        Ok(encoding.map_err(encode_error)?.get_ids().to_vec())
    }

    /// Every text as `[CLS] text [SEP]`, in parallel, in the order given.
    pub fn encode_batch<S: AsRef<str> + Sync>(
        &self,
        texts: &[S],
    ) -> Result<Vec<Vec<u32>>, TokenizerError> {
        try_map(texts, |text| self.encode(text.as_ref()))
    }

    /// `[CLS] text [SEP]` with the position in the text of every token.
    ///
    /// # Errors
    /// As [`Self::encode`].
    pub fn encode_with_offsets(&self, text: &str) -> Result<EncodedOffsets, TokenizerError> {
        let (mut ids, mut offsets) = (vec![self.special.cls], vec![(0, 0)]);
        self.for_each_piece(text, PIECE, |at, piece| {
            let encoding = guarded(|| self.inner.encode(piece, false)).map_err(encode_error)?;
            let encoding = encoding.map_err(encode_error)?;
            ids.extend_from_slice(encoding.get_ids());
            let mut found = encoding.get_offsets().to_vec();
            self.complete_offsets(piece, &mut found);
            offsets.extend(found.iter().map(|(start, end)| (at + start, at + end)));
            Ok(())
        })?;
        ids.push(self.special.sep);
        offsets.push((0, 0));
        Ok(EncodedOffsets { ids, offsets })
    }

    /// As [`Self::encode_with_offsets`], of the beginning of a text that is much longer than `tokens` tokens; the flag is true if part of
    /// the text was left out.
    ///
    /// # Errors
    /// As [`Self::encode`].
    pub fn encode_beginning_with_offsets(
        &self,
        text: &str,
        tokens: usize,
    ) -> Result<(EncodedOffsets, bool), TokenizerError> {
        let encode = |text: &str| self.encode_with_offsets(text);
        let (encoded, whole) = self.of_beginning(text, tokens, encode, |encoded| &encoded.ids)?;
        Ok((encoded, !whole))
    }

    /// One text or a pair in at most `max_length` tokens.
    ///
    /// Text is truncated on the right, and `[CLS]` and every `[SEP]` stay. Of a pair the longer text is truncated first; once
    /// both are equally long they are truncated alike, and the text that was longer keeps the odd token. Of a text that is much
    /// longer than `max_length` tokens only the beginning is encoded.
    ///
    /// # Errors
    /// A maximum length below that of the special tokens; as [`Self::encode`].
    pub fn encode_truncated(
        &self,
        first: &str,
        second: Option<&str>,
        max_length: usize,
    ) -> Result<Encoded, TokenizerError> {
        let added = 2 + second.map_or(0, |_| self.separators);
        if max_length <= added {
            return Err(TokenizerError::MaxLength {
                max_length,
                needed: added,
            });
        }
        let SpecialTokens { cls, sep, .. } = self.special;
        let room = max_length - added;
        // The length of a text of which only the beginning was encoded: at least its number of bytes.
        let beginning = |text: &str| {
            let (ids, whole) = self.encode_beginning(text, room)?;
            let length = if whole {
                ids.len()
            } else {
                text.len().max(ids.len())
            };
            Ok((ids, length))
        };
        let (first, first_len) = beginning(first)?;
        let second = second.map(beginning).transpose()?;
        let second_len = second.as_ref().map_or(0, |(_, length)| *length);
        let (keep_first, keep_second) = longest_first(first_len, second_len, room);

        let mut ids = Vec::with_capacity(keep_first + keep_second + added);
        ids.push(cls);
        ids.extend_from_slice(&first[..keep_first]);
        ids.push(sep);
        let mut start = None;
        if let Some((second, _)) = second {
            ids.extend(std::iter::repeat_n(sep, self.separators - 1));
            start = Some(ids.len());
            ids.extend_from_slice(&second[..keep_second]);
            ids.push(sep);
        }
        Ok(Encoded {
            second: start.map_or(ids.len(), |start| self.second(start, ids.len())),
            ids,
            truncated: keep_first + keep_second < first_len + second_len,
        })
    }

    /// The text of a sequence, special tokens included.
    ///
    /// # Errors
    /// Ids that the library can't decode.
    pub fn decode(&self, ids: &[u32]) -> Result<String, TokenizerError> {
        let wrong = |reason: String| TokenizerError::Decode { reason };
        let text = guarded(|| self.inner.decode(ids, false));
        let text = text.map_err(|reason| wrong(reason.to_string()))?;
        text.map_err(|error| wrong(error.to_string()))
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

    /// The tokenizer as JSON, the same text for equal tokenizers: the input of a tokenizer's hash.
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
        Ok(self.encoded_with_template(input)?.get_ids().to_vec())
    }

    fn encoded_with_template<'s>(
        &self,
        input: impl Into<tokenizers::EncodeInput<'s>>,
    ) -> Result<tokenizers::Encoding, TokenizerError> {
        let encoding = guarded(|| self.inner.encode_fast(input, true)).map_err(encode_error)?;
        encoding.map_err(encode_error)
    }
}

/// The text with the characters of compatible ones (Unicode's form NFKC): `ﬁ` as `fi`, an accent and its letter as one character.
pub fn compatible(text: &str) -> String {
    let mut normalized = tokenizers::NormalizedString::from(text);
    normalized.nfkc().get().to_owned()
}

/// The text with an accent and its letter as one character (Unicode's form NFC).
pub(crate) fn composed(text: &str) -> String {
    let mut normalized = tokenizers::NormalizedString::from(text);
    normalized.nfc().get().to_owned()
}

/// The value of a flag, by its name in the files.
fn flag_of(token: &tokenizers::AddedToken, flag: &str) -> bool {
    match flag {
        "single_word" => token.single_word,
        "lstrip" => token.lstrip,
        "rstrip" => token.rstrip,
        "normalized" => token.normalized,
        _ => token.special,
    }
}

/// Tokens of two texts that fit into `room` when the longer one is truncated first.
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

fn encode_error(error: impl ToString) -> TokenizerError {
    TokenizerError::Encode {
        reason: error.to_string(),
    }
}
