//! A server on this machine with the part of the Hub's HTTP interface that is needed to load a model.

use std::collections::BTreeMap;
use std::io::{BufRead, BufReader, Write};
use std::net::{TcpListener, TcpStream};
use std::sync::{Arc, Mutex};

pub(crate) const COMMIT: &str = "0123456789abcdef0123456789abcdef01234567";

/// Content and behavior of the server; may be changed while it runs.
#[derive(Default)]
pub(crate) struct Content {
    /// Files of each commit.
    pub(crate) commits: BTreeMap<String, BTreeMap<String, Vec<u8>>>,
    /// Commits of branches.
    pub(crate) branches: BTreeMap<String, String>,
    /// Token that every request must carry.
    pub(crate) token: Option<String>,
    /// Status of every answer, instead of a real one.
    pub(crate) status: Option<u16>,
    /// Bytes after which a transfer of a weights file breaks off, once.
    pub(crate) break_after: Option<usize>,
    /// Time that a broken transfer stays open without data.
    pub(crate) stall: std::time::Duration,
    /// Every request: its path, and `Range` if it has one.
    pub(crate) requests: Vec<String>,
}

/// The running server; its thread ends with the process.
pub(crate) struct Server {
    pub(crate) endpoint: String,
    pub(crate) content: Arc<Mutex<Content>>,
}

impl Server {
    pub(crate) fn start(files: BTreeMap<String, Vec<u8>>) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let endpoint = format!("http://{}", listener.local_addr().unwrap());
        let content = Arc::new(Mutex::new(Content::default()));
        {
            let mut content = content.lock().unwrap();
            content.commits.insert(COMMIT.into(), files);
            content.branches.insert("main".into(), COMMIT.into());
        }
        let shared = content.clone();
        std::thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                answer(stream, &shared);
            }
        });
        Self { endpoint, content }
    }

    /// Returns the requests so far and clears the list.
    pub(crate) fn requests(&self) -> Vec<String> {
        std::mem::take(&mut self.content.lock().unwrap().requests)
    }
}

fn answer(stream: TcpStream, content: &Mutex<Content>) {
    let mut reader = BufReader::new(stream.try_clone().unwrap());
    let mut lines = Vec::new();
    loop {
        let mut line = String::new();
        if reader.read_line(&mut line).unwrap_or(0) == 0 || line.trim().is_empty() {
            break;
        }
        lines.push(line.trim().to_string());
    }
    let Some(path) = lines
        .first()
        .and_then(|line| line.split(' ').nth(1))
        .map(str::to_string)
    else {
        return;
    };
    let header = |name: &str| {
        lines.iter().skip(1).find_map(|line| {
            let (key, value) = line.split_once(':')?;
            key.eq_ignore_ascii_case(name)
                .then(|| value.trim().to_string())
        })
    };
    let range = header("range");
    let mut content = content.lock().unwrap();
    let noted = range
        .as_ref()
        .map_or(path.clone(), |range| format!("{path} {range}"));
    content.requests.push(noted);
    let wanted = content.token.clone().map(|token| format!("Bearer {token}"));
    if let Some(status) = content.status {
        return reply(stream, status, "", b"", None);
    }
    if wanted.is_some() && header("authorization") != wanted {
        return reply(stream, 401, "", b"", None);
    }
    let parts: Vec<&str> = path.trim_start_matches('/').split('/').collect();
    // Files may be in folders.
    let nested = match parts[..] {
        ["datasets", "org", "tiny", "resolve", commit, ref file @ ..]
        | ["org", "tiny", "resolve", commit, ref file @ ..] => Some((commit, file.join("/"))),
        _ => None,
    };
    let parts = match &nested {
        Some((commit, file)) => vec!["org", "tiny", "resolve", *commit, file.as_str()],
        None => parts,
    };
    match parts[..] {
        [
            "api",
            "models" | "datasets",
            "org",
            "tiny",
            "revision",
            revision,
        ] => {
            let revision = revision.replace("%2F", "/");
            let commit = content.branches.get(&revision).unwrap_or(&revision).clone();
            let Some(files) = content.commits.get(&commit) else {
                return reply(stream, 404, "", b"", None);
            };
            let siblings: Vec<_> = files
                .keys()
                .map(|file| serde_json::json!({"rfilename": file}))
                .collect();
            let body = serde_json::json!({"sha": commit, "siblings": siblings}).to_string();
            reply(stream, 200, "", body.as_bytes(), None);
        }
        ["org", "tiny", "resolve", commit, file] => {
            let Some(bytes) = content
                .commits
                .get(commit)
                .and_then(|files| files.get(file))
                .cloned()
            else {
                return reply(stream, 404, "", b"", None);
            };
            let tag = bytes.iter().fold(7u64, |hash, &b| {
                hash.wrapping_mul(31).wrapping_add(b.into())
            });
            let first = |range: &str| {
                range
                    .strip_prefix("bytes=")?
                    .split_once('-')
                    .map(|(a, b)| (a.to_string(), b.to_string()))
            };
            let (from, to) = range.as_deref().and_then(first).unwrap_or_default();
            let from: usize = from.parse().unwrap_or(0);
            let to = to
                .parse::<usize>()
                .map_or(bytes.len(), |to| (to + 1).min(bytes.len()));
            let headers = format!(
                "ETag: \"tag{tag}\"\r\nX-Repo-Commit: {commit}\r\nContent-Range: bytes {from}-{}/{}\r\n",
                to.saturating_sub(1),
                bytes.len()
            );
            let weights = file.ends_with("safetensors") && to - from > 1;
            let cut = if weights {
                content.break_after.take()
            } else {
                None
            };
            let open = cut.map(|_| (stream.try_clone().unwrap(), content.stall));
            drop(content);
            reply(stream, 206, &headers, &bytes[from..to], cut);
            if let Some((stream, stall)) = open {
                std::thread::sleep(stall);
                drop(stream);
            }
        }
        _ => reply(stream, 404, "", b"", None),
    }
}

fn reply(mut stream: TcpStream, status: u16, headers: &str, body: &[u8], cut: Option<usize>) {
    let head = format!(
        "HTTP/1.1 {status} X\r\nConnection: close\r\n{headers}Content-Length: {}\r\n\r\n",
        body.len()
    );
    let _ = stream.write_all(head.as_bytes());
    let _ = stream.write_all(&body[..cut.unwrap_or(body.len()).min(body.len())]);
}
