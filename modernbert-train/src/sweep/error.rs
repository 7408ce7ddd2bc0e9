//! Errors of sweeps.

use modernbert::lock::LockError;
use modernbert::output::space_remedy;
use modernbert_cli::plot::PlotError;
use std::path::{Path, PathBuf};

use crate::recipe::RecipeError;
use crate::run_dir::RunDirError;

/// Reason why a sweep can't be read, begun or reported.
#[derive(Debug, thiserror::Error)]
pub enum SweepError {
    /// The grid can't be read.
    #[error(
        "{path}: the grid can't be read ({source}); give the path of a TOML file, or the name of a built-in grid: {names}",
        path = path.display()
    )]
    NoGrid {
        /// The file.
        path: PathBuf,
        /// Error of the operating system.
        source: std::io::Error,
        /// Names of the built-in grids.
        names: String,
    },
    /// The grid's text is invalid.
    #[error("{place}: {message}")]
    Grid {
        /// File and line.
        place: String,
        /// Fault and remedy.
        message: String,
    },
    /// A setting of the grid, or the base recipe.
    #[error(transparent)]
    Recipe(#[from] RecipeError),
    /// The recipe of a row is invalid.
    #[error("{source} (row {row}, {place})")]
    Row {
        /// Name of the row.
        row: String,
        /// File and line of its name.
        place: String,
        /// Description of the fault.
        source: Box<RecipeError>,
    },
    /// An argument contradicts the grid.
    #[error("{0}")]
    Argument(String),
    /// The folder can't take this sweep.
    #[error("{path}: {message}", path = path.display())]
    Folder {
        /// The folder, or a file in it.
        path: PathBuf,
        /// Fault and remedy.
        message: String,
    },
    /// A run's folder can't be read.
    #[error(transparent)]
    Run(#[from] RunDirError),
    /// Another process works on the sweep.
    #[error(transparent)]
    Lock(#[from] LockError),
    /// The picture can't be drawn.
    #[error(transparent)]
    Picture(#[from] PlotError),
    /// An error of the operating system.
    #[error("{path}: {source}{remedy}", path = path.display(), remedy = space_remedy(source))]
    Io {
        /// The file.
        path: PathBuf,
        /// The error.
        source: std::io::Error,
    },
}

impl SweepError {
    pub(super) fn io(path: &Path) -> impl Fn(std::io::Error) -> Self {
        move |source| Self::Io {
            path: path.to_path_buf(),
            source,
        }
    }

    pub(super) fn folder(path: &Path, message: impl Into<String>) -> Self {
        Self::Folder {
            path: path.to_path_buf(),
            message: message.into(),
        }
    }
}
