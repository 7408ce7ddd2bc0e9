//! Files that appear complete or not at all, and files that are never opened through a symbolic link.

use std::fs::{File, OpenOptions};
use std::io::{self, Read, Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};
use tempfile::TempPath;

/// Prefix of temporary names. Random letters follow, so that no other user can prepare a link under the name.
pub(crate) const PREFIX: &str = ".partial-";

/// Returns true for the name of a file or folder that is being written, or that a killed process did not finish.
pub fn is_unfinished(name: &str) -> bool {
    name.starts_with(PREFIX)
}

/// The folder that holds `path`.
pub(crate) fn folder_of(path: &Path) -> &Path {
    let folder = path
        .parent()
        .filter(|folder| !folder.as_os_str().is_empty());
    folder.unwrap_or(Path::new("."))
}

/// A file that is being written and is given its name only when it is complete.
///
/// On Linux the unfinished file has no name at all: it disappears when the process ends for any reason. On other systems, and on
/// file systems without unnamed files, it has a random name in the target's folder and is removed when the value is dropped.
/// Permissions follow the umask, as for any new file. Publishing replaces an existing file or symbolic link of that name, and never writes
/// through a link.
#[derive(Debug)]
pub struct PendingFile {
    target: PathBuf,
    file: File,
    /// The random name, if the file has one.
    named: Option<TempPath>,
}

impl PendingFile {
    /// Begins the file that will be `target`.
    ///
    /// # Errors
    /// A folder that is missing or can't be written.
    pub fn create(target: &Path) -> io::Result<Self> {
        Self::create_in(folder_of(target), target)
    }

    /// Begins a file whose folder need not exist before it is published: until then its bytes are in `folder`, on the same file system.
    ///
    /// # Errors
    /// A folder that can't be written.
    pub fn create_in(folder: &Path, target: &Path) -> io::Result<Self> {
        if let Some(file) = unnamed_file(folder) {
            return Ok(Self {
                target: target.to_path_buf(),
                file,
                named: None,
            });
        }
        let (file, path) = builder().tempfile_in(folder)?.into_parts();
        Ok(Self {
            target: target.to_path_buf(),
            file,
            named: Some(path),
        })
    }

    /// A path under which the unfinished file can be opened by code that takes paths. Valid in this process, while `self` lives.
    pub fn path(&self) -> PathBuf {
        match &self.named {
            Some(path) => path.to_path_buf(),
            None => path_of_descriptor(&self.file),
        }
    }

    /// The path the file will have.
    pub fn target(&self) -> &Path {
        &self.target
    }

    /// Waits until the content is on the disk and gives the file its name.
    ///
    /// # Errors
    /// An error of the operating system; the file is removed then.
    pub fn commit(self) -> io::Result<()> {
        let target = self.target.clone();
        self.into_temp_path()?
            .persist(target)
            .map_err(|error| error.error)
    }

    /// As [`Self::commit`], for a file that did not exist when the work began: one that appeared meanwhile is kept.
    ///
    /// # Errors
    /// A file of this name; an error of the operating system.
    pub fn commit_new(self) -> io::Result<()> {
        let target = self.target.clone();
        let appeared = || {
            let reason = "it appeared while the results were made, and is kept";
            io::Error::new(io::ErrorKind::AlreadyExists, reason)
        };
        match self.into_temp_path()?.persist_noclobber(&target) {
            Ok(()) => Ok(()),
            Err(error) if error.error.kind() == io::ErrorKind::AlreadyExists => Err(appeared()),
            // Some file systems can't rename without replacing.
            Err(_) if std::fs::symlink_metadata(&target).is_ok() => Err(appeared()),
            Err(error) => error.path.persist(&target).map_err(|error| error.error),
        }
    }

    /// The complete file under a temporary name beside its target.
    fn into_temp_path(self) -> io::Result<TempPath> {
        self.file.sync_all()?;
        match self.named {
            Some(path) => Ok(path),
            None => link(&self.file, folder_of(&self.target)),
        }
    }
}

impl Write for PendingFile {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.file.write(bytes)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.file.flush()
    }
}

impl Read for PendingFile {
    fn read(&mut self, bytes: &mut [u8]) -> io::Result<usize> {
        self.file.read(bytes)
    }
}

impl Seek for PendingFile {
    fn seek(&mut self, position: SeekFrom) -> io::Result<u64> {
        self.file.seek(position)
    }
}

