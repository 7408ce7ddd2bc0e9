//! A source of documents: its input files, read in batches.

use std::collections::HashMap;
use std::path::{Path, PathBuf};
use std::sync::atomic::Ordering::Relaxed;

use modernbert_files::output::FileId;

use super::TokenizeFolderError;
use crate::corpus::CorpusError;
use crate::formats::{
    Content, Fields, FormatError, FoundInputs, InputFile, Record, Records, find_inputs,
};
use crate::mixture::{Mixture, MixtureSource};

/// Bytes of text that are tokenized together: enough for every core, little enough to keep in memory.
const BATCH_BYTES: usize = 4 << 20;

/// Files that are read, each with the field of its text; the name of the source and the path.
pub(super) type SeenFiles = HashMap<(FileId, String), (String, PathBuf)>;

/// A source of text or tokens.
#[derive(Debug, Clone, PartialEq)]
pub struct TokenizeSource {
    /// Its name, and that of its folder of shards.
    pub name: String,
    /// Files and folders.
    pub paths: Vec<PathBuf>,
    /// Its share of the tokens that are trained on.
    pub proportion: f64,
    /// The terms of its text.
    pub licence: String,
    /// Names of the fields that are read.
    pub fields: Fields,
}

impl From<MixtureSource> for TokenizeSource {
    fn from(source: MixtureSource) -> Self {
        Self {
            name: source.name,
            paths: source.paths,
            proportion: source.proportion,
            licence: source.licence,
            fields: Fields {
                text: source.text_field,
                ..Fields::default()
            },
        }
    }
}

impl TokenizeSource {
    /// The sources of a mixture.
    pub fn of_mixture(mixture: Mixture) -> Vec<Self> {
        mixture.sources.into_iter().map(Self::from).collect()
    }

    /// The input files of all paths; `seen` are the files of this and earlier sources.
    ///
    /// # Errors
    /// A path that can't be read or has no documents, a file that is read twice for the same field.
    pub(super) fn inputs(&self, seen: &mut SeenFiles) -> Result<FoundInputs, TokenizeFolderError> {
        let mut all = FoundInputs::default();
        for path in &self.paths {
            let found = find_inputs(path)?;
            if found.inputs.is_empty() {
                return Err(CorpusError::NoDocuments {
                    path: path.clone(),
                    skipped: found.skipped,
                }
                .into());
            }
            for input in &found.inputs {
                for file in input.files() {
                    // A shard of MDS may be compressed or not.
                    let Some(id) = FileId::of(&file) else {
                        continue;
                    };
                    let reading = (self.name.clone(), file.clone());
                    let before = seen.insert((id, self.fields.text.clone()), reading);
                    if let Some((of, first)) = before {
                        return Err(TokenizeFolderError::Twice {
                            source_name: self.name.clone(),
                            file,
                            of,
                            first,
                        });
                    }
                }
            }
            all.inputs.extend(found.inputs);
            all.skipped += found.skipped;
            all.repeated += found.repeated;
        }
        Ok(all)
    }
}

/// Bytes of an input on disk.
pub(super) fn size(input: &InputFile) -> u64 {
    let of = |path: &Path| std::fs::metadata(path).map_or(0, |metadata| metadata.len());
    input.files().iter().map(|file| of(file)).sum()
}

/// A batch of documents from the reader.
#[derive(Default)]
pub(super) struct Batch {
    pub(super) records: Vec<Record>,
    pub(super) unreadable: Vec<FormatError>,
    /// Bytes read on disk since the batch before.
    pub(super) read: u64,
}

/// Sends batches of documents until `send` returns false or a document can't be read.
pub(super) fn read(
    inputs: &[InputFile],
    fields: &Fields,
    skip_unreadable: bool,
    send: impl Fn(Result<Batch, FormatError>) -> bool,
) {
    let mut batch = Batch::default();
    let mut bytes = 0;
    for input in inputs {
        let records = match Records::open(input, fields) {
            Ok(records) => records,
            Err(error) if error.is_of_a_row() && skip_unreadable => {
                batch.unreadable.push(error);
                continue;
            }
            Err(error) => {
                send(Err(error));
                return;
            }
        };
        let (read_bytes, mut counted) = (records.read_bytes(), 0);
        let mut newly_read = || {
            let now = read_bytes.load(Relaxed);
            let newly = now.saturating_sub(counted);
            counted = now;
            newly
        };
        for record in records {
            match record {
                Ok(record) => {
                    bytes += match &record.content {
                        Content::Text(text) => text.len(),
                        Content::Tokens(ids) => 4 * ids.len(),
                    };
                    batch.records.push(record);
                }
                Err(error) if error.is_of_a_row() && skip_unreadable => {
                    batch.unreadable.push(error);
                    bytes += 1024;
                }
                Err(error) => {
                    send(Err(error));
                    return;
                }
            }
            if bytes >= BATCH_BYTES {
                bytes = 0;
                batch.read += newly_read();
                if !send(Ok(std::mem::take(&mut batch))) {
                    return;
                }
            }
        }
        batch.read += newly_read();
    }
    send(Ok(batch));
}
