//! Fields in which one word is special and anything else is a path.

use serde::{Deserialize, Serialize};
use std::path::PathBuf;

/// Where text comes from: `"registry"`, a path, or a list of paths. A folder called registry is written `"./registry"`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(from = "OneOrMany", into = "OneOrMany")]
pub enum Corpus {
    /// The sources that cargo has unpacked on this machine.
    Registry,
    /// These files and folders.
    Paths(Vec<PathBuf>),
}

/// Where the tokenizer comes from: `"train"`, or a path. A folder called train is written `"./train"`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(from = "PathBuf", into = "PathBuf")]
pub enum Tokenizer {
    /// It is learned from the corpus.
    Train,
    /// A `tokenizer.json`, or a folder that holds one.
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

impl From<OneOrMany> for Corpus {
    fn from(value: OneOrMany) -> Self {
        match value {
            OneOrMany::One(path) if path.as_os_str() == "registry" => Self::Registry,
            OneOrMany::One(path) => Self::Paths(vec![path]),
            OneOrMany::Many(paths) => Self::Paths(paths),
        }
    }
}

impl From<Corpus> for OneOrMany {
    fn from(value: Corpus) -> Self {
        match value {
            Corpus::Registry => Self::One("registry".into()),
            Corpus::Paths(paths) => Self::Many(paths),
        }
    }
}

impl From<PathBuf> for Tokenizer {
    fn from(path: PathBuf) -> Self {
        if path.as_os_str() == "train" {
            Self::Train
        } else {
            Self::Path(path)
        }
    }
}

impl From<Tokenizer> for PathBuf {
    fn from(value: Tokenizer) -> Self {
        match value {
            Tokenizer::Train => "train".into(),
            Tokenizer::Path(path) => path,
        }
    }
}
