//! Files with a JSON object in each line, plain or compressed.

use std::fs::File;
use std::io::{BufRead, BufReader, Error};
use std::path::Path;

use flate2::bufread::MultiGzDecoder;
use serde_json::Value;

use super::text::utf8;
use super::{Fields, Packing, Place, Record};
use crate::corpus::CorpusError;

/// The rows of a file. A row that can't be used is an error and the next one follows; a file that can't be read any further ends.
pub(super) struct Rows {
    lines: Box<dyn BufRead + Send>,
    place: Place,
    packing: Packing,
    fields: Fields,
    line: usize,
    offset: usize,
    ended: bool,
}

impl Rows {
    pub(super) fn open(
        path: &Path,
        name: &str,
        packing: Packing,
        fields: &Fields,
    ) -> Result<Self, CorpusError> {
        let unreadable = |source| CorpusError::Read {
            path: path.into(),
            source,
        };
        let file = BufReader::new(File::open(path).map_err(unreadable)?);
        let lines: Box<dyn BufRead + Send> = match packing {
            Packing::None => Box::new(file),
            Packing::Gzip => Box::new(BufReader::new(MultiGzDecoder::new(file))),
            Packing::Zstd => Box::new(BufReader::new(
                zstd::Decoder::with_buffer(file).map_err(unreadable)?,
            )),
        };
        Ok(Self {
            lines,
            place: Place::new(path, name),
            packing,
            fields: fields.clone(),
            line: 0,
            offset: 0,
            ended: false,
        })
    }

    fn unreadable(&self, source: Error) -> CorpusError {
        let path = self.place.path.clone();
        match self.packing {
            Packing::None => CorpusError::Read { path, source },
            Packing::Gzip => CorpusError::Gzip { path, source },
            Packing::Zstd => CorpusError::Zstd { path, source },
        }
    }

    fn row(&self, bytes: Vec<u8>) -> Result<Option<Record>, CorpusError> {
        let (path, line) = (&self.place.path, self.line);
        let row = utf8(bytes, path, self.offset)?;
        // A byte order mark is no part of the first row.
        let row = row.trim_start_matches('\u{feff}').trim();
        if row.is_empty() {
            return Ok(None);
        }
        let bad = |reason: String| CorpusError::BadRow {
            path: path.clone(),
            line,
            reason,
        };
        let mut row: Value = serde_json::from_str(row).map_err(|error| bad(error.to_string()))?;
        let Some(values) = row.as_object_mut() else {
            return Err(bad("not an object".into()));
        };
        let Some(Value::String(text)) = values.remove(&self.fields.text) else {
            return Err(CorpusError::NoText {
                path: path.clone(),
                line,
                field: self.fields.text.clone(),
            });
        };
        let id = match values.remove(&self.fields.id) {
            Some(Value::String(id)) if !id.is_empty() => Some(id),
            Some(Value::Number(id)) => Some(id.to_string()),
            _ => None,
        };
        Ok(self.place.record(line, id, text))
    }
}

impl Iterator for Rows {
    type Item = Result<Record, CorpusError>;

    fn next(&mut self) -> Option<Self::Item> {
        while !self.ended {
            let mut bytes = Vec::new();
            let length = match self.lines.read_until(b'\n', &mut bytes) {
                Ok(length) => length,
                Err(error) => {
                    self.ended = true;
                    return Some(Err(self.unreadable(error)));
                }
            };
            if length == 0 {
                self.ended = true;
                break;
            }
            self.line += 1;
            let row = self.row(bytes).transpose();
            self.offset += length;
            if row.is_some() {
                return row;
            }
        }
        None
    }
}
