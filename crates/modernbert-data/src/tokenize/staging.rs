//! A set of shards that appears in its folder complete, or leaves the folder unchanged.

use std::fs::{self, File};
use std::io;
use std::path::{Path, PathBuf};

use modernbert_files::output::make_folder;
use modernbert_files::tokenizer::{self, Tokenizer};
use tempfile::TempDir;

use super::TokenizeFolderError;
use super::index::{INDEX_FILE, Index, hex};
use crate::formats::relative;
use crate::shard::{Shard, TokenizerHash};

/// Prefix of the temporary folders of sets; random letters follow.
const PREFIX: &str = ".tokenize-";
/// Locked while the set is written: in the folder of a killed process the lock is free.
const LOCK_FILE: &str = "lock";
/// The replaced set, until it is removed.
const OLD: &str = "old";
/// The new set.
const NEW: &str = "new";

/// A set of shards while it is written, in a temporary folder inside its target and therefore on the same file system. Dropping it removes
/// its files.
pub(super) struct Staging {
    out: PathBuf,
    /// True if the target was made for this set.
    is_new: bool,
    folder: Option<TempDir>,
    _lock: File,
}

impl Staging {
    /// Checks the target before any work, and creates the temporary folder.
    ///
    /// # Errors
    /// A target that is no folder, can't be written, contains a set while `overwrite` is false, or contains any other or a changed file.
    pub(super) fn begin(out: &Path, overwrite: bool) -> Result<Self, TokenizeFolderError> {
        let failed = |source| TokenizeFolderError::Write {
            path: out.into(),
            source,
        };
        let is_new = !out.exists();
        if is_new {
            make_folder(out).map_err(failed)?;
        } else if !out.is_dir() {
            return Err(TokenizeFolderError::NotAFolder { path: out.into() });
        }
        let out = out.canonicalize().map_err(failed)?;
        if !is_new {
            remove_abandoned(&out).map_err(failed)?;
            check_target(&out, overwrite)?;
        }
        let folder = tempfile::Builder::new().prefix(PREFIX).tempdir_in(&out);
        let begin = || {
            let folder = folder?;
            fs::create_dir(folder.path().join(NEW))?;
            let lock = File::create(folder.path().join(LOCK_FILE))?;
            lock.lock()?;
            Ok((folder, lock))
        };
        let (folder, lock) = begin().map_err(failed)?;
        Ok(Self {
            out,
            is_new,
            folder: Some(folder),
            _lock: lock,
        })
    }

    /// The temporary folder of the set.
    pub(super) fn path(&self) -> PathBuf {
        self.inside(NEW)
    }

    fn inside(&self, name: &str) -> PathBuf {
        let folder = self.folder.as_ref().map_or(&*self.out, TempDir::path);
        folder.join(name)
    }

    /// Replaces the old set, which is then removed, by the finished one. The old index is removed first and the new one written last: a folder with
    /// an index is complete at any moment.
    ///
    /// # Errors
    /// An error of the operating system; the old set is restored then.
    pub(super) fn commit(mut self, overwrite: bool) -> Result<(), TokenizeFolderError> {
        check_target(&self.out, overwrite)?;
        let (new, old) = (self.path(), self.inside(OLD));
        let mut moved = Vec::new();
        let mut commit = || -> io::Result<()> {
            fs::create_dir(&old)?;
            let index_last = |name: &PathBuf| name == Path::new(INDEX_FILE);
            let mut present = names(&self.out)?;
            present.sort_by_key(|name| !index_last(name));
            let mut made = names(&new)?;
            made.sort_by_key(index_last);
            let away = present
                .iter()
                .map(|name| (self.out.join(name), old.join(name)));
            let into = made
                .iter()
                .map(|name| (new.join(name), self.out.join(name)));
            for (from, to) in away.chain(into) {
                fs::rename(&from, &to)?;
                moved.push((from, to));
            }
            #[cfg(unix)]
            File::open(&self.out)?.sync_all()?;
            Ok(())
        };
        if let Err(source) = commit() {
            for (from, to) in moved.iter().rev() {
                // If restoring fails too, nothing more can be done; the error below names the folder.
                let _ = fs::rename(to, from);
            }
            return Err(TokenizeFolderError::Write {
                path: self.out.clone(),
                source,
            });
        }
        self.is_new = false;
        Ok(())
    }
}

impl Drop for Staging {
    fn drop(&mut self) {
        self.folder = None;
        if self.is_new {
            // Fails if another process wrote a file there meanwhile; that file is kept.
            let _ = fs::remove_dir(&self.out);
        }
    }
}

