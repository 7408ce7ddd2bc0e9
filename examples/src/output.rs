//! Where results go: standard output, or a file that appears whole or not at all.

use anyhow::Context;
use std::io::{BufWriter, Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};
use tempfile::NamedTempFile;

/// Lines of text, on standard output or into a file.
pub enum Lines {
    /// Standard output.
    Standard(BufWriter<std::io::Stdout>),
    /// A file in the making.
    File(Part),
}

/// A file that is still written under a temporary name.
pub struct Part {
    path: PathBuf,
    file: BufWriter<NamedTempFile>,
}

impl Part {
    /// Begins `path` beside where it will be.
    ///
    /// # Errors
    /// A folder that can't be written.
    pub fn create(path: &Path) -> anyhow::Result<Self> {
        let folder = path
            .parent()
            .filter(|folder| !folder.as_os_str().is_empty());
        let folder = folder.unwrap_or(Path::new("."));
        let file = NamedTempFile::new_in(folder)
            .with_context(|| format!("{} can't be written; check --out", path.display()))?;
        Ok(Self {
            path: path.to_path_buf(),
            file: BufWriter::new(file),
        })
    }

    /// Puts the file in its place.
    ///
    /// # Errors
    /// What the operating system refuses.
    pub fn finish(self) -> anyhow::Result<()> {
        let place = self.path.display().to_string();
        let failed = || format!("{place} can't be written");
        let file = self.file.into_inner().with_context(failed)?;
        #[cfg(unix)]
        {
            use std::os::unix::fs::PermissionsExt;
            let mode = std::fs::Permissions::from_mode(0o644);
            std::fs::set_permissions(file.path(), mode).with_context(failed)?;
        }
        file.persist(&self.path).with_context(failed)?;
        Ok(())
    }
}

impl Lines {
    /// Lines into `path`, or onto standard output.
    ///
    /// # Errors
    /// A folder that can't be written.
    pub fn new(path: Option<&Path>) -> anyhow::Result<Self> {
        Ok(match path {
            Some(path) => Self::File(Part::create(path)?),
            None => Self::Standard(BufWriter::new(std::io::stdout())),
        })
    }

    /// One more line.
    ///
    /// # Errors
    /// What the operating system refuses.
    pub fn line(&mut self, text: &str) -> anyhow::Result<()> {
        match self {
            Self::Standard(out) => writeln!(out, "{text}"),
            Self::File(part) => writeln!(part.file, "{text}"),
        }
        .context("the results can't be written")
    }

    /// After the last line.
    ///
    /// # Errors
    /// What the operating system refuses.
    pub fn finish(self) -> anyhow::Result<()> {
        match self {
            Self::Standard(mut out) => out.flush().context("the results can't be written"),
            Self::File(part) => part.finish(),
        }
    }
}

/// A safetensors file of one matrix whose number of rows shows only at the end: rows are written as they come, and the
/// header, for which room was left, after them.
pub struct MatrixFile {
    part: Part,
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
        let mut part = Part::create(path)?;
        // Room for two numbers of twenty digits beside the fixed words.
        let header = (metadata.to_string().len() + 200).next_multiple_of(8);
        part.file.write_all(&vec![b' '; 8 + header])?;
        Ok(Self {
            part,
            metadata,
            width,
            rows: 0,
            header,
        })
    }

    /// One more row.
    ///
    /// # Errors
    /// What the operating system refuses.
    pub fn push(&mut self, row: &[f32]) -> anyhow::Result<()> {
        debug_assert_eq!(row.len(), self.width);
        self.rows += 1;
        for value in row {
            self.part.file.write_all(&value.to_le_bytes())?;
        }
        Ok(())
    }

    /// Writes the header and puts the file in its place.
    ///
    /// # Errors
    /// What the operating system refuses.
    pub fn finish(mut self) -> anyhow::Result<()> {
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
        self.part.file.seek(SeekFrom::Start(0))?;
        self.part
            .file
            .write_all(&(self.header as u64).to_le_bytes())?;
        self.part.file.write_all(header.as_bytes())?;
        self.part.finish()
    }
}
