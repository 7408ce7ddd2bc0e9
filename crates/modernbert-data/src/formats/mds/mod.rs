//! MDS, the shard format of MosaicML's streaming library, in which ModernBERT's own training data lay.
//!
//! A folder holds shards and an `index.json`, which lists for each shard its columns with their encodings, the number of samples, and the
//! names, sizes and hashes of the plain file (`raw_data`) and of a compressed one (`zip_data`), either of which may be absent from
//! the disk. A shard is, in little-endian numbers:
//!
//! ```text
//! samples: u32 | offsets: u32 × (samples + 1), from the start of the file | the columns again, as JSON | samples
//! sample:  the length (u32) of each column without a fixed size | the values of all columns, in the order of the index
//! ```
//!
//! Text is a column of encoding `str` (or `bytes` that are UTF-8). Tokens are `ndarray` columns of an integer type, with type and shape
//! in the encoding's name or in front of the values, or `bytes` of i64 as MosaicML's own converters write them. What isn't asked for is
//! passed over unread, so that pickled columns are no danger. Compressed shards are read whole, with Zstandard or gzip.

mod index;
mod shard;
mod value;

use std::path::{Path, PathBuf};
use std::vec::IntoIter;

pub use index::INDEX_FILE;
pub(super) use index::is_index;

use index::{ShardEntry, read_index};
use shard::ShardFile;

use super::{Content, Fields, Place, Record, text};
use crate::corpus::CorpusError;

/// The samples of a folder, shard after shard.
pub struct Samples {
    folder: PathBuf,
    place: Place,
    fields: Fields,
    entries: IntoIter<ShardEntry>,
    shard: Option<ShardFile>,
    next: usize,
}

impl Samples {
    /// Opens a folder's index.
    ///
    /// # Errors
    /// An index that can't be read or isn't one; a folder whose first shard has neither a text nor a token column.
    pub fn open(folder: &Path, name: &str, fields: &Fields) -> Result<Self, CorpusError> {
        let entries = read_index(folder)?;
        if let Some(first) = entries.first() {
            let has = |name: &String| first.columns.iter().any(|column| column.name == *name);
            if !has(&fields.text) && !has(&fields.tokens) {
                let columns: Vec<&str> = first
                    .columns
                    .iter()
                    .map(|column| column.name.as_str())
                    .collect();
                return Err(CorpusError::NoColumn {
                    path: folder.join(INDEX_FILE),
                    column: format!("{} or {}", fields.text, fields.tokens),
                    columns: columns.join(", "),
                });
            }
        }
        Ok(Self {
            folder: folder.into(),
            place: Place::new(folder, name),
            fields: fields.clone(),
            entries: entries.into_iter(),
            shard: None,
            next: 0,
        })
    }

    fn record(&self, shard: &ShardFile, sample: usize) -> Result<Option<Record>, CorpusError> {
        let values = shard.sample(sample)?;
        let id = values.find(&self.fields.id).and_then(value::name);
        let name = id.unwrap_or_else(|| {
            let file = shard.path().file_name().unwrap_or_default();
            format!(
                "{}/{}:{}",
                self.place.name,
                file.to_string_lossy(),
                sample + 1
            )
        });
        let bad = |reason: String| shard.bad(sample, reason);
        if let Some(column) = values.find(&self.fields.text) {
            let text = value::text(column).map_err(bad)?;
            return Ok(text::content(text).map(|content| Record { name, content }));
        }
        let Some(column) = values.find(&self.fields.tokens) else {
            return Err(bad(format!("no column {}", self.fields.tokens)));
        };
        let tokens = value::tokens(column).map_err(bad)?;
        let content = Content::Tokens(tokens);
        Ok(Some(Record { name, content }))
    }
}

impl Iterator for Samples {
    type Item = Result<Record, CorpusError>;

    fn next(&mut self) -> Option<Self::Item> {
        loop {
            if let Some(shard) = &self.shard
                && self.next < shard.len()
            {
                let record = self.record(shard, self.next).transpose();
                self.next += 1;
                if record.is_some() {
                    return record;
                }
                continue;
            }
            self.shard = None;
            self.next = 0;
            let entry = self.entries.next()?;
            match ShardFile::open(&self.folder, entry) {
                Ok(shard) => self.shard = Some(shard),
                // The next shard may be whole.
                Err(error) => return Some(Err(error)),
            }
        }
    }
}
