//! The machine code for a card: a cubin of its architecture, or PTX that its driver compiles.

use std::{env, fs, io::Read, path::PathBuf};

use flate2::read::GzDecoder;
use upright_base::{Error, Result};

use crate::families::{FAMILIES, Family};

/// Folder that replaces the embedded images. It has the layout of `cubins/`.
pub const FOLDER_VARIABLE: &str = "UPRIGHT_KERNELS";

/// What an image was made for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Target {
    /// A100.
    Sm80,
    /// RTX 30, A10, A40.
    Sm86,
    /// RTX 40, L4, L40.
    Sm89,
    /// H100, H200. The code runs on compute capability 9.0 alone.
    Sm90a,
    /// B200, B300.
    Sm100,
    /// RTX 50, RTX PRO Blackwell.
    Sm120,
    /// PTX: every card from compute capability 8.0 on, compiled by its driver.
    Ptx80,
}

impl Target {
    /// All targets.
    pub const ALL: [Self; 7] = [
        Self::Sm80,
        Self::Sm86,
        Self::Sm89,
        Self::Sm90a,
        Self::Sm100,
        Self::Sm120,
        Self::Ptx80,
    ];

    /// The name that NVRTC has for it.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Sm80 => "sm_80",
            Self::Sm86 => "sm_86",
            Self::Sm89 => "sm_89",
            Self::Sm90a => "sm_90a",
            Self::Sm100 => "sm_100",
            Self::Sm120 => "sm_120",
            Self::Ptx80 => "compute_80",
        }
    }

    /// Extension of its files.
    const fn extension(self) -> &'static str {
        match self {
            Self::Ptx80 => "ptx.gz",
            _ => "cubin.gz",
        }
    }

    /// The target for a card of this compute capability. A cubin runs on later minor versions of its major version.
    ///
    /// # Errors
    /// If the card is older than compute capability 8.0: it has no bf16 products.
    pub fn of(capability: (u32, u32)) -> Result<Self> {
        Ok(match capability {
            (8, 0..=5) => Self::Sm80,
            (8, 6..=8) => Self::Sm86,
            (8, _) => Self::Sm89,
            (9, 0) => Self::Sm90a,
            (10, _) => Self::Sm100,
            (12, _) => Self::Sm120,
            (9.., _) => Self::Ptx80,
            (major, minor) => {
                let problem = format!("the GPU has compute capability {major}.{minor}");
                return Err(Error::input(problem)
                    .hint("the kernels need 8.0 or later (Ampere); use --device cpu"));
            }
        })
    }
}

/// Code of a family for one card.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Image {
    /// What it was made for.
    pub target: Target,
    /// A cubin, or the text of PTX.
    pub code: Vec<u8>,
}

/// The image of a family for a card of this compute capability. It comes from the folder that `UPRIGHT_KERNELS` names, if it is
/// set, else from this program.
///
/// # Errors
/// If the card is too old, or the folder has no readable image.
pub fn image(family: &Family, capability: (u32, u32)) -> Result<Image> {
    image_from(folder(), family, Target::of(capability)?)
}

/// Reads the images of all families for all cards, and returns the number of kernels.
///
/// # Errors
/// If `UPRIGHT_KERNELS` names a folder that lacks an image, or one is damaged.
pub fn check_images() -> Result<usize> {
    let mut kernels = 0;
    for family in FAMILIES {
        kernels += family.kernels.len();
        for target in Target::ALL {
            image_from(folder(), family, target)?;
        }
    }
    Ok(kernels)
}

/// The folder that replaces the embedded images.
fn folder() -> Option<PathBuf> {
    let folder = env::var_os(FOLDER_VARIABLE).filter(|folder| !folder.is_empty());
    folder.map(PathBuf::from)
}

/// The image for a target, from a folder or from this program.
fn image_from(folder: Option<PathBuf>, family: &Family, target: Target) -> Result<Image> {
    let Some(folder) = folder else {
        let embedded = family.images.iter().find(|(found, _)| *found == target);
        let (_, bytes) = embedded.expect("a family has images for all targets");
        let code = unpack(bytes).expect("embedded images are whole");
        return Ok(Image { target, code });
    };
    let name = format!("{}.{}.{}", family.name, target.name(), target.extension());
    let path = folder.join(name);
    let hint = format!("{FOLDER_VARIABLE} names a folder that tools/kernels/build has written");
    let bytes =
        fs::read(&path).map_err(|error| Error::unreadable(&path, "read", error).hint(&hint))?;
    let code = unpack(&bytes).map_err(|error| Error::file(&path, error, &hint))?;
    Ok(Image { target, code })
}

fn unpack(bytes: &[u8]) -> std::io::Result<Vec<u8>> {
    let mut code = Vec::new();
    GzDecoder::new(bytes).read_to_end(&mut code)?;
    Ok(code)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_card_gets_the_cubin_that_runs_on_it() {
        for (capability, name) in [
            ((8, 0), "sm_80"),
            ((8, 6), "sm_86"),
            ((8, 7), "sm_86"),
            ((8, 9), "sm_89"),
            ((9, 0), "sm_90a"),
            ((10, 0), "sm_100"),
            ((10, 3), "sm_100"),
            ((11, 0), "compute_80"),
            ((12, 0), "sm_120"),
            ((12, 1), "sm_120"),
            ((13, 0), "compute_80"),
        ] {
            assert_eq!(Target::of(capability).unwrap().name(), name);
        }
        let error = Target::of((7, 5)).unwrap_err();
        assert!(error.hint.contains("8.0 or later"));
    }

    #[test]
    fn every_family_has_a_cubin_for_every_card() {
        for family in FAMILIES {
            for target in Target::ALL {
                let image = image_from(None, family, target).unwrap();
                let start: &[u8] = match target {
                    Target::Ptx80 => b"//",
                    _ => b"\x7fELF",
                };
                assert!(image.code.starts_with(start), "{}", family.name);
                for kernel in family.kernels {
                    let name = kernel.name.as_bytes();
                    let found = image.code.windows(name.len()).any(|part| part == name);
                    assert!(found, "{} in {}", kernel.name, target.name());
                }
            }
        }
    }

    #[test]
    fn a_folder_replaces_the_embedded_images() {
        let folder = tempfile::tempdir().unwrap();
        let family = &FAMILIES[0];
        let from = |target| image_from(Some(folder.path().to_owned()), family, target);
        let error = from(Target::Sm80).unwrap_err();
        assert!(error.message.contains("sm_80.cubin.gz") && error.hint.contains("UPRIGHT_KERNELS"));
        let path = folder
            .path()
            .join(format!("{}.sm_80.cubin.gz", family.name));
        fs::write(&path, b"not gzip").unwrap();
        assert!(from(Target::Sm80).is_err());
        fs::write(&path, family.images[0].1).unwrap();
        assert_eq!(
            from(Target::Sm80).unwrap(),
            image_from(None, family, Target::Sm80).unwrap()
        );
    }
}
