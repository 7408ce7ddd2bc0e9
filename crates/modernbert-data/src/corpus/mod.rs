//! Documents from text on disk.
//!
//! [`Corpus::from_path`] reads files and folders; [`Corpus::from_registry`] takes a sample of the Rust sources that cargo
//! keeps on every Rust developer's machine, so that training can be tried without a download. Both return the same
//! documents in the same order every time. [`split`] holds documents out for evaluation so that none of them, and none
//! of their group, is trained on.

mod error;
mod origin;
mod registry;
mod source;
mod split;

#[cfg(test)]
mod tests;

use std::collections::HashSet;

use sha2::{Digest, Sha256};

pub use error::CorpusError;
pub use origin::Origin;
pub use registry::{RegistryCrate, RegistryOptions, registry_crates};
pub use split::{EvalSize, Split, SplitBy, split};

/// A text.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Document {
    /// Its name in messages: a relative path, a row's id or `file:line`.
    pub name: String,
    /// Documents of one group are similar and stay together in a [`split`], such as the files of one crate.
    pub group: String,
    /// The text, never blank.
    pub text: String,
}

/// Documents and their origin.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Corpus {
    /// The documents, in a reproducible order.
    pub documents: Vec<Document>,
    /// Their origin.
    pub origin: Origin,
}

impl Corpus {
    /// Bytes of text.
    pub fn bytes(&self) -> usize {
        bytes(&self.documents)
    }

    /// This corpus followed by another.
    pub fn concat(mut self, other: Self) -> Self {
        self.documents.extend(other.documents);
        self.origin = match self.origin {
            Origin::Several(mut origins) => {
                origins.push(other.origin);
                Origin::Several(origins)
            }
            first => Origin::Several(vec![first, other.origin]),
        };
        self
    }
}

fn bytes(documents: &[Document]) -> usize {
    documents.iter().map(|document| document.text.len()).sum()
}

/// Set of the texts seen so far, by their SHA-256.
#[derive(Debug, Default)]
struct Seen(HashSet<[u8; 32]>);

impl Seen {
    /// Returns true if this text is new.
    fn insert(&mut self, text: &str) -> bool {
        self.0.insert(Sha256::digest(text).into())
    }
}

/// A hash that orders names uniformly and reproducibly, differently for each seed.
fn rank(seed: u64, name: &str) -> [u8; 32] {
    Sha256::new_with_prefix(seed.to_le_bytes())
        .chain_update(name)
        .finalize()
        .into()
}
