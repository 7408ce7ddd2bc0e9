//! Writing the files of sentence-transformers and of PyLate.

use std::collections::BTreeMap;
use std::path::Path;

use serde_json::{Map, Value, json};

use super::{
    DENSE_FOLDER, LENGTH_FILE, MODULES_FILE, MultiVectorSettings, POOLING_FILE, PROMPTS_FILE,
    Similarity, UNSUPPORTED_POOLINGS,
};
use crate::atomic::write_atomically;
use crate::config::Pooling;

/// Stages after the encoder.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Stages {
    /// One vector per text.
    Pooled { pooling: Pooling, normalize: bool },
    /// A vector of this width per token.
    PerToken {
        settings: MultiVectorSettings,
        width: usize,
    },
}

/// Content of the files, written in the forms that sentence-transformers 2 to 6, PyLate and text-embeddings-inference read.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SentenceFiles {
    stages: Stages,
    hidden: usize,
    max_length: usize,
    prompts: BTreeMap<String, String>,
    similarity: Similarity,
}

impl SentenceFiles {
    /// Files of a model with one vector of `hidden` components per text of at most `max_length` tokens.
    pub fn pooled(hidden: usize, pooling: Pooling, normalize: bool, max_length: usize) -> Self {
        Self {
            stages: Stages::Pooled { pooling, normalize },
            hidden,
            max_length,
            prompts: BTreeMap::new(),
            similarity: Similarity::default(),
        }
    }

    /// Files of a model with a vector per token: a projection from `hidden` to `width` components, [`DENSE_FOLDER`], whose weight the
    /// caller writes.
    pub fn per_token(hidden: usize, width: usize, settings: MultiVectorSettings) -> Self {
        Self {
            max_length: settings.document_length,
            stages: Stages::PerToken { settings, width },
            hidden,
            prompts: BTreeMap::new(),
            similarity: Similarity::default(),
        }
    }

    /// The same files with texts that are put before queries and documents; empty ones are left out.
    #[must_use]
    pub fn with_prompts(mut self, query: &str, document: &str) -> Self {
        let given = [("query", query), ("document", document)];
        let given = given.into_iter().filter(|(_, text)| !text.is_empty());
        self.prompts = given.map(|(k, v)| (k.to_string(), v.to_string())).collect();
        self
    }

    /// The same files with another similarity.
    #[must_use]
    pub fn with_similarity(mut self, similarity: Similarity) -> Self {
        self.similarity = similarity;
        self
    }

    /// Writes the files into `folder`; `modules.json` last, so that a folder that has it is complete.
    ///
    /// # Errors
    /// A folder or file that can't be written.
    pub fn write(&self, folder: &Path) -> std::io::Result<()> {
        let file = |name: &str, value: &Value| -> std::io::Result<()> {
            let path = folder.join(name);
            if let Some(parent) = path.parent() {
                std::fs::create_dir_all(parent)?;
            }
            let mut text = serde_json::to_vec_pretty(value)?;
            text.push(b'\n');
            write_atomically(&path, &text)
        };
        let length = json!({ "max_seq_length": self.max_length, "do_lower_case": false });
        file(LENGTH_FILE, &length)?;
        file(PROMPTS_FILE, &self.prompts_file())?;
        let mut modules = vec![module(
            0,
            "",
            "sentence_transformers.models.Transformer".to_string(),
        )];
        match &self.stages {
            Stages::Pooled { pooling, normalize } => {
                file(POOLING_FILE, &self.pooling_file(*pooling))?;
                let kind = |name: &str| format!("sentence_transformers.models.{name}");
                modules.push(module(1, "1_Pooling", kind("Pooling")));
                if *normalize {
                    modules.push(module(2, "2_Normalize", kind("Normalize")));
                }
            }
            Stages::PerToken { width, .. } => {
                let dense = json!({
                    "in_features": self.hidden,
                    "out_features": width,
                    "bias": false,
                    "activation_function": "torch.nn.modules.linear.Identity",
                    "use_residual": false,
                });
                file(&format!("{DENSE_FOLDER}/config.json"), &dense)?;
                let kind = "pylate.models.Dense.Dense".to_string();
                modules.push(module(1, DENSE_FOLDER, kind));
            }
        }
        file(MODULES_FILE, &Value::Array(modules))
    }

