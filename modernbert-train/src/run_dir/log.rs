//! The logs of a run: lengths and hashes of what the program wrote, and truncation of the logs when the run is resumed.

use std::collections::BTreeMap;
use std::io::Read;
use std::path::Path;

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};
use sha2::{Digest, Sha256};

use super::{METRICS_FILE, POSITIONS_FILE, RunDirError};
use crate::snapshot::{FileHash, hex};

/// Files whose rows have a step.
const LOGS: [&str; 2] = [METRICS_FILE, POSITIONS_FILE];

/// Lengths and hashes of a run's logs as the program wrote them, by which changed logs are recognized.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct LogNotes {
    /// Length and hash of each log up to the last note.
    files: BTreeMap<String, FileHash>,
    /// True if the process ended after the note; rows may follow if it was killed.
    complete: bool,
}

impl LogNotes {
    /// The logs as they are.
    ///
    /// # Errors
    /// A log that can't be read.
    pub(crate) fn of(root: &Path, complete: bool) -> Result<Self, RunDirError> {
        let mut notes = Self {
            complete,
            ..Self::default()
        };
        for name in LOGS {
            if let Some(text) = read(root, name)? {
                notes.add(name, &text);
            }
        }
        Ok(notes)
    }

    fn add(&mut self, name: &str, text: &[u8]) {
        let hash = FileHash {
            bytes: text.len() as u64,
            sha256: hex(&Sha256::digest(text)),
        };
        self.files.insert(name.to_owned(), hash);
    }

    /// Returns true if a log begins with the noted content, followed only by rows, or by nothing if the note is complete.
    fn fits(&self, name: &str, text: &[u8]) -> bool {
        let mut length = 0;
        if let Some(noted) = self.files.get(name) {
            length = usize::try_from(noted.bytes).unwrap_or(usize::MAX);
            let start = text.get(..length);
            if start.is_none_or(|start| hex(&Sha256::digest(start)) != noted.sha256) {
                return false;
            }
        }
        let rest = &text[length..];
        is_rows(rest, "step") && (rest.is_empty() || !self.complete)
    }
}

/// Refuses logs that the run did not write or that were changed since: those that `notes` know, or, where nothing was noted yet, those that
/// have anything but rows. A log that is missing has nothing to lose.
///
/// # Errors
/// The first such log; a file that can't be read.
pub(crate) fn check_logs(root: &Path, notes: Option<&LogNotes>) -> Result<(), RunDirError> {
    let unknown = LogNotes::default();
    let notes = notes.unwrap_or(&unknown);
    for name in LOGS {
        if read(root, name)?.is_some_and(|text| !notes.fits(name, &text)) {
            return Err(RunDirError::NotWritten(root.join(name)));
        }
    }
    Ok(())
}

/// Returns true if every complete line is a JSON object with `key`. A crash may have cut the last line short.
pub(super) fn is_rows(text: &[u8], key: &str) -> bool {
    let lines = text.split_inclusive(|&byte| byte == b'\n');
    let mut complete = lines.filter(|line| line.ends_with(b"\n"));
    complete.all(|line| {
        let row = serde_json::from_slice::<Map<String, Value>>(line);
        row.is_ok_and(|row| row.contains_key(key))
    })
}

/// The content of a log; `None` if there is none.
pub(super) fn read(root: &Path, name: &str) -> Result<Option<Vec<u8>>, RunDirError> {
    let path = root.join(name);
    let mut file = match modernbert::read::open(&path) {
        Ok(file) => file,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(RunDirError::io(&path)(error)),
    };
    let mut text = Vec::new();
    file.read_to_end(&mut text)
        .map_err(RunDirError::io(&path))?;
    Ok(Some(text))
}

/// Cuts the logs back to the rows up to `step`, because a run that is resumed there writes the later ones again. A last line
/// truncated by a crash is removed too. `note` receives what is left before anything is cut. Returns the number of lines that were cut off the
/// log of metrics.
///
/// # Errors
/// A log that can't be read or written; an error of `note`.
pub(crate) fn cut_log(
    root: &Path,
    step: u64,
    note: impl FnOnce(LogNotes) -> Result<(), RunDirError>,
) -> Result<usize, RunDirError> {
    let mut notes = LogNotes::default();
    let (mut shorter, mut cut) = (Vec::new(), 0);
    for name in LOGS {
        let Some(mut text) = read(root, name)? else {
            continue;
        };
        let (kept, lines) = kept(&text, step);
        notes.add(name, &text[..kept]);
        if name == METRICS_FILE {
            cut = lines;
        }
        if kept < text.len() {
            text.truncate(kept);
            shorter.push((root.join(name), text));
        }
    }
    note(notes)?;
    for (path, text) in shorter {
        modernbert::checkpoint::write_atomically(&path, &text).map_err(RunDirError::io(&path))?;
    }
    Ok(cut)
}

/// Bytes of a log up to `step`, and the number of lines after them.
fn kept(text: &[u8], step: u64) -> (usize, usize) {
    let (mut kept, mut cut) = (0, 0);
    for line in text.split_inclusive(|&byte| byte == b'\n') {
        let row: Option<Value> = serde_json::from_slice(line).ok();
        let row_step = row.and_then(|row| row.get("step")?.as_u64());
        if cut == 0 && line.ends_with(b"\n") && row_step.is_some_and(|row| row <= step) {
            kept += line.len();
        } else {
            cut += 1;
        }
    }
    (kept, cut)
}
