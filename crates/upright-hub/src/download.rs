//! Requests to the Hub: listings and files. A download resumes where it stopped, and is checked
//! before it gets its name.

use std::{
    fs::{self, File, OpenOptions},
    io::{Read, Seek, SeekFrom, Write},
    path::Path,
    time::Duration,
};

use serde_json::Value;
use sha1::Sha1;
use sha2::{Digest, Sha256};
use upright_http::{Timeouts, origin};
use ureq::{Agent, Body, http::Response};

use super::cache::RepoKind;
use upright_base::{Error, Result, files, progress::Progress};

/// Maximum number of consecutive attempts without a single byte.
const ATTEMPTS: u32 = 5;
/// Base pause between attempts; doubles with each failed attempt.
const PAUSE: Duration = Duration::from_millis(200);
/// Maximum silence in the middle of a response.
const SILENCE: Duration = Duration::from_secs(30);
/// Maximum redirects per request: a renamed repository, a mirror, a cache in front of the Hub.
const MOST_REDIRECTS: usize = 8;
/// Maximum size of a listing, in bytes.
const MAX_LISTING: u64 = 64 << 20;
/// Bytes per read from the network.
const CHUNK: usize = 1 << 18;

/// A connection to a Hub.
pub(super) struct Connection {
    agent: Agent,
    endpoint: String,
    token: Option<String>,
}

/// Metadata of a file, requested before the file itself.
#[derive(Debug)]
pub(super) struct Description {
    /// ETag: the SHA-256 of a large file, the git object hash of a small file.
    pub(super) etag: String,
    /// Size in bytes.
    pub(super) size: u64,
}

/// A response from the Hub that is not the requested content.
#[derive(Debug)]
pub(super) enum Refusal {
    /// There was no response.
    Unreachable(String),
    /// The Hub does not serve this now, or not with this token: its status, and an error for the
    /// user.
    Withheld(String, Error),
    /// Any other response: an error for the user.
    Answered(Error),
}

/// A response from the Hub, or why there is none.
pub(super) type Answer<T> = std::result::Result<T, Refusal>;

impl From<Error> for Refusal {
    fn from(error: Error) -> Self {
        Self::Answered(error)
    }
}

impl From<Refusal> for Error {
    fn from(refusal: Refusal) -> Self {
        match refusal {
            Refusal::Unreachable(why) => Self::failure(why).hint(
                "check your network connection; HTTPS_PROXY sets a proxy, HF_ENDPOINT another Hub",
            ),
            Refusal::Withheld(_, error) | Refusal::Answered(error) => error,
        }
    }
}

/// One repository at one revision, for requests and messages.
#[derive(Clone, Copy)]
pub(super) struct Repo<'a> {
    pub(super) kind: RepoKind,
    pub(super) name: &'a str,
    pub(super) revision: &'a str,
}

impl Repo<'_> {
    /// Path of the repository below the endpoint.
    fn path(&self) -> String {
        match self.kind {
            RepoKind::Model => self.name.to_owned(),
            RepoKind::Dataset => format!("datasets/{}", self.name),
        }
    }
}

/// Escapes a part of a URL's path; keeps slashes if `slashes` is set.
fn escaped(text: &str, slashes: bool) -> String {
    let plain = |b: u8| b.is_ascii_alphanumeric() || b"-_.~".contains(&b) || (slashes && b == b'/');
    text.bytes()
        .map(|b| {
            if plain(b) {
                char::from(b).to_string()
            } else {
                format!("%{b:02X}")
            }
        })
        .collect()
}

/// Parses a listing, which is JSON from the Hub: the commit and the file names. Skips names that
/// would lead out of their target folder.
///
/// # Errors
/// What is wrong with the response.
pub fn parse_listing(text: &str) -> std::result::Result<(String, Vec<String>), &'static str> {
    let value: Value = serde_json::from_str(text).map_err(|_| "the response is not JSON")?;
    let commit = value
        .get("sha")
        .and_then(Value::as_str)
        .filter(|commit| super::cache::is_commit(commit));
    let files = value.get("siblings").and_then(Value::as_array);
    let (Some(commit), Some(files)) = (commit, files) else {
        return Err("the response has no commit or no list of files");
    };
    let name = |file: &Value| {
        file.get("rfilename")
            .and_then(Value::as_str)
            .map(str::to_owned)
    };
    let names = files
        .iter()
        .filter_map(name)
        .filter(|name| super::cache::is_inside(name));
    Ok((commit.to_owned(), names.collect()))
}

