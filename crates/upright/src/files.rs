//! Files that are either whole or not there: everything the program writes goes through here.

use std::{
    fs::{self, File, OpenOptions},
    io::Write,
    path::{Path, PathBuf},
    time::Duration,
};

use sha2::{Digest, Sha256};

use crate::{Error, Result, observer::Observer};

/// Reads a whole text file; a file that cannot be read is bad input.
pub fn read_text(path: &Path) -> Result<String> {
    fs::read_to_string(path).map_err(|error| Error::input(format!("{}: cannot read: {error}", path.display())))
}

/// Creates a folder and those above it.
pub fn create_dir(path: &Path) -> Result<()> {
    fs::create_dir_all(path).map_err(|error| Error::io(path, "create", error))
}

/// How names of files end that [`write_atomic`] has not finished; they begin with a dot.
const PARTIAL: &str = ".partial";

/// Whether a name is that of a file which a write that was killed left behind.
pub fn is_partial(name: &std::ffi::OsStr) -> bool {
    name.to_str().is_some_and(|name| name.starts_with('.') && name.ends_with(PARTIAL))
}

/// Writes a file under another name, brings it to the disk, then gives it its name: a reader sees the old file or the new
/// one, never half of one.
pub fn write_atomic(path: &Path, bytes: &[u8]) -> Result<()> {
    let Some(name) = path.file_name().map(|name| name.to_string_lossy()) else {
        return Err(Error::input(format!("{}: is not a file's name", path.display())));
    };
    // Several may be about to write the same file, on machines that share a folder and number their processes alike.
    let now = std::time::SystemTime::UNIX_EPOCH.elapsed().map_or(0, |since| since.as_nanos());
    let partial = path.with_file_name(format!(".{name}.{}-{now:x}{PARTIAL}", std::process::id()));
    let written = File::create(&partial).and_then(|mut file| {
        file.write_all(bytes)?;
        file.sync_all()
    });
    written.and_then(|()| fs::rename(&partial, path)).map_err(|error| {
        // The half-written file must not keep a full disk full; the error that matters is the first one.
        let _ = fs::remove_file(&partial);
        Error::io(path, "write", error)
    })
}

/// Appends whole lines to a file, each flushed, so that a run killed at any moment leaves at most one torn line at the end.
#[derive(Debug)]
pub struct Lines {
    path: PathBuf,
    file: File,
}

impl Lines {
    /// Opens a file for appending, first cutting it after the leading lines for which `keep` holds (a torn last line never
    /// does).
    pub fn open(path: &Path, keep: impl Fn(&str) -> bool) -> Result<Self> {
        let text = match fs::read(path) {
            Ok(bytes) => bytes,
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => Vec::new(),
            Err(error) => return Err(Error::io(path, "read", error)),
        };
        let mut kept = 0;
        for line in text.split_inclusive(|byte| *byte == b'\n') {
            match std::str::from_utf8(line) {
                Ok(line) if line.ends_with('\n') && keep(line.trim_end()) => kept += line.len(),
                _ => break,
            }
        }
        let file = OpenOptions::new().create(true).append(true).open(path).and_then(|file| {
            file.set_len(kept as u64)?;
            Ok(file)
        });
        let file = file.map_err(|error| Error::io(path, "open", error))?;
        Ok(Self { path: path.to_owned(), file })
    }

    /// Appends one line.
    pub fn push(&mut self, line: &str) -> Result<()> {
        let bytes = format!("{line}\n");
        self.file.write_all(bytes.as_bytes()).map_err(|error| Error::io(&self.path, "write", error))
    }

    /// Brings what was appended to the disk.
    pub fn sync(&self) -> Result<()> {
        self.file.sync_data().map_err(|error| Error::io(&self.path, "write", error))
    }
}

/// A lock that the system releases when the process ends, however it ends.
#[derive(Debug)]
pub struct Lock {
    _file: File,
}

