//! The driver, cuBLASLt and the cards of a machine.

use std::{path::PathBuf, sync::OnceLock};

use cudarc::{
    cublaslt,
    driver::{result, sys},
};
use upright_base::{Error, Result, python};

/// Names of cuBLASLt by which the dynamic linker finds it, newest first.
const NAMES: [&str; 3] = [
    "libcublasLt.so.13",
    "libcublasLt.so.12",
    "cublasLt64_13.dll",
];

/// NVIDIA's libraries and cards on this machine.
#[derive(Clone, Debug)]
pub struct Libraries {
    /// Version of the driver's CUDA, such as 13.0; or why it cannot be used.
    pub driver: std::result::Result<(u32, u32), String>,
    /// Version of cuBLASLt, such as 13.1.0; or why it cannot be used.
    pub cublaslt: std::result::Result<String, String>,
    /// The cards, in the driver's order.
    pub cards: Vec<Card>,
}

/// A card.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Card {
    /// Its number, as in `cuda:N`.
    pub index: usize,
    /// The driver's name for it.
    pub name: String,
    /// Compute capability.
    pub capability: (u32, u32),
    /// Bytes of memory.
    pub memory: usize,
}

impl Libraries {
    /// Looks for libraries and cards. Looks only once.
    pub fn find() -> &'static Self {
        static FOUND: OnceLock<Libraries> = OnceLock::new();
        FOUND.get_or_init(|| {
            let (driver, cards) = match find_cards() {
                Ok((version, cards)) => (Ok(version), cards),
                Err(problem) => (Err(problem), Vec::new()),
            };
            Self {
                driver,
                cublaslt: find_cublaslt(),
                cards,
            }
        })
    }

    /// The card with a number, if everything that it needs is there.
    ///
    /// # Errors
    /// The driver, cuBLASLt or the card is missing.
    pub fn card(&self, index: usize) -> Result<&Card> {
        let refused = |problem: &str| Error::input(format!("--device cuda: {problem}"));
        if let Err(problem) = &self.driver {
            return Err(refused(problem)
                .hint("install the NVIDIA driver, version 525 or later, or use --device cpu"));
        }
        let Some(card) = self.cards.get(index) else {
            let count = self.cards.len();
            return Err(Error::input(format!(
                "--device cuda:{index}: the driver shows {count} GPUs"
            ))
            .hint(match count {
                0 => {
                    "look at `nvidia-smi` and CUDA_VISIBLE_DEVICES, or use --device cpu".to_owned()
                }
                _ => format!("use cuda:0 to cuda:{}", count - 1),
            }));
        };
        if let Err(problem) = &self.cublaslt {
            return Err(refused(problem).hint(
                "install cuBLAS: `pip install nvidia-cublas` in the active Python environment, or the CUDA toolkit",
            ));
        }
        Ok(card)
    }
}

/// The driver's version and its cards.
fn find_cards() -> std::result::Result<((u32, u32), Vec<Card>), String> {
    // SAFETY: the library is the driver, whose constructors any program may run.
    if !unsafe { sys::is_culib_present() } {
        return Err("the NVIDIA driver (libcuda) is not installed".to_owned());
    }
    let named = |what: &str, error: result::DriverError| {
        let text = error.error_string().map(|text| text.to_string_lossy());
        format!(
            "{what}: {}",
            text.unwrap_or_else(|_| "unknown error".into())
        )
    };
    result::init().map_err(|error| named("the NVIDIA driver does not start", error))?;
    let mut version = 0;
    // SAFETY: the call writes one number.
    unsafe { sys::cuDriverGetVersion(&raw mut version) }
        .result()
        .map_err(|error| named("the NVIDIA driver has no version", error))?;
    let version = version.unsigned_abs();
    let count = result::device::get_count()
        .map_err(|error| named("the NVIDIA driver lists no GPUs", error))?;
    let mut cards = Vec::new();
    for index in 0..count {
        let read = || -> std::result::Result<Card, result::DriverError> {
            use sys::CUdevice_attribute_enum as Attribute;
            let device = result::device::get(index)?;
            // SAFETY: the device comes from the driver.
            let [major, minor] = unsafe {
                [
                    result::device::get_attribute(
                        device,
                        Attribute::CU_DEVICE_ATTRIBUTE_COMPUTE_CAPABILITY_MAJOR,
                    )?,
                    result::device::get_attribute(
                        device,
                        Attribute::CU_DEVICE_ATTRIBUTE_COMPUTE_CAPABILITY_MINOR,
                    )?,
                ]
            };
            Ok(Card {
                index: index.unsigned_abs() as usize,
                name: result::device::get_name(device)?,
                capability: (major.unsigned_abs(), minor.unsigned_abs()),
                // SAFETY: as above.
                memory: unsafe { result::device::total_mem(device) }?,
            })
        };
        cards.push(read().map_err(|error| named("a GPU cannot be read", error))?);
    }
    Ok(((version / 1000, version % 1000 / 10), cards))
}

