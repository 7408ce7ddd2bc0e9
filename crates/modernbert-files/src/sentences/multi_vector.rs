//! Settings of a multi-vector (ColBERT) model, as PyLate writes them.

use std::path::Path;

use serde_json::Value;

use super::{MODULES_FILE, PROMPTS_FILE, SentencesError, damaged, is_set, read_json, wrong};
use crate::kinds;

/// Folder of the projection.
pub const DENSE_FOLDER: &str = "1_Dense";
/// Text of the tokens before queries and documents in PyLate's models.
const PREFIXES: [&str; 2] = ["[Q] ", "[D] "];
/// PyLate's skip list: Python's `string.punctuation`.
const PUNCTUATION: &str = "!\"#$%&'()*+,-./:;<=>?@[\\]^_`{|}~";

/// Settings of a multi-vector model.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct MultiVectorSettings {
    /// Token after `[CLS]` in a query; empty for none.
    pub query_prefix: String,
    /// Token after `[CLS]` in a document; empty for none.
    pub document_prefix: String,
    /// Tokens of a query at most, special tokens and prefix included.
    pub query_length: usize,
    /// Tokens of a document at most, special tokens and prefix included.
    pub document_length: usize,
    /// True if shorter queries are filled with `[MASK]` up to their length.
    pub query_expansion: bool,
    /// True if the other tokens attend to those `[MASK]` tokens.
    pub attend_to_expansion: bool,
    /// Tokens of documents that have no vector.
    pub skip_list: Vec<String>,
}

impl Default for MultiVectorSettings {
    /// PyLate's defaults.
    fn default() -> Self {
        let [query_prefix, document_prefix] = PREFIXES.map(str::to_string);
        Self {
            query_prefix,
            document_prefix,
            query_length: 32,
            document_length: 180,
            query_expansion: true,
            attend_to_expansion: false,
            skip_list: PUNCTUATION.chars().map(String::from).collect(),
        }
    }
}

impl MultiVectorSettings {
    /// Reads the settings of a folder whose modules end with a projection; `None` for any other folder. A missing setting has PyLate's
    /// default.
    ///
    /// # Errors
    /// A file that can't be read or is malformed; a projection with an activation, a bias or a residual.
    pub fn read(folder: &Path) -> Result<Option<Self>, SentencesError> {
        let file = folder.join(MODULES_FILE);
        let Some(modules) = read_json(&file, kinds::MODULES)? else {
            return Ok(None);
        };
        let kinds: Vec<&str> = modules
            .as_array()
            .into_iter()
            .flatten()
            .filter_map(|module| module.get("type")?.as_str()?.rsplit('.').next())
            .collect();
        // A model with one vector per text may also have a projection, of that vector.
        if !kinds.contains(&"Dense") || kinds.contains(&"Pooling") {
            return Ok(None);
        }
        let unsupported = |path: &Path, what: &str| SentencesError::Unsupported {
            path: path.to_path_buf(),
            what: what.to_string(),
        };
        if kinds.iter().filter(|kind| **kind == "Dense").count() > 1 {
            return Err(unsupported(&file, "more than one projection"));
        }
        check_dense(&folder.join(DENSE_FOLDER).join("config.json"))?;
        let mut settings = Self::default();
        let path = folder.join(PROMPTS_FILE);
        let Some(json) = read_json(&path, kinds::SENTENCE_TRANSFORMERS)? else {
            return Ok(Some(settings));
        };
        let length = |key: &str, default: usize| {
            let length = json.get(key).and_then(Value::as_u64);
            match length.map(|length| usize::try_from(length).unwrap_or(usize::MAX)) {
                Some(0) => Err(wrong(&path, &format!("{key} is 0"), "set 1 or more")),
                length => Ok(length.unwrap_or(default)),
            }
        };
        let flag = |key: &str, default: bool| {
            let flag = json.get(key).and_then(Value::as_bool);
            flag.unwrap_or(default)
        };
        for (key, prefix) in [
            ("query_prefix", &mut settings.query_prefix),
            ("document_prefix", &mut settings.document_prefix),
        ] {
            if let Some(given) = json.get(key).and_then(Value::as_str) {
                *prefix = given.to_string();
            }
        }
        settings.query_length = length("query_length", settings.query_length)?;
        settings.document_length = length("document_length", settings.document_length)?;
        settings.query_expansion = flag("do_query_expansion", settings.query_expansion);
        settings.attend_to_expansion =
            flag("attend_to_expansion_tokens", settings.attend_to_expansion);
        if let Some(words) = json.get("skiplist_words").and_then(Value::as_array) {
            let words = words.iter().filter_map(Value::as_str);
            settings.skip_list = words.map(str::to_string).collect();
        }
        Ok(Some(settings))
    }
}

/// Refuses a projection that is more than one matrix.
fn check_dense(path: &Path) -> Result<(), SentencesError> {
    let Some(json) = read_json(path, kinds::DENSE)? else {
        return Err(damaged(path, "the file is missing"));
    };
    let activation = json.get("activation_function").and_then(Value::as_str);
    let is_identity = activation.is_none_or(|name| name.ends_with("Identity"));
    let what = match (
        is_set(&json, "bias"),
        is_set(&json, "use_residual"),
        is_identity,
    ) {
        (false, false, true) => return Ok(()),
        (true, ..) => "a projection with a bias",
        (_, true, _) => "a projection with a residual",
        _ => "a projection with an activation",
    };
    Err(SentencesError::Unsupported {
        path: path.to_path_buf(),
        what: what.to_string(),
    })
}
