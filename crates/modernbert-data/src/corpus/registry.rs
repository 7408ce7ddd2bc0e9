//! A sample of the sources that cargo keeps.

use std::collections::BTreeSet;
use std::env;
use std::fs;
use std::path::{Path, PathBuf};

use super::{Corpus, CorpusError, Document, Origin, Seen, bytes, rank};
use crate::formats::{files_below, read_text, relative};

/// Shorter files contain little prose or code: a list of modules, a reference to another file.
const LEAST_BYTES: u64 = 256;

/// Size of the sample of the registry.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RegistryOptions {
    /// Bytes of text in all, at most.
    pub max_bytes: usize,
    /// Bytes of one crate, at most, before every other crate was sampled.
    pub crate_bytes: usize,
    /// Longer files are left out: they are mostly generated.
    pub max_file_bytes: u64,
    /// Cargo's folder; by default `$CARGO_HOME`, or `.cargo` in the home folder.
    pub cargo_home: Option<PathBuf>,
    /// The sources to use where there is no registry; by default those of this project, if they still exist.
    pub own_sources: Option<PathBuf>,
    /// Names of crates that are left out.
    pub without: BTreeSet<String>,
}

impl Default for RegistryOptions {
    fn default() -> Self {
        Self {
            // 12 MB to train on and 0.6 MB to evaluate with.
            max_bytes: 12_600_000,
            crate_bytes: 32_000,
            max_file_bytes: 100_000,
            cargo_home: None,
            own_sources: None,
            without: BTreeSet::new(),
        }
    }
}

/// The newest version of a crate in cargo's registry.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RegistryCrate {
    /// Its name.
    pub name: String,
    /// Its version.
    pub version: String,
    /// The folder of its sources.
    pub folder: PathBuf,
}

impl RegistryCrate {
    /// Files in and below the folder that end in `.rs`, sorted by path: the path in the folder, separated by `/`, and the whole path. None where
    /// the folder cannot be read.
    pub fn rust_files(&self) -> Vec<(String, PathBuf)> {
        let mut files = files_below(&self.folder).unwrap_or_default();
        files.retain(|path| path.extension().is_some_and(|extension| extension == "rs"));
        let named = files
            .into_iter()
            .map(|path| (relative(&self.folder, &path), path));
        let mut named: Vec<_> = named.collect();
        named.sort_unstable();
        named
    }
}

/// The newest version of every crate in the registry of a cargo home (by default `$CARGO_HOME`, or `.cargo` in the home folder), in an order that
/// hashes of their names decide. Empty where there is no registry.
pub fn registry_crates(cargo_home: Option<&Path>) -> Vec<RegistryCrate> {
    let home = cargo_home.map(Path::to_path_buf).or_else(default_home);
    let found = home.map(|home| crates(&home.join("registry/src")));
    let found = found.unwrap_or_default().into_iter();
    found
        .map(|one| RegistryCrate {
            name: one.name,
            version: one.version,
            folder: one.folder,
        })
        .collect()
}

/// The newest version of a crate that the registry holds, and what was read of it.
struct Crate {
    name: String,
    version: String,
    folder: PathBuf,
    /// Files that were not read yet, the next one last; `None` before the folder was read.
    files: Option<Vec<PathBuf>>,
    taken: usize,
}

impl Corpus {
    /// A sample of the `.rs` and `.md` files in cargo's registry: the same from the same registry.
    ///
    /// Crates are sampled round-robin in an order that hashes decide, and so are the files of a crate, so that the sample is of many
    /// crates, not only of the first ones of the alphabet. Of each crate only the newest version counts, and equal
    /// files are taken once. A document's group is its crate. Where there is no registry, the sources of this project are
    /// used, and [`Corpus::origin`] names them.
    ///
    /// Names of documents don't contain the path of the registry.
    pub fn from_registry(options: &RegistryOptions) -> Result<Self, CorpusError> {
        let home = options.cargo_home.clone().or_else(default_home);
        let mut crates = home
            .map(|home| crates(&home.join("registry/src")))
            .unwrap_or_default();
        crates.retain(|one| !options.without.contains(&one.name));
        let documents = sample(&mut crates, options);
        if documents.is_empty() {
            return own_sources(options);
        }
        let origin = Origin::Registry {
            crates: crates.iter().filter(|one| one.taken > 0).count(),
            files: documents.len(),
            bytes: bytes(&documents),
        };
        Ok(Self { documents, origin })
    }
}

fn default_home() -> Option<PathBuf> {
    let set = env::var_os("CARGO_HOME")
        .filter(|home| !home.is_empty())
        .map(PathBuf::from);
    set.or_else(|| env::home_dir().map(|home| home.join(".cargo")))
}

/// The newest version of every crate, ordered by hash.
fn crates(source: &Path) -> Vec<Crate> {
    let mut found: Vec<Crate> = folders(source)
        .iter()
        .flat_map(|index| folders(index))
        .filter_map(|folder| {
            let (name, version) = name_and_version(folder.file_name()?.to_str()?)?;
            Some(Crate {
                name: name.into(),
                version: version.into(),
                folder,
                files: None,
                taken: 0,
            })
        })
        .collect();
    // The path decides between two registries that have the same version.
    found.sort_by_cached_key(|one| {
        (
            one.name.clone(),
            version_parts(&one.version),
            one.version.clone(),
            one.folder.clone(),
        )
    });
    found.reverse();
    found.dedup_by(|older, newer| older.name == newer.name);
    found.sort_by_cached_key(|one| rank(0, &one.name));
    found
}

