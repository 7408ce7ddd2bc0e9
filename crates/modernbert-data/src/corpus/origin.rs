//! Origin of a corpus.

use std::fmt;
use std::path::PathBuf;

use modernbert_files::wording::counted;

/// Origin of a corpus; [`fmt::Display`] writes one line for a person.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Origin {
    /// A named file or folder.
    Path {
        /// The file or folder.
        path: PathBuf,
        /// Documents read.
        documents: usize,
        /// Bytes of text.
        bytes: usize,
        /// Files that were skipped for their ending.
        skipped: usize,
    },
    /// The sources that cargo keeps.
    Registry {
        /// Crates the sample is from.
        crates: usize,
        /// Files in the sample.
        files: usize,
        /// Bytes of text.
        bytes: usize,
    },
    /// This project's own sources, where there is no registry.
    OwnSources {
        /// Files read.
        files: usize,
        /// Bytes of text.
        bytes: usize,
    },
    /// Several sources, one after the other.
    Several(Vec<Origin>),
}

impl fmt::Display for Origin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mb = |bytes: &usize| *bytes as f64 / 1e6;
        match self {
            Self::Path {
                path,
                documents,
                bytes,
                skipped,
            } => {
                write!(
                    f,
                    "{}: {}, {:.1} MB",
                    path.display(),
                    counted(*documents, "document", "documents"),
                    mb(bytes)
                )?;
                match skipped {
                    0 => Ok(()),
                    1 => write!(f, " (1 file of another kind skipped)"),
                    _ => write!(f, " ({skipped} files of other kinds skipped)"),
                }
            }
            Self::Registry {
                crates,
                files,
                bytes,
            } => {
                write!(
                    f,
                    "cargo registry: {crates} crates, {files} files, {:.1} MB",
                    mb(bytes)
                )
            }
            Self::Several(origins) => {
                let parts: Vec<String> = origins.iter().map(Self::to_string).collect();
                f.write_str(&parts.join("; "))
            }
            Self::OwnSources { files, bytes } => {
                write!(
                    f,
                    "no cargo registry found, using this project's own sources: {files} files, {:.1} MB",
                    mb(bytes)
                )
            }
        }
    }
}