    fn prompts_file(&self) -> Value {
        let mut json = Map::new();
        // PyLate accepts only its own similarity, `MaxSim`.
        let similarity = match &self.stages {
            Stages::Pooled { .. } => self.similarity.name(),
            Stages::PerToken { .. } => "MaxSim",
        };
        json.insert("prompts".into(), json!(self.prompts));
        json.insert("default_prompt_name".into(), Value::Null);
        json.insert("similarity_fn_name".into(), similarity.into());
        if let Stages::PerToken { settings, .. } = &self.stages {
            json.insert("query_prefix".into(), json!(settings.query_prefix));
            json.insert("document_prefix".into(), json!(settings.document_prefix));
            json.insert("query_length".into(), settings.query_length.into());
            json.insert("document_length".into(), settings.document_length.into());
            json.insert(
                "attend_to_expansion_tokens".into(),
                settings.attend_to_expansion.into(),
            );
            json.insert("skiplist_words".into(), json!(settings.skip_list));
            json.insert("do_query_expansion".into(), settings.query_expansion.into());
        }
        Value::Object(json)
    }

    fn pooling_file(&self, pooling: Pooling) -> Value {
        let mut json = Map::new();
        json.insert("word_embedding_dimension".into(), self.hidden.into());
        for one in Pooling::ALL {
            json.insert(one.flag().into(), (one == pooling).into());
        }
        for (flag, _) in UNSUPPORTED_POOLINGS {
            json.insert(flag.into(), false.into());
        }
        json.insert("include_prompt".into(), true.into());
        Value::Object(json)
    }
}

fn module(index: usize, path: &str, kind: String) -> Value {
    json!({ "idx": index, "name": index.to_string(), "path": path, "type": kind })
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::super::SentenceSettings;
    use super::*;

    #[test]
    fn pooled_files_are_read_back() {
        for pooling in Pooling::ALL {
            for normalize in [true, false] {
                let folder = tempfile::tempdir().unwrap();
                let files = SentenceFiles::pooled(64, pooling, normalize, 512)
                    .with_prompts("query: ", "")
                    .with_similarity(Similarity::Dot);
                files.write(folder.path()).unwrap();
                let found = SentenceSettings::read(folder.path()).unwrap();
                assert_eq!(found.pooling, Some(pooling));
                assert_eq!(found.normalize, Some(normalize));
                assert_eq!(found.max_length, Some(512));
                assert_eq!(found.query_prompt(), Some("query: "));
                assert_eq!(found.document_prompt(), None);
                assert_eq!(MultiVectorSettings::read(folder.path()).unwrap(), None);
                let similarity = Similarity::of_folder(folder.path()).unwrap();
                assert_eq!(similarity, Some(Similarity::Dot));
            }
        }
    }

    #[test]
    fn files_of_a_vector_per_token_are_read_back() {
        let folder = tempfile::tempdir().unwrap();
        let settings = MultiVectorSettings {
            query_prefix: "[unused0]".to_string(),
            query_length: 16,
            attend_to_expansion: true,
            skip_list: vec![".".to_string()],
            ..MultiVectorSettings::default()
        };
        let files = SentenceFiles::per_token(64, 128, settings.clone());
        files.write(folder.path()).unwrap();
        let found = MultiVectorSettings::read(folder.path()).unwrap();
        assert_eq!(found, Some(settings));
        // A reader of models with one vector per text must refuse the folder.
        let error = SentenceSettings::read(folder.path()).unwrap_err();
        assert!(error.to_string().contains("Dense"), "{error}");
    }

    #[test]
    fn other_projections_are_refused() {
        let folder = tempfile::tempdir().unwrap();
        let files = SentenceFiles::per_token(64, 128, MultiVectorSettings::default());
        files.write(folder.path()).unwrap();
        let dense = folder.path().join(DENSE_FOLDER).join("config.json");
        for (json, said) in [
            (json!({ "bias": true }), "bias"),
            (json!({ "use_residual": true }), "residual"),
            (
                json!({ "activation_function": "torch.nn.modules.activation.Tanh" }),
                "activation",
            ),
        ] {
            std::fs::write(&dense, json.to_string()).unwrap();
            let error = MultiVectorSettings::read(folder.path()).unwrap_err();
            assert!(error.to_string().contains(said), "{error}");
        }
        std::fs::remove_file(&dense).unwrap();
        assert!(MultiVectorSettings::read(folder.path()).is_err());
    }
}
