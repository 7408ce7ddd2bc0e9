//! The names of the special tokens and other settings, from the other tokenizer files of the folder.

use std::path::{Path, PathBuf};

use serde_json::{Value, json};

use super::TokenizerError;
use crate::kinds::{self, Kind};

/// Files that give the text of each special token, in order of precedence.
const FILES: [&str; 2] = ["tokenizer_config.json", "special_tokens_map.json"];
/// File of older tokenizers with added tokens and their ids.
const ADDED_FILE: &str = "added_tokens.json";
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
    /// True if a model of the tokenizer reads types of tokens, by `model_input_names` or the tokenizer's class; `None` where neither says it.
    pub(super) types: Option<bool>,
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
        /// Its flags, as far as they are given.
        flags: Vec<(&'static str, bool)>,
    },
    /// The pre-tokenizer puts a space before a text, or not.
    PrefixSpace(bool),
}

/// Flags of an added token, in the order of [`tokenizers::AddedToken`]'s fields.
const FLAGS: [&str; 5] = ["single_word", "lstrip", "rstrip", "normalized", "special"];

/// A fault of a setting, and its remedy.
type Fault = (String, String);

impl Roles {
    /// Reads the files in `folder`; a file that doesn't exist gives nothing.
    pub(super) fn read(folder: &Path) -> Result<Self, TokenizerError> {
        let mut roles = Self::default();
        let mut has_added = false;
        for name in FILES {
            let path = folder.join(name);
            let Some(json) = read_json(&path, kinds::TOKENIZER_CONFIG)? else {
                continue;
            };
            has_added |= json
                .get("added_tokens_decoder")
                .is_some_and(|added| !added.is_null());
            let wrong = |(reason, remedy)| TokenizerError::Settings {
                path: path.clone(),
                reason,
                remedy,
            };
            roles.add(&json).map_err(wrong)?;
            roles.claim(&json, &path);
        }
        // As in transformers, older files than the setting are read where that is missing.
        let path = folder.join(ADDED_FILE);
        if !has_added && let Some(json) = read_json(&path, kinds::ADDED_TOKENS)? {
            for (content, id) in json.as_object().into_iter().flatten() {
                let id = id.as_u64().and_then(|id| u32::try_from(id).ok());
                roles.claims.push(Claim {
                    path: path.clone(),
                    kind: ClaimKind::Token {
                        key: "the file".to_string(),
                        content: content.clone(),
                        id,
                        flags: Vec::new(),
                    },
                });
            }
        }
        Ok(roles)
    }

    /// Takes what is set in a file and not in an earlier one. The error describes a setting that is out of range or not supported.
    fn add(&mut self, json: &Value) -> Result<(), Fault> {
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
                return Err((
                    format!("model_max_length is {value}"),
                    "set a number of tokens, 1 or more, or null".to_string(),
                ));
            };
            let limit = (limit < MOST_TOKENS).then_some(limit as usize);
            self.max_length = self.max_length.or(limit);
        }
        let names = json.get("model_input_names").and_then(Value::as_array);
        let named = names.map(|names| names.contains(&json!("token_type_ids")));
        let class = json.get("tokenizer_class").and_then(Value::as_str);
        let of_class = class.and_then(|class| match class.trim_end_matches("Fast") {
            "BertTokenizer" => Some(true),
            "RobertaTokenizer" | "XLMRobertaTokenizer" => Some(false),
            _ => None,
        });
        self.types = self.types.or(named).or(of_class);
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
                return Err((
                    format!("{key} is {value}, which is not supported ({effect})"),
                    format!("set {usual}, or leave it out"),
                ));
            }
        }
        Ok(())
    }

    /// Collects what a file says about the tokenizer itself; the types of its values are checked.
    fn claim(&mut self, json: &Value, path: &Path) {
        let mut claim = |kind| {
            let path = path.to_path_buf();
            self.claims.push(Claim { path, kind });
        };
        if let Some(flag) = json.get("add_prefix_space").and_then(Value::as_bool) {
            claim(ClaimKind::PrefixSpace(flag));
        }
        let mut token = |key: String, value: &Value, id: Option<u32>| {
            if let Some(content) = content(value) {
                let content = content.to_string();
                let flag = |name: &&'static str| Some((*name, value.get(*name)?.as_bool()?));
                // Other files repeat the tokens; the flags of this setting are the ones that Python applies.
                let flags = id.map(|_| FLAGS.iter().filter_map(flag).collect());
                claim(ClaimKind::Token {
                    key,
                    content,
                    id,
                    flags: flags.unwrap_or_default(),
                });
            }
        };
        let added = json.get("added_tokens_decoder").and_then(Value::as_object);
        for (id, value) in added.into_iter().flatten() {
            // An id that no tokenizer has is as wrong as another one.
            let number = id.parse().unwrap_or(u32::MAX);
            token(format!("added_tokens_decoder.{id}"), value, Some(number));
        }
        for key in [
            "additional_special_tokens",
            "extra_special_tokens",
            "model_specific_special_tokens",
        ] {
            match json.get(key) {
                Some(Value::Array(tokens)) => {
                    for value in tokens {
                        token(key.to_string(), value, None);
                    }
                }
                Some(Value::Object(tokens)) => {
                    for (name, value) in tokens {
                        token(format!("{key}.{name}"), value, None);
                    }
                }
                _ => {}
            }
        }
    }
}

