//! The input files of a path.

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};
use std::fs;
use std::path::{Path, PathBuf};

use modernbert_files::output::FileId;

use super::FormatError;
use super::kind::FileKind;
use super::mds::{INDEX_FILE, files_of_index, is_index, is_shard};

/// A file, or a folder of MDS shards.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct InputFile {
    /// Its path.
    pub path: PathBuf,
    /// Its name in messages: its path relative to the folder that was named.
    pub name: String,
    /// True if it is a folder of MDS shards.
    pub is_mds: bool,
}

impl InputFile {
    /// The files on disk: itself, or the shards that an MDS index lists, plain and compressed.
    pub(crate) fn files(&self) -> Vec<PathBuf> {
        if !self.is_mds {
            return vec![self.path.clone()];
        }
        let shards = files_of_index(&self.path).into_iter();
        shards.map(|file| self.path.join(file)).collect()
    }
}

/// The input files of a path.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct FoundInputs {
    /// The files, sorted by path.
    pub inputs: Vec<InputFile>,
    /// Files of other kinds, which are left out.
    pub skipped: usize,
    /// Further names of files and folders, by symbolic and hard links: each is read once.
    pub repeated: usize,
}

/// Finds the input files of a path.
///
/// A file is itself; a folder is all files in it and below whose ending is known. A folder with MDS shards is one input, and no other
/// file in it is one; shards that an index of a folder above lists are read by that index alone. Symbolic links are followed. A file of
/// several names, by symbolic or hard links, is read once, under the first of them.
///
/// # Errors
/// A path that can't be read, a single file with an unknown ending, a link to a missing file of a known ending.
pub fn find_inputs(root: &Path) -> Result<FoundInputs, FormatError> {
    let metadata = fs::metadata(root).map_err(|source| FormatError::Read {
        path: root.into(),
        source,
    })?;
    if !metadata.is_dir() {
        if FileKind::of(root).is_none() {
            return Err(FormatError::Ending { path: root.into() });
        }
        let name = root.file_name().map_or_else(|| root.into(), PathBuf::from);
        return Ok(FoundInputs {
            inputs: vec![InputFile {
                path: root.into(),
                name: name.display().to_string(),
                is_mds: false,
            }],
            ..FoundInputs::default()
        });
    }
    let Below {
        files,
        repeated,
        broken,
        others,
    } = below(root)?;
    if let Some(path) = broken.iter().find(|path| FileKind::of(path).is_some()) {
        return Err(FormatError::BrokenLink { path: path.clone() });
    }
    let mut found = FoundInputs {
        skipped: broken.len() + others,
        repeated,
        ..FoundInputs::default()
    };
    let mds = MdsFolders::of(&files)?;
    let mut read = HashSet::new();
    for file in &files {
        let folder = file.parent().unwrap_or(root);
        if let Some(&is_input) = mds.folders.get(folder) {
            if is_input && file.file_name().is_some_and(|name| name == INDEX_FILE) {
                let name = match relative(root, folder) {
                    name if name.is_empty() => folder
                        .file_name()
                        .map_or_else(String::new, |name| name.to_string_lossy().into_owned()),
                    name => name,
                };
                found.inputs.push(InputFile {
                    path: folder.into(),
                    name,
                    is_mds: true,
                });
            } else if !mds.shards.contains_key(file)
                && file.file_name().is_none_or(|name| name != INDEX_FILE)
            {
                found.skipped += 1;
            }
        } else if mds.shards.contains_key(file) {
            // In a folder below the one whose index lists it.
        } else if FileKind::of(file).is_some() {
            if FileId::of(file).is_some_and(|id| !read.insert(id)) {
                found.repeated += 1;
                continue;
            }
            found.inputs.push(InputFile {
                path: file.clone(),
                name: relative(root, file),
                is_mds: false,
            });
        } else {
            found.skipped += 1;
        }
    }
    Ok(found)
}

/// Folders with an MDS index.
#[derive(Default)]
struct MdsFolders {
    /// True if the folder is an input, or one above lists its shards.
    folders: BTreeMap<PathBuf, bool>,
    /// Shards by path, with the index that lists them.
    shards: HashMap<PathBuf, PathBuf>,
}

