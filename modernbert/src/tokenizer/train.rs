//! Training a tokenizer of ModernBERT's kind.
//!
//! Byte-level BPE over NFC text, split the way GPT-2 does it, case kept, no space put in front; the special tokens and
//! the `[unusedN]` fillers come after the learned vocabulary, as in the published tokenizer. The same texts always give
//! the same tokenizer, whatever order they come in.

use std::collections::HashMap;

use rayon::prelude::*;
use serde_json::{Map, Value, json};
use tokenizers::normalizers::unicode::NFC;
use tokenizers::pre_tokenizers::byte_level::ByteLevel;
use tokenizers::{
    NormalizedString, Normalizer, OffsetReferential, OffsetType, PreTokenizedString, PreTokenizer,
};

use super::{Tokenizer, TokenizerError, bpe};

/// The special tokens, in the order of their ids.
const SPECIALS: [&str; 5] = ["[UNK]", "[CLS]", "[SEP]", "[PAD]", "[MASK]"];
/// Vocabularies are a multiple of this, which matrix units like.
const MULTIPLE: usize = 64;
/// Documents counted at a time: enough for every core, few enough to keep in memory.
const DOCUMENTS_AT_A_TIME: usize = 256;

/// How to train.
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
/// The vocabulary has exactly the size asked for (rounded up to a multiple of 64): where the texts do not hold enough
/// merges, `[unused0]`, `[unused1]`, … fill it.
pub fn train<I>(texts: I, options: &TrainOptions) -> Result<Tokenizer, TokenizerError>
where
    I: IntoIterator,
    I::Item: AsRef<str> + Send + Sync,
{
    let mut alphabet: Vec<char> = ByteLevel::alphabet().into_iter().collect();
    alphabet.sort_unstable();
    let fixed = alphabet.len() + SPECIALS.len();
    let vocab_size = options.vocab_size.next_multiple_of(MULTIPLE);
    if vocab_size < fixed {
        return Err(TokenizerError::VocabTooSmall {
            vocab_size: options.vocab_size,
            specials: SPECIALS.len(),
            smallest: fixed.next_multiple_of(MULTIPLE),
        });
    }
    let words = count_words(texts)?;
    if words.is_empty() {
        return Err(TokenizerError::NoText);
    }
    let learned = bpe::learn(
        &words,
        &alphabet,
        vocab_size - SPECIALS.len(),
        options.min_frequency,
    );
    let json = tokenizer_json(&learned, vocab_size);
    Tokenizer::from_bytes(json.to_string().as_bytes(), "the trained tokenizer")
}

/// The pieces that merges may not cross, with how often each occurs, sorted.
fn count_words<I>(texts: I) -> Result<Vec<(String, u64)>, TokenizerError>
where
    I: IntoIterator,
    I::Item: AsRef<str> + Send + Sync,
{
    let mut texts = texts.into_iter();
    let mut total: HashMap<String, u64> = HashMap::new();
    loop {
        let batch: Vec<I::Item> = texts.by_ref().take(DOCUMENTS_AT_A_TIME).collect();
        if batch.is_empty() {
            break;
        }
        let counted: Vec<HashMap<String, u64>> = batch
            .par_iter()
            .map(|text| words_of(text.as_ref()))
            .collect::<Result<_, _>>()?;
        for (word, count) in counted.into_iter().flatten() {
            *total.entry(word).or_default() += count;
        }
    }
    let mut words: Vec<(String, u64)> = total.into_iter().collect();
    words.sort_unstable();
    Ok(words)
}

fn words_of(text: &str) -> Result<HashMap<String, u64>, TokenizerError> {
    let failed = |error: tokenizers::Error| TokenizerError::Encode {
        reason: error.to_string(),
    };
    let mut normalized = NormalizedString::from(text);
    NFC.normalize(&mut normalized).map_err(failed)?;
    let mut pieces = PreTokenizedString::from(normalized);
    ByteLevel::new(false, true, true)
        .pre_tokenize(&mut pieces)
        .map_err(failed)?;
    let mut words = HashMap::new();
    for (piece, _, _) in pieces.get_splits(OffsetReferential::Normalized, OffsetType::None) {
        match words.get_mut(piece) {
            Some(count) => *count += 1,
            None => {
                words.insert(piece.to_owned(), 1);
            }
        }
    }
    Ok(words)
}

/// The `tokenizer.json` of what was learned, in the published tokenizer's form.
fn tokenizer_json(learned: &bpe::Learned, vocab_size: usize) -> Value {
    let text = |id: u32| learned.vocab[id as usize].as_str();
    let merges: Vec<[&str; 2]> = learned
        .merges
        .iter()
        .map(|&(a, b)| [text(a), text(b)])
        .collect();
    let vocab: Map<String, Value> = learned
        .vocab
        .iter()
        .enumerate()
        .map(|(id, token)| (token.clone(), json!(id)))
        .collect();

    let base = learned.vocab.len();
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
    json!({
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
        "model": {
            "type": "BPE",
            "dropout": null,
            "unk_token": null,
            "continuing_subword_prefix": null,
            "end_of_word_suffix": null,
            "fuse_unk": false,
            "byte_fallback": false,
            "ignore_merges": false,
            "vocab": vocab,
            "merges": merges,
        },
    })
}
