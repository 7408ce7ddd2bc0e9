//! Free disk space, and the remedy for a full disk.

use std::path::Path;

/// Bytes that this user can still write on the file system of `path`, which must exist; `None` where the system doesn't report it.
#[cfg(unix)]
pub fn free_bytes(path: &Path) -> Option<u64> {
    let found = rustix::fs::statvfs(path).ok()?;
    Some(found.f_bavail.saturating_mul(found.f_frsize))
}

/// Bytes that this user can still write on the file system of `path`, which must exist; `None` where the system doesn't report it.
#[cfg(not(unix))]
pub fn free_bytes(_path: &Path) -> Option<u64> {
    None
}

/// Returns the remedy for a file of a model folder that can't be read or written, to be appended to a message; empty for errors that say it.
pub(crate) fn file_remedy(error: &std::io::Error) -> &'static str {
    match error.kind() {
        std::io::ErrorKind::NotFound => {
            "; a model folder needs this file: check the path, or copy the folder again"
        }
        _ => space_remedy(error),
    }
}

/// The remedy for a file beyond the limit of the process or of the file system.
const LIMIT: &str = "; raise the limit on the size of files (`ulimit -f`), or use a file system that holds larger ones";

/// Returns the remedy for a file that can't be written: `other`, unless the file is beyond the limit on its size.
pub fn write_remedy(error: &std::io::Error, other: &'static str) -> &'static str {
    match error.kind() {
        std::io::ErrorKind::FileTooLarge => LIMIT.trim_start_matches("; "),
        _ => other,
    }
}

#[cfg(all(test, unix))]
#[test]
fn a_file_beyond_the_limit_has_the_limit_as_its_remedy() {
    let limit = rustix::io::Errno::FBIG.into();
    let full = std::io::Error::from(std::io::ErrorKind::StorageFull);
    assert!(space_remedy(&limit).contains("ulimit -f") && !space_remedy(&limit).contains("free"));
    assert!(write_remedy(&limit, "other").starts_with("raise the limit"));
    assert!(space_remedy(&full).contains("free some space"));
    assert_eq!(write_remedy(&full, "other"), "other");
}

/// Returns the remedy for an error of a full or write-protected disk, to be appended to a message; empty for other errors.
pub fn space_remedy(error: &std::io::Error) -> &'static str {
    use std::io::ErrorKind as Kind;
    match error.kind() {
        Kind::StorageFull | Kind::QuotaExceeded => "; free some space and try again",
        // A file that is too long to be read has this kind too, without a number of the system.
        Kind::FileTooLarge if error.raw_os_error().is_some() => LIMIT,
        Kind::ReadOnlyFilesystem | Kind::PermissionDenied => {
            "; change the permissions of the file or its folder, or use another place"
        }
        _ => "",
    }
}
