//! Models by name from the Hugging Face Hub, cached where Python's libraries cache them (feature `hub`).
//!
//! [`download`] asks the Hub which commit a revision stands for, and fetches the files of that commit that are not in the
//! cache yet: a model that Python downloaded is not downloaded again, and the other way round. Where the Hub can't be
//! reached, what is in the cache is used.
//!
//! | variable | meaning |
//! |---|---|
//! | `HF_HOME` | folder of cache and token; `$XDG_CACHE_HOME/huggingface` or `~/.cache/huggingface` by default |
//! | `HF_HUB_CACHE` | folder of the cache alone; `$HF_HOME/hub` by default |
//! | `HF_TOKEN` | token for private and gated models; else the file `HF_TOKEN_PATH`, `$HF_HOME/token` by default |
//! | `HF_HUB_DISABLE_IMPLICIT_TOKEN` | 1: send no token |
//! | `HF_HUB_OFFLINE` | 1: use the cache alone |
//! | `HF_ENDPOINT` | another server with the same interface |

mod cache;
mod error;
mod options;

pub use error::HubError;
pub use options::HubOptions;

use hf_hub::api::sync::{Api, ApiBuilder, ApiError, ApiRepo};
use hf_hub::{Repo, RepoType};
use std::path::{Path, PathBuf};

use super::source::is_repository;
use super::{CONFIG_FILE, WEIGHTS_FILE};
use cache::Cached;

const INDEX_FILE: &str = "model.safetensors.index.json";
/// Files that are fetched if the repository has them.
const EXTRAS: [&str; 3] = [
    "tokenizer.json",
    "tokenizer_config.json",
    "special_tokens_map.json",
];

/// The folder, inside the cache, with config, weights and tokenizer of the model `name` at the wanted revision.
///
/// # Errors
/// A name or revision the Hub doesn't have or doesn't give to this token; no safetensors weights; no network and nothing
/// in the cache; a transfer that breaks off.
pub fn download(name: &str, options: &HubOptions) -> Result<PathBuf, HubError> {
    if !is_repository(name) {
        return Err(HubError::Name(name.to_string()));
    }
    if options.cache.as_os_str().is_empty() {
        return Err(HubError::NoCache);
    }
    let cached = Cached::new(name, options);
    // A commit never changes: if it is here, nobody needs to be asked.
    if cache::is_commit(&options.revision)
        && let Some(folder) = cached.complete()
    {
        return Ok(folder);
    }
    if options.offline {
        return cached.complete().ok_or_else(|| HubError::NotCached {
            name: name.to_string(),
            revision: options.revision.clone(),
            cache: options.cache.clone(),
            reason: "HF_HUB_OFFLINE is set".to_string(),
        });
    }
    let asked = Session::new(name, options);
    match asked.and_then(|session| session.fetch(&cached)) {
        Err(HubError::Unreachable { reason, .. }) => {
            cached.complete().ok_or_else(|| HubError::NotCached {
                name: name.to_string(),
                revision: options.revision.clone(),
                cache: options.cache.clone(),
                reason: format!("{} could not be reached: {reason}", options.endpoint),
            })
        }
        other => other,
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
    if !is_repository(name) {
        return Err(HubError::Name(name.to_string()));
    }
    if options.cache.as_os_str().is_empty() {
        return Err(HubError::NoCache);
    }
    let cached = Cached::dataset(name, options);
    let in_cache = |reason: String| {
        let folder = cached.known();
        folder
            .filter(|folder| cache::holds(folder, wanted))
            .ok_or_else(|| HubError::NotCached {
                name: name.to_string(),
                revision: options.revision.clone(),
                cache: options.cache.clone(),
                reason,
            })
    };
    if options.offline {
        return in_cache("HF_HUB_OFFLINE is set".to_string());
    }
    let asked = Session::new(name, options);
    let asked = asked.map(|session| Session {
        kind: RepoType::Dataset,
        ..session
    });
    match asked.and_then(|session| session.fetch_files(&cached, what, wanted)) {
        Err(HubError::Unreachable { reason, .. }) => in_cache(format!(
            "{} could not be reached: {reason}",
            options.endpoint
        )),
        other => other,
    }
}

/// One conversation with the Hub about one model or data set.
struct Session<'a> {
    name: &'a str,
    kind: RepoType,
    options: &'a HubOptions,
    api: Api,
}

impl<'a> Session<'a> {
    fn new(name: &'a str, options: &'a HubOptions) -> Result<Self, HubError> {
        let api = ApiBuilder::new()
            .with_endpoint(options.endpoint.trim_end_matches('/').to_string())
            .with_cache_dir(options.cache.clone())
            .with_token(options.token.clone())
            .with_progress(options.progress)
            .with_user_agent("modernbert", env!("CARGO_PKG_VERSION"))
            .build();
        let session = |api| Self {
            name,
            kind: RepoType::Model,
            options,
            api,
        };
        api.map(session).map_err(|error| HubError::Unreachable {
            endpoint: options.endpoint.clone(),
            reason: error.to_string(),
        })
    }

    fn repo(&self, revision: &str) -> ApiRepo {
        let (name, revision) = (self.name.to_string(), revision.to_string());
        self.api
            .repo(Repo::with_revision(name, self.kind, revision))
    }

