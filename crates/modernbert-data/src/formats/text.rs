//! Files whose whole content is one text.

use std::fs;
use std::path::Path;

use super::{Content, Record};
use crate::corpus::CorpusError;

/// The record of a file; `None` for a blank one.
pub(super) fn read(path: &Path, name: &str) -> Result<Option<Record>, CorpusError> {
    let text = read_text(path)?;
    Ok(content(text).map(|content| Record {
        name: name.to_owned(),
        content,
    }))
}

/// The text of a file.
pub(crate) fn read_text(path: &Path) -> Result<String, CorpusError> {
    let bytes = fs::read(path).map_err(|source| CorpusError::Read {
        path: path.into(),
        source,
    })?;
    utf8(bytes, path, 0)
}

/// Text without a byte order mark; `None` for a blank one.
pub(super) fn content(text: String) -> Option<Content> {
    let text = match text.strip_prefix('\u{feff}') {
        Some(rest) => rest.to_owned(),
        None => text,
    };
    (!text.trim().is_empty()).then_some(Content::Text(text))
}

/// Bytes as text; `before` is where they begin in the file.
pub(super) fn utf8(bytes: Vec<u8>, path: &Path, before: usize) -> Result<String, CorpusError> {
    String::from_utf8(bytes).map_err(|error| CorpusError::NotUtf8 {
        path: path.into(),
        offset: before + error.utf8_error().valid_up_to(),
    })
}
