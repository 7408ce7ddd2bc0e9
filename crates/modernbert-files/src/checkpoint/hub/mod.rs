//! Models by name from the Hugging Face Hub, cached where Python's libraries cache them (feature `hub`).
//!
//! [`download`] requests the commit of a revision, and downloads the files of that commit that are not in the cache
//! yet: models that Python downloaded are not downloaded again, and vice versa. If the Hub can't be reached, the
//! cache is used. A server that doesn't respond, or a transfer that stalls, is an error after a timeout; the next download
//! continues the transfer.
//!
//! | variable | meaning |
//! |---|---|
//! | `HF_HOME` | folder of cache and token; `$XDG_CACHE_HOME/huggingface` or `~/.cache/huggingface` by default |
//! | `HF_HUB_CACHE` | folder of the cache alone; `$HF_HOME/hub` by default |
//! | `HF_TOKEN` | token for private and gated models; else the file `HF_TOKEN_PATH`, `$HF_HOME/token` by default |
//! | `HF_HUB_DISABLE_IMPLICIT_TOKEN` | 1: send no token |
//! | `HF_HUB_OFFLINE` | 1: use the cache alone; a value that is neither on nor off is refused |
//! | `HF_HUB_DOWNLOAD_TIMEOUT` | seconds without any data after which a transfer is given up; 30 by default |
//! | `HF_ENDPOINT` | another server with the same interface |

mod cache;
mod client;
mod error;
mod options;

pub use error::HubError;
pub use options::HubOptions;

use std::path::{Path, PathBuf};

use super::source::is_repository;
use super::{CONFIG_FILE, WEIGHTS_FILE};
use crate::sentences::{LENGTH_FILE, MODULES_FILE, PROMPTS_FILE};
use cache::Cached;
use client::{Client, Info, RequestError};

/// The reason why the server is not asked.
const OFFLINE: &str = "only the cache may be used (HF_HUB_OFFLINE is set, or offline is asked for)";
const INDEX_FILE: &str = "model.safetensors.index.json";
/// Files that are downloaded if the repository has them.
const EXTRAS: [&str; 6] = [
    "tokenizer.json",
    "tokenizer_config.json",
    "special_tokens_map.json",
    MODULES_FILE,
    LENGTH_FILE,
    PROMPTS_FILE,
];

/// Returns true for a file of a model in addition to its config and weights: one of [`EXTRAS`], or a pooling config.
fn is_extra(file: &str) -> bool {
    let pooling = file.strip_suffix("/config.json");
    EXTRAS.contains(&file) || pooling.is_some_and(|folder| folder.ends_with("_Pooling"))
}

/// The folder, inside the cache, with config, weights and tokenizer of the model `name` at the wanted revision.
///
/// # Errors
/// A name or revision that the Hub doesn't have or refuses to this token; no safetensors weights; no network and nothing
/// in the cache; an interrupted transfer.
pub fn download(name: &str, options: &HubOptions) -> Result<PathBuf, HubError> {
    check(name, options)?;
    let cached = Cached::new(name, options);
    // A commit never changes: if it is in the cache, no request is needed.
    if cache::is_commit(&options.revision)
        && let Some(folder) = cached.complete()
    {
        return Ok(folder);
    }
    let fetch = || Session::new(name, RepoKind::Model, options).fetch(&cached);
    fetched_or_cached(name, options, fetch, || cached.complete())
}

/// Checks the name of a repository and the place of the cache.
fn check(name: &str, options: &HubOptions) -> Result<(), HubError> {
    if !is_repository(name) {
        return Err(HubError::Name(name.to_string()));
    }
    if options.cache.as_os_str().is_empty() {
        return Err(HubError::NoCache);
    }
    Ok(())
}

/// The result of `fetch`, or where the server is not asked or can't be reached, that of the cache.
fn fetched_or_cached(
    name: &str,
    options: &HubOptions,
    fetch: impl FnOnce() -> Result<PathBuf, HubError>,
    in_cache: impl FnOnce() -> Option<PathBuf>,
) -> Result<PathBuf, HubError> {
    let fetched = match options.offline {
        true => Err(OFFLINE.to_string()),
        false => match fetch() {
            Err(HubError::Unreachable { reason, .. }) => Err(format!(
                "{} could not be reached: {reason}",
                options.endpoint
            )),
            other => Ok(other),
        },
    };
    match fetched {
        Ok(fetched) => fetched,
        Err(reason) => in_cache().ok_or_else(|| HubError::NotCached {
            name: name.to_string(),
            revision: options.revision.clone(),
            cache: options.cache.clone(),
            reason,
        }),
    }
}

