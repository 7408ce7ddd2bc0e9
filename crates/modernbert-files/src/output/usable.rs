//! New folders that their own user can't fill.

use std::path::Path;

/// Makes a folder and those above it. A folder that exists is left as it is.
///
/// # Errors
/// A folder that can't be made; one in which this process may not make files, which is removed again.
pub fn make_folder(path: &Path) -> std::io::Result<()> {
    if path.is_dir() {
        return Ok(());
    }
    std::fs::create_dir_all(path)?;
    check_usable(path)
}

/// Refuses a folder in which this process may not make files, and removes it: a umask of 0777 takes these permissions from every new folder.
///
/// # Errors
/// Such a folder.
#[cfg(unix)]
pub(super) fn check_usable(folder: &Path) -> std::io::Result<()> {
    use rustix::fs::{Access, access};
    let needed = Access::READ_OK | Access::WRITE_OK | Access::EXEC_OK;
    access(folder, needed).map_err(|_| {
        // It is empty, and removing it with its content would fail where that can't be listed. The error below is the one to report.
        let _ = std::fs::remove_dir(folder);
        std::io::Error::other(
            "new folders have no permissions for their own user; set another umask, such as 022",
        )
    })
}

#[cfg(not(unix))]
pub(super) fn check_usable(_folder: &Path) -> std::io::Result<()> {
    Ok(())
}

#[cfg(all(test, target_os = "linux"))]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;
    use std::os::unix::fs::PermissionsExt;

    #[test]
    fn a_folder_without_permissions_is_removed() {
        let place = tempfile::tempdir().unwrap();
        let folder = place.path().join("new");
        make_folder(&folder).unwrap();
        make_folder(&folder).unwrap();
        std::fs::set_permissions(&folder, std::fs::Permissions::from_mode(0o000)).unwrap();
        // The superuser may do everything.
        if let Err(error) = check_usable(&folder) {
            assert!(error.to_string().contains("umask"), "{error}");
            assert!(!folder.exists());
        }
    }
}
