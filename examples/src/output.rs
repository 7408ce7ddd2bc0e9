//! Results on standard output, or in a file that appears complete or not at all.

use modernbert::atomic::PendingFile;
use modernbert::output::{OutputCheck, OutputError};
use modernbert::wording::printable_lines;
use modernbert_cli::{check_stdout, unwritten};
use std::ffi::OsStr;
use std::io::{BufWriter, Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};

/// Lines of text, on standard output or into a file.
pub enum Lines {
    /// Standard output.
    Standard(BufWriter<std::io::Stdout>),
    /// An unfinished file.
    File(PartialFile),
}

/// A file that is being written.
pub struct PartialFile {
    path: PathBuf,
    file: BufWriter<PendingFile>,
}

/// Checks an `--out` of JSON lines before any work: as [`check_out`], with a name that ends in `.jsonl`.
///
/// # Errors
/// As [`check_out`]; another ending.
pub fn check_lines_out(
    out: Option<&Path>,
    model: impl AsRef<Path>,
    input: Option<&OsStr>,
) -> anyhow::Result<()> {
    if let Some(out) = out {
        OutputCheck::file(out).json_lines().check_name()?;
    }
    check_out(out, model, input)
}

/// Checks `--out` before any work: a new file in a folder that can be written, and neither the input nor inside the model's folder.
///
/// # Errors
/// The first reason why the path can't be used, with a remedy.
pub fn check_out(
    out: Option<&Path>,
    model: impl AsRef<Path>,
    input: Option<&OsStr>,
) -> anyhow::Result<()> {
    if let Some(out) = out {
        let inputs = [Some(model.as_ref()), input.map(Path::new)]
            .into_iter()
            .flatten();
        OutputCheck::file(out).inputs(inputs).check()?;
    }
    Ok(())
}

/// Checks that `bytes` of results fit on the disk of `--out`; called when the model is loaded, since the size depends on it.
///
/// # Errors
/// Too little space, with a remedy.
pub fn check_space(out: &Path, bytes: u64) -> anyhow::Result<()> {
    Ok(OutputCheck::file(out).needs(bytes).check()?)
}

fn failed(path: &Path) -> impl FnOnce(std::io::Error) -> OutputError {
    OutputError::write(path)
}

impl PartialFile {
    /// Begins `path`.
    ///
    /// # Errors
    /// A folder that can't be written.
    pub fn create(path: &Path) -> anyhow::Result<Self> {
        let file = PendingFile::create(path).map_err(failed(path))?;
        Ok(Self {
            path: path.to_path_buf(),
            file: BufWriter::new(file),
        })
    }

    fn write(&mut self, bytes: &[u8]) -> anyhow::Result<()> {
        Ok(self.file.write_all(bytes).map_err(failed(&self.path))?)
    }

    /// Gives the complete file its name.
    ///
    /// # Errors
    /// An error of the operating system.
    pub fn commit(self) -> anyhow::Result<()> {
        let place = self.path;
        let file = self.file.into_inner();
        let file = file.map_err(|error| failed(&place)(error.into_error()))?;
        Ok(file.commit_new().map_err(failed(&place))?)
    }
}

impl Lines {
    /// Opens `path` for lines, or standard output if there is none.
    ///
    /// # Errors
    /// A folder that can't be written; a standard output that is closed.
    pub fn new(path: Option<&Path>) -> anyhow::Result<Self> {
        Ok(match path {
            Some(path) => Self::File(PartialFile::create(path)?),
            None => {
                check_stdout()?;
                Self::Standard(BufWriter::new(std::io::stdout()))
            }
        })
    }

    /// Writes a line.
    ///
    /// # Errors
    /// An error of the operating system.
    pub fn line(&mut self, text: &str) -> anyhow::Result<()> {
        match self {
            // Texts and labels may have characters that control a terminal.
            Self::Standard(out) => writeln!(out, "{}", printable_lines(text)).map_err(unwritten),
            Self::File(part) => part.write(format!("{text}\n").as_bytes()),
        }
    }

    /// Flushes the lines so far to standard output, whose reader may be waiting for them.
    ///
    /// # Errors
    /// An error of the operating system.
    pub fn flush(&mut self) -> anyhow::Result<()> {
        match self {
            Self::Standard(out) => out.flush().map_err(unwritten),
            Self::File(_) => Ok(()),
        }
    }

    /// Finishes the output after the last line.
    ///
    /// # Errors
    /// An error of the operating system.
    pub fn commit(self) -> anyhow::Result<()> {
        match self {
            Self::Standard(mut out) => out.flush().map_err(unwritten),
            Self::File(part) => part.commit(),
        }
    }
}

/// A safetensors file of one matrix whose number of rows is known only at the end: rows are written as they are computed, and the header
/// is written last, into space reserved for it.
pub struct MatrixFile {
    part: PartialFile,
    metadata: serde_json::Value,
    width: usize,
    rows: usize,
    header: usize,
}

impl MatrixFile {
    /// Begins a matrix of this width; `metadata` is an object of strings.
    ///
    /// # Errors
    /// A folder that can't be written.
    pub fn create(path: &Path, width: usize, metadata: serde_json::Value) -> anyhow::Result<Self> {
        let mut part = PartialFile::create(path)?;
        // Reserves space for two numbers of twenty digits in addition to the fixed text.
        let header = (metadata.to_string().len() + 200).next_multiple_of(8);
        part.write(&vec![b' '; 8 + header])?;
        Ok(Self {
            part,
            metadata,
            width,
            rows: 0,
            header,
        })
    }

    /// Writes a row.
    ///
    /// # Errors
    /// An error of the operating system.
    pub fn push(&mut self, row: &[f32]) -> anyhow::Result<()> {
        debug_assert_eq!(row.len(), self.width);
        self.rows += 1;
        for value in row {
            self.part.write(&value.to_le_bytes())?;
        }
        Ok(())
    }

    /// Writes the header and publishes the file under its name.
    ///
    /// # Errors
    /// An error of the operating system.
    pub fn commit(mut self) -> anyhow::Result<()> {
        let end = self.rows * self.width * 4;
        let mut header = serde_json::json!({
            "__metadata__": self.metadata,
            "embeddings": {"dtype": "F32", "shape": [self.rows, self.width], "data_offsets": [0, end]},
        })
        .to_string();
        anyhow::ensure!(
            header.len() <= self.header,
            "the header of the file needs more room than was left"
        );
        header.push_str(&" ".repeat(self.header - header.len()));
        let sought = self.part.file.seek(SeekFrom::Start(0));
        sought.map_err(failed(&self.part.path))?;
        self.part.write(&(self.header as u64).to_le_bytes())?;
        self.part.write(header.as_bytes())?;
        self.part.commit()
    }
}
