//! Long texts, encoded in pieces that have the ids of the whole text: the tokenizers library needs some 150 bytes of memory for each byte
//! of a text that it encodes at once.
//!
//! A piece ends before white space or punctuation, where tokens of every common pre-tokenizer begin. Each cut is verified with the
//! tokenizer itself: the text around the cut has the same ids in one piece and in two. So the ids are those of the whole text, for any
//! tokenizer whose result at a position depends on at most [`WINDOW`] bytes around it.

use super::{Tokenizer, TokenizerError};

/// Bytes of a piece.
pub(super) const PIECE: usize = 256 << 10;
/// Bytes on each side of a cut that are encoded to verify it.
const WINDOW: usize = 512;
/// Positions that are tried before the piece is made longer.
const PLACES: usize = 16;
/// Longest text without a position to cut at, in bytes: a longer text would need gigabytes of memory.
const MOST_UNCUT: usize = 8 << 20;
/// Bytes of text that are encoded for each token wanted. Texts have 3 to 5.
const BYTES_PER_TOKEN: usize = 16;
/// Tokens that a beginning has beyond those wanted: `[CLS]` and `[SEP]`, and the last ones, which an unverified cut may change.
const MARGIN: usize = 64;

impl Tokenizer {
    /// Calls `encode` for each piece of `text`, with the position of its first byte. Pieces have about `piece` bytes, or more where the
    /// text has no position to cut at. An empty text is one empty piece.
    pub(super) fn for_each_piece(
        &self,
        text: &str,
        piece: usize,
        mut encode: impl FnMut(usize, &str) -> Result<(), TokenizerError>,
    ) -> Result<(), TokenizerError> {
        let (mut at, mut rest) = (0, text);
        while let Some(end) = self.end_of_piece(rest, piece)? {
            let (head, tail) = rest.split_at(end);
            encode(at, head)?;
            at += end;
            rest = tail;
        }
        encode(at, rest)
    }

    /// Ids of the beginning of `text`; see [`Self::of_beginning`].
    pub(super) fn encode_beginning(
        &self,
        text: &str,
        tokens: usize,
    ) -> Result<(Vec<u32>, bool), TokenizerError> {
        self.of_beginning(text, tokens, |text| self.encode_plain(text), |ids| ids)
    }

    /// Returns the value of `encode` for all of `text` and true, or for a beginning and false where the text is much longer than `tokens`
    /// tokens. The first `tokens` ids of a beginning are those of the whole text. Memory and time are bounded by `tokens`, not by the
    /// length of the text.
    pub(super) fn of_beginning<T>(
        &self,
        text: &str,
        tokens: usize,
        encode: impl Fn(&str) -> Result<T, TokenizerError>,
        ids: impl Fn(&T) -> &[u32],
    ) -> Result<(T, bool), TokenizerError> {
        let mut limit = tokens.saturating_mul(BYTES_PER_TOKEN).saturating_add(4096);
        while limit < text.len() {
            let cut = self.last_cut(text, 0, text.floor_char_boundary(limit))?;
            let end = cut.unwrap_or(text.floor_char_boundary(limit));
            let encoded = encode(&text[..end])?;
            if ids(&encoded).len() >= tokens.saturating_add(MARGIN) {
                // Without a verified cut, a text of twice the length must have the same first ids.
                let longer = text.ceil_char_boundary(end.saturating_mul(2).min(text.len()));
                if cut.is_some()
                    || ids(&encode(&text[..longer])?).get(..tokens) == ids(&encoded).get(..tokens)
                {
                    return Ok((encoded, false));
                }
            }
            limit = limit.saturating_mul(4);
        }
        Ok((encode(text)?, true))
    }

    /// Returns the end of the first piece of a text, verified; `None` if the text is to be encoded whole.
    fn end_of_piece(&self, text: &str, piece: usize) -> Result<Option<usize>, TokenizerError> {
        let (mut from, mut limit) = (0, piece);
        while limit < text.len() {
            let end = text.floor_char_boundary(limit);
            if let Some(at) = self.last_cut(text, from, end)? {
                return Ok(Some(at));
            }
            if limit >= MOST_UNCUT {
                return Err(TokenizerError::NoPlaceToCut {
                    mebibytes: limit >> 20,
                });
            }
            from = end;
            limit = limit.saturating_mul(2);
        }
        Ok(None)
    }

    /// Returns the last position in `text[from..end]` at which the text can be cut without changing its ids; only the last [`PLACES`]
    /// candidates are tried.
    fn last_cut(
        &self,
        text: &str,
        from: usize,
        end: usize,
    ) -> Result<Option<usize>, TokenizerError> {
        for at in places(text, from, end).take(PLACES) {
            if self.is_exact(text, at)? {
                return Ok(Some(at));
            }
        }
        Ok(None)
    }

    /// Returns true if the text around `at` has the same ids in one piece and in two.
    fn is_exact(&self, text: &str, at: usize) -> Result<bool, TokenizerError> {
        let from = text.floor_char_boundary(at.saturating_sub(WINDOW));
        let to = text.ceil_char_boundary((at + WINDOW).min(text.len()));
        let whole = self.encode_piece(&text[from..to])?;
        let (head, tail) = (
            self.encode_piece(&text[from..at])?,
            self.encode_piece(&text[at..to])?,
        );
        Ok(whole.starts_with(&head) && whole[head.len()..] == tail)
    }
}

