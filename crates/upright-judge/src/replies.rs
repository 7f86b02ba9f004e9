//! Replies of a judge, kept on disk. A reply is appended before it is read, so that a run that is
//! killed pays for no reply twice.

use std::{
    collections::HashMap,
    path::{Path, PathBuf},
    sync::{Mutex, MutexGuard, PoisonError},
};

use serde::{Deserialize, Serialize};
use serde_json::Value;
use sha2::{Digest, Sha256};
use upright_base::{
    Error, Result,
    files::{self, Lines, Lock},
    progress::Progress,
};

/// A reply, as it is kept.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(crate) struct Reply {
    /// Hash of judge, address and request.
    key: String,
    /// Body of the response.
    pub(crate) body: String,
    /// Seconds that the reply took.
    pub(crate) seconds: f64,
}

/// Replies by the hash of their request.
#[derive(Debug)]
pub(crate) struct Replies {
    path: PathBuf,
    known: Mutex<HashMap<String, Reply>>,
    /// Where replies are appended, with the lock of the file; none if they are only read.
    writer: Option<(Mutex<Lines>, Lock)>,
}

/// The hash of a request to a judge at an address.
pub(crate) fn key(url: &str, model: &str, request: &Value) -> String {
    let mut hash = Sha256::new();
    for part in [model, url, &request.to_string()] {
        hash.update((part.len() as u64).to_le_bytes());
        hash.update(part.as_bytes());
    }
    files::hex(&hash.finalize())
}

impl Replies {
    /// Opens the file of replies, which need not exist. Waits for another process that uses it.
    ///
    /// # Errors
    /// The file cannot be read or written, or a stop was requested.
    pub(crate) fn open(path: &Path, observer: &mut dyn Progress) -> Result<Self> {
        if let Some(folder) = path
            .parent()
            .filter(|folder| !folder.as_os_str().is_empty())
        {
            files::create_dir(folder)?;
        }
        let mut lock = path.as_os_str().to_owned();
        lock.push(".lock");
        let lock = Lock::wait(Path::new(&lock), observer)?;
        let mut replies = Self::read(path, observer)?;
        replies.writer = Some((Mutex::new(Lines::open(path, |_| true)?), lock));
        Ok(replies)
    }

    /// Reads the file of replies, which need not exist. Another process may use it.
    ///
    /// # Errors
    /// The file cannot be read.
    pub(crate) fn read(path: &Path, observer: &mut dyn Progress) -> Result<Self> {
        let mut known = HashMap::new();
        let mut damaged = 0;
        let bytes = files::read_if_there(path)?.unwrap_or_default();
        for (index, line) in bytes.split(|byte| *byte == b'\n').enumerate() {
            match serde_json::from_slice::<Reply>(line) {
                Ok(reply) => {
                    known.insert(reply.key.clone(), reply);
                }
                Err(_) if line.is_empty() => {}
                Err(_) => damaged = index + 1,
            }
        }
        if damaged > 0 {
            observer.note(&format!(
                "warning: {}: line {damaged} is damaged and ignored",
                path.display()
            ));
        }
        Ok(Self {
            path: path.to_owned(),
            known: Mutex::new(known),
            writer: None,
        })
    }

    /// The kept reply to a request.
    pub(crate) fn get(&self, key: &str) -> Option<Reply> {
        lock(&self.known).get(key).cloned()
    }

    /// Keeps a reply.
    ///
    /// # Errors
    /// The file cannot be written, or was opened only to be read.
    pub(crate) fn keep(&self, key: &str, body: &str, seconds: f64) -> Result<Reply> {
        let reply = Reply {
            key: key.to_owned(),
            body: body.to_owned(),
            seconds,
        };
        let line =
            serde_json::to_string(&reply).map_err(|error| Error::failure(error.to_string()))?;
        let Some((file, _)) = &self.writer else {
            return Err(Error::failure("a judge was asked in a dry run"));
        };
        let mut file = lock(file);
        let kept = file.push(&line).and_then(|()| file.sync());
        kept.map_err(|error| {
            error.hint(format!(
                "free some space, or give --replies another place than {}; earlier replies are kept",
                self.path.display()
            ))
        })?;
        lock(&self.known).insert(reply.key.clone(), reply.clone());
        Ok(reply)
    }
}

/// Locks a mutex. No holder of these locks leaves its value half changed.
pub(crate) fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use serde_json::json;
    use upright_base::progress::Silent;

    use super::*;

    #[test]
    fn replies_survive_a_kill_in_the_middle_of_a_line() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("below/replies.jsonl");
        let key_of = |text: &str| key("http://a", "m", &json!({ "text": text }));
        {
            let replies = Replies::open(&path, &mut Silent).unwrap();
            replies.keep(&key_of("one"), "{\"a\": 1}\n", 0.5).unwrap();
            replies.keep(&key_of("two"), "second", 0.25).unwrap();
        }
        let text = std::fs::read_to_string(&path).unwrap();
        std::fs::File::options()
            .write(true)
            .open(&path)
            .unwrap()
            .set_len(text.len() as u64 - 3)
            .unwrap();
        let replies = Replies::open(&path, &mut Silent).unwrap();
        assert_eq!(replies.get(&key_of("one")).unwrap().body, "{\"a\": 1}\n");
        assert_eq!(replies.get(&key_of("two")), None);
        replies.keep(&key_of("three"), "third", 0.0).unwrap();
        drop(replies);
        let replies = Replies::open(&path, &mut Silent).unwrap();
        assert_eq!(replies.get(&key_of("three")).unwrap().body, "third");
    }

    #[test]
    fn a_key_depends_on_judge_address_and_request() {
        let request = json!({"a": "b"});
        let own = key("u", "m", &request);
        assert_ne!(own, key("v", "m", &request));
        assert_ne!(own, key("u", "n", &request));
        assert_ne!(own, key("u", "m", &json!({"a": "c"})));
        assert_ne!(key("ab", "c", &request), key("a", "bc", &request));
    }
}