impl MdsFolders {
    fn of(files: &[PathBuf]) -> Result<Self, FormatError> {
        let mut this = Self::default();
        let named: Vec<&PathBuf> = files
            .iter()
            .filter(|file| file.file_name().is_some_and(|name| name == INDEX_FILE))
            .collect();
        let (mut indexes, others): (Vec<&PathBuf>, Vec<&PathBuf>) =
            named.into_iter().partition(|file| is_index(file));
        if !others.is_empty() {
            let with_shards: HashSet<_> = files
                .iter()
                .filter(|file| is_shard(file))
                .map(|file| file.parent())
                .collect();
            // Without an index the shards would be left out.
            if let Some(index) = others
                .into_iter()
                .find(|index| with_shards.contains(&index.parent()))
            {
                return Err(FormatError::Mds {
                    path: index.clone(),
                    reason: "no list of shards with their raw_data, and .mds files are beside it"
                        .to_string(),
                });
            }
        }
        indexes.sort_by_key(|index| index.components().count());
        for index in indexes {
            let folder = index.parent().unwrap_or(Path::new(""));
            let shards: Vec<PathBuf> = files_of_index(folder)
                .into_iter()
                .map(|shard| folder.join(shard))
                .collect();
            let others: Vec<&PathBuf> = shards
                .iter()
                .filter_map(|shard| this.shards.get(shard))
                .collect();
            let is_input = match &others[..] {
                [] => true,
                all if all.len() == shards.len() => false,
                some => {
                    return Err(FormatError::SharedShards {
                        path: index.clone(),
                        other: some[0].clone(),
                    });
                }
            };
            if is_input {
                for shard in shards {
                    this.shards.insert(shard, index.clone());
                }
            }
            this.folders.insert(folder.into(), is_input);
        }
        Ok(this)
    }
}

/// Every file in `folder` and below, links followed, sorted by path.
pub(crate) fn files_below(folder: &Path) -> Result<Vec<PathBuf>, FormatError> {
    Ok(below(folder)?.files)
}

/// Content of a folder and the folders below.
#[derive(Default)]
struct Below {
    /// Files, sorted by path; each once, under one of its names.
    files: Vec<PathBuf>,
    /// Links to files that are found under another name.
    repeated: usize,
    /// Links to missing files.
    broken: Vec<PathBuf>,
    /// Pipes, sockets and devices.
    others: usize,
}

/// Lists a folder. Links are followed after all real entries, in the order of their paths: the resulting names
/// don't depend on the order of the file system, and a link to a folder above is not followed again.
fn below(root: &Path) -> Result<Below, FormatError> {
    let mut found = Below::default();
    let (mut folders, mut files) = (HashSet::new(), HashSet::new());
    let mut links = BTreeSet::new();
    let mut pending = vec![root.to_path_buf()];
    loop {
        while let Some(folder) = pending.pop() {
            let failed = |source| FormatError::Read {
                path: folder.clone(),
                source,
            };
            let real = folder.canonicalize().map_err(failed)?;
            if !folders.insert(real.clone()) {
                found.repeated += 1;
                continue;
            }
            for entry in fs::read_dir(&folder).map_err(failed)? {
                let entry = entry.map_err(failed)?;
                let kind = entry.file_type().map_err(failed)?;
                if kind.is_symlink() {
                    links.insert(entry.path());
                } else if kind.is_dir() {
                    pending.push(entry.path());
                } else if !kind.is_file() {
                    found.others += 1;
                } else if files.insert(real.join(entry.file_name())) {
                    found.files.push(entry.path());
                } else {
                    found.repeated += 1;
                }
            }
        }
        let Some(link) = links.pop_first() else { break };
        match fs::metadata(&link) {
            Ok(metadata) if metadata.is_dir() => pending.push(link),
            Ok(metadata) if metadata.is_file() => {
                let real = link.canonicalize().map_err(|source| FormatError::Read {
                    path: link.clone(),
                    source,
                })?;
                if files.insert(real) {
                    found.files.push(link);
                } else {
                    found.repeated += 1;
                }
            }
            Ok(_) => found.others += 1,
            Err(_) => found.broken.push(link),
        }
    }
    found.files.sort_unstable();
    Ok(found)
}

/// `path` relative to `root`, with `/` on every system.
pub(crate) fn relative(root: &Path, path: &Path) -> String {
    let path = path.strip_prefix(root).unwrap_or(path);
    path.iter()
        .map(|part| part.to_string_lossy())
        .collect::<Vec<_>>()
        .join("/")
}
