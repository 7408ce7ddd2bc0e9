//! The cache, in the layout of Python's `huggingface_hub`: `models--org--name/{blobs,refs,snapshots}`.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

use super::{CONFIG_FILE, HubOptions, INDEX_FILE, WEIGHTS_FILE};

/// Returns true for a commit: forty hexadecimal digits.
pub(super) fn is_commit(revision: &str) -> bool {
    revision.len() == 40 && revision.bytes().all(|b| b.is_ascii_hexdigit())
}

/// The part of the cache that belongs to one model or data set.
pub(super) struct Cached {
    folder: PathBuf,
    revision: String,
}

impl Cached {
    pub(super) fn new(name: &str, options: &HubOptions) -> Self {
        Self::of_kind("models", name, options)
    }

    /// As [`Self::new`], for a data set.
    pub(super) fn dataset(name: &str, options: &HubOptions) -> Self {
        Self::of_kind("datasets", name, options)
    }

    fn of_kind(kind: &str, name: &str, options: &HubOptions) -> Self {
        Self {
            folder: options
                .cache
                .join(format!("{kind}--{}", name.replace('/', "--"))),
            revision: options.revision.clone(),
        }
    }

    pub(super) fn snapshot(&self, commit: &str) -> PathBuf {
        self.folder.join("snapshots").join(commit)
    }

    pub(super) fn blob(&self, tag: &str) -> PathBuf {
        self.folder.join("blobs").join(tag)
    }

    /// The folder of the wanted revision; its content is not checked.
    pub(super) fn known(&self) -> Option<PathBuf> {
        let commit = if is_commit(&self.revision) {
            self.revision.clone()
        } else {
            let commit = crate::read::text(&self.reference(&self.revision)?).ok()?;
            commit.trim().to_string()
        };
        is_commit(&commit).then(|| self.snapshot(&commit))
    }

    /// The folder of the wanted revision, if config and all weights are there.
    pub(super) fn complete(&self) -> Option<PathBuf> {
        let folder = self.known()?;
        let has = |file: &str| folder.join(file).is_file();
        let sharded =
            || shards(&folder.join(INDEX_FILE)).is_some_and(|all| all.iter().all(|file| has(file)));
        (has(CONFIG_FILE) && (has(WEIGHTS_FILE) || sharded())).then_some(folder)
    }

    /// Writes the commit of a branch or tag.
    pub(super) fn point(&self, revision: &str, commit: &str) -> std::io::Result<()> {
        let Some(path) = self.reference(revision).filter(|_| !is_commit(revision)) else {
            return Ok(());
        };
        if let Some(parent) = path.parent() {
            std::fs::create_dir_all(parent)?;
        }
        crate::atomic::write_atomically(&path, commit.as_bytes())
    }

    /// A branch may be named `pr/1`, but its name must stay inside the folder.
    fn reference(&self, revision: &str) -> Option<PathBuf> {
        let normal =
            |part: &str| !part.is_empty() && part != "." && part != ".." && !part.contains('\\');
        revision
            .split('/')
            .all(normal)
            .then(|| self.folder.join("refs").join(revision))
    }
}

/// The files that an index names; `None` if it can't be read or names none, or one outside its folder.
pub(super) fn shards(index: &Path) -> Option<BTreeSet<String>> {
    let text = crate::read::text(index).ok()?;
    let json: serde_json::Value = serde_json::from_str(&text).ok()?;
    let files: Option<BTreeSet<String>> = json
        .get("weight_map")?
        .as_object()?
        .values()
        .map(|file| file.as_str().map(str::to_string))
        .collect();
    let plain = |file: &String| !file.contains(['/', '\\']) && file != ".." && !file.is_empty();
    files.filter(|files| !files.is_empty() && files.iter().all(plain))
}

/// Returns true if a folder has a file, at most two folders down, whose path in it is wanted.
pub(super) fn holds(folder: &Path, wanted: &dyn Fn(&str) -> bool) -> bool {
    fn search(folder: &Path, prefix: &str, depth: usize, wanted: &dyn Fn(&str) -> bool) -> bool {
        let entries = std::fs::read_dir(folder).into_iter().flatten().flatten();
        entries.into_iter().any(|entry| {
            let name = format!("{prefix}{}", entry.file_name().to_string_lossy());
            let path = entry.path();
            if path.is_dir() {
                depth > 0 && search(&path, &format!("{name}/"), depth - 1, wanted)
            } else {
                wanted(&name)
            }
        })
    }
    search(folder, "", 2, wanted)
}

/// Links `path`, which is `file` in its snapshot, to `blob`.
pub(super) fn link(blob: &Path, path: &Path, file: &str) -> std::io::Result<()> {
    if let Some(parent) = path.parent() {
        std::fs::create_dir_all(parent)?;
    }
    // A link whose blob was deleted, because its content was damaged.
    if path.symlink_metadata().is_ok() {
        std::fs::remove_file(path)?;
    }
    #[cfg(unix)]
    {
        // Relative, so that the cache can be moved: snapshots/COMMIT/FILE to blobs/TAG.
        let tag = blob.file_name().unwrap_or_default();
        let up = "../".repeat(2 + file.matches('/').count());
        std::os::unix::fs::symlink(Path::new(&up).join("blobs").join(tag), path)
    }
    #[cfg(not(unix))]
    {
        let _ = file;
        std::fs::copy(blob, path).map(drop)
    }
}
