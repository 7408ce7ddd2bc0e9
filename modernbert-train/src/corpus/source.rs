//! Reading text files and rows of JSON.

use std::fs::{self, File};
use std::io::{BufRead, BufReader, Read};
use std::path::{Path, PathBuf};

use flate2::bufread::MultiGzDecoder;
use serde_json::Value;

use super::{Corpus, CorpusError, Document, Origin, bytes};

/// The endings of files that are read. Rows of JSON are objects with a "text" and, if they like, an "id".
pub const ENDINGS: [&str; 5] = [".txt", ".md", ".rs", ".jsonl", ".jsonl.gz"];

/// The endings in words.
pub(super) fn endings() -> String {
    ENDINGS.join(", ")
}

impl Corpus {
    /// Reads a file, or every file of a folder and the folders in it that ends in one of [`ENDINGS`], sorted by name.
    ///
    /// A text file is one document, and each row of JSON is one; blank ones are dropped. Every document is a group of its
    /// own. Links in a folder are not followed.
    pub fn from_path(path: impl AsRef<Path>) -> Result<Self, CorpusError> {
        let root = path.as_ref();
        let metadata = fs::metadata(root).map_err(|source| CorpusError::Read {
            path: root.into(),
            source,
        })?;
        let mut documents = Vec::new();
        let mut skipped = 0;
        if metadata.is_dir() {
            for path in files_below(root)? {
                match ending(&path) {
                    Some(ending) => read(&path, &relative(root, &path), ending, &mut documents)?,
                    None => skipped += 1,
                }
            }
        } else {
            let ending = ending(root).ok_or_else(|| CorpusError::Ending { path: root.into() })?;
            let name = root.file_name().map_or_else(|| root.into(), PathBuf::from);
            read(root, &name.display().to_string(), ending, &mut documents)?;
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

/// Every file in `folder` and below, sorted by path.
pub(super) fn files_below(folder: &Path) -> Result<Vec<PathBuf>, CorpusError> {
    let mut files = Vec::new();
    let mut folders = vec![folder.to_path_buf()];
    while let Some(folder) = folders.pop() {
        let failed = |source| CorpusError::Read {
            path: folder.clone(),
            source,
        };
        for entry in fs::read_dir(&folder).map_err(failed)? {
            let entry = entry.map_err(failed)?;
            let kind = entry.file_type().map_err(failed)?;
            if kind.is_dir() {
                folders.push(entry.path());
            } else if kind.is_file() {
                files.push(entry.path());
            }
        }
    }
    files.sort_unstable();
    Ok(files)
}

/// `path` as seen from `root`, with `/` on every system.
pub(super) fn relative(root: &Path, path: &Path) -> String {
    let path = path.strip_prefix(root).unwrap_or(path);
    path.iter()
        .map(|part| part.to_string_lossy())
        .collect::<Vec<_>>()
        .join("/")
}

/// The text of a file.
pub(super) fn read_text(path: &Path) -> Result<String, CorpusError> {
    let bytes = fs::read(path).map_err(|source| CorpusError::Read {
        path: path.into(),
        source,
    })?;
    utf8(bytes, path, 0)
}

fn ending(path: &Path) -> Option<&'static str> {
    let name = path.file_name()?.to_str()?;
    ENDINGS.into_iter().find(|ending| name.ends_with(ending))
}

fn utf8(bytes: Vec<u8>, path: &Path, before: usize) -> Result<String, CorpusError> {
    String::from_utf8(bytes).map_err(|error| CorpusError::NotUtf8 {
        path: path.into(),
        offset: before + error.utf8_error().valid_up_to(),
    })
}

fn read(
    path: &Path,
    name: &str,
    ending: &str,
    documents: &mut Vec<Document>,
) -> Result<(), CorpusError> {
    let open = || -> Result<_, CorpusError> {
        let file = File::open(path).map_err(|source| CorpusError::Read {
            path: path.into(),
            source,
        })?;
        Ok(BufReader::new(file))
    };
    match ending {
        ".jsonl" => {
            let failed = |source| CorpusError::Read {
                path: path.into(),
                source,
            };
            read_rows(open()?, path, name, failed, documents)
        }
        ".jsonl.gz" => {
            let failed = |source| CorpusError::Gzip {
                path: path.into(),
                source,
            };
            read_rows(
                BufReader::new(MultiGzDecoder::new(open()?)),
                path,
                name,
                failed,
                documents,
            )
        }
        _ => {
            push(documents, name.to_owned(), read_text(path)?);
            Ok(())
        }
    }
}

fn read_rows(
    mut rows: BufReader<impl Read>,
    path: &Path,
    name: &str,
    failed: impl Fn(std::io::Error) -> CorpusError,
    documents: &mut Vec<Document>,
) -> Result<(), CorpusError> {
    let mut offset = 0;
    for line in 1.. {
        let mut bytes = Vec::new();
        let length = rows.read_until(b'\n', &mut bytes).map_err(&failed)?;
        if length == 0 {
            break;
        }
        let row = utf8(bytes, path, offset)?;
        offset += length;
        // A byte order mark is no part of the first row.
        let row = row.trim_start_matches('\u{feff}').trim();
        if row.is_empty() {
            continue;
        }
        let bad = |reason: String| CorpusError::BadRow {
            path: path.into(),
            line,
            reason,
        };
        let mut row: Value = serde_json::from_str(row).map_err(|error| bad(error.to_string()))?;
        let Some(fields) = row.as_object_mut() else {
            return Err(bad("not an object".into()));
        };
        let Some(Value::String(text)) = fields.remove("text") else {
            return Err(CorpusError::NoText {
                path: path.into(),
                line,
            });
        };
        let name = match fields.remove("id") {
            Some(Value::String(id)) if !id.is_empty() => id,
            Some(Value::Number(id)) => id.to_string(),
            _ => format!("{name}:{line}"),
        };
        push(documents, name, text);
    }
    Ok(())
}

fn push(documents: &mut Vec<Document>, name: String, text: String) {
    let text = match text.strip_prefix('\u{feff}') {
        Some(rest) => rest.to_owned(),
        None => text,
    };
    if !text.trim().is_empty() {
        documents.push(Document {
            group: name.clone(),
            name,
            text,
        });
    }
}
