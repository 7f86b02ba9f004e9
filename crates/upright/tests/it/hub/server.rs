//! A hub on this machine, and how it misbehaves.

use std::{
    collections::BTreeMap,
    fs,
    io::{BufRead, BufReader, Write},
    net::{TcpListener, TcpStream},
    sync::{Arc, Mutex},
    thread,
};

use serde_json::{Value, json};
use sha1::Sha1;
use sha2::{Digest, Sha256};

use crate::fixture::Place;

pub(crate) const COMMIT: &str = "00112233445566778899aabbccddeeff00112233";
/// The commit that comes after it.
const NEWER: &str = "ffeeddccbbaa99887766554433221100ffeeddcc";
pub(crate) const TOKEN: &str = "hf_secret";

/// A file of the hub and how it misbehaves.
#[derive(Clone, Default)]
pub(crate) struct Stored {
    pub(crate) bytes: Vec<u8>,
    /// Kept apart from the repository, under its SHA-256, as large files are.
    pub(crate) large: bool,
    /// How many answers break off after half of what they should bring.
    pub(crate) breaks: usize,
    /// How many answers bring other bytes.
    pub(crate) lies: usize,
    /// How many answers bring more than was said before.
    pub(crate) longer: usize,
    /// Whether parts are unknown: every answer begins at the start.
    pub(crate) whole_only: bool,
}

/// What the hub has, and what it was asked.
#[derive(Default)]
pub(crate) struct Shelf {
    /// Files by `models/ORG/NAME/FILE` or `datasets/ORG/NAME/FILE`.
    pub(crate) files: BTreeMap<String, Stored>,
    /// Repositories that only the token opens.
    pub(crate) gated: Vec<String>,
    /// What everything is answered with instead: a status, and the hub's word for it.
    pub(crate) refusal: Option<(&'static str, &'static str)>,
    /// Where the bytes of large files are, where that is not the hub's own address.
    pub(crate) bytes_at: Option<String>,
    /// What files of a newer commit are answered with, where there is one.
    pub(crate) newer: Option<&'static str>,
    /// Request lines, with the range and whether there was a token.
    pub(crate) asked: Vec<String>,
}

/// Sends status, headers, the length that is promised, and a body.
type Say<'s> = dyn FnMut(&str, &str, usize, &[u8]) + 's;

#[derive(Clone)]
pub(crate) struct Server {
    pub(crate) address: String,
    pub(crate) shelf: Arc<Mutex<Shelf>>,
}

pub(crate) fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

pub(crate) fn sha256(bytes: &[u8]) -> String {
    hex(&Sha256::digest(bytes))
}

/// The hub's tag of a small file: git's hash of it.
pub(crate) fn git_hash(bytes: &[u8]) -> String {
    hex(&Sha1::new_with_prefix(format!("blob {}\0", bytes.len()))
        .chain_update(bytes)
        .finalize())
}

