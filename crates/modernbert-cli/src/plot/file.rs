//! The file of a picture: complete or not at all, and marked as this project's.

use modernbert_files::atomic::write_atomically;
use std::io::Read;
use std::path::Path;

use super::{PlotError, font_is_ready};

const SIGNATURE: [u8; 8] = *b"\x89PNG\r\n\x1a\n";
/// Length of the signature and of the header chunk behind it.
const HEAD: usize = 8 + 25;
/// The text that marks a picture as one of ours: keyword, zero, value.
const MARK: &[u8] = b"Software\0modernbert plot";

/// Lets `draw` write a picture under a random name beside `path`, marks it, and gives it its name.
pub(super) fn draw_file(
    path: &Path,
    draw: impl FnOnce(&Path) -> Result<(), String>,
) -> Result<(), PlotError> {
    let draw_error = |message: String| PlotError::Draw {
        path: path.to_owned(),
        message,
    };
    let io_error = |source| PlotError::Io {
        path: path.to_owned(),
        source,
    };
    if !font_is_ready() {
        return Err(draw_error("the built-in font was refused".to_owned()));
    }
    let folder = path
        .parent()
        .filter(|folder| !folder.as_os_str().is_empty());
    // The drawing library chooses the format by the ending, and takes nothing but a path.
    let scratch = tempfile::Builder::new()
        .prefix(".partial-")
        .suffix(".png")
        .tempfile_in(folder.unwrap_or(Path::new(".")))
        .map_err(io_error)?;
    draw(scratch.path()).map_err(draw_error)?;
    let picture = std::fs::read(scratch.path()).map_err(io_error)?;
    drop(scratch);
    write_atomically(path, &marked(&picture)).map_err(io_error)
}

/// Whether the file is a picture that `draw_file` made. One that is not must not be replaced.
pub fn is_own_picture(path: &Path) -> bool {
    let mut start = [0; HEAD + 8 + MARK.len()];
    let read = std::fs::File::open(path).and_then(|mut file| file.read_exact(&mut start));
    read.is_ok() && start.starts_with(&SIGNATURE) && start.ends_with(MARK)
}

/// The picture with a text chunk behind its header.
fn marked(picture: &[u8]) -> Vec<u8> {
    if picture.len() < HEAD || !picture.starts_with(&SIGNATURE) {
        return picture.to_vec();
    }
    let typed = [b"tEXt", MARK].concat();
    let mut out = picture[..HEAD].to_vec();
    out.extend((MARK.len() as u32).to_be_bytes());
    out.extend(&typed);
    out.extend(crc(&typed).to_be_bytes());
    out.extend(&picture[HEAD..]);
    out
}

/// CRC-32 of a PNG chunk (ISO 3309).
fn crc(bytes: &[u8]) -> u32 {
    let step = |crc: u32, _| {
        let carry = crc & 1;
        (crc >> 1) ^ (0xEDB8_8320 * carry)
    };
    let all = bytes.iter().fold(u32::MAX, |crc, &byte| {
        (0..8).fold(crc ^ u32::from(byte), step)
    });
    !all
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_checksum_is_that_of_png() {
        // The chunk that ends every PNG file is empty and has a well-known checksum.
        assert_eq!(crc(b"IEND"), 0xAE42_6082);
    }
}
