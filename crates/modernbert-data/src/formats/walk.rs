//! Which files a path stands for.

use std::fs;
use std::path::{Path, PathBuf};

use super::Kind;
use super::mds::INDEX_FILE;
use crate::corpus::CorpusError;

/// A file, or a folder of MDS shards.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Input {
    /// Where it is.
    pub path: PathBuf,
    /// What to call it: its path as seen from the folder that was named.
    pub name: String,
    /// Whether it is a folder of MDS shards.
    pub is_mds: bool,
}

/// The inputs that a path stands for, sorted by path, and how many files were left out for their ending.
///
/// A file is itself, a folder all files in it and below whose ending is known. A folder with MDS shards is one input, and none of its
/// files are. Links in a folder are not followed.
///
/// # Errors
/// A path that can't be read, a single file with an unknown ending.
pub fn inputs(root: &Path) -> Result<(Vec<Input>, usize), CorpusError> {
    let metadata = fs::metadata(root).map_err(|source| CorpusError::Read {
        path: root.into(),
        source,
    })?;
    if !metadata.is_dir() {
        if Kind::of(root).is_none() {
            return Err(CorpusError::Ending { path: root.into() });
        }
        let name = root.file_name().map_or_else(|| root.into(), PathBuf::from);
        let input = Input {
            path: root.into(),
            name: name.display().to_string(),
            is_mds: false,
        };
        return Ok((vec![input], 0));
    }
    let (mut found, mut skipped) = (Vec::new(), 0);
    let files = files_below(root)?;
    let shards: Vec<&Path> = files
        .iter()
        .filter(|file| file.file_name().is_some_and(|name| name == INDEX_FILE))
        .filter(|file| super::mds::is_index(file))
        .filter_map(|file| file.parent())
        .collect();
    for file in &files {
        let folder = file.parent().unwrap_or(root);
        if shards.contains(&folder) {
            if file.file_name().is_some_and(|name| name == INDEX_FILE) {
                let name = match relative(root, folder) {
                    name if name.is_empty() => folder
                        .file_name()
                        .map_or_else(String::new, |name| name.to_string_lossy().into_owned()),
                    name => name,
                };
                found.push(Input {
                    path: folder.into(),
                    name,
                    is_mds: true,
                });
            }
        } else if Kind::of(file).is_some() {
            found.push(Input {
                path: file.clone(),
                name: relative(root, file),
                is_mds: false,
            });
        } else {
            skipped += 1;
        }
    }
    Ok((found, skipped))
}

/// Every file in `folder` and below, sorted by path.
pub(crate) fn files_below(folder: &Path) -> Result<Vec<PathBuf>, CorpusError> {
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
pub(crate) fn relative(root: &Path, path: &Path) -> String {
    let path = path.strip_prefix(root).unwrap_or(path);
    path.iter()
        .map(|part| part.to_string_lossy())
        .collect::<Vec<_>>()
        .join("/")
}
