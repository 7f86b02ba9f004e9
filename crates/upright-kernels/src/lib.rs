//! CUDA kernels. `cuda/` has the sources, `cubins/` what NVRTC makes of them (`tools/kernels/build`), and this crate says what is
//! in them. It needs neither CUDA nor a compiler.
//!
//! | module | purpose |
//! |---|---|
//! | [`families`] | the table of kernels, one file per source file |
//! | [`signature`] | names, parameters, threads and shared memory of a kernel |
//! | [`attention`] | tiles, paths and readers that attention's kernels take |
//! | [`work`] | operations and bytes of attention's kernels |
//! | [`image`](mod@image) | the cubin or PTX for a card |
//!
//! ```
//! let (family, kernel) = upright_kernels::kernel("rms_norm_forward").unwrap();
//! assert_eq!((family.name, kernel.threads), ("norm", 256));
//! let image = upright_kernels::image(family, (9, 0)).unwrap();
//! assert_eq!(image.target.name(), "sm_90a");
//! ```

#![forbid(unsafe_code)]
#![cfg_attr(
    test,
    allow(clippy::disallowed_methods, reason = "tests write files directly")
)]

pub mod attention;
pub mod families;
pub mod image;
pub mod signature;
pub mod work;

pub use families::{FAMILIES, Family, kernel};
pub use image::{Image, Target, check_images, image};
pub use signature::{Element, Kernel, MAX_SHARED, MAX_THREADS, Parameter, Passing};
