//! Source of a model: a folder on this machine, or a name on the Hugging Face Hub.

use std::path::{Path, PathBuf};

use super::CheckpointError;

/// A model as users name it on a command line.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ModelSource {
    /// A folder with config.json, weights and tokenizer.
    Folder(PathBuf),
    /// A repository of the Hub, `name` or `organisation/name`.
    Hub(String),
}

/// Reason why a model can't be found.
#[derive(Debug, thiserror::Error)]
pub enum SourceError {
    /// A revision of a folder.
    #[error("{} is a folder and has no revisions; leave the revision out, or name a model of the Hub", .0.display())]
    FolderRevision(PathBuf),
    /// The Hub is needed, and the program was built without it.
    #[error(
        "there is no folder {name}{hint}; to load a model of that name from the Hugging Face Hub, build with `--features hub`"
    )]
    NoHub {
        /// The name.
        name: String,
        /// A folder of a similar name, as a question; empty without one.
        hint: String,
    },
    /// The folder contains no such model.
    #[error(transparent)]
    Checkpoint(#[from] CheckpointError),
    /// There is no folder of this name, and the Hub doesn't give such a model either.
    #[cfg(feature = "hub")]
    #[error("there is no folder {name}{hint}, and as a model of the Hugging Face Hub: {source}")]
    Hub {
        /// The name.
        name: String,
        /// A folder of a similar name, as a question; empty without one.
        hint: String,
        /// The Hub's error.
        source: Box<super::hub::HubError>,
    },
}

impl ModelSource {
    /// Reads `text` by the rule of Hugging Face's `from_pretrained`: a folder if there is one of that name, else a name on the
    /// Hub if it can be one, else a folder that doesn't exist.
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
    /// `revision` is a branch, tag or commit of the Hub; with `offline` only the cache is used. Other settings are those of the
    /// environment, see the module `hub` (with feature `hub`). The files of a folder are checked when it is loaded.
    ///
    /// # Errors
    /// A folder that doesn't exist, a revision of a folder; the errors of a download.
    pub fn resolve(&self, revision: Option<&str>, offline: bool) -> Result<PathBuf, SourceError> {
        match self {
            Self::Folder(path) if !path.is_dir() => {
                Err(CheckpointError::NoFolder(path.clone()).into())
            }
            Self::Folder(path) if revision.is_some() => {
                Err(SourceError::FolderRevision(path.clone()))
            }
            Self::Folder(path) => Ok(path.clone()),
            #[cfg(feature = "hub")]
            Self::Hub(name) => {
                let failed = |source| SourceError::Hub {
                    name: name.clone(),
                    hint: hint(Path::new(name)),
                    source: Box::new(source),
                };
                let mut options = super::hub::HubOptions::from_env().map_err(failed)?;
                if let Some(revision) = revision {
                    options.revision = revision.to_string();
                }
                options.offline |= offline;
                super::hub::download(name, &options).map_err(failed)
            }
            #[cfg(not(feature = "hub"))]
            Self::Hub(name) => {
                let _ = offline;
                Err(SourceError::NoHub {
                    name: name.clone(),
                    hint: hint(Path::new(name)),
                })
            }
        }
    }
}

/// A suggestion in parentheses: the name of a model of the Hub for its address, the folder of a file, ` (did you mean FOLDER?)` for the folder beside `path` whose name differs least, by two letters at most; empty without one.
pub(super) fn hint(path: &Path) -> String {
    let text = path.to_string_lossy();
    let hubs = [
        "https://huggingface.co/",
        "http://huggingface.co/",
        "hf://",
        "hf.co/",
    ];
    if let Some(name) = hubs.iter().find_map(|hub| text.strip_prefix(hub)) {
        let name: Vec<&str> = name
            .split('/')
            .filter(|part| !part.is_empty())
            .take(2)
            .collect();
        return format!(" (a model of the Hub is named {})", name.join("/"));
    }
    if path.is_file() {
        let folder = path
            .parent()
            .filter(|folder| !folder.as_os_str().is_empty());
        return format!(
            " (that is a file; name its folder, {})",
            folder.unwrap_or(Path::new(".")).display()
        );
    }
    if let Some((name, revision)) = text.split_once('@')
        && name.split('/').count() == 2
    {
        return format!(
            " (a revision of a model of the Hub is --model {name} --revision {revision})"
        );
    }
    let Some(name) = path.file_name().and_then(|name| name.to_str()) else {
        return String::new();
    };
    let folder = path
        .parent()
        .filter(|folder| !folder.as_os_str().is_empty());
    let entries = std::fs::read_dir(folder.unwrap_or(Path::new(".")));
    let nearest = entries
        .into_iter()
        .flatten()
        .flatten()
        .filter(|entry| entry.path().is_dir())
        .filter_map(|entry| entry.file_name().into_string().ok())
        .map(|other| (distance(name, &other), other))
        .filter(|(distance, _)| *distance <= 2 && *distance < name.chars().count())
        .min();
    match nearest {
        Some((_, other)) => format!(" (did you mean {}?)", path.with_file_name(other).display()),
        None => String::new(),
    }
}

/// Letters to add, remove, replace or swap with their neighbor to make one name the other.
fn distance(a: &str, b: &str) -> usize {
    let (a, b): (Vec<char>, Vec<char>) = (a.chars().collect(), b.chars().collect());
    let mut rows = vec![(0..=b.len()).collect::<Vec<usize>>()];
    for i in 1..=a.len() {
        let mut row = vec![i];
        for j in 1..=b.len() {
            let replaced = rows[i - 1][j - 1] + usize::from(a[i - 1] != b[j - 1]);
            let mut least = replaced.min(rows[i - 1][j] + 1).min(row[j - 1] + 1);
            if i > 1 && j > 1 && a[i - 1] == b[j - 2] && a[i - 2] == b[j - 1] {
                least = least.min(rows[i - 2][j - 2] + 1);
            }
            row.push(least);
        }
        rows.push(row);
    }
    rows[a.len()][b.len()]
}

/// Returns true for a name that a repository of the Hub can have.
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
        let refused = ModelSource::Folder("src".into()).resolve(Some("main"), false);
        assert!(matches!(refused, Err(SourceError::FolderRevision(_))));
    }

    #[test]
    fn a_mistyped_folder_is_reported_before_the_network() {
        let error = ModelSource::parse("srv").resolve(None, true).unwrap_err();
        let message = error.to_string();
        assert!(
            message.starts_with("there is no folder srv (did you mean src?)"),
            "{message}"
        );
        let error = ModelSource::parse("./srv").resolve(None, true).unwrap_err();
        let message = error.to_string();
        assert!(message.contains("did you mean ./src?"), "{message}");
        let message = ModelSource::parse("quite/other").resolve(None, true);
        let message = message.unwrap_err().to_string();
        assert!(
            message.starts_with("there is no folder quite/other"),
            "{message}"
        );
        assert!(!message.contains("did you mean"), "{message}");
    }

    #[test]
    fn distances_count_letters() {
        for (a, b, expected) in [
            ("demo", "demo", 0),
            ("dmeo", "demo", 1),
            ("dem", "demo", 1),
            ("demos", "demo", 1),
            ("dino", "demo", 2),
            ("", "ab", 2),
        ] {
            assert_eq!(distance(a, b), expected, "{a} {b}");
        }
    }
}
