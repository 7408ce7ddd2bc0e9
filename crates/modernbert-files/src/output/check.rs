//! Checks of an output path, before the work.

use std::path::{Path, PathBuf};

use super::{OutputError, free_bytes};
use crate::atomic::{PendingFile, folder_of};

/// Name of the file that marks a checkpoint of a run.
const CHECKPOINT_MANIFEST: &str = "manifest.json";
const CHECKPOINT_STATE: &str = "state.json";

type Own<'a> = Box<dyn Fn(&Path) -> bool + 'a>;

/// Requirements of a program on its output path. [`Self::check`] changes nothing on the disk.
pub struct OutputCheck<'a> {
    path: &'a Path,
    is_folder: bool,
    inputs: Vec<PathBuf>,
    own: Option<Own<'a>>,
    overwrite: bool,
    remedy: String,
    needed: u64,
    argument: &'static str,
    resume: bool,
    format: Option<FileFormat>,
}

/// Format of an output file, which the ending of its name must not contradict.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum FileFormat {
    JsonLines,
    Run,
}

/// Endings of formats that are not run files: a reader would choose another one by them.
const NOT_RUNS: [&str; 12] = [
    "safetensors",
    "jsonl",
    "json",
    "csv",
    "parquet",
    "gz",
    "zst",
    "npy",
    "npz",
    "pt",
    "bin",
    "png",
];

/// The argument that names the output path in most programs.
const OUT: &str = "--out";

impl<'a> OutputCheck<'a> {
    /// A file that will be written. Its folder must exist, the file itself must not.
    pub fn file(path: &'a Path) -> Self {
        Self {
            path,
            is_folder: false,
            inputs: Vec::new(),
            own: None,
            overwrite: false,
            remedy: "give --out another name, or remove the file".to_string(),
            needed: 0,
            argument: OUT,
            resume: false,
            format: None,
        }
    }

    /// A folder that will be filled. It may be missing or empty; folders above it are made.
    pub fn folder(path: &'a Path) -> Self {
        Self {
            is_folder: true,
            remedy: "give --out a new folder".to_string(),
            ..Self::file(path)
        }
    }

    /// The file has JSON lines: its name ends in `.jsonl`.
    #[must_use]
    pub fn json_lines(mut self) -> Self {
        self.format = Some(FileFormat::JsonLines);
        self
    }

    /// The file is a run of TREC, whose name may have any ending but that of another format.
    #[must_use]
    pub fn trec_run(mut self) -> Self {
        self.format = Some(FileFormat::Run);
        self
    }

    /// Files and folders that the program reads: the output may neither be one of them nor be inside one.
    #[must_use]
    pub fn inputs<P: AsRef<Path>>(mut self, inputs: impl IntoIterator<Item = P>) -> Self {
        let paths = inputs.into_iter().map(|input| input.as_ref().to_path_buf());
        self.inputs.extend(paths);
        self
    }

    /// The argument that names the output path, for messages, where it is not `--out`.
    #[must_use]
    pub fn of_argument(mut self, argument: &'static str) -> Self {
        self.argument = argument;
        self
    }

    /// Accepts existing content of the output path if `own` returns true: the program wrote it.
    #[must_use]
    pub fn replaces(mut self, own: impl Fn(&Path) -> bool + 'a) -> Self {
        self.own = Some(Box::new(own));
        self
    }

    /// The program's `--overwrite`: accepts an existing regular file.
    #[must_use]
    pub fn overwrite(mut self, allowed: bool) -> Self {
        self.overwrite = allowed;
        self.remedy = "give --out another name, or pass --overwrite to replace it".to_string();
        self
    }

    /// The program's `--resume`: refuses a folder that is missing or empty, and accepts content of the output path if `own` returns true, a
    /// run that can be continued.
    #[must_use]
    pub fn resumes(self, resume: bool, own: impl Fn(&Path) -> bool + 'a) -> Self {
        if !resume {
            return self;
        }
        let mut check = self.replaces(own);
        check.resume = true;
        check.remedy =
            "there is no run in it to go on with: leave --resume out and give --out a new folder"
                .to_string();
        check
    }

    /// Bytes that will be written, where they are known.
    #[must_use]
    pub fn needs(mut self, bytes: u64) -> Self {
        self.needed = bytes;
        self
    }

    /// Checks that results can be written to the output path.
    ///
    /// # Errors
    /// The first fault, with its remedy.
    pub fn check(&self) -> Result<(), OutputError> {
        self.check_place().map_err(|error| match self.argument {
            OUT => error,
            other => OutputError::Argument(error.to_string().replace(OUT, other)),
        })
    }

