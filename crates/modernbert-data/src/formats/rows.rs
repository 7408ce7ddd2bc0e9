//! Rows of any format, one after the other.

use std::io::Read;
use std::path::Path;
use std::sync::Arc;

use super::FormatError;
use super::bytes::{Bytes, ReadBytes};
use super::delimited::{Delimited, Style};
use super::json;
use super::kind::{Compression, FileKind, Format};
#[cfg(feature = "parquet")]
use super::parquet::ParquetRows;
use super::row::{Row, RowContent, Wanted};
use super::text::Lines;

/// The rows of a file: the one reader of rows that all programs use.
///
/// | format | row | cells |
/// |---|---|---|
/// | text | a line, empty ones too | none: a bare text |
/// | JSONL | a line that isn't blank: an object, or a string as a bare text | of any type, numbers as the file spells them |
/// | CSV, TSV | a row below the header | texts |
/// | Parquet | a row | of any type |
///
/// At most one row (of Parquet: one page of each column) is in memory. A byte order mark at the beginning is no part of the first
/// row. After an error of a single row ([`FormatError::is_of_a_row`]) the next row follows, after any other the stream ends.
pub struct Rows {
    path: Arc<Path>,
    read: ReadBytes,
    wanted: Option<Wanted>,
    source: Source,
}

enum Source {
    Lines(Lines),
    Jsonl(Lines),
    Delimited(Delimited),
    #[cfg(feature = "parquet")]
    Parquet(Box<ParquetRows>),
}

impl Rows {
    /// Opens a file with all its columns; the ending of its name says its format and compression.
    ///
    /// # Errors
    /// A file that can't be opened, an ending that is not known or not of rows, a column name that occurs twice.
    pub fn open(path: &Path) -> Result<Self, FormatError> {
        Self::by_ending(path, None, &ReadBytes::default())
    }

    /// Opens a file with the given columns alone. CSV, TSV and Parquet must have each of them; in JSONL each row is checked when it is read.
    ///
    /// # Errors
    /// As [`Self::open`]; a column that is missing.
    pub fn open_columns(path: &Path, columns: &[&str]) -> Result<Self, FormatError> {
        let wanted = Wanted::all_of(columns);
        Self::by_ending(path, Some(wanted), &ReadBytes::default())
    }

    /// Reads rows from a pipe or from memory, with all their columns; messages call them `name`.
    ///
    /// # Errors
    /// Parquet, which can't be read from a pipe; as [`Self::open`].
    pub fn from_reader(
        reader: Box<dyn Read + Send>,
        name: &str,
        format: Format,
        compression: Compression,
    ) -> Result<Self, FormatError> {
        let (path, read) = (Path::new(name), ReadBytes::default());
        if format == Format::Parquet {
            return Err(FormatError::Parquet {
                path: path.into(),
                reason: "Parquet is read from files only".into(),
            });
        }
        let bytes = Bytes::new(reader, path, compression, &read)?;
        Self::new(path, format, bytes, None, &read)
    }

    /// Opens a file in a format that its name doesn't say, with all its columns. A `.gz` or `.zst` at the end of the name is unpacked.
    ///
    /// # Errors
    /// As [`Self::open`].
    pub fn open_as(path: &Path, format: Format) -> Result<Self, FormatError> {
        let name = path.to_string_lossy().to_lowercase();
        let compression = if name.ends_with(".gz") {
            Compression::Gzip
        } else if name.ends_with(".zst") || name.ends_with(".zstd") {
            Compression::Zstd
        } else {
            Compression::None
        };
        let kind = FileKind {
            format,
            compression,
        };
        Self::of_kind(path, kind, None, &ReadBytes::default())
    }

