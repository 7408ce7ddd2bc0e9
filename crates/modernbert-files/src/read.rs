//! Small files of other programs, read with limits: a pipe or a device instead of a file would never end.

use std::fs::File;
use std::io::{Error, ErrorKind, Read, Result};
use std::path::Path;

/// Longest file that is read whole, in bytes: settings, indexes, tokenizers. The largest tokenizers have some 30 MB.
const LONGEST: u64 = 256 << 20;

/// Opens a regular file, or a link to one.
///
/// # Errors
/// An error of the operating system; a folder, a pipe, a device.
pub fn open(path: &Path) -> Result<File> {
    // Before it is opened: to open a pipe is to wait for its writer.
    let kind = std::fs::metadata(path)?.file_type();
    if kind.is_dir() {
        return Err(ErrorKind::IsADirectory.into());
    }
    if !kind.is_file() {
        let reason = "it is a pipe or a device, not a regular file";
        return Err(Error::new(ErrorKind::InvalidInput, reason));
    }
    File::open(path)
}

/// Reads a file whole, without a byte order mark at its beginning.
///
/// # Errors
/// As [`open`]; a file of more than 256 MiB.
pub fn bytes(path: &Path) -> Result<Vec<u8>> {
    up_to(path, LONGEST)
}

/// As [`bytes()`], for text.
///
/// # Errors
/// As [`bytes()`]; bytes that are not UTF-8.
pub fn text(path: &Path) -> Result<String> {
    let bytes = bytes(path)?;
    String::from_utf8(bytes).map_err(|error| Error::new(ErrorKind::InvalidData, error.utf8_error()))
}

/// Returns the remedy for a text that is not UTF-8, by its first bytes and its place: packed files have no other encoding.
pub fn encoding_remedy(first: &[u8], place: &Path) -> String {
    let Some((format, ending, program)) = packing(first) else {
        return "convert the file to UTF-8 (`iconv -t UTF-8`) or download it again".to_string();
    };
    match place == Path::new("standard input") {
        true => format!("it is packed with {format}: unpack it first (`{program} -dc`)"),
        false => format!(
            "it is packed with {format}: give it the ending .{ending}, or unpack it (`{program} -dc`)"
        ),
    }
}

/// Returns whether these first bytes are those of a packed file.
pub fn is_packed(first: &[u8]) -> bool {
    packing(first).is_some()
}

/// The format, file name ending and program of a packed file.
fn packing(first: &[u8]) -> Option<(&'static str, &'static str, &'static str)> {
    match first {
        [0x1f, 0x8b, ..] => Some(("gzip", "gz", "gzip")),
        [0x28, 0xb5, 0x2f, 0xfd, ..] => Some(("Zstandard", "zst", "zstd")),
        _ => None,
    }
}

fn up_to(path: &Path, limit: u64) -> Result<Vec<u8>> {
    let file = open(path)?;
    let mut bytes = Vec::new();
    file.take(limit + 1).read_to_end(&mut bytes)?;
    if bytes.len() as u64 > limit {
        let reason = format!("it has more than {} MiB", limit >> 20);
        return Err(Error::new(ErrorKind::FileTooLarge, reason));
    }
    if bytes.starts_with(b"\xef\xbb\xbf") {
        bytes.drain(..3);
    }
    Ok(bytes)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;

    #[test]
    fn files_are_read_without_their_mark_and_up_to_a_limit() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("a.json");
        std::fs::write(&path, "\u{feff}{}").unwrap();
        assert_eq!(text(&path).unwrap(), "{}");
        assert_eq!(up_to(&path, 5).unwrap(), b"{}");
        let error = up_to(&path, 4).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::FileTooLarge);
        std::fs::write(&path, b"\xff").unwrap();
        assert_eq!(text(&path).unwrap_err().kind(), ErrorKind::InvalidData);
        assert!(text(folder.path()).is_err());
        let missing = text(&folder.path().join("none")).unwrap_err();
        assert_eq!(missing.kind(), ErrorKind::NotFound);
    }

    #[test]
    fn packed_bytes_have_another_remedy_than_other_encodings() {
        let file = Path::new("a.txt");
        assert!(encoding_remedy(b"\x1f\x8b\x08", file).contains("ending .gz"));
        assert!(encoding_remedy(b"\x28\xb5\x2f\xfd", file).contains("ending .zst"));
        let stdin = encoding_remedy(b"\x1f\x8b", Path::new("standard input"));
        assert!(!stdin.contains("ending") && stdin.contains("gzip -dc"));
        assert!(encoding_remedy(b"\xff\xfe", file).contains("iconv"));
    }

    #[cfg(unix)]
    #[test]
    fn what_never_ends_is_not_opened() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("zero.json");
        std::os::unix::fs::symlink("/dev/zero", &path).unwrap();
        assert!(text(&path).unwrap_err().to_string().contains("a device"));
        let socket = folder.path().join("socket.json");
        let _listener = std::os::unix::net::UnixListener::bind(&socket).unwrap();
        assert!(bytes(&socket).unwrap_err().to_string().contains("a device"));
    }
}
