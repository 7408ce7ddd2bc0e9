//! Positions of tokens in the original text.

use tokenizers::{NormalizedString, Normalizer};

use super::Tokenizer;
use super::guard::guarded;

impl Tokenizer {
    /// Corrects the offsets of a text's tokens: they fall between characters, and after the combining marks that belong to a token's last
    /// character.
    ///
    /// A normalizer that composes or removes marks (NFC, or one that strips accents) leaves them to no token: of `e` and a combining
    /// acute accent, the token `é` has the `e` alone. A character that follows a token, belongs to none, and adds nothing to the normalized
    /// text belongs to that token.
    pub(super) fn complete_offsets(&self, text: &str, offsets: &mut [(usize, usize)]) {
        if text.is_ascii() {
            return;
        }
        for (start, end) in offsets.iter_mut() {
            *start = text.floor_char_boundary(*start);
            *end = text.ceil_char_boundary(*end).max(*start);
        }
        let mut first = 0;
        while first < offsets.len() {
            let end = offsets[first].1;
            let count = offsets[first..].iter().take_while(|o| o.1 == end).count();
            let next = offsets.get(first + count).map_or(text.len(), |o| o.0);
            let start = offsets[first].0;
            if start < end && end < next {
                let complete = self.end_with_marks(text, start, end, next);
                for offset in &mut offsets[first..first + count] {
                    offset.1 = complete;
                }
            }
            first += count;
        }
    }

    fn end_with_marks(&self, text: &str, start: usize, end: usize, next: usize) -> usize {
        let mut complete = end;
        for (at, mark) in text[end..next].char_indices() {
            if mark.is_ascii() || mark.is_whitespace() {
                break;
            }
            let with_mark = end + at + mark.len_utf8();
            let length = |end: usize| self.normalized_length(&text[start..end]);
            match (length(complete), length(with_mark)) {
                (Some(before), Some(after)) if after <= before => complete = with_mark,
                _ => break,
            }
        }
        complete
    }

    /// Characters of a text once it is normalized.
    fn normalized_length(&self, text: &str) -> Option<usize> {
        let normalizer = self.inner.get_normalizer()?;
        let normalized = guarded(|| {
            let mut normalized = NormalizedString::from(text);
            normalizer.normalize(&mut normalized).ok()?;
            Some(normalized.get().chars().count())
        });
        normalized.ok().flatten()
    }
}
