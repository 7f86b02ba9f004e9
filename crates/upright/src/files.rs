//! Files that are either whole or not there: everything the program writes goes through here.

use std::{
    fs::{self, File, OpenOptions},
    io::Write,
    os::unix::fs::{DirBuilderExt, MetadataExt},
    path::{Path, PathBuf},
    time::Duration,
};

use sha2::{Digest, Sha256};
use upright_engine::place::other_than_file;

use crate::{Error, Result, observer::Observer};

/// Reads a whole regular file. A pipe, a device or a folder is an error: a pipe waits for a writer, a device may never end.
///
/// # Errors
/// Those of the system; of kind `InvalidInput` where something else than a file lies there.
pub fn read(path: &Path) -> std::io::Result<Vec<u8>> {
    match other_than_file(path) {
        Some(what) => Err(std::io::Error::new(
            std::io::ErrorKind::InvalidInput,
            format!("it is {what}, expected a file"),
        )),
        None => fs::read(path),
    }
}

/// Reads a file that may be missing: `None` where nothing lies there.
///
/// # Errors
/// It is there and cannot be read.
pub fn read_if_there(path: &Path) -> Result<Option<Vec<u8>>> {
    match read(path) {
        Ok(bytes) => Ok(Some(bytes)),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(unreadable(path, &error)),
    }
}

/// Reads a whole text file; a file that cannot be read is bad input.
pub fn read_text(path: &Path) -> Result<String> {
    let bytes = read(path).map_err(|error| unreadable(path, &error))?;
    as_text(path, bytes)
}

/// Reads a text file that may be missing: `None` where nothing lies there.
///
/// # Errors
/// It is there and cannot be read.
pub fn read_text_if_there(path: &Path) -> Result<Option<String>> {
    read_if_there(path)?
        .map(|bytes| as_text(path, bytes))
        .transpose()
}

fn as_text(path: &Path, bytes: Vec<u8>) -> Result<String> {
    String::from_utf8(bytes).map_err(|error| {
        let at = error.utf8_error().valid_up_to();
        Error::input(format!(
            "{}: cannot read: not UTF-8 at byte {at}",
            path.display()
        ))
        .hint("put the file back")
    })
}

fn unreadable(path: &Path, error: &std::io::Error) -> Error {
    let hint = match error.kind() {
        std::io::ErrorKind::NotFound => "put the file there",
        std::io::ErrorKind::InvalidInput => "put the file itself there",
        std::io::ErrorKind::PermissionDenied => "allow this user to read it",
        _ => "put the file back",
    };
    Error::input(format!("{}: cannot read: {error}", path.display())).hint(hint)
}

/// Creates a folder and those above it.
pub fn create_dir(path: &Path) -> Result<()> {
    fs::create_dir_all(path).map_err(|error| Error::io(path, "create", error))
}

/// How names of files end that [`write_atomic`] has not finished; they begin with a dot.
const PARTIAL: &str = ".partial";

/// Whether a name is that of a file which a write that was killed left behind.
pub fn is_partial(name: &std::ffi::OsStr) -> bool {
    name.to_str()
        .is_some_and(|name| name.starts_with('.') && name.ends_with(PARTIAL))
}