/// Reads a file of settings; `None` if there is none.
fn read_json(path: &Path, kind: Kind) -> Result<Option<Value>, TokenizerError> {
    let bytes = match crate::read::bytes(path) {
        Ok(bytes) => bytes,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(None),
        Err(source) => {
            return Err(TokenizerError::Read {
                path: path.to_path_buf(),
                source,
            });
        }
    };
    let wrong = |reason, remedy| TokenizerError::Settings {
        path: path.to_path_buf(),
        reason,
        remedy,
    };
    let json = crate::json::parse(&bytes)
        .map_err(|error| wrong(error.to_string(), crate::cached::replace_file(path)))?;
    kinds::check(kind, &json).map_err(|error| wrong(error.fault(), error.remedy()))?;
    Ok(Some(json))
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

    /// Reads a folder in which a file has this content.
    fn of(name: &str, content: &str) -> Result<Roles, String> {
        let folder = tempfile::tempdir().unwrap();
        std::fs::write(folder.path().join(name), content).unwrap();
        Roles::read(folder.path()).map_err(|error| error.to_string())
    }

    #[test]
    fn settings_that_are_malformed_or_not_supported_are_refused_with_one_remedy() {
        for (key, value) in [
            ("model_max_length", json!("512")),
            ("model_max_length", json!(-1)),
            ("model_max_length", json!(0)),
            ("model_max_length", json!(7.5)),
            ("model_max_length", json!(true)),
            ("truncation_side", json!("left")),
            ("truncation_side", json!(1)),
            ("split_special_tokens", json!(true)),
            ("add_prefix_space", json!("yes")),
            ("cls_token", json!(5)),
            ("eos_token", json!(["</s>"])),
            ("mask_token", json!({"content": 3})),
            ("added_tokens_decoder", json!([{"content": "<a>"}])),
            ("added_tokens_decoder", json!({"+5": {"content": "<a>"}})),
            ("added_tokens_decoder", json!({"5": null})),
            ("additional_special_tokens", json!({"a": "<a>"})),
            ("additional_special_tokens", json!(["<a>", 3])),
            ("extra_special_tokens", json!("<a>")),
            ("extra_special_tokens", json!({"image_token": 7})),
        ] {
            for name in FILES {
                let message = of(name, &json!({ key: value }).to_string()).unwrap_err();
                assert!(message.contains(&format!("{name}: {key}")), "{message}");
                assert_eq!(message.matches("; ").count(), 1, "{message}");
                assert!(!message.contains("again"), "{message}");
            }
        }
    }

    #[test]
    fn tokens_of_lists_objects_and_older_files_are_claimed() {
        let claims = |name: &str, json: Value| {
            let roles = of(name, &json.to_string()).unwrap();
            let kinds = roles.claims.into_iter().map(|claim| claim.kind);
            kinds.collect::<Vec<_>>()
        };
        let token = |key: &str, content: &str, id| {
            let (key, content) = (key.to_string(), content.to_string());
            vec![ClaimKind::Token {
                key,
                content,
                id,
                flags: Vec::new(),
            }]
        };
        for name in FILES {
            let object = json!({"extra_special_tokens": {"image_token": "<i>"}});
            let key = "extra_special_tokens.image_token";
            assert_eq!(claims(name, object), token(key, "<i>", None));
            let list = json!({"extra_special_tokens": [{"content": "<i>"}]});
            assert_eq!(
                claims(name, list),
                token("extra_special_tokens", "<i>", None)
            );
            assert_eq!(claims(name, json!({"extra_special_tokens": {}})), []);
        }
        let added = json!({"<i>": 7});
        assert_eq!(claims(ADDED_FILE, added), token("the file", "<i>", Some(7)));
        assert!(of(ADDED_FILE, "[\"<i>\"]").is_err());
    }

    #[test]
    fn a_file_that_is_no_object_is_named() {
        for name in FILES {
            for (content, reason) in [("[1]", "expected an object"), ("{", "EOF")] {
                let message = of(name, content).unwrap_err();
                assert!(
                    message.contains(name) && message.contains(reason),
                    "{message}"
                );
                assert!(!message.contains("tokenizers library"), "{message}");
            }
        }
    }
}