impl Connection {
    /// A connection to the Hub at `endpoint`, with certificates from a file instead of Mozilla's if
    /// one is given.
    pub(super) fn new(
        endpoint: &str,
        token: Option<String>,
        certificates: Option<&Path>,
    ) -> Result<Self> {
        let timeouts = Timeouts {
            response: Some(SILENCE),
            silence: Some(SILENCE),
            total: None,
        };
        Ok(Self {
            agent: upright_http::agent(endpoint, certificates, timeouts)?,
            endpoint: endpoint.trim_end_matches('/').to_owned(),
            token,
        })
    }

    /// The commit of a revision, and the names of its files.
    pub(super) fn listing(&self, repo: Repo<'_>) -> Answer<(String, Vec<String>)> {
        let kind = repo.kind.name();
        let url = format!(
            "{}/api/{kind}s/{}/revision/{}",
            self.endpoint,
            repo.name,
            escaped(repo.revision, false)
        );
        let mut response = self
            .get(&url, None)
            .map_err(|error| self.unreachable(&error))?;
        if response.status() != 200 {
            return Err(self.refused(repo, None, &response));
        }
        let broken = |what: &str| {
            Refusal::Answered(
                Error::failure(format!("{url}: {what}"))
                    .hint("check that HF_ENDPOINT is a Hugging Face Hub"),
            )
        };
        let text = response
            .body_mut()
            .with_config()
            .limit(MAX_LISTING)
            .read_to_string();
        let text = text.map_err(|error| self.unreachable(&error))?;
        parse_listing(&text).map_err(broken)
    }

    fn file_url(&self, repo: Repo<'_>, name: &str) -> String {
        format!(
            "{}/{}/resolve/{}/{}",
            self.endpoint,
            repo.path(),
            escaped(repo.revision, false),
            escaped(name, true)
        )
    }

    /// Requests the metadata of a file, without its bytes.
    pub(super) fn describe(&self, repo: Repo<'_>, name: &str) -> Answer<Description> {
        let url = self.file_url(repo, name);
        // For a large file, the metadata comes with the redirect to where the bytes are.
        let is_described = |response: &Response<Body>| header(response, "x-linked-etag").is_some();
        let response = self
            .follow(Method::Head, &url, None, &is_described)
            .map_err(|error| self.unreachable(&error))?;
        let status = response.status().as_u16();
        let linked = header(&response, "x-linked-etag");
        if status != 200 && !((300..400).contains(&status) && linked.is_some()) {
            return Err(self.refused(repo, Some(name), &response));
        }
        let size = if status == 200 {
            header(&response, "content-length")
        } else {
            None
        };
        let size = header(&response, "x-linked-size").or(size);
        let etag = linked.or_else(|| header(&response, "etag"));
        let etag = etag.map(|etag| etag.trim_start_matches("W/").trim_matches('"').to_owned());
        let plain = |etag: &String| {
            !etag.is_empty() && etag.chars().all(|c| c.is_ascii_alphanumeric() || c == '-')
        };
        let (Some(etag), Some(size)) =
            (etag.filter(plain), size.and_then(|size| size.parse().ok()))
        else {
            let error = Error::failure(format!(
                "{url}: the response lacks the size or the ETag of the file"
            ));
            return Err(Refusal::Answered(
                error.hint("check that HF_ENDPOINT is a Hugging Face Hub"),
            ));
        };
        Ok(Description { etag, size })
    }