impl Server {
    pub(crate) fn new() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let server = Self {
            address: listener.local_addr().unwrap().to_string(),
            shelf: Arc::default(),
        };
        let serving = server.clone();
        thread::spawn(move || {
            listener
                .incoming()
                .flatten()
                .for_each(|stream| serving.answer(stream));
        });
        server
    }

    pub(crate) fn put(&self, name: &str, stored: Stored) {
        self.shelf.lock().unwrap().files.insert(name.into(), stored);
    }

    /// Every file of a folder as a repository.
    pub(crate) fn put_folder(&self, repo: &str, place: &Place, folder: &str) {
        for entry in fs::read_dir(place.path(folder))
            .unwrap()
            .map(|entry| entry.unwrap())
        {
            let name = entry.file_name().into_string().unwrap();
            let large = name.ends_with(".safetensors");
            let stored = Stored {
                bytes: fs::read(entry.path()).unwrap(),
                large,
                ..Stored::default()
            };
            self.put(&format!("{repo}/{name}"), stored);
        }
    }

    pub(crate) fn asked(&self, what: &str) -> usize {
        self.shelf
            .lock()
            .unwrap()
            .asked
            .iter()
            .filter(|line| line.contains(what))
            .count()
    }

    pub(crate) fn forget(&self) {
        self.shelf.lock().unwrap().asked.clear();
    }

    fn answer(&self, mut stream: TcpStream) {
        let mut reader = BufReader::new(stream.try_clone().unwrap());
        let mut line = String::new();
        if reader.read_line(&mut line).is_err() || line.is_empty() {
            return;
        }
        let mut headers = BTreeMap::new();
        loop {
            let mut header = String::new();
            reader.read_line(&mut header).unwrap();
            let Some((name, value)) = header.trim().split_once(": ") else {
                break;
            };
            headers.insert(name.to_lowercase(), value.to_owned());
        }
        let (method, rest) = line.split_once(' ').unwrap();
        let path = rest.split(' ').next().unwrap();
        let token = headers
            .get("authorization")
            .is_some_and(|value| value == &format!("Bearer {TOKEN}"));
        let from: Option<usize> = headers.get("range").map(|range| {
            range["bytes=".len()..]
                .trim_end_matches('-')
                .parse()
                .unwrap()
        });
        let mut shelf = self.shelf.lock().unwrap();
        let seen = format!(
            "{method} {path} {} {}",
            from.unwrap_or(0),
            if token { "token" } else { "nobody" }
        );
        shelf.asked.push(seen);
        let mut say = |status: &str, headers: &str, length: usize, body: &[u8]| {
            let head = format!(
                "HTTP/1.1 {status}\r\nConnection: close\r\n{headers}Content-Length: {length}\r\n\r\n"
            );
            let _ = stream.write_all(head.as_bytes());
            if method != "HEAD" {
                let _ = stream.write_all(body);
            }
        };
        let send = |stored: &mut Stored, headers: String, say: &mut Say<'_>| {
            let first = from.filter(|_| !stored.whole_only).unwrap_or(0);
            let total = stored.bytes.len();
            let status = if first > 0 {
                "206 Partial Content"
            } else {
                "200 OK"
            };
            let range = if first > 0 {
                format!("Content-Range: bytes {first}-{}/{total}\r\n", total - 1)
            } else {
                String::new()
            };
            let mut bytes = stored.bytes[first..].to_vec();
            if method == "GET" && stored.longer > 0 {
                stored.longer -= 1;
                bytes.extend(b"more");
            }
            let length = bytes.len();
            if method == "GET" && stored.lies > 0 {
                stored.lies -= 1;
                bytes.iter_mut().for_each(|byte| *byte ^= 1);
            }
            if method == "GET" && stored.breaks > 0 {
                stored.breaks -= 1;
                bytes.truncate(length / 2);
            }
            say(status, &format!("{headers}{range}"), length, &bytes);
        };
        // The bytes of large files, on what would be another machine.
        if let Some(hash) = path.strip_prefix("/bytes/") {
            let stored = shelf
                .files
                .values_mut()
                .find(|stored| stored.large && sha256(&stored.bytes) == hash)
                .unwrap();
            return send(stored, String::new(), &mut say);
        }
        // A mirror on another machine leads to the hub.
        if let Some(new) = path.strip_prefix("/far/") {
            let place = self.address.replace("127.0.0.1", "localhost");
            return say(
                "308 Permanent Redirect",
                &format!("Location: http://{place}/new/{new}\r\n"),
                0,
                b"",
            );
        }
        // A mirror in front, as the hub itself has one: a relative redirect.
        let path = match path.strip_prefix("/old/") {
            Some(new) => {
                return say(
                    "307 Temporary Redirect",
                    &format!("Location: /new/{new}\r\n"),
                    0,
                    b"",
                );
            }
            None => path.strip_prefix("/new").unwrap_or(path).to_owned(),
        };
        let refuse = |code: &str| format!("X-Error-Code: {code}\r\n");
        if let Some((status, code)) = shelf.refusal {
            return say(status, &refuse(code), 0, b"");
        }
        let api = path
            .strip_prefix("/api/")
            .map(|api| api.split_once("/revision/").unwrap());
        let (repo, revision, file) = match (api, path.split_once("/resolve/")) {
            (Some((repo, revision)), _) => (repo.to_owned(), revision, None),
            (None, Some((repo, rest))) => {
                let (revision, file) = rest.split_once('/').unwrap();
                let repo = repo.trim_start_matches('/');
                let repo = if repo.starts_with("datasets/") {
                    repo.to_owned()
                } else {
                    format!("models/{repo}")
                };
                (repo, revision, Some(file.replace("%20", " ")))
            }
            (None, None) => return say("404 Not Found", "", 0, b""),
        };
        if shelf.gated.contains(&repo) && !token {
            return say("401 Unauthorized", &refuse("GatedRepo"), 0, b"");
        }
        let prefix = format!("{repo}/");
        let names: Vec<String> = shelf
            .files
            .keys()
            .filter_map(|name| name.strip_prefix(&prefix))
            .map(str::to_owned)
            .collect();
        if names.is_empty() {
            // The hub does not say whether a repository is private or not there.
            return say("401 Unauthorized", &refuse("RepoNotFound"), 0, b"");
        }
        if let (NEWER, Some(status)) = (revision, shelf.newer) {
            return say(status, &refuse(""), 0, b"");
        }
        if !["main", "v1%2Fbeta", COMMIT].contains(&revision) {
            return say("404 Not Found", &refuse("RevisionNotFound"), 0, b"");
        }
        let Some(file) = file else {
            let siblings: Vec<Value> = names
                .iter()
                .map(|name| json!({ "rfilename": name }))
                .collect();
            let commit = if shelf.newer.is_some() { NEWER } else { COMMIT };
            let body = json!({ "sha": commit, "siblings": siblings }).to_string();
            return say("200 OK", "", body.len(), body.as_bytes());
        };
        let bytes_at = shelf.bytes_at.clone();
        let Some(stored) = shelf.files.get_mut(&format!("{repo}/{file}")) else {
            return say("404 Not Found", &refuse("EntryNotFound"), 0, b"");
        };
        let hash = sha256(&stored.bytes);
        if stored.large {
            let size = stored.bytes.len();
            let address = bytes_at.as_ref().unwrap_or(&self.address);
            let location = format!("Location: http://{address}/bytes/{hash}\r\n");
            let linked = format!(
                "X-Linked-Etag: \"{hash}\"\r\nX-Linked-Size: {size}\r\nX-Repo-Commit: {COMMIT}\r\n"
            );
            return say("302 Found", &format!("{location}{linked}"), 0, b"");
        }
        send(
            stored,
            format!("ETag: W/\"{}\"\r\n", git_hash(&stored.bytes)),
            &mut say,
        );
    }
}
