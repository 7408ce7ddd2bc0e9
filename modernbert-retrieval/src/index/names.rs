//! Names of the files in an index's folder: one list for writing, removing and recognizing them.

use std::path::Path;

use modernbert_files::atomic::is_unfinished;
use modernbert_files::lock::LOCK_FILE;

/// Name of the manifest.
pub(super) const MANIFEST: &str = "manifest";
const SEGMENT: &str = "segment-";
const EXTENSION: &str = ".vec";

/// Name of a segment file.
pub(super) fn segment(number: u64) -> String {
    format!("{SEGMENT}{number:08}{EXTENSION}")
}

/// Returns true for the names that [`segment`] gives.
pub(super) fn is_segment(name: &str) -> bool {
    let rest = name.strip_prefix(SEGMENT);
    let digits = rest.and_then(|rest| rest.strip_suffix(EXTENSION));
    digits.is_some_and(|digits| {
        digits
            .parse()
            .is_ok_and(|number: u64| segment(number) == name)
    })
}

/// Returns true if a folder contains nothing but regular files with the names of an index's files, also of an index whose building was
/// interrupted. A folder that can't be read is none.
pub fn has_index_files_only(folder: &Path) -> bool {
    let Ok(mut entries) = std::fs::read_dir(folder) else {
        return false;
    };
    entries.all(|entry| {
        entry.is_ok_and(|entry| {
            let name = entry.file_name();
            let known = name.to_str().is_some_and(|name| {
                name == LOCK_FILE || name == MANIFEST || is_segment(name) || is_unfinished(name)
            });
            known && entry.file_type().is_ok_and(|kind| kind.is_file())
        })
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_segment_has_the_name_that_a_writer_gives() {
        for number in [1, 99_999_999, 123_456_789] {
            assert!(is_segment(&segment(number)), "{number}");
        }
        for name in [
            "segment-1.vec",
            "segment-+0000001.vec",
            "segment-00000001.vec.bak",
            "segment-abcdefgh.vec",
            "word.vec",
            ".segment-00000001.vec",
        ] {
            assert!(!is_segment(name), "{name}");
        }
    }
}