    /// Downloads a file to `path`. Resumes an earlier attempt, which is left at `path` plus
    /// `.incomplete`.
    pub(super) fn fetch(
        &self,
        repo: Repo<'_>,
        name: &str,
        file: &Description,
        path: &Path,
        observer: &mut dyn Progress,
    ) -> Result<()> {
        let mut partial = path.as_os_str().to_owned();
        partial.push(".incomplete");
        let partial = Path::new(&partial);
        let megabytes = |bytes: u64| bytes.div_ceil(1_000_000) as usize;
        let stop = observer.stop();
        observer.begin(
            &format!("{}, MB", name.rsplit('/').next().unwrap_or(name)),
            megabytes(file.size),
        );
        let fetched = self.fetch_into(repo, name, file, partial, &mut |done| {
            observer.advance(megabytes(done), "");
            !stop.is_requested()
        });
        observer.end();
        fetched?;
        files::rename(partial, path)
    }

    fn fetch_into(
        &self,
        repo: Repo<'_>,
        name: &str,
        file: &Description,
        partial: &Path,
        progress: &mut dyn FnMut(u64) -> bool,
    ) -> Result<()> {
        let writing = |error| Error::io(partial, "write", error);
        let mut into = OpenOptions::new()
            .create(true)
            .read(true)
            .append(true)
            .open(partial)
            .map_err(writing)?;
        let (mut held, mut attempts, mut damaged) = (into.metadata().map_err(writing)?.len(), 0, 0);
        loop {
            if held >= file.size {
                into.sync_all().map_err(writing)?;
                let longer = held > file.size;
                if !longer && is_whole(&mut into, file.size, &file.etag).map_err(writing)? {
                    return Ok(());
                }
                // Bytes from a broken connection or another program are not the start of this file.
                into.set_len(0).map_err(writing)?;
                (held, damaged) = (0, damaged + 1);
                if damaged == 2 {
                    let _ = fs::remove_file(partial);
                    let what = match longer {
                        true => format!("it is longer than {} bytes", file.size),
                        false => format!("its hash is not {}", file.etag),
                    };
                    let problem = format!(
                        "{}: {name}: the download was damaged twice: {what}",
                        repo.name
                    );
                    return Err(
                        Error::failure(problem).hint("try again later, or on another network")
                    );
                }
            }
            let before = held;
            let ended = self.receive(repo, name, &mut into, &mut held, file.size, progress)?;
            if held >= file.size {
                continue;
            }
            attempts = if held > before { 0 } else { attempts + 1 };
            if attempts == ATTEMPTS {
                let problem = format!(
                    "{}: {name}: the download stopped at {held} of {} bytes: {ended}",
                    repo.name, file.size
                );
                return Err(Error::failure(problem).hint("run the same command to continue"));
            }
            std::thread::sleep(PAUSE * 2_u32.pow(attempts));
        }
    }

    /// Downloads a file from byte `held` on with one request; returns why the request ended.
    fn receive(
        &self,
        repo: Repo<'_>,
        name: &str,
        into: &mut File,
        held: &mut u64,
        size: u64,
        progress: &mut dyn FnMut(u64) -> bool,
    ) -> Result<String> {
        if size == 0 {
            return Ok(String::new());
        }
        let mut response = match self.get(&self.file_url(repo, name), Some(*held)) {
            Ok(response) => response,
            Err(error) => return Ok(error.to_string()),
        };
        match response.status().as_u16() {
            206 if header(&response, "content-range")
                .is_some_and(|r| r.starts_with(&format!("bytes {held}-"))) => {}
            // The server does not support ranges.
            200 | 206 => {
                into.set_len(0)
                    .map_err(|error| Error::failure(error.to_string()))?;
                *held = 0;
                if response.status() == 206 {
                    return Ok("the Hub sent another range than requested".into());
                }
            }
            // Busy, or too many requests.
            status @ (408 | 416 | 429 | 500..=599) => {
                return Ok(format!("the Hub answered {status}"));
            }
            _ => return Err(self.refused(repo, Some(name), &response).into()),
        }
        let mut body = response.body_mut().as_reader();
        let mut chunk = vec![0; CHUNK];
        loop {
            let read = match body.read(&mut chunk) {
                Ok(0) => return Ok("the connection was closed".into()),
                Ok(read) => read,
                Err(error) => return Ok(error.to_string()),
            };
            into.write_all(&chunk[..read])
                .map_err(|error| Error::failure(format!("{name}: cannot write: {error}")))?;
            *held += read as u64;
            if !progress(*held) {
                return Err(Error::interrupted("while downloading")
                    .hint("run the same command to continue"));
            }
            if *held > size {
                return Ok("the Hub sent more bytes than it announced".into());
            }
        }
    }