impl Lock {
    /// Takes the lock at `path`, or fails at once if another process has it.
    pub fn try_take(path: &Path) -> Result<Self> {
        let file = Self::open(path)?;
        match file.try_lock() {
            Ok(()) => Ok(Self { _file: file }),
            Err(fs::TryLockError::WouldBlock) => {
                let folder = path.parent().unwrap_or(path).display();
                Err(Error::input(format!("{folder}: another process is at work in this folder"))
                    .hint("wait for it, stop it, or give this run another --out"))
            }
            Err(fs::TryLockError::Error(error)) => Err(no_lock(path, error)),
        }
    }

    /// Takes the lock at `path`, waiting for whoever has it until a stop is requested.
    pub fn wait(path: &Path, observer: &mut dyn Observer) -> Result<Self> {
        let file = Self::open(path)?;
        let mut said = false;
        loop {
            match file.try_lock() {
                Ok(()) => return Ok(Self { _file: file }),
                Err(fs::TryLockError::Error(error)) => return Err(no_lock(path, error)),
                Err(fs::TryLockError::WouldBlock) if observer.stop_requested() => {
                    return Err(Error::interrupted("while waiting for another process"));
                }
                Err(fs::TryLockError::WouldBlock) => {}
            }
            if !said {
                observer.note(&format!("waiting for another process that has {}", path.display()));
                said = true;
            }
            std::thread::sleep(Duration::from_millis(50));
        }
    }

    fn open(path: &Path) -> Result<File> {
        let file = OpenOptions::new().create(true).append(true).open(path);
        file.map_err(|error| Error::io(path, "open", error))
    }
}

/// The error of a lock that the system refuses. Network file systems without a lock service have none.
fn no_lock(path: &Path, error: std::io::Error) -> Error {
    use std::io::ErrorKind::Unsupported;
    // ENOLCK has no kind of its own.
    let no_locks_available = cfg!(target_os = "linux") && error.raw_os_error() == Some(37);
    if error.kind() != Unsupported && !no_locks_available {
        return Error::io(path, "lock", error);
    }
    let folder = path.parent().unwrap_or(path).display();
    Error::input(format!("{folder}: this file system cannot lock files: {error}")).hint(
        "two runs could write into one folder unnoticed; give --out, and UPRIGHT_CACHE for the cache, on a local disk or a \
         network file system that is mounted with locks",
    )
}

/// A folder for as long as this value lives.
#[derive(Debug)]
pub struct Scratch(PathBuf);

impl Scratch {
    /// A new folder among the system's temporary files.
    pub fn new(name: &str) -> Result<Self> {
        let path = std::env::temp_dir().join(format!("{name}-{}", std::process::id()));
        create_dir(&path)?;
        Ok(Self(path))
    }

    /// Where it is.
    pub fn path(&self) -> &Path {
        &self.0
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        // What cannot be removed is the system's to clear away.
        let _ = fs::remove_dir_all(&self.0);
    }
}

/// SHA-256 of a file, in hexadecimal; a file that cannot be read is bad input.
pub fn sha256(path: &Path) -> Result<String> {
    let bytes = fs::read(path).map_err(|error| Error::input(format!("{}: cannot read: {error}", path.display())))?;
    Ok(hex(&Sha256::digest(&bytes)))
}

/// Bytes in hexadecimal.
pub fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

/// Whether files can be made in a folder that is there.
pub fn check_writable(dir: &Path) -> std::io::Result<()> {
    let probe = dir.join(format!(".upright-{}", std::process::id()));
    File::create(&probe)?;
    fs::remove_file(&probe)
}

/// A path as a shell takes it: in single quotes where it has blanks or other characters that a shell reads.
pub fn quoted(path: &Path) -> String {
    let text = path.display().to_string();
    let is_plain = |c: char| c.is_alphanumeric() || "-_./:@%+=,".contains(c);
    if !text.is_empty() && text.chars().all(is_plain) { text } else { format!("'{}'", text.replace('\'', "'\\''")) }
}

