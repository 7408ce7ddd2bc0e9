//! Training a tokenizer of ModernBERT's kind.
//!
//! Byte-level BPE over NFC text, pre-tokenized as in GPT-2, case kept, without a prefix space; the special tokens and
//! the `[unusedN]` fillers come after the learned vocabulary, as in the published tokenizer. The same texts always give
//! the same tokenizer, in any order.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use serde_json::{Map, Value, json};
use tokenizers::models::bpe::{BPE, BpeTrainer};
use tokenizers::normalizers::unicode::NFC;
use tokenizers::pre_tokenizers::byte_level::ByteLevel;
use tokenizers::{
    NormalizedString, Normalizer, OffsetReferential, OffsetType, PreTokenizedString, PreTokenizer,
    Trainer,
};

use super::{Tokenizer, TokenizerError};

/// The special tokens, in the order of their ids.
const SPECIALS: [&str; 5] = ["[UNK]", "[CLS]", "[SEP]", "[PAD]", "[MASK]"];
/// Vocabulary sizes are a multiple of this, so that the tiles of a GEMM are full.
const MULTIPLE: usize = 64;
/// Tokens of a sequence of the published models at most.
const MAX_LENGTH: usize = 8192;

/// Bytes of a word at most: longer ones, as in text without blanks, are counted in parts. The work of all merges grows with the sum of the
/// squares of the words' lengths; this limit keeps the work proportional to the size of the text.
const LONGEST_WORD: usize = 256;

/// A trained tokenizer.
#[derive(Debug)]
pub struct Trained {
    /// The tokenizer.
    pub tokenizer: Tokenizer,
    /// Words of more than 256 bytes, which were counted in parts. The tokenizer has no token across such a cut, and its
    /// text is encoded without cuts.
    pub cut_words: u64,
}

/// Settings of the training.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TrainOptions {
    /// Ids in total, special tokens included; rounded up to a multiple of 64.
    pub vocab_size: usize,
    /// Pairs that occur less often than this are not merged.
    pub min_frequency: u64,
}

impl Default for TrainOptions {
    fn default() -> Self {
        Self {
            vocab_size: 50_368,
            min_frequency: 2,
        }
    }
}

/// Trains a tokenizer on `texts`.
///
/// The vocabulary has exactly the size asked for (rounded up to a multiple of 64): if the texts do not contain enough
/// merges, `[unused0]`, `[unused1]`, … fill it.
///
/// # Errors
/// A vocabulary that is too small; no text.
pub fn train<I>(texts: I, options: &TrainOptions) -> Result<Tokenizer, TokenizerError>
where
    I: IntoIterator,
    I::IntoIter: Send,
    I::Item: AsRef<str> + Send,
{
    Ok(train_and_count(texts, options)?.tokenizer)
}

/// As [`train`], with the number of words that were counted in parts.
///
/// # Errors
/// Those of [`train`].
pub fn train_and_count<I>(texts: I, options: &TrainOptions) -> Result<Trained, TokenizerError>
where
    I: IntoIterator,
    I::IntoIter: Send,
    I::Item: AsRef<str> + Send,
{
    let alphabet = ByteLevel::alphabet();
    let fixed = alphabet.len() + SPECIALS.len();
    let vocab_size = options.vocab_size.next_multiple_of(MULTIPLE);
    if vocab_size < fixed {
        return Err(TokenizerError::VocabTooSmall {
            vocab_size: options.vocab_size,
            specials: SPECIALS.len(),
            smallest: fixed.next_multiple_of(MULTIPLE),
        });
    }
    let failed = |error: tokenizers::Error| TokenizerError::Encode {
        reason: error.to_string(),
    };
    let mut trainer = BpeTrainer::builder()
        .vocab_size(vocab_size - SPECIALS.len())
        .min_frequency(options.min_frequency)
        .initial_alphabet(alphabet.into_iter().collect())
        .show_progress(false)
        .build();
    let (any, cut_words) = (AtomicBool::new(false), AtomicU64::new(0));
    let pieces = |text: &str| {
        let (words, cut) = words_of(text)?;
        cut_words.fetch_add(cut, Ordering::Relaxed);
        if !words.is_empty() {
            any.store(true, Ordering::Relaxed);
        }
        Ok(words)
    };
    trainer.feed(texts.into_iter(), pieces).map_err(failed)?;
    if !any.into_inner() {
        return Err(TokenizerError::NoText);
    }
    let mut model = BPE::default();
    trainer.train(&mut model).map_err(failed)?;
    let json = tokenizer_json(&model, vocab_size)?;
    let tokenizer = Tokenizer::from_bytes(json.to_string().as_bytes(), "the trained tokenizer")?;
    Ok(Trained {
        tokenizer: tokenizer.with_max_length(MAX_LENGTH),
        cut_words: cut_words.into_inner(),
    })
}