    fn get(
        &self,
        url: &str,
        from: Option<u64>,
    ) -> std::result::Result<Response<Body>, ureq::Error> {
        self.follow(Method::Get, url, from, &|_| false)
    }

    /// Sends a request and follows its redirects, up to the first response that `is_enough`. The
    /// token is sent only to the endpoint's own origin (scheme, host and port), and only until a
    /// redirect leaves it.
    fn follow(
        &self,
        method: Method,
        url: &str,
        from: Option<u64>,
        is_enough: &dyn Fn(&Response<Body>) -> bool,
    ) -> std::result::Result<Response<Body>, ureq::Error> {
        let mut url = url.to_owned();
        let mut is_hub = true;
        for _ in 0..=MOST_REDIRECTS {
            is_hub &= origin(&url) == origin(&self.endpoint);
            let request = match method {
                Method::Get => self.agent.get(&url),
                Method::Head => self.agent.head(&url),
            };
            let mut request = request.header("Accept-Encoding", "identity");
            if let Some(from) = from {
                request = request.header("Range", format!("bytes={from}-"));
            }
            if let Some(token) = self.token.as_ref().filter(|_| is_hub) {
                request = request.header("Authorization", format!("Bearer {token}"));
            }
            let response = request.call()?;
            let is_redirect = matches!(response.status().as_u16(), 301 | 302 | 303 | 307 | 308);
            match header(&response, "location").filter(|_| is_redirect && !is_enough(&response)) {
                Some(location) => url = joined(&url, &location),
                None => return Ok(response),
            }
        }
        Err(ureq::Error::TooManyRedirects)
    }

    fn unreachable(&self, error: &ureq::Error) -> Refusal {
        Refusal::Unreachable(format!("{} cannot be reached: {error}", self.endpoint))
    }

    /// The error for a response that is not the requested content.
    fn refused(&self, repo: Repo<'_>, name: Option<&str>, response: &Response<Body>) -> Refusal {
        let Repo {
            kind,
            name: id,
            revision,
        } = repo;
        let (kind, endpoint, status) = (kind.name(), &self.endpoint, response.status().as_u16());
        let code = header(response, "x-error-code").unwrap_or_default();
        let token = match &self.token {
            Some(_) => "the current token has no access; set HF_TOKEN to another token",
            None => {
                "if it is private, set HF_TOKEN to a token with access, or log in with `hf auth login`"
            }
        };
        let error = match (&code[..], status) {
            ("GatedRepo", _) | (_, 403) => {
                let page = format!("{endpoint}/{}", repo.path());
                let token = match &self.token {
                    Some(_) => "the current token has not been granted access: accept the terms",
                    None => "set HF_TOKEN and accept the terms",
                };
                Error::input(format!(
                    "{id}: access to this {kind} is restricted by its owner"
                ))
                .hint(format!("{token} at {page}"))
            }
            ("RevisionNotFound", _) => Error::input(format!("{id}: no revision {revision}"))
                .hint("a revision is a branch, a tag or a commit, as in ORG/NAME@main"),
            ("EntryNotFound", _) => Error::input(format!(
                "{id}@{revision}: no file {}",
                name.unwrap_or_default()
            )),
            (_, 401) | ("RepoNotFound", _) | (_, 404) => Error::input(format!(
                "{id}: no such local folder, and no readable {kind} of that name at {endpoint}"
            ))
            .hint(format!("check the spelling; {token}")),
            (_, 429) => Error::failure(format!("{endpoint}: too many requests (429)"))
                .hint("wait a while, or set HF_TOKEN: a token raises the limit"),
            _ => Error::failure(format!("{id}: {endpoint} answered {status}"))
                .hint("try again later"),
        };
        match status {
            401 | 403 | 429 | 500..=599 => {
                Refusal::Withheld(format!("{endpoint} answered {status}"), error)
            }
            _ => Refusal::Answered(error),
        }
    }
}