/// Positions in `text[from..end]`, the last first, at which a piece may end: between a character and the white space after it, or between
/// a letter or digit and the punctuation after it.
fn places(text: &str, from: usize, end: usize) -> impl Iterator<Item = usize> {
    let mut next: Option<char> = None;
    text[from..end]
        .char_indices()
        .rev()
        .filter_map(move |(at, character)| {
            let behind = next.replace(character)?;
            let is_punctuation =
                behind.is_ascii_punctuation() || matches!(behind, '。' | '、' | '，');
            let is_place = (behind.is_whitespace() && !character.is_whitespace())
                || (is_punctuation && character.is_alphanumeric());
            is_place.then_some(from + at + character.len_utf8())
        })
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use crate::tokenizer::train::{TrainOptions, train};
    use proptest::prelude::*;
    use std::path::Path;
    use std::sync::LazyLock;

    /// A trained tokenizer, and the published one where the test data are.
    static TOKENIZERS: LazyLock<Vec<Tokenizer>> = LazyLock::new(|| {
        let options = TrainOptions {
            vocab_size: 512,
            ..TrainOptions::default()
        };
        let texts = ["the model's tokens, the tokens of the model.\n\n  Two  lines\u{e9}"; 4];
        let mut tokenizers = vec![train(texts, &options).unwrap()];
        if let Some(data) = std::env::var_os("MODERNBERT_DATA") {
            tokenizers.push(Tokenizer::from_folder(Path::new(&data).join("tokenizer")).unwrap());
        }
        tokenizers
    });

    fn in_pieces(tokenizer: &Tokenizer, text: &str, piece: usize) -> Vec<u32> {
        let mut ids = Vec::new();
        let encode = |_, piece: &str| {
            ids.extend(tokenizer.encode_piece(piece)?);
            Ok(())
        };
        tokenizer.for_each_piece(text, piece, encode).unwrap();
        ids
    }

    #[test]
    fn real_text_has_the_ids_of_the_whole() {
        let source = include_str!("../config/hf.rs").repeat(3);
        for tokenizer in TOKENIZERS.iter() {
            let whole = tokenizer.encode_piece(&source).unwrap();
            for piece in [64, 1000, 4096] {
                assert_eq!(in_pieces(tokenizer, &source, piece), whole);
            }
        }
    }

    #[test]
    fn long_texts_without_blanks_have_the_ids_of_the_whole() {
        // 13 and 12 bytes: multiples of neither are powers of two, so that a cut at a power of two falls inside a word.
        for part in ["themodeltoken", "thetokens,is"] {
            let text = part.repeat((5 << 18) / part.len());
            assert!(text.len() > 1 << 20);
            for tokenizer in TOKENIZERS.iter() {
                let whole = tokenizer.encode_piece(&text).unwrap();
                assert!(tokenizer.encode_plain(&text).unwrap() == whole, "{part}");
                let encoded = tokenizer.encode_with_offsets(&text).unwrap();
                assert!(encoded.ids[1..=whole.len()] == whole, "{part}");
                let (beginning, is_whole) = tokenizer.encode_beginning(&text, 512).unwrap();
                assert!(!is_whole && beginning.len() < 100_000);
                assert_eq!(beginning[..512], whole[..512]);
            }
        }
    }

    #[test]
    fn a_text_without_a_place_to_cut_is_whole_or_refused() {
        let tokenizer = &TOKENIZERS[0];
        let word = "x".repeat(5000);
        let whole = tokenizer.encode_piece(&word).unwrap();
        assert_eq!(in_pieces(tokenizer, &word, 64), whole);
        let endless = "x".repeat(MOST_UNCUT + PIECE);
        let message = tokenizer.encode_plain(&endless).unwrap_err().to_string();
        assert!(message.contains("8 MiB"), "{message}");
        // Its beginning is encoded all the same.
        let (beginning, is_whole) = tokenizer.encode_beginning(&endless, 8).unwrap();
        assert!(!is_whole && beginning.len() >= 8);
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(256))]

        #[test]
        fn any_text_has_the_ids_of_the_whole(
            parts in prop::collection::vec(
                prop::sample::select(vec![
                    " ", "  ", "\n", "\n\n", "\t", "\r\n", "a", "word", "It's", "'s", "12", ".", ",", "!", "e\u{301}", "\u{301}", "日本", "。", "🙂",
                    "[MASK]", " [MASK]", "[SEP]", "|||IP_ADDRESS|||", "<|endoftext|>", "                ", "\u{a0}", "\u{200b}", "Σ", "ﬁ", "-", "_x",
                ]),
                1..120,
            ),
            piece in 1usize..48,
        ) {
            let text = parts.concat();
            for tokenizer in TOKENIZERS.iter() {
                let whole = tokenizer.encode_piece(&text).unwrap();
                prop_assert_eq!(in_pieces(tokenizer, &text, piece), whole);
            }
        }
    }
}
