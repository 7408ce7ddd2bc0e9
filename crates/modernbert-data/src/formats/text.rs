//! Text: whole files and lines.

use std::io::Read;
use std::path::Path;

use modernbert_files::read::{encoding_remedy, is_packed, other_encoding};

use super::bytes::{Bytes, ReadBytes};
use super::kind::{Compression, FileKind};
use super::{Content, FormatError};

/// Longest document read whole, in bytes: a text file, unpacked.
pub(super) const LONGEST_DOCUMENT: u64 = 1 << 30;
/// Longest line or row, in bytes.
pub(super) const LONGEST_ROW: u64 = 256 << 20;

/// Reads a file of text whole, unpacked if its name ends in `.gz` or `.zst`, without its byte order mark.
///
/// # Errors
/// A file that can't be read, is not UTF-8, or is longer than 1 GiB.
pub fn read_text(path: &Path) -> Result<String, FormatError> {
    let compression = FileKind::of(path).map_or(Compression::None, |kind| kind.compression);
    whole(path, compression, &ReadBytes::default(), LONGEST_DOCUMENT)
}

/// Reads a pipe of text to its end, without its byte order mark; messages call it `name`.
///
/// # Errors
/// As [`read_text`].
pub fn read_text_from(reader: Box<dyn Read + Send>, name: &str) -> Result<String, FormatError> {
    let (path, read) = (Path::new(name), ReadBytes::default());
    let bytes = Bytes::new(reader, path, Compression::None, &read)?;
    rest(bytes, LONGEST_DOCUMENT)
}

pub(super) fn whole(
    path: &Path,
    compression: Compression,
    read: &ReadBytes,
    limit: u64,
) -> Result<String, FormatError> {
    rest(Bytes::open(path, compression, read)?, limit)
}

fn rest(mut reader: Bytes, limit: u64) -> Result<String, FormatError> {
    let mut bytes = Vec::new();
    let length = reader.rest(&mut bytes, limit + 1)?;
    let path = reader.path();
    if length as u64 > limit {
        return Err(FormatError::TooLong {
            path: path.into(),
            line: 1,
            what: "the text",
            megabytes: limit >> 20,
        });
    }
    // UTF-16 without a mark can be valid UTF-8.
    let hint = encoding(&bytes);
    if !hint.is_empty() {
        let offset = bytes.iter().position(|byte| *byte < 9 || *byte >= 0xf8);
        return Err(FormatError::NotUtf8 {
            path: path.into(),
            line: 1,
            offset: offset.unwrap_or(0) as u64,
            hint,
            remedy: encoding_remedy(&bytes, path),
        });
    }
    let text = String::from_utf8(bytes).map_err(|error| {
        let valid = error.utf8_error().valid_up_to();
        let lines = error.as_bytes()[..valid].iter().filter(|&&b| b == b'\n');
        FormatError::NotUtf8 {
            path: path.into(),
            line: 1 + lines.count() as u64,
            offset: valid as u64,
            hint: encoding(error.as_bytes()),
            remedy: encoding_remedy(error.as_bytes(), path),
        }
    })?;
    Ok(without_mark(text))
}

/// Text without the byte order mark at its beginning.
pub(super) fn without_mark(mut text: String) -> String {
    if text.starts_with('\u{feff}') {
        text.drain(..'\u{feff}'.len_utf8());
    }
    text
}

/// A document's text without a byte order mark; `None` for a blank one.
pub(super) fn content(text: String) -> Option<Content> {
    let text = without_mark(text);
    (!text.trim().is_empty()).then_some(Content::Text(text))
}

/// An encoding that the first bytes of a file suggest, in words for an error.
fn encoding(bytes: &[u8]) -> &'static str {
    match other_encoding(bytes) {
        Some("UTF-16") => " (it is UTF-16)",
        Some("UTF-16LE" | "UTF-16BE") => " (it is UTF-16 without a byte order mark)",
        Some(_) => " (it is UTF-32)",
        None => "",
    }
}

/// The lines of a file: without `\n` or `\r\n`, the first without a byte order mark.
pub(super) struct Lines {
    bytes: Bytes,
    limit: u64,
    number: u64,
    offset: u64,
    ended: bool,
}

impl Lines {
    pub(super) fn new(bytes: Bytes) -> Self {
        Self {
            bytes,
            limit: LONGEST_ROW,
            number: 0,
            offset: 0,
            ended: false,
        }
    }

    #[cfg(test)]
    pub(super) fn with_limit(mut self, limit: u64) -> Self {
        self.limit = limit;
        self
    }

    pub(super) fn limit(&self) -> u64 {
        self.limit
    }

    pub(super) fn path(&self) -> &Path {
        self.bytes.path()
    }

    /// Number of the line read last, from 1.
    pub(super) fn number(&self) -> u64 {
        self.number
    }

    /// Reads no further.
    pub(super) fn end(&mut self) {
        self.ended = true;
    }

    /// The next line with its end, which the last line of a file may lack.
    pub(super) fn next_with_end(&mut self) -> Option<Result<String, FormatError>> {
        if self.ended {
            return None;
        }
        let mut line = Vec::new();
        let length = match self.bytes.line(&mut line, self.limit + 1) {
            Ok(0) => {
                self.ended = true;
                return None;
            }
            Ok(length) => length as u64,
            Err(error) => {
                self.ended = true;
                return Some(Err(error));
            }
        };
        self.number += 1;
        if length > self.limit {
            self.ended = true;
            return Some(Err(FormatError::TooLong {
                path: self.path().into(),
                line: self.number,
                what: "the line",
                megabytes: self.limit >> 20,
            }));
        }
        let before = self.offset;
        self.offset += length;
        let first: &[u8] = match self.number {
            1 => &line,
            _ => b"",
        };
        let (hint, ends) = (encoding(first), is_packed(first));
        let remedy = encoding_remedy(first, self.path());
        let text = match String::from_utf8(line) {
            // UTF-16 without a mark can be valid UTF-8.
            Ok(text) if !hint.is_empty() => {
                self.ended = true;
                let offset = text.bytes().position(|byte| byte < 9);
                return Some(Err(FormatError::NotUtf8 {
                    path: self.path().into(),
                    line: self.number,
                    offset: offset.unwrap_or(0) as u64,
                    hint,
                    remedy,
                }));
            }
            Ok(text) if self.number == 1 => without_mark(text),
            Ok(text) => text,
            Err(error) => {
                // Lines of UTF-16 end elsewhere: what follows would be noise.
                self.ended = !hint.is_empty() || ends;
                return Some(Err(FormatError::NotUtf8 {
                    path: self.path().into(),
                    line: self.number,
                    offset: before + error.utf8_error().valid_up_to() as u64,
                    hint,
                    remedy,
                }));
            }
        };
        Some(Ok(text))
    }
}

impl Iterator for Lines {
    type Item = Result<String, FormatError>;

    fn next(&mut self) -> Option<Self::Item> {
        Some(self.next_with_end()?.map(|mut line| {
            line.truncate(without_end(&line).len());
            line
        }))
    }
}

/// A line without its `\n` or `\r\n`.
pub(super) fn without_end(line: &str) -> &str {
    let Some(line) = line.strip_suffix('\n') else {
        return line;
    };
    line.strip_suffix('\r').unwrap_or(line)
}