/// The folders in a folder; none if it cannot be read, because a registry is optional.
fn folders(folder: &Path) -> Vec<PathBuf> {
    let entries = fs::read_dir(folder).into_iter().flatten().flatten();
    entries
        .filter(|entry| entry.file_type().is_ok_and(|kind| kind.is_dir()))
        .map(|entry| entry.path())
        .collect()
}

/// `serde-json-1.0.2-rc.1` is `serde-json`, `1.0.2-rc.1`.
fn name_and_version(folder: &str) -> Option<(&str, &str)> {
    folder
        .match_indices('-')
        .map(|(at, _)| (&folder[..at], &folder[at + 1..]))
        .find(|(name, version)| !name.is_empty() && version_parts(version).len() == 3)
}

/// The three numbers of a version; empty if it is none.
fn version_parts(version: &str) -> Vec<u64> {
    let release = version.split(['-', '+']).next().unwrap_or_default();
    let parts = release
        .split('.')
        .map(str::parse)
        .collect::<Result<Vec<u64>, _>>();
    parts
        .ok()
        .filter(|parts| parts.len() == 3)
        .unwrap_or_default()
}

fn sample(crates: &mut [Crate], options: &RegistryOptions) -> Vec<Document> {
    let mut seen = Seen::default();
    let mut documents = Vec::new();
    let mut total = 0;
    for turn in 1.. {
        let allowance = options.crate_bytes.max(1).saturating_mul(turn);
        let mut more = false;
        for one in crates.iter_mut() {
            while let Some((path, length)) = one.next_file(options) {
                if one.taken + length > allowance {
                    // It is sampled again after every other crate.
                    more = true;
                    break;
                }
                if total + length > options.max_bytes {
                    return documents;
                }
                one.drop_file();
                // A file that is not text, or no longer exists, is left out: the user did not name it.
                let Ok(text) = read_text(&path) else { continue };
                if seen.insert(&text) {
                    one.taken += text.len();
                    total += text.len();
                    documents.push(one.document(&path, text));
                }
            }
        }
        if !more {
            break;
        }
    }
    documents
}

impl Crate {
    /// The next file of a suitable length, and that length.
    fn next_file(&mut self, options: &RegistryOptions) -> Option<(PathBuf, usize)> {
        let Self {
            name,
            folder,
            files,
            ..
        } = self;
        let files = files.get_or_insert_with(|| {
            let mut files = files_below(folder).unwrap_or_default();
            files.retain(|path| is_source(path));
            files.sort_by_cached_key(|path| rank(0, &format!("{name}/{}", relative(folder, path))));
            files
        });
        while let Some(path) = files.last() {
            let length = path.metadata().map_or(0, |metadata| metadata.len());
            if (LEAST_BYTES..options.max_file_bytes).contains(&length) {
                return Some((path.clone(), length as usize));
            }
            files.pop();
        }
        None
    }

    /// Skips the next file.
    fn drop_file(&mut self) {
        self.files.as_mut().map(Vec::pop);
    }

    fn document(&self, path: &Path, text: String) -> Document {
        let Self {
            name,
            version,
            folder,
            ..
        } = self;
        let file = relative(folder, path);
        Document {
            name: format!("{name}-{version}/{file}"),
            group: name.clone(),
            text,
        }
    }
}

fn is_source(path: &Path) -> bool {
    path.extension()
        .is_some_and(|extension| extension == "rs" || extension == "md")
}

fn own_sources(options: &RegistryOptions) -> Result<Corpus, CorpusError> {
    let root = options
        .own_sources
        .clone()
        .unwrap_or_else(|| Path::new(env!("CARGO_MANIFEST_DIR")).join("../.."));
    let mut seen = Seen::default();
    let mut documents = Vec::new();
    // Of a workspace only the folders of its crates: `target` and similar folders contain no sources of the project.
    let mut folders = [folders(&root), folders(&root.join("crates"))].concat();
    folders.retain(|folder| folder.join("Cargo.toml").is_file());
    folders.sort_unstable();
    for path in folders
        .iter()
        .flat_map(|folder| files_below(folder).unwrap_or_default())
    {
        if !is_source(&path) {
            continue;
        }
        let Ok(text) = read_text(&path) else { continue };
        if !text.trim().is_empty() && seen.insert(&text) {
            let name = relative(&root, &path);
            // The files of one folder are similar.
            let group = name
                .rsplit_once('/')
                .map_or("", |(folder, _)| folder)
                .to_owned();
            documents.push(Document { name, group, text });
        }
    }
    if documents.is_empty() {
        return Err(CorpusError::NoRegistry);
    }
    let origin = Origin::OwnSources {
        files: documents.len(),
        bytes: bytes(&documents),
    };
    Ok(Corpus { documents, origin })
}
