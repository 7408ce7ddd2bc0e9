//! Where a model comes from: a folder on this machine, or a name on the Hugging Face Hub.

use std::path::{Path, PathBuf};

use super::CheckpointError;

/// A model as people name it on a command line.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ModelSource {
    /// A folder with config.json, weights and tokenizer.
    Folder(PathBuf),
    /// A repository of the Hub, `name` or `organisation/name`.
    Hub(String),
}

/// Why a model can't be found.
#[derive(Debug, thiserror::Error)]
pub enum SourceError {
    /// A revision of a folder.
    #[error("{} is a folder and has no revisions; leave the revision out, or name a model of the Hub", .0.display())]
    FolderRevision(PathBuf),
    /// The Hub is needed, and the program was built without it.
    #[error(
        "there is no folder {0}; to load a model of that name from the Hugging Face Hub, build with `--features hub`"
    )]
    NoHub(String),
    /// The folder holds no such model.
    #[error(transparent)]
    Checkpoint(#[from] CheckpointError),
    /// The Hub doesn't give it.
    #[cfg(feature = "hub")]
    #[error(transparent)]
    Hub(#[from] super::hub::HubError),
}

impl ModelSource {
    /// What `text` means: a folder if there is one of that name, else a name on the Hub if it can be one, else a folder
    /// that isn't there. The rule of Hugging Face's `from_pretrained`.
    pub fn parse(text: &str) -> Self {
        let path = Path::new(text);
        if !path.exists() && is_repository(text) {
            Self::Hub(text.to_string())
        } else {
            Self::Folder(path.to_path_buf())
        }
    }

    /// The folder that holds the model; a model of the Hub is downloaded unless it is in the cache already.
    ///
    /// `revision` is a branch, tag or commit of the Hub. Settings are those of the environment, see the module `hub`
    /// (with feature `hub`). Whether a folder holds a model shows when it is loaded.
    ///
    /// # Errors
    /// A revision of a folder; everything that can go wrong with a download.
    pub fn resolve(&self, revision: Option<&str>) -> Result<PathBuf, SourceError> {
        match self {
            Self::Folder(path) if revision.is_some() => {
                Err(SourceError::FolderRevision(path.clone()))
            }
            Self::Folder(path) => Ok(path.clone()),
            #[cfg(feature = "hub")]
            Self::Hub(name) => {
                let mut options = super::hub::HubOptions::from_env();
                if let Some(revision) = revision {
                    options.revision = revision.to_string();
                }
                Ok(super::hub::download(name, &options)?)
            }
            #[cfg(not(feature = "hub"))]
            Self::Hub(name) => Err(SourceError::NoHub(name.clone())),
        }
    }
}

/// Whether the Hub could have a repository of this name.
pub(super) fn is_repository(name: &str) -> bool {
    let part = |part: &str| {
        !part.is_empty()
            && part.len() <= 96
            && part
                .chars()
                .all(|c| c.is_ascii_alphanumeric() || "-_.".contains(c))
            && !part.starts_with(['-', '.'])
            && !part.ends_with(['-', '.'])
            && !part.contains("--")
            && !part.contains("..")
    };
    let parts: Vec<&str> = name.split('/').collect();
    parts.len() <= 2 && parts.into_iter().all(part)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn folders_come_before_names_and_paths_are_never_names() {
        let hub = |text: &str| matches!(ModelSource::parse(text), ModelSource::Hub(_));
        for text in ["answerdotai/ModernBERT-base", "gpt2", "a/b_c.d-1"] {
            assert!(hub(text), "{text}");
        }
        let paths = [
            "./runs",
            "../runs/demo",
            "/models/x",
            "a/b/c",
            "",
            "a//b",
            "-x/y",
            "a--b/c",
            "a/..",
            "~/m",
            "a b/c",
        ];
        for text in paths {
            assert!(!hub(text), "{text}");
        }
        assert!(!hub("src"), "a folder of the crate, where tests run");
        let refused = ModelSource::Folder("src".into()).resolve(Some("main"));
        assert!(matches!(refused, Err(SourceError::FolderRevision(_))));
    }
}
