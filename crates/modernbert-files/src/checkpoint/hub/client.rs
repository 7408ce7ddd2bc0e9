//! Requests to the Hub: which files a revision has, the metadata of a file, its content. Every step has a timeout.

use std::fs::{File, OpenOptions};
use std::io::{Read, Seek, SeekFrom, Write};
use std::path::Path;
use std::time::{Duration, Instant};

use serde::Deserialize;
use ureq::Agent;
use ureq::config::RedirectAuthHeaders;
use ureq::http::{HeaderMap, Response, StatusCode};

use super::HubOptions;

/// Redirects that are followed.
const MOST_REDIRECTS: u32 = 5;
/// Bytes of metadata at most.
const MOST_INFO: u64 = 64 << 20;
/// Time between two updates of the progress line.
const PAUSE: Duration = Duration::from_millis(200);

/// Reason why a request failed.
#[derive(Debug, thiserror::Error)]
pub(super) enum RequestError {
    /// The server's status is an error.
    #[error("the server returns status {0}")]
    Status(u16),
    /// No response in time, or no connection.
    #[error("{0}")]
    Network(Box<ureq::Error>),
    /// A response that lacks a required part.
    #[error("{0}")]
    Malformed(String),
    /// The file can't be written.
    #[error("{0}")]
    File(std::io::Error),
}

impl From<ureq::Error> for RequestError {
    fn from(error: ureq::Error) -> Self {
        match error {
            ureq::Error::StatusCode(status) => Self::Status(status),
            other => Self::Network(Box::new(other)),
        }
    }
}

/// A revision: its commit, and the files it has.
#[derive(Deserialize)]
pub(super) struct Info {
    pub(super) sha: String,
    #[serde(default)]
    pub(super) siblings: Vec<Sibling>,
}

/// A file of a revision.
#[derive(Deserialize)]
pub(super) struct Sibling {
    #[serde(rename = "rfilename")]
    pub(super) name: String,
}

/// The server's metadata of a file.
pub(super) struct Metadata {
    /// Commit of the file.
    pub(super) commit: String,
    /// Name of the content.
    pub(super) tag: String,
    /// Bytes.
    pub(super) size: u64,
}

/// Connection to the Hub.
pub(super) struct Client {
    /// Follows redirects, without the token to other hosts.
    agent: Agent,
    /// Follows none: metadata is in the headers of the first response.
    direct: Agent,
    endpoint: String,
    token: Option<String>,
    progress: bool,
}

impl Client {
    pub(super) fn new(options: &HubOptions) -> Self {
        let limit = Some(options.timeout);
        let agent = |redirects: u32| {
            let config = Agent::config_builder()
                .max_redirects(redirects)
                .max_redirects_will_error(redirects > 0)
                .redirect_auth_headers(RedirectAuthHeaders::SameHost)
                .user_agent(concat!("modernbert/", env!("CARGO_PKG_VERSION")))
                .timeout_resolve(limit)
                .timeout_connect(limit)
                .timeout_send_request(limit)
                .timeout_recv_response(limit)
                .timeout_per_read(limit);
            config.build().new_agent()
        };
        Self {
            agent: agent(MOST_REDIRECTS),
            direct: agent(0),
            endpoint: options.endpoint.trim_end_matches('/').to_string(),
            token: options.token.clone(),
            progress: options.progress,
        }
    }

    fn get(
        &self,
        agent: &Agent,
        url: &str,
        range: Option<String>,
    ) -> Result<Response<ureq::Body>, RequestError> {
        let mut request = agent.get(url);
        if let Some(token) = &self.token {
            request = request.header("authorization", format!("Bearer {token}"));
        }
        if let Some(range) = range {
            request = request.header("range", range);
        }
        Ok(request.call()?)
    }

    /// The commit and the files of a revision of `kind` (`models` or `datasets`).
    pub(super) fn info(
        &self,
        kind: &str,
        name: &str,
        revision: &str,
    ) -> Result<Info, RequestError> {
        let revision = revision.replace('/', "%2F");
        let url = format!("{}/api/{kind}/{name}/revision/{revision}", self.endpoint);
        let mut response = self.get(&self.agent, &url, None)?;
        let body = response.body_mut().with_config().limit(MOST_INFO);
        let bytes = body.read_to_vec()?;
        serde_json::from_slice(&bytes)
            .map_err(|error| RequestError::Malformed(format!("no description of files: {error}")))
    }

    /// The address of a file at a commit; `prefix` is empty for models and `datasets/` for data sets.
    pub(super) fn url(&self, prefix: &str, name: &str, commit: &str, file: &str) -> String {
        let file: Vec<String> = file.split('/').map(escaped).collect();
        let file = file.join("/");
        format!("{}/{prefix}{name}/resolve/{commit}/{file}", self.endpoint)
    }

    /// The metadata of the file at `url`, from the first response that has it: the server may redirect to another one for the content.
    pub(super) fn metadata(&self, url: &str) -> Result<Metadata, RequestError> {
        let first_byte = || Some("bytes=0-0".to_string());
        let mut response = self.get(&self.direct, url, first_byte())?;
        // Redirects on the same server come before the metadata, one to another server with it.
        for _ in 0..MOST_REDIRECTS {
            let Some(to) = self.same_server(response.status(), response.headers()) else {
                break;
            };
            response = self.get(&self.direct, &to, first_byte())?;
        }
        let headers = response.headers();
        let tag = header(headers, "x-linked-etag").or_else(|| header(headers, "etag"));
        let commit = header(headers, "x-repo-commit");
        let (Some(tag), Some(commit)) = (tag, commit) else {
            return Err(RequestError::Malformed(
                "no etag or commit of the file in the response".into(),
            ));
        };
        let size = match header(headers, "x-linked-size").and_then(|size| size.parse().ok()) {
            Some(size) => size,
            None if response.status().is_redirection() => {
                let whole = self.get(&self.agent, url, first_byte())?;
                whole_size(whole.headers())?
            }
            None => whole_size(headers)?,
        };
        Ok(Metadata {
            commit,
            tag: tag.trim_start_matches("W/").replace('"', ""),
            size,
        })
    }

