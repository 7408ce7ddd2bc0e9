//! The files of the sentence-transformers library: pooling, normalization, length and prompts.
//!
//! | file | contents |
//! |---|---|
//! | `modules.json` | the stages after the encoder: pooling, normalization |
//! | `1_Pooling/config.json` | the pooling of the tokens' vectors |
//! | `sentence_bert_config.json` | maximum number of tokens of a text |
//! | `config_sentence_transformers.json` | prompts that are put before a text; the [`Similarity`] of vectors |
//! | `1_Dense/` | the projection of a multi-vector model, whose settings are in `config_sentence_transformers.json`: [`MultiVectorSettings`] |
//!
//! [`SentenceFiles`] writes them, in the oldest form, which every reader takes.

mod multi_vector;
mod similarity;
mod write;

pub use multi_vector::{DENSE_FOLDER, MultiVectorSettings};
pub use similarity::{Similarity, UnknownSimilarity};
pub use write::SentenceFiles;

use std::collections::BTreeMap;
use std::path::{Component, Path, PathBuf};

use serde_json::Value;

use crate::config::Pooling;
use crate::kinds::{self, Kind};
use crate::output::space_remedy;

/// File with the stages after the encoder.
pub const MODULES_FILE: &str = "modules.json";
/// File with the usual pooling, for folders without [`MODULES_FILE`].
pub const POOLING_FILE: &str = "1_Pooling/config.json";
/// File with the longest text.
pub const LENGTH_FILE: &str = "sentence_bert_config.json";
/// File with the prompts.
pub const PROMPTS_FILE: &str = "config_sentence_transformers.json";

/// A folder's settings of sentence embeddings; `None` and empty where the folder has none.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct SentenceSettings {
    /// Reduction of the tokens' vectors to one.
    pub pooling: Option<Pooling>,
    /// True if vectors are scaled to length one.
    pub normalize: Option<bool>,
    /// Tokens of a text at most, special tokens included.
    pub max_length: Option<usize>,
    /// Texts that are put before a text, by name.
    pub prompts: BTreeMap<String, String>,
    /// Name of the default prompt.
    pub default_prompt: Option<String>,
    /// File of a pooling that leaves the prompt's tokens out (`include_prompt` = false), which is not supported: see
    /// [`Self::check_prompt`].
    pub excludes_prompt: Option<PathBuf>,
}

/// Reason why the files can't be used.
#[derive(Debug, thiserror::Error)]
pub enum SentencesError {
    /// The file can't be read.
    #[error("{}: {source}{}", path.display(), space_remedy(source))]
    Io {
        /// The file.
        path: PathBuf,
        /// Error of the operating system.
        source: std::io::Error,
    },
    /// The file is malformed.
    #[error("{}: {reason}; {remedy}", path.display())]
    Format {
        /// The file.
        path: PathBuf,
        /// Description of the fault.
        reason: String,
        /// Remedy.
        remedy: String,
    },
    /// A stage or pooling that is not supported.
    #[error(
        "{}: {what} is not supported, and without it the vectors would be different; {}", path.display(), remedy(what)
    )]
    Unsupported {
        /// The file.
        path: PathBuf,
        /// The stage or pooling.
        what: String,
    },
}

impl SentenceSettings {
    /// Reads the files of a model folder; missing files leave the settings empty.
    ///
    /// # Errors
    /// A file that can't be read or is malformed; a stage or pooling that is not supported.
    pub fn read(folder: &Path) -> Result<Self, SentencesError> {
        let mut settings = Self::default();
        let modules = folder.join(MODULES_FILE);
        let mut pooling = folder.join(POOLING_FILE);
        match read_json(&modules, kinds::MODULES)? {
            Some(json) => {
                if let Some(file) = settings.read_modules(folder, &modules, &json)? {
                    pooling = file;
                }
            }
            None => settings.pooling = read_pooling(&pooling)?,
        }
        let file = folder.join(LENGTH_FILE);
        if let Some(json) = read_json(&file, kinds::SENTENCE_BERT)? {
            let length = json.get("max_seq_length").and_then(Value::as_u64);
            settings.max_length =
                length.map(|length| usize::try_from(length).unwrap_or(usize::MAX));
            if settings.max_length == Some(0) {
                return Err(wrong(&file, "max_seq_length is 0", "set 1 or more"));
            }
            if is_set(&json, "do_lower_case") {
                return Err(SentencesError::Unsupported {
                    path: file,
                    what: "do_lower_case".to_string(),
                });
            }
        }
        let file = folder.join(PROMPTS_FILE);
        if let Some(json) = read_json(&file, kinds::SENTENCE_TRANSFORMERS)? {
            settings.read_prompts(&file, &json)?;
        }
        if let Some(json) = read_json(&pooling, kinds::POOLING)? {
            check_width(folder, &pooling, &json)?;
            if json.get("include_prompt") == Some(&Value::Bool(false)) {
                settings.excludes_prompt = Some(pooling);
            }
        }
        for prompt in settings.prompts.values() {
            settings.check_prompt(prompt)?;
        }
        Ok(settings)
    }