/// The folder, inside the cache, with those files of the data set `name` that `wanted` picks by their path in it.
///
/// `what` describes them in errors, as in `Parquet files of cola`.
///
/// # Errors
/// As [`download`]; none of the wanted files in the data set or, without a network, in the cache.
pub fn download_dataset(
    name: &str,
    options: &HubOptions,
    what: &str,
    wanted: &dyn Fn(&str) -> bool,
) -> Result<PathBuf, HubError> {
    check(name, options)?;
    let cached = Cached::dataset(name, options);
    let fetch =
        || Session::new(name, RepoKind::Dataset, options).fetch_files(&cached, what, wanted);
    let in_cache = || {
        let folder = cached.known();
        folder.filter(|folder| cache::holds(folder, wanted))
    };
    fetched_or_cached(name, options, fetch, in_cache)
}

/// Kind of a repository.
#[derive(Clone, Copy, PartialEq, Eq)]
enum RepoKind {
    Model,
    Dataset,
}

/// Requests to the Hub about one model or data set.
struct Session<'a> {
    name: &'a str,
    kind: RepoKind,
    options: &'a HubOptions,
    client: Client,
}

impl<'a> Session<'a> {
    fn new(name: &'a str, kind: RepoKind, options: &'a HubOptions) -> Self {
        Self {
            name,
            kind,
            options,
            client: Client::new(options),
        }
    }

    /// The commit and the files of the wanted revision.
    fn info(&self) -> Result<Info, HubError> {
        let kind = match self.kind {
            RepoKind::Model => "models",
            RepoKind::Dataset => "datasets",
        };
        let info = self.client.info(kind, self.name, &self.options.revision);
        let info = info.map_err(|error| self.explain(error, None))?;
        if !cache::is_commit(&info.sha) {
            return Err(self.strange(format!("{:?} is no commit", info.sha)));
        }
        Ok(info)
    }

    fn fetch_files(
        &self,
        cached: &Cached,
        what: &str,
        wanted: &dyn Fn(&str) -> bool,
    ) -> Result<PathBuf, HubError> {
        let info = self.info()?;
        let files = info.siblings.iter().map(|sibling| &sibling.name);
        let files: Vec<&String> = files.filter(|file| wanted(file)).collect();
        if files.is_empty() {
            return Err(HubError::NoData {
                name: self.name.to_string(),
                wanted: what.to_string(),
            });
        }
        for file in files {
            if !is_path(file) {
                return Err(self.strange(format!("{file:?} is no name of a file")));
            }
            self.file(cached, &info.sha, file)?;
        }
        self.point(cached, &info.sha)?;
        Ok(cached.snapshot(&info.sha))
    }

    /// Notes in the cache that the wanted revision is this commit.
    fn point(&self, cached: &Cached, commit: &str) -> Result<(), HubError> {
        let pointed = cached.point(&self.options.revision, commit);
        pointed.map_err(|source| HubError::Io {
            path: self.options.cache.clone(),
            source,
        })
    }

    fn fetch(&self, cached: &Cached) -> Result<PathBuf, HubError> {
        let info = self.info()?;
        // Every file is requested at that commit, so that a push in between can't mix two versions.
        let has = |file: &str| info.siblings.iter().any(|sibling| sibling.name == file);
        if !has(CONFIG_FILE) {
            return Err(HubError::NoFile {
                name: self.name.to_string(),
                file: CONFIG_FILE.to_string(),
            });
        }
        let config = self.file(cached, &info.sha, CONFIG_FILE)?;
        let extras = info.siblings.iter().map(|sibling| sibling.name.as_str());
        for file in extras.filter(|file| is_extra(file) && is_path(file)) {
            self.file(cached, &info.sha, file)?;
        }
        if has(WEIGHTS_FILE) {
            self.file(cached, &info.sha, WEIGHTS_FILE)?;
        } else if has(INDEX_FILE) {
            let index = self.file(cached, &info.sha, INDEX_FILE)?;
            let shards = cache::shards(&index)
                .ok_or_else(|| self.strange(format!("{INDEX_FILE} names no files")))?;
            for shard in shards {
                self.file(cached, &info.sha, &shard)?;
            }
        } else {
            return Err(HubError::NoFile {
                name: self.name.to_string(),
                file: WEIGHTS_FILE.to_string(),
            });
        }
        self.point(cached, &info.sha)?;
        Ok(config.parent().unwrap_or(Path::new("")).to_path_buf())
    }

