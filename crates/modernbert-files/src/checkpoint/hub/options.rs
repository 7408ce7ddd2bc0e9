//! Settings from the environment, under the names that Python's libraries use.

use std::cell::Cell;
use std::io::IsTerminal;
use std::path::PathBuf;
use std::time::Duration;

use super::HubError;

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

/// Returns true for `http://` or `https://` and a host, without a password, which messages would show.
fn is_url(text: &str) -> bool {
    let rest = ["https://", "http://"]
        .iter()
        .find_map(|scheme| text.strip_prefix(scheme));
    rest.is_some_and(|rest| {
        let host = rest.split('/').next().unwrap_or_default();
        !host.is_empty() && !host.contains('@') && rest.chars().all(|c| c.is_ascii_graphic())
    })
}

impl HubOptions {
    /// Settings from the environment, see [the module](super).
    ///
    /// # Errors
    /// As [`Self::from_variables`]; a variable that is not UTF-8.
    pub fn from_env() -> Result<Self, HubError> {
        let unreadable = Cell::new(None);
        let options = Self::from_variables(|name| match std::env::var(name) {
            Err(std::env::VarError::NotUnicode(value)) => {
                unreadable.set(Some((name.to_owned(), value)));
                None
            }
            value => value.ok(),
        });
        if let Some((name, value)) = unreadable.take() {
            let expected = "text in UTF-8";
            return Err(HubError::variable(
                &name,
                &value.to_string_lossy(),
                expected,
            ));
        }
        Ok(Self {
            progress: std::io::stderr().is_terminal(),
            ..options?
        })
    }

    /// Settings from variables of these names; an empty one counts as not set.
    ///
    /// # Errors
    /// A server that is no URL; a token with blanks or other characters that no token has; a switch that is neither on (`1`, `ON`, `YES`, `TRUE`, in capitals or not, as in Python) nor off (`0`, `OFF`, `NO`, `FALSE`); a timeout that
    /// is no number of seconds.
    pub fn from_variables(variable: impl Fn(&str) -> Option<String>) -> Result<Self, HubError> {
        let get = |names: &[&str]| {
            names
                .iter()
                .find_map(|name| variable(name).filter(|value| !value.trim().is_empty()))
        };
        let path = |names: &[&str]| get(names).map(PathBuf::from);
        // Python takes every other value as off: a misspelled one would send requests that were forbidden.
        let switch = |name: &str| match get(&[name]) {
            None => Ok(None),
            Some(value) => match value.trim().to_uppercase().as_str() {
                "1" | "ON" | "YES" | "TRUE" => Ok(Some(true)),
                "0" | "OFF" | "NO" | "FALSE" => Ok(Some(false)),
                _ => Err(HubError::variable(name, &value, "1 or 0")),
            },
        };
        let offline = [switch("HF_HUB_OFFLINE")?, switch("TRANSFORMERS_OFFLINE")?];
        let timeout = |seconds: String| {
            let name = "HF_HUB_DOWNLOAD_TIMEOUT";
            let count = seconds.trim().parse().ok();
            let count = count.filter(|count| (1..=86_400).contains(count));
            count.ok_or_else(|| HubError::variable(name, &seconds, "1 to 86400 seconds"))
        };
        let seconds = get(&["HF_HUB_DOWNLOAD_TIMEOUT"]).map(timeout).transpose()?;
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
        let token = if switch("HF_HUB_DISABLE_IMPLICIT_TOKEN")? == Some(true) {
            None
        } else {
            get(&["HF_TOKEN", "HUGGING_FACE_HUB_TOKEN"]).or_else(stored)
        };
        let endpoint = get(&["HF_ENDPOINT"]).map(|endpoint| endpoint.trim().to_string());
        if let Some(endpoint) = endpoint.as_ref().filter(|endpoint| !is_url(endpoint)) {
            // What is before an `@` may be a password.
            let shown = endpoint
                .rsplit_once('@')
                .map(|(_, host)| format!("…@{host}"));
            return Err(HubError::variable(
                "HF_ENDPOINT",
                shown.as_deref().unwrap_or(endpoint),
                "a URL such as https://huggingface.co, without a user and a password",
            ));
        }
        let token = token
            .map(|token| token.trim().to_string())
            .filter(|token| !token.is_empty());
        if token
            .as_ref()
            .is_some_and(|token| !token.chars().all(|c| c.is_ascii_graphic()))
        {
            return Err(HubError::Token);
        }
        Ok(Self {
            endpoint: endpoint.unwrap_or_else(|| "https://huggingface.co".into()),
            cache: path(&["HF_HUB_CACHE", "HUGGINGFACE_HUB_CACHE"])
                .or_else(|| Some(home.as_ref()?.join("hub")))
                .unwrap_or_default(),
            token,
            revision: "main".to_string(),
            offline: offline.into_iter().flatten().next().unwrap_or(false),
            progress: false,
            timeout: seconds.map_or(TIMEOUT, Duration::from_secs),
        })
    }
}