    fn fetch_files(
        &self,
        cached: &Cached,
        what: &str,
        wanted: &dyn Fn(&str) -> bool,
    ) -> Result<PathBuf, HubError> {
        let info = self
            .repo(&self.options.revision)
            .info()
            .map_err(|error| self.explain(error, None))?;
        if !cache::is_commit(&info.sha) {
            return Err(self.strange(format!("{:?} is no commit", info.sha)));
        }
        let repo = self.repo(&info.sha);
        let files = info.siblings.iter().map(|sibling| &sibling.rfilename);
        let files: Vec<&String> = files.filter(|file| wanted(file)).collect();
        if files.is_empty() {
            return Err(HubError::NoData {
                name: self.name.to_string(),
                wanted: what.to_string(),
            });
        }
        for file in files {
            // The path becomes one in the cache.
            let normal = |part: &str| !part.is_empty() && part != "." && part != "..";
            if file.contains('\\') || !file.split('/').all(normal) {
                return Err(self.strange(format!("{file:?} is no name of a file")));
            }
            self.file(&repo, cached, &info.sha, file)?;
        }
        cached
            .point(&self.options.revision, &info.sha)
            .map_err(|source| HubError::Io {
                path: self.options.cache.clone(),
                source,
            })?;
        Ok(cached.snapshot(&info.sha))
    }

    fn fetch(&self, cached: &Cached) -> Result<PathBuf, HubError> {
        let info = self
            .repo(&self.options.revision)
            .info()
            .map_err(|error| self.explain(error, None))?;
        if !cache::is_commit(&info.sha) {
            return Err(self.strange(format!("{:?} is no commit", info.sha)));
        }
        // Every file is asked for at that commit, so that a push in between can't mix two versions.
        let repo = self.repo(&info.sha);
        let has = |file: &str| {
            info.siblings
                .iter()
                .any(|sibling| sibling.rfilename == file)
        };
        if !has(CONFIG_FILE) {
            return Err(HubError::NoFile {
                name: self.name.to_string(),
                file: CONFIG_FILE.to_string(),
            });
        }
        let config = self.file(&repo, cached, &info.sha, CONFIG_FILE)?;
        for file in EXTRAS.into_iter().filter(|file| has(file)) {
            self.file(&repo, cached, &info.sha, file)?;
        }
        if has(WEIGHTS_FILE) {
            self.file(&repo, cached, &info.sha, WEIGHTS_FILE)?;
        } else if has(INDEX_FILE) {
            let index = self.file(&repo, cached, &info.sha, INDEX_FILE)?;
            let shards = cache::shards(&index)
                .ok_or_else(|| self.strange(format!("{INDEX_FILE} names no files")))?;
            for shard in shards {
                self.file(&repo, cached, &info.sha, &shard)?;
            }
        } else {
            return Err(HubError::NoFile {
                name: self.name.to_string(),
                file: WEIGHTS_FILE.to_string(),
            });
        }
        cached
            .point(&self.options.revision, &info.sha)
            .map_err(|source| HubError::Io {
                path: self.options.cache.clone(),
                source,
            })?;
        Ok(config.parent().unwrap_or(Path::new("")).to_path_buf())
    }

    /// The path of one file of a commit, which is downloaded unless it is there.
    fn file(
        &self,
        repo: &ApiRepo,
        cached: &Cached,
        commit: &str,
        file: &str,
    ) -> Result<PathBuf, HubError> {
        let path = cached.snapshot(commit).join(file);
        if path.is_file() {
            return Ok(path);
        }
        let explain = |error| self.explain(error, Some(file));
        let metadata = self.api.metadata(&repo.url(file)).map_err(explain)?;
        // The tag becomes the name of a file in the cache.
        let safe = |c: char| c.is_ascii_alphanumeric() || "-_".contains(c);
        if metadata.etag().is_empty() || !metadata.etag().chars().all(safe) {
            return Err(self.strange(format!("the tag of {file} is {:?}", metadata.etag())));
        }
        if metadata.commit_hash() != commit {
            return Err(self.strange(format!(
                "{file} is of commit {:?}, not of {commit}",
                metadata.commit_hash()
            )));
        }
        let size = metadata.size() as u64;
        let blob = cached.blob(metadata.etag());
        let broken = |source| HubError::Io {
            path: blob.clone(),
            source,
        };
        // Unchanged since another commit that is in the cache.
        if std::fs::metadata(&blob).is_ok_and(|found| found.len() == size) {
            cache::link(&blob, &path, file).map_err(broken)?;
            return Ok(path);
        }
        let path = repo.download(file).map_err(explain)?;
        let found = std::fs::metadata(&path).map_err(broken)?.len();
        if found != size {
            // Left there, it would be taken for the whole file next time.
            let _ = std::fs::remove_file(&path);
            let _ = std::fs::remove_file(&blob);
            return Err(HubError::Incomplete {
                name: self.name.to_string(),
                file: file.to_string(),
                found,
                expected: size,
            });
        }
        Ok(path)
    }

    fn strange(&self, reason: String) -> HubError {
        HubError::Answer {
            endpoint: self.options.endpoint.clone(),
            name: self.name.to_string(),
            reason,
        }
    }

    fn explain(&self, error: ApiError, file: Option<&str>) -> HubError {
        let status = match &error {
            ApiError::RequestError(error) => match **error {
                ureq::Error::StatusCode(status) => Some(status),
                _ => None,
            },
            _ => None,
        };
        let name = self.name.to_string();
        match (status, file) {
            (Some(401 | 403), _) => HubError::Forbidden {
                name,
                token: self.options.token.is_some(),
            },
            (Some(404), None) => HubError::NotFound {
                name,
                revision: self.options.revision.clone(),
                endpoint: self.options.endpoint.clone(),
            },
            (Some(404), Some(file)) => HubError::NoFile {
                name,
                file: file.to_string(),
            },
            (Some(400..500), _) => self.strange(error.to_string()),
            (_, None) => HubError::Unreachable {
                endpoint: self.options.endpoint.clone(),
                reason: error.to_string(),
            },
            (_, Some(file)) => HubError::Transfer {
                name,
                file: file.to_string(),
                reason: error.to_string(),
            },
        }
    }
}
