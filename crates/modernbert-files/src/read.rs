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
/// As [`open`]; a file of more than 256 MiB; a text in UTF-16 or UTF-32.
pub fn bytes(path: &Path) -> Result<Vec<u8>> {
    up_to(path, LONGEST)
}

/// As [`bytes()`], for text.
///
/// # Errors
/// As [`bytes()`]; bytes that are not UTF-8.
pub fn text(path: &Path) -> Result<String> {
    String::from_utf8(bytes(path)?).map_err(|error| {
        let valid = error.utf8_error().valid_up_to();
        let remedy = encoding_remedy(error.as_bytes(), path);
        let reason = format!("not UTF-8 at byte {valid}: {remedy}");
        Error::new(ErrorKind::InvalidData, reason)
    })
}

/// The encoding of a text that is not UTF-8, as `iconv -f` names it, by its first bytes: UTF-16 and UTF-32 with a byte order mark, or without one
/// if the text has the characters of an alphabet. Such a text can be valid UTF-8, with control characters.
pub fn other_encoding(first: &[u8]) -> Option<&'static str> {
    match first {
        [0xff, 0xfe, 0, 0, ..] | [0, 0, 0xfe, 0xff, ..] => return Some("UTF-32"),
        [0xff, 0xfe, ..] | [0xfe, 0xff, ..] => return Some("UTF-16"),
        _ => {}
    }
    let first = &first[..first.len().min(64)];
    let (even, odd): (Vec<u8>, Vec<u8>) = {
        let at = |parity: usize| first.iter().copied().skip(parity).step_by(2).collect();
        (at(0), at(1))
    };
    // Code points below U+0900: Latin, Greek, Cyrillic, Hebrew, Arabic.
    let are_high = |bytes: &[u8]| bytes.len() > 1 && bytes.iter().all(|byte| *byte < 9);
    let are_low = |bytes: &[u8]| bytes.iter().any(|byte| *byte >= 9);
    match (are_high(&even), are_high(&odd)) {
        (false, true) if first[1] == 0 && even.iter().skip(1).step_by(2).all(|byte| *byte == 0) => {
            Some("UTF-32LE")
        }
        (true, false)
            if even.iter().all(|byte| *byte == 0)
                && odd.iter().step_by(2).all(|byte| *byte == 0) =>
        {
            Some("UTF-32BE")
        }
        (false, true) if are_low(&even) && odd.contains(&0) => Some("UTF-16LE"),
        (true, false) if are_low(&odd) && even.contains(&0) => Some("UTF-16BE"),
        _ => None,
    }
}

/// Returns the remedy for a text that is not UTF-8, by its first bytes and its place: packed files have no other encoding.
pub fn encoding_remedy(first: &[u8], place: &Path) -> String {
    let Some((format, ending, program)) = packing(first) else {
        return match other_encoding(first) {
            Some(name) => format!("convert the file to UTF-8 (`iconv -f {name} -t UTF-8`)"),
            None => "convert the file to UTF-8 (`iconv -f ENCODING -t UTF-8`, with CP1252 for texts of old Windows programs) or download it again".to_string(),
        };
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
    if let Some(name) = other_encoding(&bytes) {
        let reason = format!("it is {name}: {}", encoding_remedy(&bytes, path));
        return Err(Error::new(ErrorKind::InvalidData, reason));
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

    #[test]
    fn other_encodings_are_named() {
        let utf16 = |text: &str, mark: bool| -> Vec<u8> {
            let mark = mark.then_some(0xfeff);
            let units = mark.into_iter().chain(text.encode_utf16());
            units.flat_map(u16::to_le_bytes).collect()
        };
        let swapped = |bytes: Vec<u8>| -> Vec<u8> {
            bytes
                .chunks(2)
                .flat_map(|pair| [pair[1], pair[0]])
                .collect()
        };
        let utf32 = |text: &str| -> Vec<u8> {
            text.chars()
                .flat_map(|c| u32::from(c).to_le_bytes())
                .collect()
        };
        for (bytes, name) in [
            (utf16("{}", true), Some("UTF-16")),
            (utf16("hi\nyou", false), Some("UTF-16LE")),
            (utf16("Привет, мир", false), Some("UTF-16LE")),
            (swapped(utf16("hi\nyou", false)), Some("UTF-16BE")),
            (utf32("\u{feff}hi"), Some("UTF-32")),
            (utf32("hi\nyou"), Some("UTF-32LE")),
            (b"\0\0\0h\0\0\0i".to_vec(), Some("UTF-32BE")),
            (b"hello\n".to_vec(), None),
            ("Привет".as_bytes().to_vec(), None),
            (b"a\0b".to_vec(), None),
            (b"\0\0\0\0".to_vec(), None),
            (b"\x89PNG\r\n\x1a\n\0\0\0\rIHDR".to_vec(), None),
            (b"\x01\x02\x03\x04".to_vec(), None),
            (Vec::new(), None),
        ] {
            assert_eq!(other_encoding(&bytes), name, "{bytes:?}");
        }
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("a.json");
        std::fs::write(&path, utf16("{}", true)).unwrap();
        let message = text(&path).unwrap_err().to_string();
        assert!(
            message.contains("it is UTF-16: convert") && message.contains("-f UTF-16 "),
            "{message}"
        );
        std::fs::write(&path, b"caf\xe9").unwrap();
        let message = text(&path).unwrap_err().to_string();
        assert!(
            message.contains("at byte 3") && message.contains("CP1252"),
            "{message}"
        );
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