/// The pieces that merges may not cross, and the number of those that were cut because they are longer than [`LONGEST_WORD`].
pub(super) fn words_of(text: &str) -> tokenizers::Result<(Vec<String>, u64)> {
    let mut normalized = NormalizedString::from(text);
    NFC.normalize(&mut normalized)?;
    let mut pieces = PreTokenizedString::from(normalized);
    ByteLevel::new(false, true, true).pre_tokenize(&mut pieces)?;
    let pieces = pieces.get_splits(OffsetReferential::Normalized, OffsetType::None);
    let (mut words, mut cut) = (Vec::new(), 0);
    for (piece, ..) in pieces {
        let before = words.len();
        let mut rest = piece;
        while let Some(end) = end_of_part(rest) {
            let (part, after) = rest.split_at(end);
            words.push(part.to_owned());
            rest = after;
        }
        words.push(rest.to_owned());
        cut += u64::from(words.len() > before + 1);
    }
    Ok((words, cut))
}

/// Position at which a longer piece is cut: after its first [`LONGEST_WORD`] bytes, or earlier, so that no character of the text is divided. A piece has
/// one character for each byte of its text.
fn end_of_part(piece: &str) -> Option<usize> {
    // Byte-level BPE shows the bytes inside of a UTF-8 character, 0x80 to 0xBF, as these characters.
    let is_inside =
        |c: char| matches!(c, '\u{a1}'..='\u{ac}' | '\u{ae}'..='\u{bf}' | '\u{122}'..='\u{143}');
    let (end, first) = piece.char_indices().nth(LONGEST_WORD)?;
    let before = piece[..end].char_indices().rev().take(3);
    let starts = [(end, first)].into_iter().chain(before);
    let start = starts.into_iter().find(|(_, c)| !is_inside(*c));
    Some(start.map_or(end, |(at, _)| at))
}

/// The `tokenizer.json` of the learned vocabulary and merges, in the form of the published tokenizer.
fn tokenizer_json(model: &BPE, vocab_size: usize) -> Result<Value, TokenizerError> {
    let model = serde_json::to_value(model).map_err(|error| TokenizerError::Encode {
        reason: error.to_string(),
    })?;
    let base = model["vocab"].as_object().map_or(0, Map::len);
    let unused =
        (0..vocab_size - base - SPECIALS.len()).map(|index| (format!("[unused{index}]"), false));
    let added: Vec<Value> = SPECIALS
        .iter()
        .map(|token| (token.to_string(), true))
        .chain(unused)
        .enumerate()
        .map(|(index, (content, special))| {
            json!({
                "id": base + index,
                "lstrip": content == "[MASK]",
                "content": content,
                "single_word": false,
                "rstrip": false,
                "normalized": !special,
                "special": special,
            })
        })
        .collect();

    let special = |token: &str| json!({ "SpecialToken": { "id": token, "type_id": 0 } });
    let sequence = |name: &str| json!({ "Sequence": { "id": name, "type_id": 0 } });
    let special_tokens: Map<String, Value> = SPECIALS
        .iter()
        .enumerate()
        .map(|(index, token)| {
            (
                token.to_string(),
                json!({ "id": token, "ids": [base + index], "tokens": [token] }),
            )
        })
        .collect();
    let byte_level = json!({ "type": "ByteLevel", "add_prefix_space": false, "trim_offsets": true, "use_regex": true });
    Ok(json!({
        "version": "1.0",
        "truncation": null,
        "padding": null,
        "added_tokens": added,
        "normalizer": { "type": "NFC" },
        "pre_tokenizer": byte_level,
        "post_processor": {
            "type": "TemplateProcessing",
            "single": [special("[CLS]"), sequence("A"), special("[SEP]")],
            "pair": [special("[CLS]"), sequence("A"), special("[SEP]"), sequence("B"), special("[SEP]")],
            "special_tokens": special_tokens,
        },
        "decoder": byte_level,
        "model": model,
    }))
}
