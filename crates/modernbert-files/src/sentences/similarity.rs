//! Similarity of two vectors, as the files of sentence-transformers name it.

use std::path::Path;
use std::str::FromStr;

use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::{PROMPTS_FILE, SentencesError, read_json};
use crate::kinds;

/// Similarity of two vectors; more similar vectors have a larger one.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Similarity {
    /// Cosine: dot product of the vectors scaled to length one.
    #[default]
    Cosine,
    /// Dot product of the vectors as they are.
    Dot,
    /// Euclidean distance of the vectors as they are, negative.
    Euclidean,
    /// Manhattan distance (sum of the absolute differences of the components) of the vectors as they are, negative.
    Manhattan,
}

/// A name that is no [`Similarity`].
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the similarity `{0}` is not known; cosine, dot, euclidean and manhattan are")]
pub struct UnknownSimilarity(pub String);

impl Similarity {
    /// All of them.
    pub const ALL: [Self; 4] = [Self::Cosine, Self::Dot, Self::Euclidean, Self::Manhattan];

    /// The name used in files and arguments.
    pub fn name(self) -> &'static str {
        match self {
            Self::Cosine => "cosine",
            Self::Dot => "dot",
            Self::Euclidean => "euclidean",
            Self::Manhattan => "manhattan",
        }
    }

    /// Reads the similarity by which the vectors of a model folder are compared; `None` where the folder names none.
    ///
    /// # Errors
    /// A file that can't be read or is malformed; a name that is not known.
    pub fn of_folder(folder: &Path) -> Result<Option<Self>, SentencesError> {
        let path = folder.join(PROMPTS_FILE);
        let json = read_json(&path, kinds::SENTENCE_TRANSFORMERS)?.unwrap_or_default();
        let Some(name) = json.get("similarity_fn_name").and_then(Value::as_str) else {
            return Ok(None);
        };
        let unknown = |UnknownSimilarity(name)| {
            let names = Self::ALL.map(Self::name).join(", ");
            let reason = format!("similarity_fn_name is {name:?}");
            super::wrong(&path, &reason, &format!("expected one of {names}"))
        };
        name.parse().map(Some).map_err(unknown)
    }
}

impl FromStr for Similarity {
    type Err = UnknownSimilarity;

    fn from_str(text: &str) -> Result<Self, UnknownSimilarity> {
        let found = Self::ALL.into_iter().find(|one| one.name() == text);
        found.ok_or_else(|| UnknownSimilarity(text.to_string()))
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn the_similarity_of_a_folder_is_read_and_others_are_refused_by_name() {
        let folder = tempfile::tempdir().unwrap();
        let read = |content: &str| {
            std::fs::write(folder.path().join(PROMPTS_FILE), content).unwrap();
            Similarity::of_folder(folder.path())
        };
        for one in Similarity::ALL {
            let found = read(&format!("{{\"similarity_fn_name\":\"{}\"}}", one.name()));
            assert_eq!(found.unwrap(), Some(one));
        }
        assert_eq!(read("{\"similarity_fn_name\":null}").unwrap(), None);
        assert_eq!(read("{}").unwrap(), None);
        for (content, said) in [
            ("{\"similarity_fn_name\":\"jaccard\"}", "jaccard"),
            ("{\"similarity_fn_name\":3}", "3"),
            ("[", "EOF"),
        ] {
            let message = read(content).unwrap_err().to_string();
            assert!(
                message.contains(said) && message.contains(PROMPTS_FILE),
                "{message}"
            );
        }
        std::fs::remove_file(folder.path().join(PROMPTS_FILE)).unwrap();
        assert_eq!(Similarity::of_folder(folder.path()).unwrap(), None);
    }
}
