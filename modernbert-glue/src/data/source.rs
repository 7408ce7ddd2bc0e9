//! Source of GLUE: a folder on this machine, or a data set of the Hugging Face Hub.

use std::path::{Path, PathBuf};

use modernbert::checkpoint::ModelSource;

use crate::task::Task;

/// GLUE as people name it on a command line.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum DataSource {
    /// A folder that holds the folders of the tasks.
    Folder(PathBuf),
    /// A data set of the Hub that holds a folder of Parquet files per task, such as `nyu-mll/glue`.
    Hub(String),
}

/// Reason why a data set of the Hub is not available.
#[derive(Debug, thiserror::Error)]
pub enum DatasetSourceError {
    /// The Hub is needed, and the program was built without it.
    #[error(
        "there is no folder {0}; to load a data set of that name from the Hugging Face Hub, build with `--features hub`"
    )]
    NoHub(String),
    /// The Hub's error.
    #[cfg(feature = "hub")]
    #[error(transparent)]
    Hub(#[from] modernbert::checkpoint::hub::HubError),
}

impl DataSource {
    /// Parses a source: a folder if there is one of that name, else a name on the Hub if it can be one, else a folder that
    /// doesn't exist.
    pub fn parse(text: &str) -> Self {
        // Data sets are named by the same rule as models.
        match ModelSource::parse(text) {
            ModelSource::Hub(name) if !Path::new(text).exists() => Self::Hub(name),
            _ => Self::Folder(PathBuf::from(text)),
        }
    }

    /// The folder that holds the folders of these tasks; files of a data set of the Hub that are not in the cache are downloaded.
    ///
    /// # Errors
    /// The errors of a download. Missing tasks are an error when they are read.
    pub fn resolve(&self, tasks: &[Task]) -> Result<PathBuf, DatasetSourceError> {
        match self {
            Self::Folder(path) => Ok(path.clone()),
            #[cfg(feature = "hub")]
            Self::Hub(name) => {
                use modernbert::checkpoint::hub::{HubOptions, download_dataset};
                let names: Vec<&str> = tasks.iter().map(|task| task.name()).collect();
                let wanted = |file: &str| {
                    let folder = file.split_once('/').map(|(folder, _)| folder);
                    file.ends_with(".parquet")
                        && folder.is_some_and(|folder| names.contains(&folder))
                };
                let what = format!("Parquet files of {}", names.join(", "));
                Ok(download_dataset(
                    name,
                    &HubOptions::from_env()?,
                    &what,
                    &wanted,
                )?)
            }
            #[cfg(not(feature = "hub"))]
            Self::Hub(name) => {
                let _ = tasks;
                Err(DatasetSourceError::NoHub(name.clone()))
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn folders_come_before_names() {
        assert_eq!(
            DataSource::parse("nyu-mll/glue"),
            DataSource::Hub("nyu-mll/glue".to_string())
        );
        for path in ["./glue", "/data/glue", "src", "a/b/c"] {
            assert_eq!(
                DataSource::parse(path),
                DataSource::Folder(PathBuf::from(path))
            );
        }
    }
}
