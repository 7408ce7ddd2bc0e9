//! Documents of files and folders.

use std::path::Path;

use super::{Corpus, CorpusError, Document, Origin, bytes};
use crate::formats::{Content, Fields, FoundInputs, Records, find_inputs};

impl Corpus {
    /// Reads a file, or every file in and below a folder that is of a known format, sorted by path; see [`find_inputs`].
    ///
    /// A text file is one document, and so is each row of other formats; blank ones are dropped. Every document is a group of its own.
    ///
    /// # Errors
    /// A file that can't be read, with file and row; a folder without documents; tokens instead of text.
    pub fn from_path(path: impl AsRef<Path>) -> Result<Self, CorpusError> {
        let root = path.as_ref();
        let FoundInputs {
            inputs, skipped, ..
        } = find_inputs(root)?;
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
