//! The file of a picture: complete or not at all, and marked as this project's.

use modernbert_files::atomic::write_atomically;
use std::io::Read;
use std::path::Path;

use super::{PlotError, font_is_ready};

const SIGNATURE: [u8; 8] = *b"\x89PNG\r\n\x1a\n";
/// Length of the signature and of the header chunk behind it.
const HEAD: usize = 8 + 25;
/// Keyword and value of the text chunk that marks a picture as one of this project's.
const KEYWORD: &str = "Software";
const PROGRAM: &str = "modernbert plot";

/// Lets `draw` fill the pixels of a picture (`size` is width and height; three bytes a pixel, row by row), and writes it to `path`.
pub(super) fn draw_file(
    path: &Path,
    size: (u32, u32),
    draw: impl FnOnce(&mut [u8]) -> Result<(), String>,
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
    let mut pixels = vec![0; 3 * size.0 as usize * size.1 as usize];
    draw(&mut pixels).map_err(draw_error)?;
    let picture = encoded(&pixels, size).map_err(|error| draw_error(error.to_string()))?;
    write_atomically(path, &picture).map_err(io_error)
}

/// The pixels as a PNG file, with the text that marks it behind its header.
fn encoded(pixels: &[u8], (width, height): (u32, u32)) -> Result<Vec<u8>, png::EncodingError> {
    let mut file = Vec::new();
    let mut encoder = png::Encoder::new(&mut file, width, height);
    encoder.set_color(png::ColorType::Rgb);
    encoder.set_depth(png::BitDepth::Eight);
    encoder.add_text_chunk(KEYWORD.to_owned(), PROGRAM.to_owned())?;
    let mut writer = encoder.write_header()?;
    writer.write_image_data(pixels)?;
    writer.finish()?;
    Ok(file)
}

/// Whether the file is a picture that `draw_file` made. One that is not must not be replaced.
pub fn is_own_picture(path: &Path) -> bool {
    let mark = format!("{KEYWORD}\0{PROGRAM}");
    let mut start = vec![0; HEAD + 8 + mark.len()];
    let read = std::fs::File::open(path).and_then(|mut file| file.read_exact(&mut start));
    read.is_ok() && start.starts_with(&SIGNATURE) && start.ends_with(mark.as_bytes())
}