    /// The address that a redirect to the same server names.
    fn same_server(&self, status: StatusCode, headers: &HeaderMap) -> Option<String> {
        let to = header(headers, "location").filter(|_| status.is_redirection())?;
        (to.starts_with('/') && !to.starts_with("//")).then(|| format!("{}{to}", self.origin()))
    }

    /// Scheme and host of the endpoint.
    fn origin(&self) -> &str {
        let host = self.endpoint.find("://").map_or(0, |at| at + 3);
        let end = self.endpoint[host..].find('/');
        end.map_or(&self.endpoint, |at| &self.endpoint[..host + at])
    }

    /// Downloads the file at `url` to `part`, continuing an interrupted transfer. One process at a time writes the file.
    pub(super) fn download(
        &self,
        url: &str,
        size: u64,
        part: &Path,
        name: &str,
    ) -> Result<(), RequestError> {
        let mut options = OpenOptions::new();
        let file = options.create(true).truncate(false).write(true).open(part);
        let mut file = file.map_err(RequestError::File)?;
        file.lock().map_err(RequestError::File)?;
        let mut at = file.seek(SeekFrom::End(0)).map_err(RequestError::File)?;
        if at > size {
            file.set_len(0).map_err(RequestError::File)?;
            at = file.seek(SeekFrom::Start(0)).map_err(RequestError::File)?;
        }
        if at < size {
            let response = self.get(&self.agent, url, Some(format!("bytes={at}-")))?;
            if at > 0 && response.status() != StatusCode::PARTIAL_CONTENT {
                file.set_len(0).map_err(RequestError::File)?;
                at = file.seek(SeekFrom::Start(0)).map_err(RequestError::File)?;
            }
            let body = response.into_body().into_with_config().limit(u64::MAX);
            self.copy(body.reader(), &mut file, at, size, name)?;
        }
        file.sync_all().map_err(RequestError::File)
    }

    fn copy(
        &self,
        mut body: impl Read,
        file: &mut File,
        mut at: u64,
        size: u64,
        name: &str,
    ) -> Result<(), RequestError> {
        let (start, begin) = (Instant::now(), at);
        let mut shown: Option<Instant> = None;
        let mut buffer = vec![0; 1 << 18];
        loop {
            let count = match body.read(&mut buffer) {
                Ok(count) => count,
                Err(error) => return Err(RequestError::Network(Box::new(error.into()))),
            };
            if self.progress && (count == 0 || shown.is_none_or(|last| last.elapsed() >= PAUSE)) {
                shown = Some(Instant::now());
                let rate = (at - begin) as f64 / start.elapsed().as_secs_f64().max(1e-3);
                show(name, at, size, rate, count == 0);
            }
            if count == 0 {
                return Ok(());
            }
            file.write_all(&buffer[..count])
                .map_err(RequestError::File)?;
            at += count as u64;
        }
    }
}

/// Rewrites the last line of standard error with the progress of a transfer.
fn show(name: &str, at: u64, size: u64, rate: f64, last: bool) {
    let megabytes = |bytes: f64| bytes / 1e6;
    let end = if last { "\n" } else { "" };
    let _ = write!(
        std::io::stderr(),
        "\r{name}: {:.1} of {:.1} MB, {:.1} MB/s {end}",
        megabytes(at as f64),
        megabytes(size as f64),
        megabytes(rate)
    );
}

fn header(headers: &HeaderMap, name: &str) -> Option<String> {
    Some(headers.get(name)?.to_str().ok()?.to_string())
}

/// Bytes of the whole file, after the slash of `Content-Range: bytes 0-0/123`.
fn whole_size(headers: &HeaderMap) -> Result<u64, RequestError> {
    let range = header(headers, "content-range");
    let size = range.as_deref().and_then(|range| range.rsplit('/').next());
    size.and_then(|size| size.parse().ok())
        .ok_or_else(|| RequestError::Malformed("no size of the file in the response".into()))
}

/// A part of a path with the characters that have a meaning in addresses escaped.
fn escaped(part: &str) -> String {
    part.bytes()
        .map(|byte| match byte {
            b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'-' | b'.' | b'_' | b'~' => {
                char::from(byte).to_string()
            }
            _ => format!("%{byte:02X}"),
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths_are_escaped_and_the_origin_has_no_path() {
        assert_eq!(escaped("a b#1%.bin"), "a%20b%231%25.bin");
        let client = |endpoint: &str| {
            Client::new(&HubOptions {
                endpoint: endpoint.into(),
                ..HubOptions::from_variables(|_| None).unwrap()
            })
        };
        assert_eq!(client("https://a.b/").origin(), "https://a.b");
        assert_eq!(client("http://a:1/c/d").origin(), "http://a:1");
        let url = client("https://a.b/c").url("datasets/", "o/n", "1", "x y/z.bin");
        assert_eq!(url, "https://a.b/c/datasets/o/n/resolve/1/x%20y/z.bin");
    }
}
