//! What can go wrong between a name and a folder.

use std::path::PathBuf;

/// Why a model of the Hub can't be had.
#[derive(Debug, thiserror::Error)]
pub enum HubError {
    /// No repository can have this name.
    #[error(
        "{0:?} is neither a folder nor the name of a model on the Hub; names look like organisation/model"
    )]
    Name(String),
    /// No variable says where models are kept.
    #[error(
        "there is no folder for models of the Hub: neither HOME nor HF_HOME is set; set HF_HOME to a folder of yours, or pass a model's folder"
    )]
    NoCache,
    /// The Hub has no such model or revision.
    #[error(
        "{endpoint} has no model {name} with a revision {revision:?}, or keeps it private; check the name, or set HF_TOKEN"
    )]
    NotFound {
        /// The model.
        name: String,
        /// The revision asked for.
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
        /// Whether a token was sent.
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
    /// The data set has none of the files that were asked for.
    #[error("the data set {name} has no {wanted}; name a data set that has them, or give a folder")]
    NoData {
        /// The data set.
        name: String,
        /// What was looked for.
        wanted: String,
    },
    /// The server can't be reached.
    #[error("{endpoint} could not be reached: {reason}")]
    Unreachable {
        /// The server.
        endpoint: String,
        /// What the network said.
        reason: String,
    },
    /// Neither the server nor the cache has it.
    #[error(
        "{name} (revision {revision}) is not complete in the cache {}, and {reason}; connect once, or pass a folder", cache.display()
    )]
    NotCached {
        /// The model.
        name: String,
        /// The revision asked for.
        revision: String,
        /// The cache.
        cache: PathBuf,
        /// Why the server was not asked, or what came of it.
        reason: String,
    },
    /// A transfer broke off.
    #[error(
        "{file} of {name} could not be downloaded ({reason}); try again, it goes on where it stopped"
    )]
    Transfer {
        /// The model.
        name: String,
        /// The file.
        file: String,
        /// What the network said.
        reason: String,
    },
    /// A file arrived with another length.
    #[error("{file} of {name} arrived with {found} of {expected} bytes and was removed; try again")]
    Incomplete {
        /// The model.
        name: String,
        /// The file.
        file: String,
        /// Bytes that came.
        found: u64,
        /// Bytes that were announced.
        expected: u64,
    },
    /// The server says something that makes no sense.
    #[error("{endpoint} gives a strange answer about {name}: {reason}; check HF_ENDPOINT")]
    Answer {
        /// The server.
        endpoint: String,
        /// The model.
        name: String,
        /// What is strange.
        reason: String,
    },
    /// The cache can't be written.
    #[error("{}: {source}; set HF_HUB_CACHE to a folder you may write to", path.display())]
    Io {
        /// The file or folder.
        path: PathBuf,
        /// What the system said.
        source: std::io::Error,
    },
}