/// Writes a file under another name, brings it to the disk, then gives it its name: a reader sees the old file or the new
/// one, never half of one.
pub fn write_atomic(path: &Path, bytes: &[u8]) -> Result<()> {
    let Some(name) = path.file_name().map(|name| name.to_string_lossy()) else {
        return Err(Error::input(format!(
            "{}: is not a file's name",
            path.display()
        )));
    };
    // Several may be about to write the same file, on machines that share a folder and number their processes alike.
    let now = std::time::SystemTime::UNIX_EPOCH
        .elapsed()
        .map_or(0, |since| since.as_nanos());
    let partial = path.with_file_name(format!(".{name}.{}-{now:x}{PARTIAL}", std::process::id()));
    let written = File::create(&partial).and_then(|mut file| {
        file.write_all(bytes)?;
        file.sync_all()
    });
    written
        .and_then(|()| fs::rename(&partial, path))
        .map_err(|error| {
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
        let text = match read(path) {
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
        let file = OpenOptions::new()
            .create(true)
            .append(true)
            .open(path)
            .and_then(|file| {
                file.set_len(kept as u64)?;
                Ok(file)
            });
        let file = file.map_err(|error| Error::io(path, "open", error))?;
        Ok(Self {
            path: path.to_owned(),
            file,
        })
    }

    /// Appends one line.
    pub fn push(&mut self, line: &str) -> Result<()> {
        let bytes = format!("{line}\n");
        self.file
            .write_all(bytes.as_bytes())
            .map_err(|error| Error::io(&self.path, "write", error))
    }

    /// Brings what was appended to the disk.
    pub fn sync(&self) -> Result<()> {
        self.file
            .sync_data()
            .map_err(|error| Error::io(&self.path, "write", error))
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
                Err(Error::input(format!(
                    "{folder}: another process is at work in this folder"
                ))
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
                observer.note(&format!(
                    "waiting for another process that has {}",
                    path.display()
                ));
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
    // ENOLCK has no kind of its own.
    let has_no_locks = error.raw_os_error() == Some(rustix::io::Errno::NOLCK.raw_os_error());
    if error.kind() != std::io::ErrorKind::Unsupported && !has_no_locks {
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
    let bytes = read(path).map_err(|error| unreadable(path, &error))?;
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
    if !text.is_empty() && text.chars().all(is_plain) {
        text
    } else {
        format!("'{}'", text.replace('\'', "'\\''"))
    }
}

/// Where things that later runs can use again are kept: `UPRIGHT_CACHE`, else `upright` in the user's cache folder.
pub fn cache_dir() -> PathBuf {
    let variable = |name: &str| {
        std::env::var_os(name)
            .filter(|value| !value.is_empty())
            .map(PathBuf::from)
    };
    variable("UPRIGHT_CACHE")
        .or_else(|| variable("XDG_CACHE_HOME").map(|dir| dir.join("upright")))
        .or_else(|| variable("HOME").map(|home| home.join(".cache/upright")))
        .unwrap_or_else(own_temporary)
}

/// Where caches are of a user without a home: among the system's temporary files, which every user can write. Nothing in
/// it is read before [`check_own`].
pub fn own_temporary() -> PathBuf {
    std::env::temp_dir().join(format!(
        "upright-cache-{}",
        rustix::process::getuid().as_raw()
    ))
}

/// Makes the folder of [`own_temporary`], where a path lies in it, and refuses one that somebody else may have prepared.
///
/// # Errors
/// It cannot be made, belongs to another user, is a link, or others may write into it.
pub fn check_own(path: &Path) -> Result<()> {
    let own = own_temporary();
    if !path.starts_with(&own) {
        return Ok(());
    }
    let made = fs::DirBuilder::new().mode(0o700).create(&own);
    if let Err(error) = made.as_ref()
        && error.kind() != std::io::ErrorKind::AlreadyExists
    {
        return Err(unwritable_cache(&own, error));
    }
    let metadata = fs::symlink_metadata(&own).map_err(|error| unwritable_cache(&own, &error))?;
    let is_own = metadata.is_dir() && metadata.uid() == rustix::process::getuid().as_raw();
    if !is_own || metadata.mode() & 0o022 != 0 {
        let problem = format!(
            "{}: the cache was made by another user, or others can write into it",
            own.display()
        );
        return Err(Error::input(problem)
            .hint("set HOME, or UPRIGHT_CACHE and HF_HOME to folders of your own"));
    }
    Ok(())
}

/// Refuses a folder inside `outer` that is a link to somewhere outside of it: what is written there would land elsewhere.
///
/// # Errors
/// It leads out.
pub fn check_inside(outer: &Path, inner: &Path) -> Result<()> {
    let (Ok(outer_place), Ok(inner_place)) = (outer.canonicalize(), inner.canonicalize()) else {
        return Ok(());
    };
    if inner_place.starts_with(&outer_place) {
        return Ok(());
    }
    let (inner, outer) = (inner.display(), outer.display());
    Err(Error::input(format!(
        "{inner}: is a link that leads out of {outer}, to {}",
        inner_place.display()
    ))
    .hint("remove the link, or give another folder: --out DIR"))
}

/// A folder of the cache, made where it is missing.
pub fn cache(name: &str) -> Result<PathBuf> {
    let path = cache_dir().join(name);
    check_own(&path)?;
    fs::create_dir_all(&path).map_err(|error| unwritable_cache(&path, &error))?;
    Ok(path)
}

/// A cache that cannot be written is met before a run begins, and can be put elsewhere.
pub fn unwritable_cache(path: &Path, error: &std::io::Error) -> Error {
    Error::input(format!(
        "{}: the cache cannot be written: {error}",
        path.display()
    ))
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
        Lines::open(&path, |line| line.parse::<u32>().unwrap() < 2)
            .unwrap()
            .push("new")
            .unwrap();
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
        let (path, others) = (
            dir.path().join("plan.toml"),
            dir.path().join(".plan.toml.0.partial"),
        );
        fs::write(&others, "half of it").unwrap();
        write_atomic(&path, b"whole").unwrap();
        assert_eq!(
            (fs::read(&path).unwrap(), fs::read(&others).unwrap()),
            (b"whole".to_vec(), b"half of it".to_vec())
        );
        assert!(is_partial(others.file_name().unwrap()) && !is_partial(path.file_name().unwrap()));
    }

    #[test]
    fn a_file_system_without_locks_is_named_with_a_way_out() {
        // EOPNOTSUPP, ENOSYS and ENOLCK of Linux.
        for code in [95, 38, 37] {
            let error = no_lock(
                Path::new("runs/a/.lock"),
                std::io::Error::from_raw_os_error(code),
            );
            assert!(
                error
                    .message
                    .starts_with("runs/a: this file system cannot lock files"),
                "{error}"
            );
            assert!(error.hint.contains("--out"), "{error}");
        }
        let other = no_lock(
            Path::new("runs/a/.lock"),
            std::io::Error::from_raw_os_error(5),
        );
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
    fn a_folder_that_is_a_link_may_not_lead_out() {
        let dir = tempfile::tempdir().unwrap();
        let path = |name: &str| dir.path().join(name);
        for name in ["report/real", "elsewhere"] {
            fs::create_dir_all(path(name)).unwrap();
        }
        std::os::unix::fs::symlink("real", path("report/in")).unwrap();
        std::os::unix::fs::symlink("../elsewhere", path("report/out")).unwrap();
        for name in ["report/real", "report/in", "report/missing"] {
            check_inside(&path("report"), &path(name)).unwrap();
        }
        let error = check_inside(&path("report"), &path("report/out")).unwrap_err();
        assert!(
            error
                .message
                .contains("report/out: is a link that leads out of "),
            "{error}"
        );
    }

    #[test]
    fn pipes_and_devices_are_not_read() {
        assert!(
            read(Path::new("/dev/zero"))
                .unwrap_err()
                .to_string()
                .contains("it is a device, expected a file")
        );
        let dir = tempfile::tempdir().unwrap();
        assert!(
            read_text(dir.path())
                .unwrap_err()
                .message
                .contains("it is a folder, expected a file")
        );
        assert_eq!(
            read_text_if_there(&dir.path().join("nothing")).unwrap(),
            None
        );
        std::os::unix::fs::symlink("loop", dir.path().join("loop")).unwrap();
        assert!(read_text_if_there(&dir.path().join("loop")).is_err());
    }

    #[test]
    fn a_lock_is_exclusive_until_it_is_dropped() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join(".lock");
        let held = Lock::try_take(&path).unwrap();
        assert!(
            Lock::try_take(&path)
                .unwrap_err()
                .message
                .contains("another process")
        );
        drop(held);
        Lock::try_take(&path).unwrap();
    }
}