/// Where things that later runs can use again are kept: `UPRIGHT_CACHE`, else `upright` in the user's cache folder.
pub fn cache_dir() -> PathBuf {
    let variable = |name: &str| std::env::var_os(name).filter(|value| !value.is_empty()).map(PathBuf::from);
    variable("UPRIGHT_CACHE")
        .or_else(|| variable("XDG_CACHE_HOME").map(|dir| dir.join("upright")))
        .or_else(|| variable("HOME").map(|home| home.join(".cache/upright")))
        .unwrap_or_else(|| std::env::temp_dir().join("upright-cache"))
}

/// A folder of the cache, made where it is missing.
pub fn cache(name: &str) -> Result<PathBuf> {
    let path = cache_dir().join(name);
    fs::create_dir_all(&path).map_err(|error| unwritable_cache(&path, &error))?;
    Ok(path)
}

/// A cache that cannot be written is met before a run begins, and can be put elsewhere.
pub fn unwritable_cache(path: &Path, error: &std::io::Error) -> Error {
    Error::input(format!("{}: the cache cannot be written: {error}", path.display()))
        .hint("set UPRIGHT_CACHE to a folder that can be")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_survive_a_torn_end_and_can_be_cut() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("steps.jsonl");
        fs::write(&path, "0\n1\n2\n3").unwrap();
        Lines::open(&path, |line| line.parse::<u32>().unwrap() < 2).unwrap().push("new").unwrap();
        assert_eq!(fs::read_to_string(&path).unwrap(), "0\n1\nnew\n");
        Lines::open(&path, |_| true).unwrap().push("more").unwrap();
        assert_eq!(fs::read_to_string(&path).unwrap(), "0\n1\nnew\nmore\n");
    }

    #[test]
    fn an_atomic_write_that_fails_leaves_the_old_file_and_no_other() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("plan.toml");
        write_atomic(&path, b"one").unwrap();
        write_atomic(&path, b"two").unwrap();
        assert_eq!(fs::read(&path).unwrap(), b"two");
        assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 1);
        assert!(write_atomic(&dir.path().join("missing/plan.toml"), b"x").is_err());
    }

    /// What another process has of the same file is neither taken nor removed.
    #[test]
    fn writers_of_one_file_do_not_meet() {
        let dir = tempfile::tempdir().unwrap();
        let (path, others) = (dir.path().join("plan.toml"), dir.path().join(".plan.toml.0.partial"));
        fs::write(&others, "half of it").unwrap();
        write_atomic(&path, b"whole").unwrap();
        assert_eq!((fs::read(&path).unwrap(), fs::read(&others).unwrap()), (b"whole".to_vec(), b"half of it".to_vec()));
        assert!(is_partial(others.file_name().unwrap()) && !is_partial(path.file_name().unwrap()));
    }

    #[test]
    fn a_file_system_without_locks_is_named_with_a_way_out() {
        // EOPNOTSUPP, ENOSYS and ENOLCK of Linux.
        for code in [95, 38, 37] {
            let error = no_lock(Path::new("runs/a/.lock"), std::io::Error::from_raw_os_error(code));
            assert!(error.message.starts_with("runs/a: this file system cannot lock files"), "{error}");
            assert!(error.hint.contains("--out"), "{error}");
        }
        let other = no_lock(Path::new("runs/a/.lock"), std::io::Error::from_raw_os_error(5));
        assert!(!other.message.contains("cannot lock files"), "{other}");
    }

    #[test]
    fn paths_are_quoted_where_a_shell_needs_it() {
        assert_eq!(quoted(Path::new("runs/first-1.0")), "runs/first-1.0");
        assert_eq!(quoted(Path::new("my runs/a")), "'my runs/a'");
        assert_eq!(quoted(Path::new("it's")), r"'it'\''s'");
        assert_eq!(quoted(Path::new("$HOME")), "'$HOME'");
    }

    #[test]
    fn a_lock_is_exclusive_until_it_is_dropped() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join(".lock");
        let held = Lock::try_take(&path).unwrap();
        assert!(Lock::try_take(&path).unwrap_err().message.contains("another process"));
        drop(held);
        Lock::try_take(&path).unwrap();
    }
}
