//! Files that appear whole or not at all.

use std::io::Write;
use std::path::Path;

/// Writes a file so that it appears whole or not at all: a temporary sibling is written, synchronised and renamed.
///
/// # Errors
/// What the operating system refuses.
pub fn write_atomically(path: &Path, content: &[u8]) -> std::io::Result<()> {
    let folder = path
        .parent()
        .filter(|folder| !folder.as_os_str().is_empty());
    let folder = folder.unwrap_or(Path::new("."));
    let mut temporary = tempfile::Builder::new()
        .prefix(".write.")
        .tempfile_in(folder)?;
    temporary.write_all(content)?;
    persist(temporary, path)
}

/// Gives a finished temporary file its name, once its content is on disk.
///
/// # Errors
/// What the operating system refuses.
pub fn persist(temporary: tempfile::NamedTempFile, path: &Path) -> std::io::Result<()> {
    // Temporary files are private to their owner; what we leave behind should be as readable as any new file.
    #[cfg(unix)]
    {
        use std::os::unix::fs::PermissionsExt;
        std::fs::set_permissions(temporary.path(), std::fs::Permissions::from_mode(0o644))?;
    }
    // The content may have been written through another handle, so the file is synchronised by name.
    std::fs::File::open(temporary.path())?.sync_all()?;
    temporary.persist(path).map_err(|error| error.error)?;
    Ok(())
}