/// HTTP methods of requests to the Hub.
#[derive(Clone, Copy)]
enum Method {
    Get,
    Head,
}

/// Resolves a `Location` header on the page `url`.
fn joined(url: &str, location: &str) -> String {
    let path = url.split(['?', '#']).next().unwrap_or(url);
    let origin = origin(url);
    if location.contains("://") {
        location.to_owned()
    } else if location.starts_with("//") {
        format!("{}:{location}", url.split(':').next().unwrap_or("https"))
    } else if location.starts_with('/') {
        format!("{origin}{location}")
    } else {
        let folder = path[origin.len().min(path.len())..]
            .rfind('/')
            .map_or(path, |at| &path[..origin.len() + at]);
        format!("{folder}/{location}")
    }
}

/// A header of a response.
fn header(response: &Response<Body>, name: &str) -> Option<String> {
    Some(response.headers().get(name)?.to_str().ok()?.to_owned())
}

/// Whether a file's bytes match its ETag: SHA-256 for a large file, SHA-1 of the git object for a
/// file in git itself, SHA-1 of the bytes for caches that set their own ETag. For any other ETag,
/// the size has to do.
fn is_whole(file: &mut File, size: u64, etag: &str) -> std::io::Result<bool> {
    if !etag.bytes().all(|byte| byte.is_ascii_hexdigit()) {
        return Ok(true);
    }
    let etag = etag.to_lowercase();
    Ok(match etag.len() {
        64 => digest(file, Sha256::new())? == etag,
        40 => {
            let object = Sha1::new_with_prefix(format!("blob {size}\0"));
            digest(file, object)? == etag || digest(file, Sha1::new())? == etag
        }
        _ => true,
    })
}

/// The hash of a file, after the bytes that `hash` already has.
fn digest(file: &mut File, mut hash: impl Digest) -> std::io::Result<String> {
    file.seek(SeekFrom::Start(0))?;
    let mut chunk = vec![0; CHUNK];
    loop {
        match file.read(&mut chunk)? {
            0 => return Ok(files::hex(&hash.finalize())),
            read => hash.update(&chunk[..read]),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn redirects_are_resolved() {
        for (location, expected) in [
            ("https://cdn:444/x", "https://cdn:444/x"),
            ("//cdn/x", "http://cdn/x"),
            ("/x?y=/z", "http://hub:81/x?y=/z"),
            ("x", "http://hub:81/a/x"),
        ] {
            assert_eq!(joined("http://hub:81/a/b?c=/d", location), expected);
        }
        assert_eq!(joined("http://hub:81", "x"), "http://hub:81/x");
    }

    #[test]
    fn bytes_are_compared_with_whichever_hash_the_tag_is() {
        let mut file = tempfile::tempfile().unwrap();
        file.write_all(b"Hello, World!").unwrap();
        let mut whole = |etag: &str| is_whole(&mut file, 13, etag).unwrap();
        // printf 'Hello, World!' | git hash-object --stdin; | sha1sum; | sha256sum
        assert!(whole("b45ef6fec89518d314f546fd6c3025367b721684"));
        assert!(whole("B45EF6FEC89518D314F546FD6C3025367B721684"));
        assert!(whole("0a0a9f2a6772942557ab5355d76af442f8f65e01"));
        assert!(whole(
            "dffd6021bb2bd5b0af676290809ec3a53191dd81c7f70a4b28688a362182986f"
        ));
        assert!(!whole("b45ef6fec89518d314f546fd6c3025367b721685") && !whole(&"0".repeat(64)));
        assert!(whole("5f3a-1c") && whole("0123"), "not a known hash");
    }
}
