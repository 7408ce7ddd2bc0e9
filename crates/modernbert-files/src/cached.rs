//! Remedies for damaged files: deleting one in the cache of the Hub, copying any other again.

use std::path::Path;

/// The remedy for a damaged file. In the cache of the Hub the file's name is a link, and the blob it points to must be deleted too.
pub(crate) fn replace_file(path: impl AsRef<Path>) -> String {
    let path = path.as_ref();
    let cached = path.components().any(|part| {
        let part = part.as_os_str().to_string_lossy();
        part.starts_with("models--") || part.starts_with("datasets--")
    });
    if !cached {
        return "copy or download it again".to_string();
    }
    let content = std::fs::canonicalize(path).unwrap_or_else(|_| path.to_path_buf());
    format!(
        "delete {} from the cache, and it is downloaded again",
        content.display()
    )
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;

    #[test]
    fn a_cached_file_is_named_for_deletion() {
        assert_eq!(
            replace_file("runs/a/model.safetensors"),
            "copy or download it again"
        );
        let cache = tempfile::tempdir().unwrap();
        let folder = cache.path().join("models--org--name");
        let (blob, link) = (
            folder.join("blobs/abc"),
            folder.join("snapshots/1/config.json"),
        );
        for path in [&blob, &link] {
            std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        }
        std::fs::write(&blob, "x").unwrap();
        #[cfg(unix)]
        std::os::unix::fs::symlink("../../blobs/abc", &link).unwrap();
        #[cfg(not(unix))]
        std::fs::copy(&blob, &link).unwrap();
        let remedy = replace_file(&link);
        let named = std::fs::canonicalize(&link).unwrap();
        assert!(remedy.contains(&named.display().to_string()), "{remedy}");
        assert!(remedy.contains("downloaded again"), "{remedy}");
    }
}
