//! A folder that is either complete or absent.

#[cfg(unix)]
use std::os::unix::fs::MetadataExt;
use std::{
    fs::{self, File},
    path::{Path, PathBuf},
};

use upright_base::{Error, Result, files, progress::Progress};
use upright_model::model_files::{is_companion, own_code};

/// A temporary folder beside its final path. It is removed unless it is finished.
pub(super) struct Partial {
    path: PathBuf,
    out: PathBuf,
}

impl Partial {
    /// Creates a temporary folder for `out`, which must not exist or must be empty.
    pub(super) fn begin(out: &Path) -> Result<Self> {
        let refuse = |problem: String| {
            Err(Error::input(problem).hint("give --out a new or an empty folder"))
        };
        let Some(name) = out
            .file_name()
            .map(|name| name.to_string_lossy().into_owned())
        else {
            return refuse(format!("{}: is not a folder name", out.display()));
        };
        // Replace the folder itself in the end, not a link to it.
        let place = match out.canonicalize() {
            Ok(place) => place,
            // A trailing slash would make the path refer to the link's target.
            Err(_) if out.components().collect::<PathBuf>().is_symlink() => {
                return refuse(format!("{}: is a broken link", out.display()));
            }
            Err(_) => out.to_owned(),
        };
        if place.exists() {
            if !place.is_dir() {
                return refuse(format!("{}: is not a folder", out.display()));
            }
            if is_mounted(&place) {
                let problem = format!(
                    "{}: is a mount point, so it cannot be replaced",
                    out.display()
                );
                let inside = out.join("export");
                let hint = format!(
                    "give --out a folder inside it, such as {}",
                    files::quoted(&inside)
                );
                return Err(Error::input(problem).hint(hint));
            }
            if let Some(entry) = fs::read_dir(out).into_iter().flatten().flatten().next() {
                return refuse(format!(
                    "{}: is not empty: it holds {}",
                    out.display(),
                    entry.file_name().display()
                ));
            }
        }
        let above = place
            .parent()
            .filter(|above| !above.as_os_str().is_empty())
            .unwrap_or(Path::new("."));
        files::create_dir(above)?;
        let path = above.join(format!(".{name}.partial"));
        // Left behind by a killed process.
        let _ = fs::remove_dir_all(&path);
        files::create_dir(&path)?;
        Ok(Self { path, out: place })
    }

    /// The temporary folder.
    pub(super) fn path(&self) -> &Path {
        &self.path
    }

    /// Moves the folder to its final path.
    pub(super) fn finish(self) -> Result<()> {
        for entry in fs::read_dir(&self.path)
            .map_err(|error| Error::io(&self.path, "read", error))?
            .flatten()
        {
            let synced = File::open(entry.path()).and_then(|file| file.sync_all());
            synced.map_err(|error| Error::io(entry.path(), "write", error))?;
        }
        if self.out.exists() {
            fs::remove_dir(&self.out).map_err(|error| Error::io(&self.out, "replace", error))?;
        }
        files::rename(&self.path, &self.out)
    }
}

impl Drop for Partial {
    fn drop(&mut self) {
        // After `finish`, nothing exists under this name.
        let _ = fs::remove_dir_all(&self.path);
    }
}

/// Whether a folder is on a different device than its parent.
#[cfg(unix)]
fn is_mounted(folder: &Path) -> bool {
    let device = |path: &Path| path.metadata().ok().map(|metadata| metadata.dev());
    let devices = folder.parent().and_then(device).zip(device(folder));
    devices.is_some_and(|(above, own)| above != own)
}

#[cfg(not(unix))]
fn is_mounted(_folder: &Path) -> bool {
    false
}

/// Copies the files of a model other than weights and config, including the code that the config
/// names. Returns the names, sorted.
pub(super) fn copy_companions(
    model: &Path,
    into: &Path,
    observer: &mut dyn Progress,
) -> Result<Vec<String>> {
    let mut copied = Vec::new();
    let code = own_code(model)?;
    for name in code.iter().filter(|name| !model.join(name).is_file()) {
        let model = model.display();
        observer.note(&format!(
            "warning: {model}: config.json names {name}, which is missing: with trust_remote_code the merged model will not load"
        ));
    }
    for entry in fs::read_dir(model)
        .map_err(|error| Error::io(model, "read", error))?
        .flatten()
    {
        let name = entry.file_name().to_string_lossy().into_owned();
        // Files in the Hub cache are links; their targets are copied.
        if (is_companion(&name) || code.contains(&name)) && entry.path().is_file() {
            copy(&entry.path(), &into.join(&name))?;
            copied.push(name);
        } else if name == "additional_chat_templates" && entry.path().is_dir() {
            files::create_dir(&into.join(&name))?;
            for template in fs::read_dir(entry.path()).into_iter().flatten().flatten() {
                copy(
                    &template.path(),
                    &into.join(&name).join(template.file_name()),
                )?;
                copied.push(format!("{name}/{}", template.file_name().display()));
            }
        }
    }
    copied.sort();
    Ok(copied)
}

fn copy(from: &Path, to: &Path) -> Result<()> {
    let bytes = files::read(from).map_err(|error| Error::io(from, "read", error))?;
    files::write_atomic(to, &bytes)
}
