//! The PNG file of a plot: written completely or not at all, and marked as this project's.

use modernbert_files::atomic::write_atomically;
use std::fmt::Display;
use std::io::Read;
use std::path::Path;
use std::time::SystemTime;

use super::{PlotError, font_is_ready};

const SIGNATURE: [u8; 8] = *b"\x89PNG\r\n\x1a\n";
/// Length of the signature and the header chunk.
const HEAD: usize = 8 + 25;
/// Keyword and value of the text chunk that marks a plot as this project's.
const KEYWORD: &str = "Software";
const PROGRAM: &str = "modernbert plot";

/// Calls `draw` to fill the pixels of a plot (`size` is width and height; three bytes per pixel, row by row), and writes it to `path`.
pub(super) fn draw_file<E: Display>(
    path: &Path,
    size: (u32, u32),
    draw: impl FnOnce(&mut [u8]) -> Result<(), E>,
) -> Result<(), PlotError> {
    let draw_error = |message: &dyn Display| PlotError::Draw {
        path: path.to_owned(),
        message: message.to_string(),
    };
    let io_error = |source| PlotError::Io {
        path: path.to_owned(),
        source,
    };
    if !font_is_ready() {
        return Err(draw_error(&"the built-in font was refused"));
    }
    let before = state_of(path);
    let mut pixels = vec![0; 3 * size.0 as usize * size.1 as usize];
    draw(&mut pixels).map_err(|error| draw_error(&error))?;
    let picture = encoded(&pixels, size).map_err(|error| draw_error(&error))?;
    if state_of(path) != before {
        return Err(PlotError::Changed(path.to_owned()));
    }
    write_atomically(path, &picture).map_err(io_error)
}

/// Length and time of a file; they differ once another process has written it.
fn state_of(path: &Path) -> Option<(u64, SystemTime)> {
    let found = std::fs::metadata(path).ok()?;
    Some((found.len(), found.modified().ok()?))
}

/// The pixels as a PNG file, with the text chunk that marks it after the header.
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

/// Returns true if the file is a plot that `draw_file` wrote. Another file must not be replaced.
pub fn is_own_picture(path: &Path) -> bool {
    let mark = format!("{KEYWORD}\0{PROGRAM}");
    let mut start = vec![0; HEAD + 8 + mark.len()];
    let read = std::fs::File::open(path).and_then(|mut file| file.read_exact(&mut start));
    read.is_ok() && start.starts_with(&SIGNATURE) && start.ends_with(mark.as_bytes())
}
