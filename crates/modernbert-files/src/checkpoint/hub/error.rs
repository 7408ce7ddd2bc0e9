//! Errors of downloads from the Hugging Face Hub.

use std::path::PathBuf;

/// Reason why a model of the Hub is not available.
#[derive(Debug, thiserror::Error)]
pub enum HubError {
    /// No repository can have this name.
    #[error(
        "{0:?} is neither a folder nor the name of a model on the Hub; names look like organisation/model"
    )]
    Name(String),
    /// A variable of the environment has a value without a meaning.
    #[error("the environment variable {name} is {value:?}; set it to {expected}, or leave it out")]
    Variable {
        /// The variable.
        name: String,
        /// Its value.
        value: String,
        /// Description of the values that have a meaning.
        expected: &'static str,
    },
    /// A token that no server takes. It is not shown.
    #[error(
        "the token of the Hub (the environment variable HF_TOKEN, or the file that `hf auth login` writes) has blanks, line ends or characters outside of ASCII; set the \
         token alone, or leave it out"
    )]
    Token,
    /// No variable names the folder of the cache.
    #[error(
        "there is no folder for models of the Hub: neither HOME nor HF_HOME is set; set HF_HOME to a folder that you own, or pass a model's folder"
    )]
    NoCache,
    /// The Hub has no such model or revision.
    #[error(
        "{endpoint} has no model {name} with a revision {revision:?}, or keeps it private; check the name, or set HF_TOKEN"
    )]
    NotFound {
        /// The model.
        name: String,
        /// The requested revision.
        revision: String,
        /// The server.
        endpoint: String,
    },
    /// The Hub wants another token.
    #[error(
        "access to {name} is refused {}; accept the model's terms on its page and set HF_TOKEN to a token that may read it",
        if *token { "with this token" } else { "without a token" }
    )]
    Forbidden {
        /// The model.
        name: String,
        /// True if a token was sent.
        token: bool,
    },
    /// The repository lacks a file.
    #[error(
        "the model {name} has no {file}; only repositories with config.json and safetensors weights can be loaded"
    )]
    NoFile {
        /// The model.
        name: String,
        /// The file.
        file: String,
    },
    /// The data set has none of the wanted files.
    #[error("the data set {name} has no {wanted}; name a data set that has them, or give a folder")]
    NoData {
        /// The data set.
        name: String,
        /// Description of the missing files.
        wanted: String,
    },
    /// The server can't be reached.
    #[error("{endpoint} could not be reached: {reason}")]
    Unreachable {
        /// The server.
        endpoint: String,
        /// Error of the network.
        reason: String,
    },
    /// Neither the server nor the cache has the model.
    #[error(
        "{name} (revision {revision}) is not complete in the cache {}, and {reason}; connect once, or pass a folder", cache.display()
    )]
    NotCached {
        /// The model.
        name: String,
        /// The requested revision.
        revision: String,
        /// The cache.
        cache: PathBuf,
        /// Reason why the server was not asked, or its error.
        reason: String,
    },
    /// A transfer was interrupted.
    #[error(
        "{file} of {name} could not be downloaded ({reason}); try again, the transfer continues"
    )]
    Transfer {
        /// The model.
        name: String,
        /// The file.
        file: String,
        /// Error of the network.
        reason: String,
    },
    /// A file arrived with another length.
    #[error("{file} of {name} arrived with {found} of {expected} bytes and was removed; try again")]
    Incomplete {
        /// The model.
        name: String,
        /// The file.
        file: String,
        /// Bytes received.
        found: u64,
        /// Bytes announced.
        expected: u64,
    },
    /// The server's response is invalid.
    #[error("{endpoint} returns an invalid response about {name}: {reason}; check HF_ENDPOINT")]
    Answer {
        /// The server.
        endpoint: String,
        /// The model.
        name: String,
        /// Description of the fault.
        reason: String,
    },
    /// The cache can't be written.
    #[error("{}: {source}; set HF_HUB_CACHE to a folder you may write to", path.display())]
    Io {
        /// The file or folder.
        path: PathBuf,
        /// Error of the operating system.
        source: std::io::Error,
    },
}

impl HubError {
    pub(super) fn variable(name: &str, value: &str, expected: &'static str) -> Self {
        Self::Variable {
            name: name.to_owned(),
            value: value.to_owned(),
            expected,
        }
    }
}
