//! Documents of files and folders.

use std::path::Path;

use super::{Corpus, CorpusError, Document, Origin, bytes};
use crate::formats::{Content, Fields, Records, inputs};

impl Corpus {
    /// Reads a file, or every file of a folder and the folders in it that is of a known format, sorted by name; see
    /// [`crate::formats`].
    ///
    /// A text file is one document, and each row of other formats is one; blank ones are dropped. Every document is a group of its
    /// own. Links in a folder are not followed.
    pub fn from_path(path: impl AsRef<Path>) -> Result<Self, CorpusError> {
        let root = path.as_ref();
        let (inputs, skipped) = inputs(root)?;
        let mut documents = Vec::new();
        for input in &inputs {
            for record in Records::open(input, &Fields::default())? {
                let record = record?;
                let Content::Text(text) = record.content else {
                    return Err(CorpusError::Tokens {
                        path: input.path.clone(),
                    });
                };
                documents.push(Document {
                    group: record.name.clone(),
                    name: record.name,
                    text,
                });
            }
        }
        if documents.is_empty() {
            return Err(CorpusError::NoDocuments {
                path: root.into(),
                skipped,
            });
        }
        let origin = Origin::Path {
            path: root.into(),
            documents: documents.len(),
            bytes: bytes(&documents),
            skipped,
        };
        Ok(Self { documents, origin })
    }
}
