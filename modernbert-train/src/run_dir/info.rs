//! `run.json`: hashes of a run's recipe, shards, tokenizer, model and logs.

use modernbert::atomic::write_atomically;
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};
use std::collections::BTreeMap;
use std::path::Path;

use super::written_files::{FOLDERS_FILE, MODEL_FILES};
use super::{INFO_FILE, LogNotes, RunDirError};
use crate::shard::Shard;
use crate::snapshot::{FileHash, hash_file, hex};

/// Content of `run.json`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct RunInfo {
    format: u32,
    /// Version of the program.
    pub program: String,
    /// SHA-256 of the text of `recipe.toml`.
    pub recipe_sha256: String,
    /// SHA-256 of each token shard's content by its path: relative to the run's folder where it is inside.
    #[serde(default)]
    pub shards: BTreeMap<String, String>,
    /// Length and hash of tokenizer and finished model, as the run wrote them.
    #[serde(default)]
    pub files: BTreeMap<String, FileHash>,
    /// Length and hash of the files of a model that is being put into the folder.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    next: BTreeMap<String, FileHash>,
    /// Lengths and hashes of the logs as the run wrote them; none in runs of earlier versions.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) logs: Option<LogNotes>,
    /// The checkpoint of another run this one started from, if any.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub started_from: Option<String>,
}

/// SHA-256 of a text, in hexadecimal.
pub(crate) fn sha256_of(text: &str) -> String {
    hex(&Sha256::digest(text.as_bytes()))
}

impl RunInfo {
    /// The start of a run with this recipe.
    pub fn new(recipe: &str) -> Self {
        Self {
            format: 1,
            program: format!("modernbert-train {}", env!("CARGO_PKG_VERSION")),
            recipe_sha256: sha256_of(recipe),
            shards: BTreeMap::new(),
            files: BTreeMap::new(),
            next: BTreeMap::new(),
            logs: None,
            started_from: None,
        }
    }

    /// Returns true if this program wrote it.
    pub(super) fn is_ours(&self) -> bool {
        self.program.starts_with("modernbert-train ")
    }

    /// Returns true if the run wrote a file of this content, or is about to.
    pub(super) fn wrote(&self, name: &str, hash: &FileHash) -> bool {
        self.files.get(name) == Some(hash) || self.next.get(name) == Some(hash)
    }

    /// Lists files that are about to be put into the folder.
    pub(super) fn announce(&mut self, files: &BTreeMap<String, FileHash>) {
        self.next.clone_from(files);
    }

    /// Lists the announced files as those of the run.
    pub(super) fn settle(&mut self) {
        self.files.append(&mut self.next);
    }

    /// Lists the files of the tokenizer, and of a model if there is one, that are in the folder, with their hashes.
    ///
    /// # Errors
    /// A file that can't be read.
    pub(super) fn record_files(&mut self, root: &Path) -> Result<(), RunDirError> {
        for name in MODEL_FILES.into_iter().chain([FOLDERS_FILE]) {
            let path = root.join(name);
            if path.is_file() {
                self.files.insert(name.to_string(), hash_file(&path)?);
            }
        }
        Ok(())
    }

    /// Reads `run.json` of a run's folder; `None` if there is none.
    ///
    /// # Errors
    /// A file that can't be read or understood.
    pub fn read(root: &Path) -> Result<Option<Self>, RunDirError> {
        let path = root.join(INFO_FILE);
        let text = match modernbert::read::bytes(&path) {
            Ok(text) => text,
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(None),
            Err(error) => return Err(RunDirError::io(&path)(error)),
        };
        let wrong = |error: serde_json::Error| RunDirError::Info {
            path: path.clone(),
            reason: error.to_string(),
        };
        modernbert::json::parse(&text).map(Some).map_err(wrong)
    }

    /// Writes `run.json`.
    ///
    /// # Errors
    /// An error of the operating system.
    pub fn write(&self, root: &Path) -> Result<(), RunDirError> {
        let path = root.join(INFO_FILE);
        let text = serde_json::to_vec_pretty(self).map_err(|error| RunDirError::Info {
            path: path.clone(),
            reason: error.to_string(),
        })?;
        write_atomically(&path, &text).map_err(RunDirError::io(&path))
    }

    /// Records the hashes of a run's shards, or verifies them against the recorded ones.
    ///
    /// # Errors
    /// A shard that was changed or removed since the run was begun.
    pub fn check_shards<'a>(
        &mut self,
        root: &Path,
        shards: impl Iterator<Item = &'a Shard>,
    ) -> Result<(), RunDirError> {
        let mut found = BTreeMap::new();
        for shard in shards {
            let path = shard.path();
            let name = path.strip_prefix(root).unwrap_or(path);
            found.insert(name.display().to_string(), hex(&shard.sha256()));
        }
        if self.shards.is_empty() {
            self.shards = found;
            self.record_files(root)?;
            return self.write(root);
        }
        for (name, expected) in &self.shards {
            let reason = match found.get(name) {
                Some(hash) if hash == expected => continue,
                Some(_) => "its SHA-256 is another one",
                None => "the run doesn't use it any more",
            };
            return Err(RunDirError::ShardChanged {
                path: root.join(name),
                reason: reason.to_string(),
            });
        }
        Ok(())
    }
}
