//! The log of a resumed run.

use std::io::Read;
use std::path::Path;

use super::{METRICS_FILE, POSITIONS_FILE, RunDirError};

/// Cuts the log back to the rows up to `step`, because a run that is resumed there writes the later ones again. A last line
/// truncated by a crash is removed too. Returns the number of lines that were cut off.
///
/// # Errors
/// A log that can't be read or written.
pub(crate) fn cut_log(root: &Path, step: u64) -> Result<usize, RunDirError> {
    cut(root, POSITIONS_FILE, step)?;
    cut(root, METRICS_FILE, step)
}

fn cut(root: &Path, name: &str, step: u64) -> Result<usize, RunDirError> {
    let path = root.join(name);
    let mut file = match modernbert::read::open(&path) {
        Ok(file) => file,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(0),
        Err(error) => return Err(RunDirError::io(&path)(error)),
    };
    let mut text = Vec::new();
    file.read_to_end(&mut text)
        .map_err(RunDirError::io(&path))?;
    let (mut kept, mut cut) = (0, 0);
    for line in text.split_inclusive(|&byte| byte == b'\n') {
        let row: Option<serde_json::Value> = serde_json::from_slice(line).ok();
        let row_step = row.and_then(|row| row.get("step")?.as_u64());
        if cut == 0 && line.ends_with(b"\n") && row_step.is_some_and(|row| row <= step) {
            kept += line.len();
        } else {
            cut += 1;
        }
    }
    if kept < text.len() {
        modernbert::checkpoint::write_atomically(&path, &text[..kept])
            .map_err(RunDirError::io(&path))?;
    }
    Ok(cut)
}