    /// Checks the ending of the output path's name alone.
    ///
    /// # Errors
    /// The ending of another format.
    pub fn check_name(&self) -> Result<(), OutputError> {
        self.check_ending()
    }

    fn check_place(&self) -> Result<(), OutputError> {
        // In other programs this is standard output; a file of that name is removed with effort.
        if self.path == Path::new("-") {
            return Err(self.kind("not a sign for standard output here"));
        }
        self.check_inputs()?;
        if self.is_folder {
            self.check_folder()?;
        } else {
            self.check_file()?;
        }
        let existing = nearest_folder(self.path, self.is_folder);
        let unwritable = |source| OutputError::Unwritable {
            path: self.path.to_path_buf(),
            source,
        };
        // Only beginning a file also detects read-only file systems and access lists.
        PendingFile::create(&existing.join("x")).map_err(unwritable)?;
        let free = free_bytes(&existing).unwrap_or(u64::MAX);
        if free < self.needed {
            return Err(OutputError::Space {
                path: self.path.to_path_buf(),
                needed: self.needed,
                free,
            });
        }
        Ok(())
    }

    fn check_inputs(&self) -> Result<(), OutputError> {
        let place = resolved(self.path);
        for input in &self.inputs {
            // A Hub name, or a missing file, which its reader reports: before the place of the results is made under the same name.
            let Ok(read) = input.canonicalize() else {
                if resolved(input) == place {
                    return Err(OutputError::IsInput {
                        path: self.path.to_path_buf(),
                        input: input.clone(),
                    });
                }
                continue;
            };
            if read == place || same_file(&read, self.path) {
                return Err(OutputError::IsInput {
                    path: self.path.to_path_buf(),
                    input: input.clone(),
                });
            }
            if self.is_folder && read.starts_with(&place) {
                return Err(OutputError::ContainsInput {
                    path: self.path.to_path_buf(),
                    input: input.clone(),
                });
            }
            if read.is_dir() && place.starts_with(&read) {
                return Err(OutputError::InsideInput {
                    path: self.path.to_path_buf(),
                    input: input.clone(),
                });
            }
        }
        let is_checkpoint = |folder: &&Path| {
            folder.join(CHECKPOINT_MANIFEST).is_file() && folder.join(CHECKPOINT_STATE).is_file()
        };
        if let Some(folder) = place.ancestors().find(is_checkpoint) {
            return Err(OutputError::InsideCheckpoint {
                path: self.path.to_path_buf(),
                folder: folder.to_path_buf(),
            });
        }
        Ok(())
    }

    fn kind(&self, what: &'static str) -> OutputError {
        OutputError::Kind {
            path: self.path.to_path_buf(),
            what,
            wanted: if self.is_folder {
                "a new folder"
            } else {
                "the name of a new file"
            },
        }
    }

    fn check_ending(&self) -> Result<(), OutputError> {
        let ending = self.path.extension().unwrap_or_default();
        let ending = ending.to_string_lossy().to_lowercase();
        let wanted = match self.format {
            Some(FileFormat::JsonLines) if ending != "jsonl" => ".jsonl",
            Some(FileFormat::Run) if NOT_RUNS.contains(&ending.as_str()) => ".run or .txt",
            _ => return Ok(()),
        };
        Err(OutputError::Ending {
            path: self.path.to_path_buf(),
            wanted,
        })
    }

    fn check_file(&self) -> Result<(), OutputError> {
        if self.path.file_name().is_none() || names_a_folder(self.path) {
            return Err(self.kind("a folder"));
        }
        self.check_ending()?;
        let folder = folder_of(self.path);
        if !folder.is_dir() {
            return Err(OutputError::NoFolder {
                path: self.path.to_path_buf(),
                folder: folder.to_path_buf(),
            });
        }
        let Ok(found) = std::fs::symlink_metadata(self.path) else {
            return Ok(());
        };
        let kind = found.file_type();
        if kind.is_symlink() {
            return Err(self.kind("a symbolic link"));
        }
        if kind.is_dir() {
            return Err(self.kind("a folder"));
        }
        if !kind.is_file() {
            return Err(self.kind("a device or a pipe"));
        }
        if self.overwrite || self.own.as_ref().is_some_and(|own| own(self.path)) {
            return Ok(());
        }
        Err(OutputError::Exists {
            path: self.path.to_path_buf(),
            remedy: self.remedy.clone(),
        })
    }

