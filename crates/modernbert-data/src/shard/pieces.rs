//! Encodes long documents in pieces: the tokenizers library needs some 150 bytes of memory for each byte of a text encoded at once.
//!
//! A piece ends before white space or punctuation, where tokens of every common pre-tokenizer begin anew. Each cut is verified with
//! the tokenizer itself: the text around it has the same ids in one piece and in two. So the ids are those of the whole text, for any
//! tokenizer that looks no further than [`WINDOW`] bytes around a place.

use modernbert_files::tokenizer::{Tokenizer, TokenizerError};

/// Bytes of a piece.
const PIECE: usize = 256 << 10;
/// Bytes on each side of a cut that are encoded to verify it.
const WINDOW: usize = 512;
/// Places that are tried before the piece is made longer.
const PLACES: usize = 16;
/// Longest text without a place to cut, in bytes: a longer one would need gigabytes of memory.
const MOST_UNCUT: usize = 8 << 20;

/// The ids of a document without `[CLS]` and `[SEP]`, as [`Tokenizer::encode_plain`] gives them, in memory that doesn't grow with the
/// document but for the ids.
///
/// # Errors
/// A text that the tokenizer can't encode; 8 MiB of text without white space or punctuation to cut at.
pub fn encode_document(tokenizer: &Tokenizer, text: &str) -> Result<Vec<u32>, TokenizerError> {
    encode_in_pieces(tokenizer, text, PIECE)
}

fn encode_in_pieces(
    tokenizer: &Tokenizer,
    text: &str,
    piece: usize,
) -> Result<Vec<u32>, TokenizerError> {
    let (mut ids, mut rest) = (Vec::new(), text);
    while rest.len() > piece {
        let Some(at) = cut(tokenizer, rest, piece)? else {
            break;
        };
        let (head, tail) = rest.split_at(at);
        ids.extend(tokenizer.encode_plain(head)?);
        rest = tail;
    }
    ids.extend(tokenizer.encode_plain(rest)?);
    Ok(ids)
}

/// The end of the first piece of a text, verified; `None` if the text is to be encoded whole.
fn cut(tokenizer: &Tokenizer, text: &str, piece: usize) -> Result<Option<usize>, TokenizerError> {
    let (mut from, mut limit) = (0, piece);
    while limit < text.len() {
        let end = text.floor_char_boundary(limit);
        for at in places(text, from, end).take(PLACES) {
            if is_exact(tokenizer, text, at)? {
                return Ok(Some(at));
            }
        }
        if limit >= MOST_UNCUT {
            return Err(TokenizerError::Encode {
                reason: format!(
                    "{} MiB of it have no white space or punctuation to cut at; is it text?",
                    limit >> 20
                ),
            });
        }
        from = end;
        limit = limit.saturating_mul(2);
    }
    Ok(None)
}

/// Places in `text[from..end]`, the last first, at which a piece may end: between a character and the white space behind it, or between
/// a letter or digit and the punctuation behind it.
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

/// Returns true if the text around `at` has the same ids in one piece and in two.
fn is_exact(tokenizer: &Tokenizer, text: &str, at: usize) -> Result<bool, TokenizerError> {
    let from = text.floor_char_boundary(at.saturating_sub(WINDOW));
    let to = text.ceil_char_boundary((at + WINDOW).min(text.len()));
    let whole = tokenizer.encode_plain(&text[from..to])?;
    let (head, tail) = (
        tokenizer.encode_plain(&text[from..at])?,
        tokenizer.encode_plain(&text[at..to])?,
    );
    Ok(whole.starts_with(&head) && whole[head.len()..] == tail)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use modernbert_files::tokenizer::train::{TrainOptions, train};
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

    #[test]
    fn real_text_has_the_ids_of_the_whole() {
        let source = include_str!("../formats/rows.rs").repeat(3);
        for tokenizer in TOKENIZERS.iter() {
            let whole = tokenizer.encode_plain(&source).unwrap();
            for piece in [64, 1000, 4096] {
                assert_eq!(encode_in_pieces(tokenizer, &source, piece).unwrap(), whole);
            }
        }
    }

    #[test]
    fn a_text_without_a_place_to_cut_is_whole_or_refused() {
        let tokenizer = &TOKENIZERS[0];
        let word = "x".repeat(5000);
        let whole = tokenizer.encode_plain(&word).unwrap();
        assert_eq!(encode_in_pieces(tokenizer, &word, 64).unwrap(), whole);
        let endless = "x".repeat(MOST_UNCUT + PIECE);
        let message = encode_document(tokenizer, &endless)
            .unwrap_err()
            .to_string();
        assert!(message.contains("8 MiB"), "{message}");
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
                let whole = tokenizer.encode_plain(&text).unwrap();
                prop_assert_eq!(encode_in_pieces(tokenizer, &text, piece).unwrap(), whole);
            }
        }
    }
}
