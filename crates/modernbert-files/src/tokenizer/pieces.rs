//! Long texts, encoded in pieces: the library needs some 150 bytes of memory for each byte of text.

use super::{Tokenizer, TokenizerError};

/// Bytes of a piece.
const PIECE: usize = 1 << 20;
/// Bytes before the end of a piece in which a place to cut is looked for.
const REACH: usize = 1 << 16;
/// Bytes of text that are encoded for each token wanted. Texts have 3 to 5.
const BYTES_A_TOKEN: usize = 16;
/// Tokens at the end of a beginning that may differ from those of the whole text.
const MARGIN: usize = 64;

/// The end of the first piece of `text`, at most `limit` bytes long.
///
/// A piece ends before a blank that follows something else: tokens begin there in the whole text too. Where there is no such place
/// nearby, it ends between two characters.
pub(super) fn end_of_piece(text: &str, limit: usize) -> usize {
    if text.len() <= limit {
        return text.len();
    }
    let end = text.floor_char_boundary(limit);
    let start = text.floor_char_boundary(end.saturating_sub(REACH));
    let mut after_blank = false;
    for (at, character) in text[start..end].char_indices().rev() {
        if after_blank && !character.is_whitespace() {
            return start + at + character.len_utf8();
        }
        after_blank = character.is_whitespace();
    }
    // At least one character, so that there is always a next piece.
    end.max(text.chars().next().map_or(0, char::len_utf8))
}

impl Tokenizer {
    /// The pieces of `text`, each with the position of its first byte; one piece where the tokenizer doesn't start anew at blanks.
    pub(super) fn pieces<'t>(&self, text: &'t str) -> impl Iterator<Item = (usize, &'t str)> {
        let limit = if self.piecewise { PIECE } else { usize::MAX };
        let mut at = 0;
        let mut first = true;
        std::iter::from_fn(move || {
            if at == text.len() && !first {
                return None;
            }
            first = false;
            let piece = &text[at..][..end_of_piece(&text[at..], limit)];
            let start = at;
            at += piece.len();
            Some((start, piece))
        })
    }

    /// Tokens of the beginning of `text`; see [`Self::of_beginning`].
    pub(super) fn encode_beginning(
        &self,
        text: &str,
        tokens: usize,
    ) -> Result<(Vec<u32>, bool), TokenizerError> {
        self.of_beginning(text, tokens, |text| self.encode_plain(text), Vec::len)
    }

    /// What `encode` returns for the beginning of `text`: for all of it, or for at least `tokens` tokens where it is much longer. The flag
    /// is true for all. Memory and time are bounded by `tokens`, not by the length of the text.
    pub(super) fn of_beginning<T>(
        &self,
        text: &str,
        tokens: usize,
        encode: impl Fn(&str) -> Result<T, TokenizerError>,
        count: impl Fn(&T) -> usize,
    ) -> Result<(T, bool), TokenizerError> {
        let mut limit = tokens.saturating_mul(BYTES_A_TOKEN).saturating_add(4096);
        loop {
            let end = if self.piecewise {
                end_of_piece(text, limit)
            } else {
                text.len()
            };
            let encoded = encode(&text[..end])?;
            if end == text.len() {
                return Ok((encoded, true));
            }
            if count(&encoded) >= tokens.saturating_add(MARGIN) {
                return Ok((encoded, false));
            }
            limit = limit.saturating_mul(4);
        }
    }

    /// Tries whether texts can be cut before blanks: whether the tokens of the pieces are those of the whole.
    pub(super) fn starts_anew_at_blanks(&self) -> bool {
        let text = "One two  three,\n\n\tfour. 12345 it's日本 語 end";
        let Ok(whole) = self.encode_piece(text) else {
            return false;
        };
        let cuts = text.char_indices().zip(text.chars().skip(1));
        let mut cuts = cuts
            .filter(|((_, left), right)| !left.is_whitespace() && right.is_whitespace())
            .map(|((at, left), _)| at + left.len_utf8());
        cuts.all(|cut| {
            let pieces = [&text[..cut], &text[cut..]].map(|piece| self.encode_piece(piece));
            match pieces {
                [Ok(left), Ok(right)] => [left, right].concat() == whole,
                _ => false,
            }
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pieces_end_before_blanks_or_between_characters() {
        assert_eq!(end_of_piece("one two three", 99), 13);
        assert_eq!(end_of_piece("one two three", 9), 7);
        assert_eq!(end_of_piece("one   two", 5), 3);
        assert_eq!(end_of_piece("日本語", 4), 3);
        assert_eq!(end_of_piece("日本語", 1), 3);
        assert_eq!(end_of_piece("   x", 2), 2);
    }
}
