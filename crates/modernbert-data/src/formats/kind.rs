//! Formats and compressions by the endings of file names, in any case.

use std::path::Path;

/// Endings of files whose whole content is one document.
pub const TEXT_ENDINGS: &[&str] = &[
    ".txt", ".md", ".rst", ".tex", ".rs", ".py", ".c", ".h", ".cc", ".cpp", ".hpp", ".cs", ".go",
    ".java", ".js", ".jsx", ".ts", ".tsx", ".kt", ".scala", ".swift", ".rb", ".php", ".pl", ".lua",
    ".r", ".jl", ".hs", ".ml", ".ex", ".erl", ".clj", ".sh", ".sql", ".html", ".css", ".toml",
    ".yaml", ".yml",
];

/// Format of a file, apart from its compression.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Format {
    /// Text: a document in a corpus, a text a line where rows are wanted.
    Text,
    /// A JSON object (or string) a line.
    Jsonl,
    /// Comma-separated values after RFC 4180, with a header.
    Csv,
    /// Tab-separated values with a header and no quoting.
    Tsv,
    /// Parquet.
    Parquet,
}

/// Compression of a file.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Compression {
    /// None.
    #[default]
    None,
    /// Gzip, also of several members.
    Gzip,
    /// Zstandard, also of several frames.
    Zstd,
}

/// Format and compression of a file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct FileKind {
    /// The format.
    pub format: Format,
    /// The compression.
    pub compression: Compression,
}

impl FileKind {
    /// The kind of a file by the ending of its name, in upper or lower case: `notes.TXT`, `rows.jsonl.gz`. `None` for an unknown ending.
    pub fn of(path: &Path) -> Option<Self> {
        // Endings are ASCII: bytes of the name that are not UTF-8 do not change them.
        let name = path.file_name()?.to_string_lossy().to_lowercase();
        let packed = [
            (".gz", Compression::Gzip),
            (".zst", Compression::Zstd),
            (".zstd", Compression::Zstd),
        ];
        let packed = packed
            .into_iter()
            .find_map(|(ending, kind)| Some((name.strip_suffix(ending)?, kind)));
        let (name, compression) = packed.unwrap_or((&name, Compression::None));
        let any = |endings: &[&str]| endings.iter().any(|ending| name.ends_with(ending));
        let is_packed = compression != Compression::None;
        let format = if any(&[".jsonl", ".ndjson"]) || (is_packed && any(&[".json"])) {
            Format::Jsonl
        } else if any(&[".csv"]) {
            Format::Csv
        } else if any(&[".tsv"]) {
            Format::Tsv
        } else if !is_packed && any(&[".parquet"]) {
            Format::Parquet
        } else if any(TEXT_ENDINGS) {
            Format::Text
        } else {
            return None;
        };
        Some(Self {
            format,
            compression,
        })
    }
}

/// The endings in words, for messages.
pub(crate) fn endings() -> &'static str {
    ".txt, .md, .rs (and those of other source code), .jsonl, .csv or .tsv (each also as .gz or .zst), .json.gz, .json.zst or .parquet"
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn endings_count_in_any_case_and_only_whole() {
        let kind = |name: &str| FileKind::of(Path::new(name)).map(|k| (k.format, k.compression));
        for (name, format, compression) in [
            ("a.txt", Format::Text, Compression::None),
            ("A.TXT", Format::Text, Compression::None),
            ("a.Md.Gz", Format::Text, Compression::Gzip),
            ("a.b.JSONL.ZST", Format::Jsonl, Compression::Zstd),
            ("a.json.gz", Format::Jsonl, Compression::Gzip),
            ("a.Csv", Format::Csv, Compression::None),
            ("a.tsv.gz", Format::Tsv, Compression::Gzip),
            ("dir/TRAIN.PARQUET", Format::Parquet, Compression::None),
        ] {
            assert_eq!(kind(name), Some((format, compression)), "{name}");
        }
        for name in [
            "a",
            "txt",
            "a.json",
            "a.parquet.gz",
            "a.gz",
            "a.txt.bak",
            "a.xlsx",
            "a.pdf",
        ] {
            assert_eq!(kind(name), None, "{name}");
        }
        #[cfg(unix)]
        {
            use std::os::unix::ffi::OsStrExt;
            let name = std::ffi::OsStr::from_bytes(b"caf\xe9.TXT");
            assert!(FileKind::of(Path::new(name)).is_some());
        }
    }
}
