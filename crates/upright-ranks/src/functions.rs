//! Functions of a library that is opened at run time.
#![allow(
    unsafe_code,
    reason = "functions of a library that is opened at run time"
)]

use std::{ffi::c_int, path::Path};

use libloading::os::unix::Library;

/// Declares a struct of functions, one field each, and `load`, which finds them in a library or
/// returns the name of the first that is missing.
macro_rules! functions {
    ($struct:ident: $($field:ident = $name:literal ($($argument:ty),*) -> $result:ty;)*) => {
        /// The functions that this crate calls.
        #[derive(Clone, Copy, Debug)]
        struct $struct {
            $($field: unsafe extern "C" fn($($argument),*) -> $result,)*
        }

        impl $struct {
            fn load(library: &libloading::os::unix::Library) -> std::result::Result<Self, &'static str> {
                Ok(Self {
                    $($field: {
                        // SAFETY: the type is that of the function in the library's header.
                        let found = unsafe {
                            library.get::<unsafe extern "C" fn($($argument),*) -> $result>($name)
                        };
                        *found.map_err(|_| $name)?
                    },)*
                })
            }
        }
    };
}

pub(crate) use functions;

/// Opens a library by a path or a name. `scope` says who sees its symbols: `RTLD_LOCAL` or
/// `RTLD_GLOBAL`. An error is in the words of the dynamic linker.
pub(crate) fn open(path: &Path, scope: c_int) -> Result<Library, String> {
    let flags = libloading::os::unix::RTLD_NOW | scope;
    // SAFETY: libraries of MPI and NCCL have constructors that any program may run.
    let library = unsafe { Library::open(Some(path), flags) };
    library.map_err(|error| {
        let source = std::error::Error::source(&error);
        source.map_or_else(|| error.to_string(), ToString::to_string)
    })
}