    /// The path of one file of a commit, which is downloaded unless it is in the cache.
    fn file(&self, cached: &Cached, commit: &str, file: &str) -> Result<PathBuf, HubError> {
        let path = cached.snapshot(commit).join(file);
        if path.is_file() {
            return Ok(path);
        }
        let explain = |error| self.explain(error, Some(file));
        let prefix = match self.kind {
            RepoKind::Model => "",
            RepoKind::Dataset => "datasets/",
        };
        let url = self.client.url(prefix, self.name, commit, file);
        let metadata = self.client.metadata(&url).map_err(explain)?;
        // The tag becomes the name of a file in the cache.
        let safe = |c: char| c.is_ascii_alphanumeric() || "-_".contains(c);
        if metadata.tag.is_empty() || !metadata.tag.chars().all(safe) {
            return Err(self.strange(format!("the tag of {file} is {:?}", metadata.tag)));
        }
        if metadata.commit != commit {
            let other = metadata.commit;
            return Err(self.strange(format!("{file} is of commit {other:?}, not of {commit}")));
        }
        let size = metadata.size;
        let blob = cached.blob(&metadata.tag);
        let broken = |source| HubError::Io {
            path: blob.clone(),
            source,
        };
        // Unchanged since another commit that is in the cache.
        if std::fs::metadata(&blob).is_ok_and(|found| found.len() == size) {
            cache::link(&blob, &path, file).map_err(broken)?;
            return Ok(path);
        }
        if let Some(parent) = blob.parent() {
            std::fs::create_dir_all(parent).map_err(broken)?;
        }
        let part = cached.blob(&format!("{}.incomplete", metadata.tag));
        self.client
            .download(&url, size, &part, file)
            .map_err(explain)?;
        let found = std::fs::metadata(&part).map_err(broken)?.len();
        if found != size {
            // A shorter file is continued next time; a longer one is another file's.
            if found > size {
                let _ = std::fs::remove_file(&part);
            }
            return Err(HubError::Incomplete {
                name: self.name.to_string(),
                file: file.to_string(),
                found,
                expected: size,
            });
        }
        std::fs::rename(&part, &blob).map_err(broken)?;
        cache::link(&blob, &path, file).map_err(broken)?;
        Ok(path)
    }

    fn strange(&self, reason: String) -> HubError {
        HubError::Answer {
            endpoint: self.options.endpoint.clone(),
            name: self.name.to_string(),
            reason,
        }
    }

    fn explain(&self, error: RequestError, file: Option<&str>) -> HubError {
        let name = self.name.to_string();
        let status = match &error {
            RequestError::Status(status) => Some(*status),
            _ => None,
        };
        match (status, error, file) {
            (Some(401 | 403), ..) => HubError::Forbidden {
                name,
                token: self.options.token.is_some(),
            },
            (Some(404), _, None) => HubError::NotFound {
                name,
                revision: self.options.revision.clone(),
                endpoint: self.options.endpoint.clone(),
            },
            (Some(404), _, Some(file)) => HubError::NoFile {
                name,
                file: file.to_string(),
            },
            (Some(400..500), error, _) => self.strange(error.to_string()),
            (_, RequestError::Malformed(reason), _) => self.strange(reason),
            (_, RequestError::File(source), _) => HubError::Io {
                path: self.options.cache.clone(),
                source,
            },
            (_, error, None) => HubError::Unreachable {
                endpoint: self.options.endpoint.clone(),
                reason: error.to_string(),
            },
            (_, error, Some(file)) => HubError::Transfer {
                name,
                file: file.to_string(),
                reason: error.to_string(),
            },
        }
    }
}

/// Returns true for a relative path that stays inside its folder.
fn is_path(file: &str) -> bool {
    let normal = |part: &str| !part.is_empty() && part != "." && part != "..";
    !file.contains('\\') && file.split('/').all(normal)
}
