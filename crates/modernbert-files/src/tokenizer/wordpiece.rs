//! BERT's vocabulary as a `tokenizer.json`, for folders of older tools that have `vocab.txt` alone.

use std::path::{Path, PathBuf};

use serde_json::{Map, Value, json};

use super::TokenizerError;
use super::files::{CONFIG_FILE, TOKENIZER_FILE};

/// File with a token a line, whose number is the token's id.
const VOCABULARY: &str = "vocab.txt";
/// Special tokens of BERT, by their usual names.
const SPECIAL: [&str; 5] = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"];

/// The text of a `tokenizer.json` with the tokens of `vocab.txt`, as transformers' `BertTokenizerFast` makes it, and the path of `vocab.txt`; `None`
/// where the folder has a `tokenizer.json`, or no `vocab.txt`.
///
/// # Errors
/// A file that can't be read, a token twice, special tokens with other names than BERT's.
pub(super) fn of_vocabulary(folder: &Path) -> Result<Option<(String, PathBuf)>, TokenizerError> {
    let path = folder.join(VOCABULARY);
    if folder.join(TOKENIZER_FILE).exists() || !path.is_file() {
        return Ok(None);
    }
    let read = |source| TokenizerError::Read {
        path: path.clone(),
        source,
    };
    let text = crate::read::text(&path).map_err(read)?;
    let wrong = |reason: String| TokenizerError::Settings {
        path: path.clone(),
        reason,
        remedy: "save the tokenizer with transformers' AutoTokenizer, which writes tokenizer.json"
            .to_string(),
    };
    let mut vocabulary = Map::new();
    let lines: Vec<&str> = text.lines().collect();
    for (id, token) in lines.iter().enumerate() {
        if vocabulary.insert((*token).to_string(), json!(id)).is_some() {
            return Err(wrong(format!(
                "line {} has the token {token:?} again",
                id + 1
            )));
        }
    }
    let id = |token: &str| {
        let found = vocabulary.get(token).cloned();
        found.ok_or_else(|| wrong(format!("no line is {token}")))
    };
    let added = SPECIAL.map(|token| -> Result<Value, TokenizerError> {
        Ok(json!({
            "id": id(token)?, "content": token, "special": true, "normalized": false,
            "single_word": false, "lstrip": false, "rstrip": false,
        }))
    });
    let mut added = added.into_iter().collect::<Result<Vec<_>, _>>()?;
    added.sort_by_key(|token| token["id"].as_u64());
    // The reader of roles reports a malformed file of settings.
    let settings = crate::read::bytes(&folder.join(CONFIG_FILE)).ok();
    let settings = settings.and_then(|bytes| crate::json::parse::<Value>(&bytes).ok());
    let setting = |key: &str| settings.as_ref()?.get(key)?.as_bool();
    let special = |token: &str| json!({"id": token, "ids": [vocabulary[token]], "tokens": [token]});
    let (cls, sep) = (special("[CLS]"), special("[SEP]"));
    let piece =
        |kind: &str, id: &str, type_id: u32| json!({ kind: {"id": id, "type_id": type_id} });
    let single = [
        piece("SpecialToken", "[CLS]", 0),
        piece("Sequence", "A", 0),
        piece("SpecialToken", "[SEP]", 0),
    ];
    let second = [piece("Sequence", "B", 1), piece("SpecialToken", "[SEP]", 1)];
    let pair = [single.as_slice(), second.as_slice()].concat();
    let json = json!({
        "version": "1.0",
        "truncation": null,
        "padding": null,
        "added_tokens": added,
        "normalizer": {
            "type": "BertNormalizer",
            "clean_text": true,
            "handle_chinese_chars": setting("tokenize_chinese_chars").unwrap_or(true),
            "strip_accents": setting("strip_accents"),
            "lowercase": setting("do_lower_case").unwrap_or(true),
        },
        "pre_tokenizer": {"type": "BertPreTokenizer"},
        "post_processor": {
            "type": "TemplateProcessing",
            "single": single,
            "pair": pair,
            "special_tokens": {"[CLS]": cls, "[SEP]": sep},
        },
        "decoder": {"type": "WordPiece", "prefix": "##", "cleanup": true},
        "model": {
            "type": "WordPiece",
            "unk_token": "[UNK]",
            "continuing_subword_prefix": "##",
            "max_input_chars_per_word": 100,
            "vocab": vocabulary,
        },
    });
    Ok(Some((json.to_string(), path)))
}
