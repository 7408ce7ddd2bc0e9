//! Texts that are split into words.

use super::{Tokenizer, TokenizerError};

/// A sequence of words, with the tokens of each word.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct EncodedWords {
    /// Token ids, `[CLS]` first and `[SEP]` last.
    pub ids: Vec<u32>,
    /// For each word the position in `ids` of its first token; `None` for a word that has no token or was cut off.
    pub first: Vec<Option<usize>>,
    /// True if words or parts of words were cut off.
    pub truncated: bool,
}

impl Tokenizer {
    /// `[CLS] word word … [SEP]` in at most `max_length` tokens, every word tokenised on its own.
    ///
    /// With `prefix_space` each word is encoded with a space before it, as in running text; the vocabulary
    /// contains most words in that form, and without it labels of words get noticeably worse.
    ///
    /// # Errors
    /// A maximum length without space for the special tokens.
    pub fn encode_words<S: AsRef<str>>(
        &self,
        words: &[S],
        prefix_space: bool,
        max_length: usize,
    ) -> Result<EncodedWords, TokenizerError> {
        if max_length <= 2 {
            return Err(TokenizerError::MaxLength {
                max_length,
                needed: 2,
            });
        }
        let special = self.special();
        let (mut ids, mut first, mut truncated) = (vec![special.cls], Vec::new(), false);
        for word in words {
            let tokens = self.encode_word(word.as_ref(), prefix_space)?;
            let room = max_length - 1 - ids.len();
            first.push((room > 0 && !tokens.is_empty()).then_some(ids.len()));
            truncated |= tokens.len() > room;
            ids.extend(tokens.into_iter().take(room));
        }
        ids.push(special.sep);
        Ok(EncodedWords {
            ids,
            first,
            truncated,
        })
    }

    fn encode_word(&self, word: &str, prefix_space: bool) -> Result<Vec<u32>, TokenizerError> {
        if prefix_space && !word.is_empty() && !word.starts_with(char::is_whitespace) {
            self.encode_plain(&format!(" {word}"))
        } else {
            self.encode_plain(word)
        }
    }
}
