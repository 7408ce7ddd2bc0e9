//! MDS, the shard format of MosaicML's streaming library, in which ModernBERT's own training data was stored.
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
//! in the encoding's name or in front of the values, or `bytes` of i64 as MosaicML's own converters write them. Columns
//! that are not wanted are not decoded, so pickled ones are no danger. Compressed shards are read whole, with Zstandard or gzip.

mod index;
mod shard;
mod value;

use std::path::{Path, PathBuf};
use std::vec::IntoIter;

pub(super) use index::{INDEX_FILE, files_of_index, is_index, is_shard};

use index::{MdsShard, read_index};
use shard::ShardFile;

use super::row::quoted;
use super::{Content, Fields, Record, text};
use crate::formats::FormatError;
use crate::formats::bytes::ReadBytes;
use crate::formats::reason::Reason;

/// The samples of a folder, shard after shard.
pub(super) struct MdsRecords {
    folder: PathBuf,
    name: String,
    fields: Fields,
    entries: IntoIter<MdsShard>,
    shard: Option<ShardFile>,
    next: usize,
    read: ReadBytes,
}

impl MdsRecords {
    /// Opens a folder's index; adds to `read` what is read of its shards.
    ///
    /// # Errors
    /// An index that can't be read or isn't one; a shard that has neither a text nor a token column, or not the one that the first has.
    pub(super) fn open(
        folder: &Path,
        name: &str,
        fields: &Fields,
        read: &ReadBytes,
    ) -> Result<Self, FormatError> {
        let entries = read_index(folder)?;
        let has = |entry: &MdsShard, name: &str| entry.columns.iter().any(|c| c.name == name);
        let first_has_text = entries
            .first()
            .is_some_and(|first| has(first, &fields.text));
        for entry in &entries {
            let has_text = has(entry, &fields.text);
            if !has_text && !has(entry, &fields.tokens) {
                let columns = entry.columns.iter().map(|column| column.name.as_str());
                return Err(FormatError::NoColumn {
                    path: folder.join(&entry.raw.0),
                    column: format!("{} or {}", fields.text, fields.tokens),
                    columns: quoted(columns),
                    hint: "",
                });
            }
            if has_text != first_has_text {
                return Err(FormatError::Mds {
                    path: folder.join(&entry.raw.0),
                    reason: "of the shards that the index lists, some hold text and some tokens; write an index for each kind".into(),
                });
            }
        }
        Ok(Self {
            folder: folder.into(),
            name: name.into(),
            fields: fields.clone(),
            entries: entries.into_iter(),
            shard: None,
            next: 0,
            read: read.clone(),
        })
    }

    fn record(&self, shard: &ShardFile, sample: usize) -> Result<Option<Record>, FormatError> {
        let values = shard.sample(sample)?;
        let id = values.find(&self.fields.id).and_then(value::name);
        let name = id.unwrap_or_else(|| {
            let file = shard.path().file_name().unwrap_or_default();
            format!("{}/{}:{}", self.name, file.to_string_lossy(), sample + 1)
        });
        let bad = |reason: Reason| shard.bad(sample, reason.into());
        if let Some(column) = values.find(&self.fields.text) {
            let text = value::text(column).map_err(bad)?;
            return Ok(text::content(text).map(|content| Record { name, content }));
        }
        let Some(column) = values.find(&self.fields.tokens) else {
            return Err(bad(format!("no column {}", self.fields.tokens).into()));
        };
        let tokens = value::tokens(column).map_err(bad)?;
        let content = Content::Tokens(tokens);
        Ok(Some(Record { name, content }))
    }
}

impl Iterator for MdsRecords {
    type Item = Result<Record, FormatError>;

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
            match ShardFile::open(&self.folder, entry, &self.read) {
                Ok(shard) => self.shard = Some(shard),
                // The next shard may be intact.
                Err(error) => return Some(Err(error)),
            }
        }
    }
}
