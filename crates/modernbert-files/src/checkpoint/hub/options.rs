//! Settings from the environment, under the names that Python's libraries use.

use std::io::IsTerminal;
use std::path::PathBuf;
use std::time::Duration;

/// The default of [`HubOptions::timeout`].
const TIMEOUT: Duration = Duration::from_secs(30);

/// Server, token, cache and revision.
#[derive(Clone, PartialEq, Eq)]
pub struct HubOptions {
    /// Server, `https://huggingface.co` by default.
    pub endpoint: String,
    /// Folder of the cache; empty if no variable names it, see [`HubError::NoCache`](super::HubError::NoCache).
    pub cache: PathBuf,
    /// Sent with every request.
    pub token: Option<String>,
    /// Branch, tag or commit; `main` by default.
    pub revision: String,
    /// True if only the cache may be used.
    pub offline: bool,
    /// True if downloads show their progress on standard error.
    pub progress: bool,
    /// Time without a response or any data after which a transfer is given up.
    pub timeout: Duration,
}

impl std::fmt::Debug for HubOptions {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("HubOptions")
            .field("endpoint", &self.endpoint)
            .field("cache", &self.cache)
            .field("token", &self.token.as_ref().map(|_| "…"))
            .field("revision", &self.revision)
            .field("offline", &self.offline)
            .finish()
    }
}

impl HubOptions {
    /// Settings from the environment, see [the module](super).
    pub fn from_env() -> Self {
        let mut options = Self::from_variables(|name| std::env::var(name).ok());
        options.progress = std::io::stderr().is_terminal();
        options
    }

    /// Settings from variables of these names; an empty one counts as not set.
    pub fn from_variables(variable: impl Fn(&str) -> Option<String>) -> Self {
        let get = |names: &[&str]| {
            names
                .iter()
                .find_map(|name| variable(name).filter(|value| !value.trim().is_empty()))
        };
        let path = |names: &[&str]| get(names).map(PathBuf::from);
        let yes = |names: &[&str]| {
            let truths = ["1", "ON", "YES", "TRUE"];
            get(names).is_some_and(|value| truths.contains(&value.trim().to_uppercase().as_str()))
        };
        // Without a home there is no default: in a folder that other users can write to, they could place a model.
        let home = path(&["HF_HOME"]).or_else(|| {
            path(&["XDG_CACHE_HOME"])
                .or_else(|| path(&["HOME", "USERPROFILE"]).map(|home| home.join(".cache")))
                .map(|cache| cache.join("huggingface"))
        });
        let stored = || {
            let file = path(&["HF_TOKEN_PATH"]).or_else(|| Some(home.as_ref()?.join("token")))?;
            crate::read::text(&file).ok()
        };
        let token = if yes(&["HF_HUB_DISABLE_IMPLICIT_TOKEN"]) {
            None
        } else {
            get(&["HF_TOKEN", "HUGGING_FACE_HUB_TOKEN"]).or_else(stored)
        };
        Self {
            endpoint: get(&["HF_ENDPOINT"]).unwrap_or_else(|| "https://huggingface.co".into()),
            cache: path(&["HF_HUB_CACHE", "HUGGINGFACE_HUB_CACHE"])
                .or_else(|| Some(home.as_ref()?.join("hub")))
                .unwrap_or_default(),
            token: token
                .map(|token| token.trim().to_string())
                .filter(|token| !token.is_empty()),
            revision: "main".to_string(),
            offline: yes(&["HF_HUB_OFFLINE", "TRANSFORMERS_OFFLINE"]),
            progress: false,
            timeout: get(&["HF_HUB_DOWNLOAD_TIMEOUT"])
                .and_then(|seconds| seconds.trim().parse().ok())
                .filter(|seconds| (1..=86_400).contains(seconds))
                .map_or(TIMEOUT, Duration::from_secs),
        }
    }
}
