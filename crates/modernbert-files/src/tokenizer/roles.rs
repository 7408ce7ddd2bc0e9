//! The names of the special tokens, from the files beside `tokenizer.json`.

use std::path::Path;

use serde_json::Value;

use super::TokenizerError;

/// Files that say which token plays which role, the first one first.
const FILES: [&str; 2] = ["tokenizer_config.json", "special_tokens_map.json"];
/// Larger values mean "no limit".
const MOST_TOKENS: f64 = (1u64 << 31) as f64;

/// Names of the special tokens, as far as the files give them, and the longest sequence.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Roles {
    pub(super) unk: Option<String>,
    pub(super) cls: Option<String>,
    pub(super) sep: Option<String>,
    pub(super) pad: Option<String>,
    pub(super) mask: Option<String>,
    /// Tokens of a sequence at most; `None` without a limit.
    pub(super) max_length: Option<usize>,
}

impl Roles {
    /// Reads the files in `folder`; a file that doesn't exist gives nothing.
    pub(super) fn read(folder: &Path) -> Result<Self, TokenizerError> {
        let mut roles = Self::default();
        for name in FILES {
            let path = folder.join(name);
            let bytes = match crate::read::bytes(&path) {
                Ok(bytes) => bytes,
                Err(error) if error.kind() == std::io::ErrorKind::NotFound => continue,
                Err(source) => return Err(TokenizerError::Read { path, source }),
            };
            let wrong = |reason| TokenizerError::Settings {
                path: path.clone(),
                reason,
            };
            let json: Value =
                crate::json::parse(&bytes).map_err(|error| wrong(error.to_string()))?;
            if !json.is_object() {
                return Err(wrong("not a JSON object".to_string()));
            }
            roles.add(&json);
        }
        Ok(roles)
    }

    fn add(&mut self, json: &Value) {
        let token = |key: &str| {
            let value = json.get(key)?;
            let text = value.as_str().or_else(|| value.get("content")?.as_str())?;
            Some(text.to_string()).filter(|text| !text.is_empty())
        };
        for (role, key, other) in [
            (&mut self.unk, "unk_token", None),
            (&mut self.cls, "cls_token", Some("bos_token")),
            (&mut self.sep, "sep_token", Some("eos_token")),
            (&mut self.pad, "pad_token", None),
            (&mut self.mask, "mask_token", None),
        ] {
            if role.is_none() {
                *role = token(key).or_else(|| token(other?));
            }
        }
        let limit = json.get("model_max_length").and_then(Value::as_f64);
        let limit = limit.filter(|limit| (1.0..MOST_TOKENS).contains(limit));
        self.max_length = self.max_length.or(limit.map(|limit| limit as usize));
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn tokens_are_texts_or_objects_and_the_first_file_wins() {
        let mut roles = Roles::default();
        roles.add(
            &json!({"cls_token": {"content": "<a>"}, "pad_token": null, "model_max_length": 512}),
        );
        roles.add(&json!({"cls_token": "<b>", "eos_token": "</s>", "pad_token": "<p>", "model_max_length": 9}));
        assert_eq!(roles.cls.as_deref(), Some("<a>"));
        assert_eq!(roles.sep.as_deref(), Some("</s>"));
        assert_eq!(roles.pad.as_deref(), Some("<p>"));
        assert_eq!(roles.max_length, Some(512));
        let mut roles = Roles::default();
        roles.add(&json!({"model_max_length": 1e30}));
        assert_eq!(roles.max_length, None);
    }

    #[test]
    fn a_file_that_is_no_object_is_named() -> std::io::Result<()> {
        for name in FILES {
            for (content, reason) in [("[1]", "not a JSON object"), ("{", "EOF")] {
                let folder = tempfile::tempdir()?;
                std::fs::write(folder.path().join(name), content)?;
                let message = Roles::read(folder.path()).map_err(|error| error.to_string());
                let message = message.err().unwrap_or_default();
                assert!(
                    message.contains(name) && message.contains(reason),
                    "{message}"
                );
                assert!(!message.contains("tokenizers library"), "{message}");
            }
        }
        Ok(())
    }
}