    /// Checks that a text that is put before others has the effect that the pooling asks for.
    ///
    /// # Errors
    /// A pooling that leaves the prompt's tokens out.
    pub fn check_prompt(&self, prompt: &str) -> Result<(), SentencesError> {
        match &self.excludes_prompt {
            Some(path) if !prompt.is_empty() => Err(SentencesError::Unsupported {
                path: path.clone(),
                what: "include_prompt = false beside a prompt".to_string(),
            }),
            _ => Ok(()),
        }
    }

    /// Reads the stages; returns the file of the pooling.
    fn read_modules(
        &mut self,
        folder: &Path,
        file: &Path,
        json: &Value,
    ) -> Result<Option<PathBuf>, SentencesError> {
        let modules = json.as_array().into_iter().flatten();
        let (mut pooling, mut has_encoder) = (None, false);
        let unsupported = |what: String| SentencesError::Unsupported {
            path: file.to_path_buf(),
            what,
        };
        self.normalize = Some(false);
        for module in modules {
            let text = |key: &str| module.get(key).and_then(Value::as_str);
            let missing = || damaged(file, "a module has no `type`");
            let kind = text("type").ok_or_else(missing)?;
            let path = text("path").unwrap_or_default();
            // A class of the model's own may compute anything.
            if !LIBRARIES.iter().any(|library| kind.starts_with(library)) {
                return Err(unsupported(format!("the module {kind}")));
            }
            match kind.rsplit('.').next().unwrap_or(kind) {
                // The encoder is read from the folder itself.
                "Transformer" if !path.is_empty() => {
                    return Err(unsupported(format!("an encoder in the folder {path:?}")));
                }
                "Transformer" => has_encoder = true,
                "Normalize" => self.normalize = Some(true),
                "Pooling" if self.pooling.is_some() => {
                    return Err(unsupported("more than one pooling".to_string()));
                }
                "Pooling" => {
                    let file = folder.join(path).join("config.json");
                    let missing =
                        || damaged(&file, "the file is missing, and modules.json names it");
                    self.pooling = Some(read_pooling(&file)?.ok_or_else(missing)?);
                    pooling = Some(file);
                }
                other => return Err(unsupported(format!("the module {other}"))),
            }
        }
        match has_encoder {
            true => Ok(pooling),
            false => Err(damaged(file, "it lists no encoder (Transformer)")),
        }
    }

    /// Files that `modules.json` of a model folder refers to, seen from the folder: those of its stages that have a folder of their own.
    ///
    /// # Errors
    /// A `modules.json` that can't be read or is no JSON.
    pub fn files_of_modules(folder: &Path) -> Result<Vec<PathBuf>, SentencesError> {
        let json = read_json(&folder.join(MODULES_FILE), kinds::MODULES)?.unwrap_or_default();
        let modules = json.as_array().into_iter().flatten();
        let paths = modules.filter_map(|module| module.get("path")?.as_str());
        let inside = |path: &&str| {
            let parts = || Path::new(path).components();
            !path.is_empty() && parts().all(|part| matches!(part, Component::Normal(_)))
        };
        let files = paths.filter(inside).flat_map(|path| {
            ["config.json", "model.safetensors"].map(|name| Path::new(path).join(name))
        });
        Ok(files.collect())
    }

    fn read_prompts(&mut self, file: &Path, json: &Value) -> Result<(), SentencesError> {
        let prompts = json.get("prompts").and_then(Value::as_object);
        for (name, text) in prompts.into_iter().flatten() {
            // Python writes null for a prompt that is not set.
            if let Some(text) = text.as_str() {
                self.prompts.insert(name.clone(), text.to_string());
            }
        }
        let name = json.get("default_prompt_name").and_then(Value::as_str);
        if let Some(name) = name.filter(|name| !self.prompts.contains_key(*name)) {
            let reason = format!("default_prompt_name is {name:?}, and no prompt has that name");
            let remedy = "name one of prompts, or leave default_prompt_name out";
            return Err(wrong(file, &reason, remedy));
        }
        self.default_prompt = name.map(str::to_string);
        Ok(())
    }