    fn check_folder(&self) -> Result<(), OutputError> {
        let is_missing = || std::fs::symlink_metadata(self.path).is_err();
        let is_empty =
            || std::fs::read_dir(self.path).is_ok_and(|mut files| files.next().is_none());
        if self.resume && (is_missing() || is_empty()) {
            return Err(OutputError::NoRun {
                path: self.path.to_path_buf(),
            });
        }
        if std::fs::symlink_metadata(self.path).is_err() {
            let existing = nearest_existing(self.path);
            return match existing.is_dir() {
                true => Ok(()),
                false => Err(OutputError::Unwritable {
                    path: self.path.to_path_buf(),
                    source: std::io::Error::from(std::io::ErrorKind::NotADirectory),
                }),
            };
        }
        if !self.path.exists() {
            return Err(self.kind("a symbolic link that leads nowhere"));
        }
        if !self.path.is_dir() {
            return Err(self.kind("a file"));
        }
        let unreadable = |source| OutputError::Unwritable {
            path: self.path.to_path_buf(),
            source,
        };
        let first = std::fs::read_dir(self.path).map_err(unreadable)?.next();
        let Some(first) = first else { return Ok(()) };
        if self.own.as_ref().is_some_and(|own| own(self.path)) {
            return Ok(());
        }
        let found = first.map_err(unreadable)?.file_name();
        Err(OutputError::NotEmpty {
            path: self.path.to_path_buf(),
            found: found.to_string_lossy().into_owned(),
            remedy: self.remedy.clone(),
        })
    }
}

/// Returns true for `a/` and `a/.`, whose last component [`Path`] takes for a file name.
fn names_a_folder(path: &Path) -> bool {
    let text = path.to_string_lossy();
    let text = text.strip_suffix('.').unwrap_or(&text);
    text.ends_with(std::path::is_separator)
}

/// The first of some paths that names the file or folder of an earlier one, by the same spelling, another one or a link.
pub fn named_twice<P: AsRef<Path>>(paths: &[P]) -> Option<&Path> {
    let (_, second) = pair(paths, is_same)?;
    Some(paths[second].as_ref())
}

/// Returns the numbers of the first two of several paths that have a file in common: two names of one place, or a folder and something inside it.
pub fn overlap<P: AsRef<Path>>(paths: &[P]) -> Option<(usize, usize)> {
    pair(paths, |a, b| {
        let (real_a, real_b) = (resolved(a), resolved(b));
        is_same(a, b) || real_a.starts_with(&real_b) || real_b.starts_with(&real_a)
    })
}

fn is_same(a: &Path, b: &Path) -> bool {
    a == b || resolved(a) == resolved(b) || same_file(a, b)
}

fn pair<P: AsRef<Path>>(
    paths: &[P],
    belong: impl Fn(&Path, &Path) -> bool,
) -> Option<(usize, usize)> {
    paths.iter().enumerate().find_map(|(second, path)| {
        let earlier = &paths[..second];
        let first = earlier
            .iter()
            .position(|one| belong(one.as_ref(), path.as_ref()))?;
        Some((first, second))
    })
}

/// The nearest path at or above `path` that exists.
pub fn nearest_existing(path: &Path) -> PathBuf {
    let found = path
        .ancestors()
        .find(|above| !above.as_os_str().is_empty() && above.exists());
    found.unwrap_or(Path::new(".")).to_path_buf()
}

fn nearest_folder(path: &Path, is_folder: bool) -> PathBuf {
    if is_folder {
        nearest_existing(path)
    } else {
        folder_of(path).to_path_buf()
    }
}

/// `path` with its existing part resolved: links and `..` in it don't hide its target.
fn resolved(path: &Path) -> PathBuf {
    if let Ok(whole) = path.canonicalize() {
        return whole;
    }
    match (path.file_name(), path.parent()) {
        (Some(name), Some(parent)) if !parent.as_os_str().is_empty() => resolved(parent).join(name),
        (Some(name), _) => resolved(Path::new(".")).join(name),
        _ => path.to_path_buf(),
    }
}

/// What all names of a file have in common, hard links included: device and inode; not on Unix, its path without links.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct FileId(#[cfg(unix)] (u64, u64), #[cfg(not(unix))] PathBuf);

impl FileId {
    /// The identity of the file or folder at `path`, links followed; `None` if there is none.
    #[cfg(unix)]
    pub fn of(path: &Path) -> Option<Self> {
        use std::os::unix::fs::MetadataExt;
        let data = std::fs::metadata(path).ok()?;
        Some(Self((data.dev(), data.ino())))
    }

    /// The identity of the file or folder at `path`, links followed; `None` if there is none.
    #[cfg(not(unix))]
    pub fn of(path: &Path) -> Option<Self> {
        path.canonicalize().ok().map(Self)
    }
}

/// Returns true if two paths are names of one file.
fn same_file(a: &Path, b: &Path) -> bool {
    FileId::of(a).is_some_and(|a| Some(a) == FileId::of(b))
}
