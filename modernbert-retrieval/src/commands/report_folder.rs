//! The folder of an evaluation: run files, a page, a picture, and a report that lists them with their hashes.

use std::io::Write;
use std::path::{Path, PathBuf};

use anyhow::Context;
use modernbert_cli::plot::PlotError;
use modernbert_files::atomic::{PendingFile, write_atomically, write_new};
use modernbert_files::output::{OutputCheck, OutputError, nearest_existing};
use modernbert_retrieval::run::Run;
use modernbert_train::snapshot::hex;
use serde_json::{Map, Value};
use sha2::{Digest, Sha256};

use super::common::make_folder;

/// The file by which a folder of results is recognized, written last.
const REPORT_FILE: &str = "evaluation.json";
/// The report's key for the files and their hashes.
const FILES: &str = "files";

/// A run file that appears with the report.
pub(crate) struct PendingRun {
    file: PendingFile,
    sha256: String,
}

impl PendingRun {
    /// Writes a run, without its name, to the disk of `--out`.
    pub(crate) fn new(out: &Path, target: &Path, run: &Run) -> anyhow::Result<Self> {
        let content = run.text(target)?;
        let file = PendingFile::create_in(&nearest_existing(out), target);
        let mut file = file.map_err(OutputError::write(target))?;
        file.write_all(&content)
            .map_err(OutputError::write(target))?;
        Ok(Self {
            file,
            sha256: sha256_of(&content),
        })
    }
}

fn sha256_of(content: &[u8]) -> String {
    hex(&Sha256::digest(content))
}

/// Returns true if a folder contains a report and only the files that the report lists, unchanged.
pub(crate) fn is_own_report(folder: &Path) -> bool {
    let report = modernbert_files::read::text(&folder.join(REPORT_FILE)).unwrap_or_default();
    let report: Value = serde_json::from_str(&report).unwrap_or_default();
    let Some(listed) = report[FILES].as_object() else {
        return false;
    };
    let is_listed = |name: &str, path: &Path| {
        let written = listed.get(name).and_then(Value::as_str);
        let content = modernbert_files::read::bytes(path).ok();
        written.is_some() && content.map(|content| sha256_of(&content)).as_deref() == written
    };
    contents(folder).is_some_and(|files| {
        files
            .iter()
            .all(|name| name == REPORT_FILE || is_listed(name, &folder.join(name)))
    })
}

/// Names of the files in a folder and in the folders in it, separated by `/`; `None` for links, deeper folders and names that are not UTF-8.
fn contents(folder: &Path) -> Option<Vec<String>> {
    let entries = |folder: &Path| -> Option<Vec<(String, bool)>> {
        let entries = std::fs::read_dir(folder).ok()?.map(|entry| {
            let entry = entry.ok()?;
            let kind = entry.file_type().ok()?;
            let known = kind.is_dir() || kind.is_file();
            known.then_some((entry.file_name().into_string().ok()?, kind.is_dir()))
        });
        entries.collect()
    };
    let mut files = Vec::new();
    for (name, is_folder) in entries(folder)? {
        if !is_folder {
            files.push(name);
            continue;
        }
        for (file, is_folder) in entries(&folder.join(&name))? {
            if is_folder {
                return None;
            }
            files.push(format!("{name}/{file}"));
        }
    }
    Some(files)
}

/// The folder of a report that is being written.
pub(crate) struct ReportFolder<'a> {
    out: &'a Path,
    was_there: bool,
    /// Names of the files of the report that is replaced.
    old: Vec<String>,
    /// Names of the files written so far, and their hashes.
    made: Map<String, Value>,
}

impl<'a> ReportFolder<'a> {
    /// Opens a folder that is new, empty, or holds a report of this program alone.
    pub(crate) fn open(out: &'a Path) -> anyhow::Result<Self> {
        OutputCheck::folder(out).replaces(is_own_report).check()?;
        let was_there = out.exists();
        let old = contents(out).unwrap_or_default();
        make_folder(out)?;
        Ok(Self {
            out,
            was_there,
            old,
            made: Map::new(),
        })
    }

    fn is_old(&self, name: &str) -> bool {
        self.old.iter().any(|old| old == name)
    }

    /// Writes a file. Only one of the old report is replaced.
    pub(crate) fn write(&mut self, name: &str, content: &[u8]) -> anyhow::Result<()> {
        let path = self.out.join(name);
        let written = match self.is_old(name) {
            true => write_atomically(&path, content),
            false => write_new(&path, content),
        };
        written.map_err(OutputError::write(path))?;
        self.made
            .insert(name.to_string(), sha256_of(content).into());
        Ok(())
    }

    /// Gives a run its name; as [`Self::write`].
    pub(crate) fn commit(&mut self, run: PendingRun) -> anyhow::Result<()> {
        let target = run.file.target().to_path_buf();
        if let Some(folder) = target.parent() {
            make_folder(folder)?;
        }
        let name = target.strip_prefix(self.out).unwrap_or(&target);
        let parts = name.components();
        let parts = parts.map(|part| part.as_os_str().to_string_lossy());
        let name = parts.collect::<Vec<_>>().join("/");
        let committed = match self.is_old(&name) {
            true => run.file.commit(),
            false => run.file.commit_new(),
        };
        committed.map_err(OutputError::write(target))?;
        self.made.insert(name, run.sha256.into());
        Ok(())
    }

    /// Draws a picture.
    pub(crate) fn draw(
        &mut self,
        name: &str,
        draw: impl FnOnce(&Path) -> Result<(), PlotError>,
    ) -> anyhow::Result<()> {
        let path = self.out.join(name);
        draw(&path)?;
        let drawn = modernbert_files::read::bytes(&path)
            .with_context(|| format!("{}: cannot be read", path.display()))?;
        self.made.insert(name.to_string(), sha256_of(&drawn).into());
        Ok(())
    }

    /// Writes the report with the list of the other files.
    pub(crate) fn write_report(&mut self, mut report: Value) -> anyhow::Result<()> {
        report[FILES] = Value::Object(self.made.clone());
        self.write(REPORT_FILE, &serde_json::to_vec_pretty(&report)?)
    }

    /// Removes the files of the replaced report that the new one has not, such as runs on other sets, and returns the new files but for the
    /// runs.
    pub(crate) fn finish(self) -> anyhow::Result<Vec<PathBuf>> {
        let gone = |name: &&String| !self.made.contains_key(*name);
        for name in self.old.iter().filter(gone) {
            let path = self.out.join(name);
            std::fs::remove_file(&path)
                .with_context(|| format!("{}: cannot be removed", path.display()))?;
        }
        let names = self.made.keys().filter(|name| !name.contains('/'));
        Ok(names.map(|name| self.out.join(name)).collect())
    }

    /// Removes the new files. If that fails too, the error of writing names the folder.
    pub(crate) fn undo(&self) {
        for name in self.made.keys().filter(|name| !self.is_old(name)) {
            let path = self.out.join(name);
            let _ = std::fs::remove_file(&path);
            // Folders of runs; one that is not empty stays.
            if let Some(folder) = path.parent().filter(|folder| *folder != self.out) {
                let _ = std::fs::remove_dir(folder);
            }
        }
        if !self.was_there {
            let _ = std::fs::remove_dir(self.out);
        }
    }
}