    /// The prompt of queries: the one named `query`, otherwise the default.
    pub fn query_prompt(&self) -> Option<&str> {
        self.first_prompt(&["query"])
    }

    /// The prompt of documents: the first of those named `document`, `passage` and `corpus`, otherwise the default.
    pub fn document_prompt(&self) -> Option<&str> {
        self.first_prompt(&["document", "passage", "corpus"])
    }

    fn first_prompt(&self, names: &[&str]) -> Option<&str> {
        let named = names.iter().find_map(|name| self.prompts.get(*name));
        match named {
            Some(text) => Some(text.as_str()).filter(|text| !text.is_empty()),
            None => self.default_prompt_text(),
        }
    }

    /// The text of the default prompt.
    pub fn default_prompt_text(&self) -> Option<&str> {
        let name = self.default_prompt.as_ref()?;
        self.prompts
            .get(name)
            .map(String::as_str)
            .filter(|text| !text.is_empty())
    }
}

/// Beginnings of the modules' types whose computation is known.
const LIBRARIES: [&str; 2] = ["sentence_transformers.", "pylate."];

fn remedy(what: &str) -> &'static str {
    if what.contains("pooling") {
        "use a model with cls, mean, weighted mean or max pooling"
    } else {
        "use a model without it"
    }
}

fn wrong(path: &Path, reason: &str, remedy: &str) -> SentencesError {
    SentencesError::Format {
        path: path.to_path_buf(),
        reason: reason.to_string(),
        remedy: remedy.to_string(),
    }
}

/// The error of a file that is no longer what was written.
fn damaged(path: &Path, reason: &str) -> SentencesError {
    wrong(path, reason, &crate::cached::replace_file(path))
}

/// Returns true if a flag is there and true.
fn is_set(json: &Value, key: &str) -> bool {
    json.get(key).and_then(Value::as_bool) == Some(true)
}

/// Reads a file whose values have these types; `None` if there is none.
fn read_json(path: &Path, kind: Kind) -> Result<Option<Value>, SentencesError> {
    let bytes = match crate::read::bytes(path) {
        Ok(bytes) => bytes,
        Err(error)
            if matches!(
                error.kind(),
                std::io::ErrorKind::NotFound | std::io::ErrorKind::NotADirectory
            ) =>
        {
            return Ok(None);
        }
        Err(source) => {
            return Err(SentencesError::Io {
                path: path.to_path_buf(),
                source,
            });
        }
    };
    let json = crate::json::parse(&bytes).map_err(|error| damaged(path, &error.to_string()))?;
    kinds::check(kind, &json).map_err(|error| wrong(path, &error.fault(), &error.remedy()))?;
    Ok(Some(json))
}

/// Reads the pooling of one stage: flags in older files, a name in newer ones.
fn read_pooling(path: &Path) -> Result<Option<Pooling>, SentencesError> {
    let Some(json) = read_json(path, kinds::POOLING)? else {
        return Ok(None);
    };
    let mut modes: Vec<&str> = match json.get("pooling_mode") {
        Some(Value::String(mode)) => vec![mode],
        Some(Value::Array(modes)) => modes.iter().filter_map(Value::as_str).collect(),
        _ => Vec::new(),
    };
    if modes.is_empty() {
        modes = Pooling::ALL
            .map(|pooling| (pooling.flag(), pooling.name()))
            .into_iter()
            .chain(UNSUPPORTED_POOLINGS)
            .filter(|(flag, _)| is_set(&json, flag))
            .map(|(_, mode)| mode)
            .collect();
    }
    let flags = Pooling::ALL
        .map(|pooling| (pooling.flag(), pooling.name()))
        .into_iter()
        .chain(UNSUPPORTED_POOLINGS);
    for (flag, mode) in flags {
        let value = json.get(flag).and_then(Value::as_bool);
        if let Some(value) = value.filter(|value| *value != modes.contains(&mode))
            && json.get("pooling_mode").is_some_and(|mode| !mode.is_null())
        {
            let reason = format!(
                "pooling_mode is {}, and {flag} is {value}",
                json["pooling_mode"]
            );
            return Err(wrong(path, &reason, "make the two agree"));
        }
    }
    let known = |mode: &str| Pooling::ALL.into_iter().find(|one| one.name() == mode);
    let pooling = match modes[..] {
        [] => Some(Pooling::Mean),
        [mode] => known(mode),
        _ => None,
    };
    match pooling {
        Some(pooling) => Ok(Some(pooling)),
        None => Err(SentencesError::Unsupported {
            path: path.to_path_buf(),
            what: format!("the pooling {}", modes.join(" with ")),
        }),
    }
}