fn builder() -> tempfile::Builder<'static, 'static> {
    let mut builder = tempfile::Builder::new();
    builder.prefix(PREFIX);
    // Temporary files are private by default; permanent files follow the umask.
    #[cfg(unix)]
    {
        use std::os::unix::fs::PermissionsExt;
        builder.permissions(std::fs::Permissions::from_mode(0o666));
    }
    builder
}

/// A file without a name in `folder`; `None` where the file system has none, or where it could not be given a name later.
#[cfg(target_os = "linux")]
fn unnamed_file(folder: &Path) -> Option<File> {
    use std::os::unix::fs::OpenOptionsExt;
    let mut options = OpenOptions::new();
    options.read(true).write(true).mode(0o666);
    options.custom_flags(rustix::fs::OFlags::TMPFILE.bits() as i32);
    let file = options.open(folder).ok()?;
    // Without /proc the file could never get its name.
    path_of_descriptor(&file).exists().then_some(file)
}

#[cfg(not(target_os = "linux"))]
fn unnamed_file(_folder: &Path) -> Option<File> {
    None
}

#[cfg(unix)]
fn path_of_descriptor(file: &File) -> PathBuf {
    use std::os::fd::AsRawFd;
    PathBuf::from(format!("/proc/self/fd/{}", file.as_raw_fd()))
}

#[cfg(not(unix))]
fn path_of_descriptor(_file: &File) -> PathBuf {
    PathBuf::new()
}

/// Gives an unnamed file a random name in `folder`.
#[cfg(target_os = "linux")]
fn link(file: &File, folder: &Path) -> io::Result<TempPath> {
    use rustix::fs::{AtFlags, CWD, linkat};
    let from = path_of_descriptor(file);
    let named = builder().make_in(folder, |path| {
        Ok(linkat(CWD, &from, CWD, path, AtFlags::SYMLINK_FOLLOW)?)
    })?;
    Ok(named.into_temp_path())
}

#[cfg(not(target_os = "linux"))]
fn link(_file: &File, _folder: &Path) -> io::Result<TempPath> {
    Err(io::Error::from(io::ErrorKind::Unsupported))
}

/// Writes a file so that it appears complete or not at all; see [`PendingFile`].
///
/// # Errors
/// An error of the operating system.
pub fn write_atomically(path: &Path, content: &[u8]) -> io::Result<()> {
    let mut file = PendingFile::create(path)?;
    file.write_all(content)?;
    file.commit()
}

/// As [`write_atomically`], for a file that did not exist when the work began: one that appeared meanwhile is kept.
///
/// # Errors
/// As [`PendingFile::commit_new`]; a folder that can't be written.
pub fn write_new(path: &Path, content: &[u8]) -> io::Result<()> {
    let mut file = PendingFile::create(path)?;
    file.write_all(content)?;
    file.commit_new()
}

/// Copies a file so that the copy appears complete or not at all; see [`PendingFile`].
///
/// # Errors
/// An error of the operating system.
pub fn copy_atomically(from: &Path, to: &Path) -> io::Result<()> {
    let mut source = File::open(from)?;
    let mut file = PendingFile::create(to)?;
    io::copy(&mut source, &mut file)?;
    file.commit()
}

/// Opens a file of a folder that may be another user's, to append to it; a missing file is created.
///
/// # Errors
/// A symbolic link or any other file that is not regular; an error of the operating system.
pub fn open_append(path: &Path) -> io::Result<File> {
    open_plain(path, OpenOptions::new().append(true).create(true))
}

/// Opens a file to read and write as [`open_append`] does, at its beginning and without truncation.
///
/// # Errors
/// As for [`open_append`].
pub fn open_update(path: &Path) -> io::Result<File> {
    let mut options = OpenOptions::new();
    open_plain(
        path,
        options.read(true).write(true).create(true).truncate(false),
    )
}