/// Names in a folder, without temporary folders of sets.
fn names(folder: &Path) -> io::Result<Vec<PathBuf>> {
    let mut names = Vec::new();
    for entry in fs::read_dir(folder)? {
        let name = entry?.file_name();
        if !name.to_string_lossy().starts_with(PREFIX) {
            names.push(PathBuf::from(name));
        }
    }
    names.sort_unstable();
    Ok(names)
}

/// Removes temporary folders of killed processes: those with a free lock.
fn remove_abandoned(out: &Path) -> io::Result<()> {
    for entry in fs::read_dir(out)? {
        let entry = entry?;
        let is_folder = entry.file_type()?.is_dir();
        if !is_folder || !entry.file_name().to_string_lossy().starts_with(PREFIX) {
            continue;
        }
        let lock = File::open(entry.path().join(LOCK_FILE));
        if lock.is_ok_and(|lock| lock.try_lock().is_ok()) {
            fs::remove_dir_all(entry.path())?;
        }
    }
    Ok(())
}

/// Refuses a target that contains a set that must not be replaced, any file that is not part of a set, or one that was changed since.
fn check_target(out: &Path, overwrite: bool) -> Result<(), TokenizeFolderError> {
    let failed = |source| TokenizeFolderError::Write {
        path: out.into(),
        source,
    };
    let index = out.join(INDEX_FILE);
    if !index.exists() {
        return match names(out).map_err(failed)?.first() {
            None => Ok(()),
            Some(name) => Err(TokenizeFolderError::Foreign {
                path: out.into(),
                file: name.clone(),
            }),
        };
    }
    if !overwrite {
        return Err(TokenizeFolderError::Exists { path: out.into() });
    }
    let text = modernbert_files::read::text(&index).map_err(failed)?;
    let foreign = |file: String| TokenizeFolderError::Foreign {
        path: out.into(),
        file: file.into(),
    };
    let listed = Index::parse(&text).map_err(|_| foreign(INDEX_FILE.into()))?;
    let mut pending = names(out).map_err(failed)?;
    while let Some(name) = pending.pop() {
        let path = out.join(&name);
        // Links are not followed: no set has any.
        let kind = fs::symlink_metadata(&path).map_err(failed)?.file_type();
        let mut inside = listed.shards().map(|shard| Path::new(&shard.file));
        if kind.is_dir() && inside.any(|file| file.starts_with(&name)) {
            let below = names(&path).map_err(failed)?;
            pending.extend(below.into_iter().map(|file| name.join(file)));
            continue;
        }
        let file = relative(Path::new(""), &name);
        let is_ours = match listed.shards().find(|shard| shard.file == file) {
            // Every token is read: the header alone would not show a change of the content.
            Some(entry) => Shard::open(&path).is_ok_and(|one| hex(&one.sha256()) == entry.sha256),
            None if tokenizer::FILES.contains(&file.as_str()) => true,
            None => file == INDEX_FILE,
        };
        if !kind.is_file() || !is_ours {
            return Err(match listed.shards().any(|shard| shard.file == file) {
                true => TokenizeFolderError::Changed { path },
                false => foreign(file),
            });
        }
    }
    check_tokenizer(out, &listed.tokenizer)
}

/// Refuses files of a tokenizer that are not those of the tokenizer with this hash, as it is written.
fn check_tokenizer(out: &Path, hash: &str) -> Result<(), TokenizeFolderError> {
    let [json, config] = tokenizer::FILES.map(|name| out.join(name));
    let text = |path: &Path| modernbert_files::read::text(path).unwrap_or_default();
    let files = |tokenizer: Tokenizer| {
        let found = TokenizerHash::of(&tokenizer).ok()?;
        tokenizer.files().ok().filter(|_| hex(&found.0) == hash)
    };
    let whole = Tokenizer::from_folder(out).ok().and_then(files);
    // A config that was changed may hide the tokenizer of its folder.
    let alone = || {
        Tokenizer::from_bytes(text(&json).as_bytes(), "")
            .ok()
            .and_then(files)
    };
    let found = whole.clone().or_else(alone);
    let found = found.as_ref().map(|files| &files[0].1);
    for (path, written) in [
        (json, found),
        (config, whole.as_ref().map(|files| &files[1].1)),
    ] {
        if path.exists() && Some(&text(&path)) != written {
            return Err(TokenizeFolderError::Changed { path });
        }
    }
    Ok(())
}