/// Compares the width that a pooling names with the encoder's, where both are given.
fn check_width(folder: &Path, path: &Path, json: &Value) -> Result<(), SentencesError> {
    let config = crate::read::bytes(&folder.join("config.json")).ok();
    let config: Option<Value> = config.and_then(|bytes| serde_json::from_slice(&bytes).ok());
    let Some(hidden) = config.and_then(|config| config.get("hidden_size")?.as_u64()) else {
        // The reader of config.json reports its faults.
        return Ok(());
    };
    for key in ["word_embedding_dimension", "embedding_dimension"] {
        let width = json.get(key).and_then(Value::as_u64);
        if let Some(width) = width.filter(|width| *width != hidden) {
            let reason = format!("{key} is {width}, and hidden_size of config.json is {hidden}");
            return Err(wrong(path, &reason, "make the two agree"));
        }
    }
    Ok(())
}

/// Flags and names of sentence-transformers' poolings that this project doesn't compute.
pub(super) const UNSUPPORTED_POOLINGS: [(&str, &str); 2] = [
    ("pooling_mode_mean_sqrt_len_tokens", "mean_sqrt_len_tokens"),
    ("pooling_mode_lasttoken", "lasttoken"),
];

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;
    use serde_json::json;

    fn folder(files: &[(&str, Value)]) -> tempfile::TempDir {
        let folder = tempfile::tempdir().unwrap();
        for (name, json) in files {
            let path = folder.path().join(name);
            std::fs::create_dir_all(path.parent().unwrap()).unwrap();
            std::fs::write(path, json.to_string()).unwrap();
        }
        folder
    }

    fn read(files: &[(&str, Value)]) -> Result<SentenceSettings, SentencesError> {
        SentenceSettings::read(folder(files).path())
    }

    #[test]
    fn a_folder_without_these_files_says_nothing() {
        assert_eq!(read(&[]).unwrap(), SentenceSettings::default());
    }

    #[test]
    fn stages_length_and_prompts_are_read() {
        let modules = json!([
            {"idx": 0, "path": "", "type": "sentence_transformers.models.Transformer"},
            {"idx": 1, "path": "pool", "type": "sentence_transformers.models.Pooling"},
            {"idx": 2, "path": "2_Normalize", "type": "sentence_transformers.models.Normalize"},
        ]);
        let pooling = json!({"pooling_mode_cls_token": true, "pooling_mode_mean_tokens": false});
        let prompts = json!({"prompts": {"query": "q: "}, "default_prompt_name": "query"});
        let found = read(&[
            (MODULES_FILE, modules),
            ("pool/config.json", pooling),
            (LENGTH_FILE, json!({"max_seq_length": 8})),
            (PROMPTS_FILE, prompts),
        ]);
        let found = found.unwrap();
        assert_eq!(found.pooling, Some(Pooling::Cls));
        assert_eq!(found.normalize, Some(true));
        assert_eq!(found.max_length, Some(8));
        assert_eq!(found.default_prompt_text(), Some("q: "));
    }

    #[test]
    fn stages_have_their_files_in_folders_of_any_name() {
        let folder = tempfile::tempdir().unwrap();
        let library = "sentence_transformers.models.";
        let stages = |encoder: &str| {
            json!([{"path": encoder, "type": format!("{library}Transformer")}, {"path": "pool", "type": format!("{library}Pooling")},
                   {"path": "", "type": format!("{library}Normalize")}])
        };
        let modules = folder.path().join(MODULES_FILE);
        std::fs::write(&modules, stages("").to_string()).unwrap();
        let files = SentenceSettings::files_of_modules(folder.path()).unwrap();
        let names = ["config.json", "model.safetensors"];
        assert_eq!(files, names.map(|name| Path::new("pool").join(name)));
        let message = read(&[(MODULES_FILE, stages("0_Transformer"))]).unwrap_err();
        assert!(message.to_string().contains("0_Transformer"), "{message}");
        std::fs::remove_file(&modules).unwrap();
        assert!(
            SentenceSettings::files_of_modules(folder.path())
                .unwrap()
                .is_empty()
        );
    }

    #[test]
    fn a_pooling_without_the_prompt_is_refused_where_there_are_prompts() {
        let pooling = || {
            (
                POOLING_FILE,
                json!({"pooling_mode_mean_tokens": true, "include_prompt": false}),
            )
        };
        let prompts = |text: &str| (PROMPTS_FILE, json!({"prompts": {"query": text}}));
        assert!(read(&[pooling()]).is_ok());
        assert!(read(&[pooling(), prompts("")]).is_ok());
        let message = read(&[pooling(), prompts("q: ")]).unwrap_err().to_string();
        assert!(message.contains("include_prompt"), "{message}");
        // A prompt of the command line.
        let settings = read(&[pooling()]).unwrap();
        assert!(settings.check_prompt("").is_ok());
        let message = settings.check_prompt("q: ").unwrap_err().to_string();
        assert!(message.contains("include_prompt"), "{message}");
    }

    #[test]
    fn a_pooling_that_contradicts_itself_or_the_encoder_is_refused() {
        let config = ("config.json", json!({"hidden_size": 32}));
        for (pooling, said) in [
            (json!({"word_embedding_dimension": 768}), "768"),
            (json!({"embedding_dimension": 768}), "768"),
            (
                json!({"pooling_mode": "cls", "pooling_mode_mean_tokens": true}),
                "pooling_mode_mean_tokens is true",
            ),
            (
                json!({"pooling_mode": "cls", "pooling_mode_cls_token": false}),
                "pooling_mode_cls_token is false",
            ),
        ] {
            let message = read(&[config.clone(), (POOLING_FILE, pooling)]).unwrap_err();
            assert!(message.to_string().contains(said), "{message}");
        }
        let agrees = json!({"word_embedding_dimension": 32, "pooling_mode": "cls",
                            "pooling_mode_cls_token": true, "pooling_mode_mean_tokens": false});
        let found = read(&[config, (POOLING_FILE, agrees)]).unwrap();
        assert_eq!(found.pooling, Some(Pooling::Cls));
    }

    #[test]
    fn pooling_has_flags_or_a_name() {
        for (json, expected) in [
            (json!({"pooling_mode_max_tokens": true}), Pooling::Max),
            (json!({"pooling_mode": "cls"}), Pooling::Cls),
            (
                json!({"pooling_mode_weightedmean_tokens": true}),
                Pooling::WeightedMean,
            ),
            (json!({}), Pooling::Mean),
        ] {
            let found = read(&[(POOLING_FILE, json)]).unwrap();
            assert_eq!(found.pooling, Some(expected));
            assert_eq!(found.normalize, None);
        }
    }

    #[test]
    fn other_stages_and_poolings_are_refused_by_name() {
        let dense = json!([{"path": "2_Dense", "type": "sentence_transformers.models.Dense"}]);
        let two = json!({"pooling_mode_cls_token": true, "pooling_mode_max_tokens": true});
        for (file, json, said) in [
            (MODULES_FILE, dense, "Dense"),
            (POOLING_FILE, two, "cls with max"),
            (
                POOLING_FILE,
                json!({"pooling_mode": "lasttoken"}),
                "lasttoken",
            ),
            (MODULES_FILE, json!({}), "expected a list"),
            (MODULES_FILE, json!([]), "no encoder"),
            (
                MODULES_FILE,
                json!([{"path": "../x", "type": "a.Pooling"}]),
                "expected a path inside",
            ),
            (
                MODULES_FILE,
                json!([{"path": "", "type": "custom_st.Transformer"}]),
                "custom_st.Transformer",
            ),
            (
                MODULES_FILE,
                json!([{"path": "1_Pooling", "type": "sentence_transformers.models.Pooling"}]),
                "missing",
            ),
            (LENGTH_FILE, json!({"max_seq_length": 0}), "max_seq_length"),
            (
                LENGTH_FILE,
                json!({"max_seq_length": "512"}),
                "max_seq_length",
            ),
            (
                LENGTH_FILE,
                json!({"do_lower_case": true}),
                "do_lower_case is not supported",
            ),
            (PROMPTS_FILE, json!({"prompts": ["a"]}), "prompts"),
            (
                PROMPTS_FILE,
                json!({"prompts": {"query": 3}}),
                "prompts.query is 3; expected a text",
            ),
            (
                PROMPTS_FILE,
                json!({"prompts": {"query": "q"}, "default_prompt_name": "document"}),
                "no prompt has that name",
            ),
        ] {
            let message = read(&[(file, json)]).unwrap_err().to_string();
            assert!(message.contains(said), "{message}");
        }
        let pooling = json!({"path": "1_Pooling", "type": "sentence_transformers.models.Pooling"});
        let twice = read(&[
            (MODULES_FILE, json!([pooling, pooling])),
            (POOLING_FILE, json!({})),
        ]);
        let message = twice.unwrap_err().to_string();
        assert!(message.contains("more than one pooling"), "{message}");
    }
}
