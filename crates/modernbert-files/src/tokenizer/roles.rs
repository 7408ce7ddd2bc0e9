//! The names of the special tokens and other settings, from the other tokenizer files of the folder.

use std::path::{Path, PathBuf};

use serde_json::{Value, json};

use super::TokenizerError;

/// Files that give the text of each special token, in order of precedence.
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
    /// Statements of the files about the tokenizer itself, which `tokenizer.json` must satisfy.
    pub(super) claims: Vec<Claim>,
}

/// A setting that Python's libraries apply to `tokenizer.json` when they load it: without the setting in `tokenizer.json`, the tokenizer in
/// Python differs.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Claim {
    pub(super) path: PathBuf,
    pub(super) kind: ClaimKind,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum ClaimKind {
    /// A token of this text exists; with an id, at that id.
    Token {
        key: String,
        content: String,
        id: Option<u32>,
    },
    /// The pre-tokenizer puts a space before a text, or not.
    PrefixSpace(bool),
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
            roles.add(&json).map_err(wrong)?;
            roles
                .claim(&json, &path)
                .map_err(|reason| TokenizerError::Settings {
                    path: path.clone(),
                    reason,
                })?;
        }
        Ok(roles)
    }

    /// Reads the settings of a file that no earlier file has. The error describes a setting that is malformed or not supported.
    fn add(&mut self, json: &Value) -> Result<(), String> {
        for (key, other) in [
            ("unk_token", None),
            ("cls_token", Some("bos_token")),
            ("sep_token", Some("eos_token")),
            ("pad_token", None),
            ("mask_token", None),
        ] {
            for key in [Some(key), other].into_iter().flatten() {
                let value = json.get(key).filter(|value| !value.is_null());
                if let Some(value) = value.filter(|value| content(value).is_none()) {
                    return Err(format!(
                        "{key} is {value}; expected the text of a token, an object with its content, or null"
                    ));
                }
            }
        }
        let token =
            |key: &str| Some(content(json.get(key)?)?.to_string()).filter(|text| !text.is_empty());
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
        let limit = json
            .get("model_max_length")
            .filter(|limit| !limit.is_null());
        if let Some(value) = limit {
            let limit = value.as_f64();
            let limit = limit
                .filter(|limit| *limit >= 1.0 && (limit.fract() == 0.0 || *limit >= MOST_TOKENS));
            let Some(limit) = limit else {
                return Err(format!(
                    "model_max_length is {value}; expected a number of tokens, 1 or more, or null"
                ));
            };
            let limit = (limit < MOST_TOKENS).then_some(limit as usize);
            self.max_length = self.max_length.or(limit);
        }
        for (key, usual, effect) in [
            (
                "truncation_side",
                json!("right"),
                "texts are cut at their end",
            ),
            (
                "split_special_tokens",
                json!(false),
                "special tokens in a text are recognized",
            ),
        ] {
            let value = json.get(key).filter(|value| !value.is_null());
            if let Some(value) = value.filter(|value| **value != usual) {
                return Err(format!(
                    "{key} is {value}, which is not supported ({effect}): set {usual}, or leave it out"
                ));
            }
        }
        Ok(())
    }

    /// Collects the statements of a file about the tokenizer itself.
    fn claim(&mut self, json: &Value, path: &Path) -> Result<(), String> {
        let mut claim = |kind| {
            let path = path.to_path_buf();
            self.claims.push(Claim { path, kind });
        };
        match json.get("add_prefix_space") {
            None | Some(Value::Null) => {}
            Some(Value::Bool(flag)) => claim(ClaimKind::PrefixSpace(*flag)),
            Some(other) => {
                return Err(format!(
                    "add_prefix_space is {other}; expected true or false"
                ));
            }
        }
        let added = json.get("added_tokens_decoder").and_then(Value::as_object);
        for (id, token) in added.into_iter().flatten() {
            let key = format!("added_tokens_decoder.{id}");
            let (Some(content), Ok(id)) = (content(token), id.parse()) else {
                return Err(format!(
                    "{key} is {token}; expected an id and an object with the token's content"
                ));
            };
            claim(ClaimKind::Token {
                key,
                content: content.to_string(),
                id: Some(id),
            });
        }
        for key in ["additional_special_tokens", "extra_special_tokens"] {
            let tokens = json.get(key).and_then(Value::as_array);
            for content in tokens.into_iter().flatten().filter_map(content) {
                claim(ClaimKind::Token {
                    key: key.to_string(),
                    content: content.to_string(),
                    id: None,
                });
            }
        }
        Ok(())
    }
}

/// The text of a token: itself, or the content of an object.
fn content(value: &Value) -> Option<&str> {
    value.as_str().or_else(|| value.get("content")?.as_str())
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;

    #[test]
    fn tokens_are_texts_or_objects_and_the_first_file_wins() {
        let mut roles = Roles::default();
        let first =
            json!({"cls_token": {"content": "<a>"}, "pad_token": null, "model_max_length": 512});
        roles.add(&first).unwrap();
        roles.add(&json!({"cls_token": "<b>", "eos_token": "</s>", "pad_token": "<p>", "model_max_length": 9})).unwrap();
        assert_eq!(roles.cls.as_deref(), Some("<a>"));
        assert_eq!(roles.sep.as_deref(), Some("</s>"));
        assert_eq!(roles.pad.as_deref(), Some("<p>"));
        assert_eq!(roles.max_length, Some(512));
        let mut roles = Roles::default();
        for none in [
            json!(1e30),
            json!(null),
            json!(1_000_000_000_000_000_019_u64),
        ] {
            roles.add(&json!({"model_max_length": none})).unwrap();
            assert_eq!(roles.max_length, None);
        }
        roles.add(&json!({"model_max_length": 512.0, "truncation_side": "right", "split_special_tokens": false})).unwrap();
        assert_eq!(roles.max_length, Some(512));
    }

    #[test]
    fn settings_that_are_malformed_or_not_supported_are_refused() {
        for (key, value) in [
            ("model_max_length", json!("512")),
            ("model_max_length", json!(-1)),
            ("model_max_length", json!(0)),
            ("model_max_length", json!(7.5)),
            ("model_max_length", json!(true)),
            ("truncation_side", json!("left")),
            ("split_special_tokens", json!(true)),
            ("cls_token", json!(5)),
            ("eos_token", json!(["</s>"])),
            ("mask_token", json!({"content": 3})),
        ] {
            let message = Roles::default().add(&json!({ key: value })).unwrap_err();
            assert!(message.starts_with(key), "{message}");
        }
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
