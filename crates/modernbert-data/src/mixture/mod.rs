//! A mixture file: sources of text, their proportions and licences.
//!
//! ```toml
//! [[source]]
//! name = "web"                      # letters, digits, - and _; the name of its folder of shards
//! paths = ["web", "more.parquet"]   # files and folders, relative to this file
//! proportion = 0.7                  # its share of the tokens that are trained on
//! licence = "ODC-By 1.0"            # never empty: write "unknown" if it is unknown
//! text_field = "text"               # the field or column with the text; "text" by default
//!
//! [[source]]
//! name = "code"
//! paths = ["src"]
//! proportion = 0.3
//! licence = "MIT OR Apache-2.0"
//! ```
//!
//! A proportion is the share of drawn tokens, not the size of the source: a small source with a large share is read several times
//! while a large one is read once. The corpus of the published models is not public; a mixture file documents that of a run.

#[cfg(test)]
mod tests;

use std::path::{Path, PathBuf};

use modernbert_files::wording::of_reader;
use serde::Deserialize;

/// A mixture of sources.
#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Mixture {
    /// The sources, in the order of the file.
    #[serde(rename = "source", default)]
    pub sources: Vec<MixtureSource>,
}

/// `[[source]]`
#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct MixtureSource {
    /// Its name.
    pub name: String,
    /// Files and folders.
    pub paths: Vec<PathBuf>,
    /// Its share of the tokens, above 0; the shares of all sources add up to 1.
    pub proportion: f64,
    /// The terms of its text.
    pub licence: String,
    /// The field or column that holds the text.
    #[serde(default = "text")]
    pub text_field: String,
}

fn text() -> String {
    "text".into()
}

/// Reason why a mixture file was refused.
#[derive(Debug, thiserror::Error)]
pub enum MixtureError {
    /// The file could not be read.
    #[error("{path}: the mixture file can't be read ({source}); check the path", path = path.display())]
    Read {
        /// The file.
        path: PathBuf,
        /// The system's error.
        source: std::io::Error,
    },
    /// The text is not TOML, lacks a field, has an unknown one, or one of another kind.
    #[error("{path}:{line}: {reason}", path = path.display())]
    Parse {
        /// The file.
        path: PathBuf,
        /// The line, from 1.
        line: usize,
        /// The reason.
        reason: String,
    },
    /// There is no source.
    #[error("{path}: lists no [[source]]; add one with name, paths, proportion and licence", path = path.display())]
    Empty {
        /// The file.
        path: PathBuf,
    },
    /// A source is invalid.
    #[error("{path}: source {name:?}: {reason}", path = path.display())]
    Source {
        /// The file.
        path: PathBuf,
        /// The source's name.
        name: String,
        /// The fault and its remedy.
        reason: String,
    },
    /// The shares don't add up.
    #[error("{path}: the proportions add up to {sum}; change them so that they add up to 1", path = path.display())]
    Sum {
        /// The file.
        path: PathBuf,
        /// Their sum.
        sum: f64,
    },
}

/// Greatest distance of the sum of the proportions from 1: shares such as 0.333 are rounded.
pub(crate) const PROPORTION_SLACK: f64 = 0.002;

impl Mixture {
    /// Reads a mixture file; paths in it are relative to its folder.
    ///
    /// # Errors
    /// A file that can't be read, unknown or missing fields, shares that don't add up to 1, an empty licence, a name twice, text that two
    /// sources read.
    pub fn from_file(path: &Path) -> Result<Self, MixtureError> {
        let text = modernbert_files::read::text(path).map_err(|source| MixtureError::Read {
            path: path.into(),
            source,
        })?;
        let text = text.trim_start_matches('\u{feff}');
        let mut mixture: Self = toml::from_str(text).map_err(|error| MixtureError::Parse {
            path: path.into(),
            line: error.span().map_or(1, |span| {
                let before = text.as_bytes().iter().take(span.start);
                1 + before.filter(|&&byte| byte == b'\n').count()
            }),
            reason: of_reader(error.message()),
        })?;
        mixture.check(path)?;
        let folder = path.parent().unwrap_or(Path::new(""));
        for source in &mut mixture.sources {
            for path in &mut source.paths {
                *path = folder.join(&path);
            }
        }
        mixture.check_overlap(path)?;
        Ok(mixture)
    }

    /// Refuses text that two sources would read, so that its documents would count twice. Sources of different fields may share files.
    fn check_overlap(&self, path: &Path) -> Result<(), MixtureError> {
        let mut seen: Vec<(PathBuf, &MixtureSource)> = Vec::new();
        for source in &self.sources {
            for given in &source.paths {
                // A missing path is reported by the reader.
                let real = given.canonicalize().unwrap_or_else(|_| given.clone());
                let twice = seen.iter().find(|(other, of)| {
                    of.text_field == source.text_field
                        && (real.starts_with(other) || other.starts_with(&real))
                });
                if let Some((_, of)) = twice {
                    return Err(MixtureError::Source {
                        path: path.into(),
                        name: source.name.clone(),
                        reason: format!(
                            "{} is read by source {:?} as well, so its documents would count twice; leave it out of one of them",
                            given.display(),
                            of.name
                        ),
                    });
                }
                seen.push((real, source));
            }
        }
        Ok(())
    }

    fn check(&self, path: &Path) -> Result<(), MixtureError> {
        if self.sources.is_empty() {
            return Err(MixtureError::Empty { path: path.into() });
        }
        for (index, source) in self.sources.iter().enumerate() {
            let refuse = |reason: &str| {
                Err(MixtureError::Source {
                    path: path.into(),
                    name: source.name.clone(),
                    reason: reason.into(),
                })
            };
            let plain = |c: char| c.is_ascii_alphanumeric() || c == '-' || c == '_';
            if source.name.is_empty() || !source.name.chars().all(plain) {
                return refuse("its name becomes a folder: use letters, digits, - and _");
            }
            if self.sources[..index]
                .iter()
                .any(|other| other.name == source.name)
            {
                return refuse("another source has this name; rename one of them");
            }
            if source.paths.is_empty() {
                return refuse("it has no paths; name at least one file or folder");
            }
            if !(source.proportion > 0.0 && source.proportion <= 1.0) {
                return refuse(
                    "its proportion is not above 0 and at most 1; leave it out if it is not to be read",
                );
            }
            if source.licence.trim().is_empty() {
                return refuse("its licence is empty; write the terms of its text, or \"unknown\"");
            }
            if source.licence.chars().any(char::is_control) {
                return refuse(
                    "its licence has line ends or other control characters; write it in one line",
                );
            }
        }
        let sum: f64 = self.sources.iter().map(|source| source.proportion).sum();
        if (sum - 1.0).abs() > PROPORTION_SLACK {
            return Err(MixtureError::Sum {
                path: path.into(),
                sum,
            });
        }
        Ok(())
    }
}
