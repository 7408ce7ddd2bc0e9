//! Writing a tokenizer in the two files that Python's `AutoTokenizer` reads.

use std::path::Path;

use serde_json::{Map, Value, json};

use super::guard::{Reason, check_growth};
use super::{Tokenizer, TokenizerError};

/// The file with the tokenizer itself.
pub(super) const TOKENIZER_FILE: &str = "tokenizer.json";
/// The file with the class that Python loads and the names of the special tokens.
pub(super) const CONFIG_FILE: &str = "tokenizer_config.json";

/// The files of a tokenizer in a model's folder.
pub const FILES: [&str; 2] = [TOKENIZER_FILE, CONFIG_FILE];

/// The library's tokenizer from the content of a `tokenizer.json`.
///
/// The library panics if a decoder is malformed JSON, if a `Precompiled` table is damaged, and if a template names an
/// undefined token. So the text is first parsed as a whole, which refuses malformed JSON and duplicate keys; tokenizers
/// with a `Precompiled` table, which no ModernBERT has, are refused; and templates are checked.
pub(super) fn parse(bytes: &[u8]) -> Result<tokenizers::Tokenizer, Reason> {
    let json: Value = crate::json::parse(bytes).map_err(Reason::new)?;
    if json.get("normalizer").is_some_and(precompiled) {
        return Err(Reason::new("a Precompiled normalizer is not supported"));
    }
    if let Some(normalizer) = json.get("normalizer") {
        check_growth(normalizer)?;
    }
    if let Some(post_processor) = json.get("post_processor") {
        check_templates(post_processor)?;
    }
    let dropout = json.get("model").and_then(|model| model.get("dropout"));
    if let Some(dropout) = dropout.and_then(Value::as_f64).filter(|rate| *rate > 0.0) {
        return Err(Reason::new(format!(
            "model.dropout is {dropout}: each call would make other tokens; set it to null"
        )));
    }
    serde_json::from_value(json).map_err(Reason::new)
}

/// Refuses templates, at any depth, with a special token they don't define, or with a second text for a single one.
fn check_templates(post_processor: &Value) -> Result<(), Reason> {
    match post_processor {
        Value::Array(parts) => parts.iter().try_for_each(check_templates),
        Value::Object(fields) => {
            for template in ["single", "pair"] {
                let pieces = fields.get(template).and_then(Value::as_array);
                for piece in pieces.into_iter().flatten() {
                    let id = |kind: &str| piece.get(kind)?.get("id")?.as_str();
                    if let Some(token) = id("SpecialToken")
                        && fields
                            .get("special_tokens")
                            .and_then(|all| all.get(token))
                            .is_none()
                    {
                        return Err(Reason::new(format!(
                            "the template `{template}` uses {token}, which `special_tokens` does not define"
                        )));
                    }
                    if template == "single" && id("Sequence") == Some("B") {
                        return Err(Reason::new("the template `single` asks for a second text"));
                    }
                }
            }
            fields.values().try_for_each(check_templates)
        }
        _ => Ok(()),
    }
}

/// Returns true if a normalizer, or one inside it, may be read as a `Precompiled` table.
fn precompiled(normalizer: &Value) -> bool {
    match normalizer {
        Value::Array(parts) => parts.iter().any(precompiled),
        Value::Object(fields) => {
            fields.contains_key("precompiled_charsmap")
                || fields.get("type").and_then(Value::as_str) == Some("Precompiled")
                || fields.values().any(precompiled)
        }
        _ => false,
    }
}

impl Tokenizer {
    /// Writes `tokenizer.json` and `tokenizer_config.json` into `folder`, which is made if it doesn't exist.
    ///
    /// # Errors
    /// A folder or file that can't be written.
    pub fn save(&self, folder: impl AsRef<Path>) -> Result<(), TokenizerError> {
        let folder = folder.as_ref();
        std::fs::create_dir_all(folder).map_err(|source| TokenizerError::Write {
            path: folder.into(),
            source,
        })?;
        for (name, content) in self.files()? {
            let path = folder.join(name);
            crate::atomic::write_atomically(&path, content.as_bytes())
                .map_err(|source| TokenizerError::Write { path, source })?;
        }
        Ok(())
    }

    /// The names of [`FILES`] with the content that [`Self::save`] writes.
    ///
    /// # Errors
    /// A tokenizer that can't be written as JSON.
    pub fn files(&self) -> Result<[(&'static str, String); 2], TokenizerError> {
        let serialize = |reason: String| TokenizerError::Serialize { reason };
        let tokenizer = self
            .inner
            .to_string(true)
            .map_err(|error| serialize(error.to_string()))?;
        let config = serde_json::to_string_pretty(&self.config())
            .map_err(|error| serialize(error.to_string()))?;
        Ok([
            (TOKENIZER_FILE, tokenizer + "\n"),
            (CONFIG_FILE, config + "\n"),
        ])
    }

    fn config(&self) -> Value {
        let mut added: Vec<_> = self.inner.get_added_tokens_decoder().into_iter().collect();
        added.sort_by_key(|(id, _)| *id);
        let decoder: Map<String, Value> = added
            .into_iter()
            .map(|(id, token)| {
                let value = json!({
                    "content": token.content,
                    "lstrip": token.lstrip,
                    "normalized": token.normalized,
                    "rstrip": token.rstrip,
                    "single_word": token.single_word,
                    "special": token.special,
                });
                (id.to_string(), value)
            })
            .collect();
        let name = |id: u32| self.inner.id_to_token(id);
        let special = self.special();
        let reads_types = self.types.unwrap_or_else(|| {
            use tokenizers::ModelWrapper::WordPiece;
            self.second_type && matches!(self.inner.get_model(), WordPiece(_))
        });
        let inputs: &[&str] = match reads_types {
            true => &["input_ids", "token_type_ids", "attention_mask"],
            false => &["input_ids", "attention_mask"],
        };
        let mut config = json!({
            "added_tokens_decoder": decoder,
            // The clean-up strips spaces before punctuation, so that decoded text would not be the text encoded.
            "clean_up_tokenization_spaces": false,
            "cls_token": name(special.cls),
            "mask_token": name(special.mask),
            "model_input_names": inputs,
            "pad_token": name(special.pad),
            "sep_token": name(special.sep),
            "tokenizer_class": "PreTrainedTokenizerFast",
            "unk_token": name(special.unk),
        });
        if let Some(tokens) = self.max_length() {
            config["model_max_length"] = tokens.into();
        }
        config
    }
}