    fn by_ending(
        path: &Path,
        wanted: Option<Wanted>,
        read: &ReadBytes,
    ) -> Result<Self, FormatError> {
        let Some(kind) = FileKind::of(path) else {
            // A file that is missing, and a folder, are mistakes of another kind than an unknown ending.
            let failed = |source| FormatError::Read {
                path: path.into(),
                source,
            };
            if std::fs::metadata(path).map_err(failed)?.is_dir() {
                return Err(failed(std::io::ErrorKind::IsADirectory.into()));
            }
            return Err(FormatError::Ending { path: path.into() });
        };
        if kind.format == Format::Text {
            // Lines of source code are no texts of their own.
            let name = path.to_string_lossy().to_lowercase();
            if ![".txt", ".txt.gz", ".txt.zst", ".txt.zstd"]
                .iter()
                .any(|ending| name.ends_with(ending))
            {
                return Err(FormatError::NoRows { path: path.into() });
            }
        }
        Self::of_kind(path, kind, wanted, read)
    }

    pub(super) fn of_kind(
        path: &Path,
        kind: FileKind,
        wanted: Option<Wanted>,
        read: &ReadBytes,
    ) -> Result<Self, FormatError> {
        if kind.format == Format::Parquet {
            return Self::parquet(path, wanted, read);
        }
        let bytes = Bytes::open(path, kind.compression, read)?;
        Self::new(path, kind.format, bytes, wanted, read)
    }

    fn new(
        path: &Path,
        format: Format,
        bytes: Bytes,
        wanted: Option<Wanted>,
        read: &ReadBytes,
    ) -> Result<Self, FormatError> {
        let lines = Lines::new(bytes);
        let delimited = |lines, style| Delimited::open(lines, style, wanted.as_ref());
        let source = match format {
            Format::Csv => Source::Delimited(delimited(lines, Style::Csv)?),
            Format::Tsv => Source::Delimited(delimited(lines, Style::Tsv)?),
            Format::Jsonl => Source::Jsonl(lines),
            Format::Text | Format::Parquet => Source::Lines(lines),
        };
        Ok(Self {
            path: path.into(),
            read: read.clone(),
            wanted,
            source,
        })
    }

    #[cfg(feature = "parquet")]
    fn parquet(path: &Path, wanted: Option<Wanted>, read: &ReadBytes) -> Result<Self, FormatError> {
        Ok(Self {
            source: Source::Parquet(Box::new(ParquetRows::open(path, wanted.as_ref(), read)?)),
            path: path.into(),
            read: read.clone(),
            wanted,
        })
    }

    #[cfg(not(feature = "parquet"))]
    fn parquet(
        path: &Path,
        _wanted: Option<Wanted>,
        _read: &ReadBytes,
    ) -> Result<Self, FormatError> {
        Err(FormatError::NotBuilt {
            path: path.into(),
            format: "Parquet",
            feature: "parquet",
        })
    }

    /// Bytes read of the file on disk so far, shared: for progress.
    pub fn read_bytes(&self) -> ReadBytes {
        self.read.clone()
    }
}

impl Iterator for Rows {
    type Item = Result<Row, FormatError>;

    fn next(&mut self) -> Option<Self::Item> {
        let found = match &mut self.source {
            Source::Lines(lines) => lines.next()?.and_then(|text| {
                let line = lines.number();
                // The lines of old Macintosh files would be joined to one text.
                if text.contains('\r') {
                    return Err(FormatError::Row {
                        path: self.path.to_path_buf(),
                        line,
                        reason: "a carriage return without a line feed; convert the line ends, or write JSON lines".into(),
                    });
                }
                Ok((line, RowContent::Bare(text)))
            }),
            Source::Jsonl(lines) => loop {
                let line = match lines.next()? {
                    Ok(line) => line,
                    Err(error) => return Some(Err(error)),
                };
                // A byte order mark in the middle comes from files that were joined.
                if line.trim_start_matches('\u{feff}').trim().is_empty() {
                    continue;
                }
                let number = lines.number();
                break json::row(&line, self.wanted.as_ref())
                    .map(|content| (number, content))
                    .map_err(|reason| FormatError::Row {
                        path: self.path.to_path_buf(),
                        line: number,
                        reason: reason.into(),
                    });
            },
            Source::Delimited(rows) => rows.next()?,
            #[cfg(feature = "parquet")]
            Source::Parquet(rows) => rows.next()?,
        };
        Some(found.map(|(number, content)| Row::new(&self.path, number, content)))
    }
}
