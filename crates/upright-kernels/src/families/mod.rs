//! The table of kernels. A family is one source file, `cuda/NAME.cu`, with its kernels and what NVRTC made of it.

mod activation;
mod attention_backward;
mod attention_decode;
mod attention_forward;
mod head;
mod heads;
mod norm;
mod optimizer;
mod rows;
mod thin;

use crate::{
    image::Target,
    signature::{Kernel, Parameter},
};

/// The kernels of one source file.
#[derive(Clone, Copy, Debug)]
pub struct Family {
    /// Name of the source file without its extension.
    pub name: &'static str,
    /// The kernels.
    pub kernels: &'static [Kernel],
    /// Cubins and PTX, compressed by gzip.
    pub images: [(Target, &'static [u8]); Target::ALL.len()],
    /// What `tools/kernels/build` wrote about the images: the hash of the sources, and each kernel's parameters, registers and
    /// shared memory.
    pub record: &'static str,
}

/// All families.
pub const FAMILIES: &[Family] = &[
    activation::FAMILY,
    attention_backward::FAMILY,
    attention_decode::FAMILY,
    attention_forward::FAMILY,
    head::FAMILY,
    heads::FAMILY,
    norm::FAMILY,
    optimizer::FAMILY,
    rows::FAMILY,
    thin::FAMILY,
];

/// Finds a kernel and its family by name.
pub fn kernel(name: &str) -> Option<(&'static Family, &'static Kernel)> {
    for family in FAMILIES {
        for kernel in family.kernels {
            if kernel.name == name {
                return Some((family, kernel));
            }
        }
    }
    None
}

/// A family with the files of `cubins/` that carry its name.
macro_rules! family {
    ($name:literal, $kernels:expr) => {
        $crate::families::Family {
            name: $name,
            kernels: $kernels,
            images: [
                family!(@image $name, Sm80, "sm_80.cubin.gz"),
                family!(@image $name, Sm86, "sm_86.cubin.gz"),
                family!(@image $name, Sm89, "sm_89.cubin.gz"),
                family!(@image $name, Sm90a, "sm_90a.cubin.gz"),
                family!(@image $name, Sm100, "sm_100.cubin.gz"),
                family!(@image $name, Sm120, "sm_120.cubin.gz"),
                family!(@image $name, Ptx80, "compute_80.ptx.gz"),
            ],
            record: include_str!(concat!("../../cubins/", $name, ".txt")),
        }
    };
    (@image $name:literal, $target:ident, $extension:literal) => {
        (
            $crate::image::Target::$target,
            include_bytes!(concat!("../../cubins/", $name, ".", $extension)),
        )
    };
}
use family;

/// A kernel of a family.
const fn entry(
    name: &'static str,
    threads: u32,
    shared: u32,
    parameters: &'static [Parameter],
) -> Kernel {
    Kernel {
        name,
        threads,
        shared,
        parameters,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::signature::{MAX_SHARED, MAX_THREADS};

    #[test]
    fn names_are_unique_and_every_card_can_launch_every_kernel() {
        let mut names = Vec::new();
        for family in FAMILIES {
            for kernel in family.kernels {
                assert!(!names.contains(&kernel.name), "{} twice", kernel.name);
                names.push(kernel.name);
                assert!(
                    kernel.threads <= MAX_THREADS && kernel.threads.is_multiple_of(32),
                    "{}",
                    kernel.name
                );
                assert!(kernel.shared <= MAX_SHARED, "{}", kernel.name);
            }
        }
    }
}
