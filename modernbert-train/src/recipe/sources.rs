//! Sources of corpus and tokenizer: a keyword, or paths.

use serde::{Deserialize, Serialize};
use std::path::PathBuf;

/// Source of the corpus: `"registry"`, a path, or a list of paths. A folder called registry is written `"./registry"`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(from = "OneOrMany", into = "OneOrMany")]
pub enum CorpusSource {
    /// The sources that cargo has unpacked on this machine.
    Registry,
    /// These files and folders.
    Paths(Vec<PathBuf>),
}

/// Source of the tokenizer: `"train"`, or a path. A folder called train is written `"./train"`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(from = "PathBuf", into = "PathBuf")]
pub enum TokenizerSource {
    /// A tokenizer trained on the corpus.
    Train,
    /// A `tokenizer.json`, or a folder with one.
    Path(PathBuf),
}

#[derive(Clone, Serialize, Deserialize)]
#[serde(
    untagged,
    expecting = "expected \"registry\", a path, or a list of paths"
)]
enum OneOrMany {
    One(PathBuf),
    Many(Vec<PathBuf>),
}

impl From<OneOrMany> for CorpusSource {
    fn from(value: OneOrMany) -> Self {
        match value {
            OneOrMany::One(path) if path.as_os_str() == "registry" => Self::Registry,
            OneOrMany::One(path) => Self::Paths(vec![path]),
            OneOrMany::Many(paths) => Self::Paths(paths),
        }
    }
}

impl From<CorpusSource> for OneOrMany {
    fn from(value: CorpusSource) -> Self {
        match value {
            CorpusSource::Registry => Self::One("registry".into()),
            CorpusSource::Paths(paths) => Self::Many(paths),
        }
    }
}

impl From<PathBuf> for TokenizerSource {
    fn from(path: PathBuf) -> Self {
        if path.as_os_str() == "train" {
            Self::Train
        } else {
            Self::Path(path)
        }
    }
}

impl From<TokenizerSource> for PathBuf {
    fn from(value: TokenizerSource) -> Self {
        match value {
            TokenizerSource::Train => "train".into(),
            TokenizerSource::Path(path) => path,
        }
    }
}