fn open_plain(path: &Path, options: &mut OpenOptions) -> io::Result<File> {
    let refused = |what: &str| {
        let text = format!("{what}, and is not written through; remove it or use another folder");
        io::Error::new(io::ErrorKind::InvalidInput, text)
    };
    #[cfg(unix)]
    {
        use rustix::fs::OFlags;
        use std::os::unix::fs::OpenOptionsExt;
        // Without NONBLOCK a named pipe would wait for a reader forever.
        options.custom_flags((OFlags::NOFOLLOW | OFlags::NONBLOCK).bits() as i32);
    }
    let is_link = || {
        let found = std::fs::symlink_metadata(path);
        found.is_ok_and(|found| found.file_type().is_symlink())
    };
    if cfg!(not(unix)) && is_link() {
        return Err(refused("it is a symbolic link"));
    }
    let file = match options.open(path) {
        Err(_) if is_link() => return Err(refused("it is a symbolic link")),
        other => other?,
    };
    if !file.metadata()?.is_file() {
        return Err(refused("it is no regular file"));
    }
    Ok(file)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;
    use std::fs;

    #[test]
    fn an_unfinished_file_leaves_nothing() {
        let folder = tempfile::tempdir().unwrap();
        let target = folder.path().join("a.bin");
        let mut file = PendingFile::create(&target).unwrap();
        file.write_all(b"half").unwrap();
        assert_eq!(fs::read(file.path()).unwrap(), b"half");
        drop(file);
        assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 0);
        write_atomically(&target, b"all").unwrap();
        write_atomically(&target, b"all of it").unwrap();
        assert_eq!(fs::read(&target).unwrap(), b"all of it");
        assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 1);
        assert!(write_atomically(&folder.path().join("none/a"), b"").is_err());
    }

    #[test]
    fn a_file_that_appeared_meanwhile_is_kept() {
        let folder = tempfile::tempdir().unwrap();
        let target = folder.path().join("a.txt");
        let mut first = PendingFile::create(&target).unwrap();
        let mut second = PendingFile::create(&target).unwrap();
        first.write_all(b"first").unwrap();
        second.write_all(b"second").unwrap();
        first.commit_new().unwrap();
        let error = second.commit_new().unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::AlreadyExists);
        assert!(error.to_string().contains("appeared"), "{error}");
        assert_eq!(fs::read(&target).unwrap(), b"first");
        assert!(write_new(&target, b"third").is_err());
        assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 1);
    }

    #[test]
    fn a_file_begins_before_its_folder_exists() {
        let folder = tempfile::tempdir().unwrap();
        let target = folder.path().join("later").join("a.bin");
        let mut file = PendingFile::create_in(folder.path(), &target).unwrap();
        file.write_all(b"all").unwrap();
        fs::create_dir(folder.path().join("later")).unwrap();
        file.commit().unwrap();
        assert_eq!(fs::read(&target).unwrap(), b"all");
        assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 1);
    }

    #[cfg(target_os = "linux")]
    #[test]
    fn an_unfinished_file_has_no_name() {
        let folder = tempfile::tempdir().unwrap();
        let file = PendingFile::create(&folder.path().join("a.bin")).unwrap();
        assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 0);
        file.commit().unwrap();
        assert!(folder.path().join("a.bin").is_file());
    }

    #[cfg(unix)]
    #[test]
    fn permissions_are_those_of_any_new_file() {
        use std::os::unix::fs::PermissionsExt;
        let folder = tempfile::tempdir().unwrap();
        let mode = |name: &str| {
            let data = fs::metadata(folder.path().join(name)).unwrap();
            data.permissions().mode() & 0o777
        };
        fs::write(folder.path().join("plain"), "x").unwrap();
        write_atomically(&folder.path().join("atomic"), b"x").unwrap();
        copy_atomically(&folder.path().join("plain"), &folder.path().join("copy")).unwrap();
        let (file, path) = builder().tempfile_in(folder.path()).unwrap().into_parts();
        drop(file);
        path.persist(folder.path().join("named")).unwrap();
        for name in ["atomic", "copy", "named"] {
            assert_eq!(mode(name), mode("plain"), "{name}");
        }
    }

    #[cfg(unix)]
    #[test]
    fn links_are_replaced_and_never_written_through() {
        let folder = tempfile::tempdir().unwrap();
        let (precious, link) = (folder.path().join("precious"), folder.path().join("link"));
        fs::write(&precious, "precious").unwrap();
        std::os::unix::fs::symlink(&precious, &link).unwrap();
        for error in [open_append(&link), open_update(&link)] {
            let message = error.unwrap_err().to_string();
            assert!(message.contains("symbolic link"), "{message}");
        }
        let dangling = folder.path().join("dangling");
        std::os::unix::fs::symlink(folder.path().join("nowhere"), &dangling).unwrap();
        assert!(open_append(&dangling).is_err());
        assert!(!folder.path().join("nowhere").exists());
        write_atomically(&link, b"new").unwrap();
        assert_eq!(fs::read_to_string(&precious).unwrap(), "precious");
        assert_eq!(fs::read_to_string(&link).unwrap(), "new");
        assert!(open_append(folder.path()).is_err());
        // A folder instead of the file, and a path below a file.
        let mut file = open_append(&precious).unwrap();
        file.write_all(b" indeed").unwrap();
        assert_eq!(fs::read_to_string(&precious).unwrap(), "precious indeed");
    }
}