/// Opens cuBLASLt: by its name, or from the packages of a Python environment. Returns its version.
fn find_cublaslt() -> std::result::Result<String, String> {
    // SAFETY: the library is cuBLASLt, whose constructors any program may run.
    let is_there = unsafe { cublaslt::sys::is_culib_present() } || open_from_python();
    if !is_there {
        return Err("cuBLASLt (libcublasLt.so.12 or .13) was not found".to_owned());
    }
    // SAFETY: the call takes nothing.
    let version = unsafe { cublaslt::sys::cublasLtGetVersion() };
    // 12.x has major * 10000 + minor * 100 + patch; 13 the same.
    Ok(format!(
        "{}.{}.{}",
        version / 10_000,
        version / 100 % 100,
        version % 100
    ))
}

/// Opens cuBLASLt from the active Python environment, so that it is found by its name afterwards.
fn open_from_python() -> bool {
    for folder in python_folders() {
        for name in NAMES {
            let path = folder.join(name);
            if !path.is_file() {
                continue;
            }
            // SAFETY: the library is cuBLASLt, whose constructors any program may run.
            if let Ok(library) = unsafe { libloading::Library::new(&path) } {
                // It stays open: the dynamic linker finds an open library by its name.
                std::mem::forget(library);
                // SAFETY: as above.
                return unsafe { cublaslt::sys::is_culib_present() };
            }
        }
    }
    false
}

/// Folders of cuBLAS in the Python environments that are active here.
fn python_folders() -> Vec<PathBuf> {
    let mut folders = Vec::new();
    for packages in python::packages(&|name| std::env::var(name).ok()) {
        folders.push(packages.join("nvidia/cu13/lib"));
        folders.push(packages.join("nvidia/cublas/lib"));
    }
    folders
}

/// Published peaks of dense bf16 products with f32 sums, in TFLOP/s, by a part of the card's name. From NVIDIA's data sheets; the
/// first that fits counts.
const PEAKS: [(&str, f64); 10] = [
    ("B200", 2250.0),
    ("GH200", 989.4),
    ("H200", 989.4),
    ("H100 PCIe", 756.0),
    ("H100 NVL", 835.0),
    ("H100", 989.4),
    ("A100", 312.0),
    ("L40S", 362.0),
    ("RTX 4090", 165.2),
    ("RTX 3090", 71.0),
];

/// Published peak of a card, in operations/s.
pub(super) fn peak_rate(name: &str) -> Option<f64> {
    let found = PEAKS.iter().find(|(part, _)| name.contains(part));
    found.map(|(_, peak)| peak * 1e12)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn peaks_are_those_of_the_variant() {
        for (name, peak) in [
            ("NVIDIA H100 80GB HBM3", Some(989.4e12)),
            ("NVIDIA H100 PCIe", Some(756e12)),
            ("NVIDIA H200", Some(989.4e12)),
            ("NVIDIA A100-SXM4-80GB", Some(312e12)),
            ("Tesla T4", None),
        ] {
            assert_eq!(peak_rate(name), peak, "{name}");
        }
    }

    /// Without a driver, every card is refused with a way out.
    #[test]
    fn a_machine_without_what_is_needed_says_what_is_missing() {
        let card = Card {
            index: 0,
            name: "NVIDIA H100".to_owned(),
            capability: (9, 0),
            memory: 80 << 30,
        };
        let none = Libraries {
            driver: Err("the NVIDIA driver (libcuda) is not installed".to_owned()),
            cublaslt: Err("cuBLASLt was not found".to_owned()),
            cards: Vec::new(),
        };
        let error = none.card(0).unwrap_err();
        assert!(error.message.contains("libcuda") && error.hint.contains("--device cpu"));
        let driver = Libraries {
            driver: Ok((13, 0)),
            ..none
        };
        let error = driver.card(0).unwrap_err();
        assert!(error.message.contains("0 GPUs") && error.hint.contains("nvidia-smi"));
        let cards = Libraries {
            cards: vec![card.clone()],
            ..driver
        };
        let error = cards.card(0).unwrap_err();
        assert!(error.hint.contains("pip install nvidia-cublas"), "{error}");
        assert!(cards.card(1).unwrap_err().hint.contains("cuda:0"));
        let all = Libraries {
            cublaslt: Ok("13.1.0".to_owned()),
            ..cards
        };
        assert_eq!(all.card(0).unwrap(), &card);
    }
}
