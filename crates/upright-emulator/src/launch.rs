//! Launches kernels by name.

use upright_kernels::{Element, MAX_SHARED, MAX_THREADS, Parameter, Passing};

use crate::buffer::Arg;

/// What C++ declares of a kernel.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Signature {
    /// The kernel's name.
    pub name: String,
    /// Threads of a block.
    pub threads: u32,
    /// Types of its parameters.
    pub parameters: Vec<(Element, Passing)>,
}

/// Why nothing can be launched: the machine that built the tests had no C++17 compiler. `None` if everything is there.
pub fn missing() -> Option<&'static str> {
    if cfg!(compiled) {
        None
    } else {
        Some("skipped: no C++17 compiler was found, so the CUDA kernels were not run")
    }
}

/// Runs a kernel of [`upright_kernels::FAMILIES`] on a grid of blocks. `seed` chooses the order in which warps and blocks run.
///
/// # Errors
/// A text that says which block and thread did what wrong: an access out of bounds, a race, memory that nobody has written, a
/// barrier that not all threads reach, and so on. Buffers then hold what was written until then. Arguments that do not fit the
/// kernel are errors, too.
pub fn launch(kernel: &str, grid: [u32; 3], seed: u64, args: &mut [Arg<'_>]) -> Result<(), String> {
    let (family, found) =
        upright_kernels::kernel(kernel).ok_or(format!("no kernel is called {kernel}"))?;
    check(found.name, found.parameters, args)?;
    launch_unit(family.name, kernel, found.shared, grid, seed, args)
}

/// Checks arguments against a kernel's parameters.
fn check(kernel: &str, parameters: &[Parameter], args: &[Arg<'_>]) -> Result<(), String> {
    if parameters.len() != args.len() {
        let (takes, given) = (parameters.len(), args.len());
        return Err(format!("{kernel} takes {takes} arguments, not {given}"));
    }
    for (parameter, arg) in parameters.iter().zip(args) {
        let (takes, given) = ((parameter.element, parameter.passing), type_of(arg));
        if takes != given {
            let name = parameter.name;
            return Err(format!("{kernel}: {name} is {takes:?}, not {given:?}"));
        }
    }
    Ok(())
}

/// Type of an argument.
fn type_of(arg: &Arg<'_>) -> (Element, Passing) {
    match arg {
        Arg::I32(_) => (Element::I32, Passing::Number),
        Arg::U32(_) => (Element::U32, Passing::Number),
        Arg::U64(_) => (Element::U64, Passing::Number),
        Arg::F32(_) => (Element::F32, Passing::Number),
        Arg::F64(_) => (Element::F64, Passing::Number),
        Arg::In(element, _) => (*element, Passing::In),
        Arg::Out(element, _) => (*element, Passing::Out),
    }
}

/// Runs a kernel of one source file, given the bytes of shared memory of a block. The names of units are those of the families,
/// and `bug_NAME` for the seeded bugs.
///
/// # Errors
/// As [`launch`].
pub fn launch_unit(
    unit: &str,
    kernel: &str,
    shared: u32,
    grid: [u32; 3],
    seed: u64,
    args: &mut [Arg<'_>],
) -> Result<(), String> {
    let Some((entry, signature)) = inner::find(unit, kernel) else {
        return Err(match missing() {
            Some(why) => why.to_owned(),
            None => format!("{unit} has no kernel {kernel}"),
        });
    };
    let given: Vec<_> = args.iter().map(type_of).collect();
    if given != signature.parameters {
        let takes = &signature.parameters;
        return Err(format!("{kernel} takes {takes:?}, not {given:?}"));
    }
    if grid[0] == 0 || grid[1] == 0 || grid[2] == 0 || grid[1] > 65_535 || grid[2] > 65_535 {
        return Err(format!("{kernel}: a card cannot launch the grid {grid:?}"));
    }
    let threads = signature.threads;
    if shared > MAX_SHARED || threads > MAX_THREADS || !threads.is_multiple_of(32) {
        return Err(format!(
            "{kernel}: a card cannot launch {threads} threads with {shared} bytes of shared memory"
        ));
    }
    inner::run(entry, shared, grid, seed, args)
}

/// Signatures of all kernels of a unit, as C++ declares them. Empty if there is no such unit.
pub fn signatures(unit: &str) -> Vec<Signature> {
    inner::entries(unit)
        .into_iter()
        .map(inner::signature)
        .collect()
}

#[cfg(compiled)]
mod inner {
    use std::ffi::{CStr, c_char, c_int, c_void};

    use super::{Arg, Element, Passing, Signature, type_of};

    /// A kernel in C++.
    #[repr(C)]
    pub(super) struct Entry {
        opaque: [u8; 0],
    }

    /// `emulator::Argument` in C++.
    #[repr(C)]
    struct Argument {
        code: u32,
        padding: u32,
        bits: u64,
        bytes: u64,
        touched: *mut c_void,
    }

    unsafe extern "C" {
        fn upright_emulator_name(entry: *const Entry) -> *const c_char;
        fn upright_emulator_next(entry: *const Entry) -> *const Entry;
        fn upright_emulator_threads(entry: *const Entry) -> c_int;
        fn upright_emulator_parameters(entry: *const Entry) -> c_int;
        fn upright_emulator_code(entry: *const Entry, index: c_int) -> u32;
        fn upright_emulator_launch(
            entry: *const Entry,
            grid: *const u32,
            shared: u32,
            arguments: *const Argument,
            seed: u64,
            workers: u32,
            error: *mut c_char,
            capacity: u64,
        ) -> c_int;
    }

    include!(concat!(env!("OUT_DIR"), "/units.rs"));

    /// Kernels of a unit.
    pub(super) fn entries(unit: &str) -> Vec<&'static Entry> {
        let mut found = Vec::new();
        let Some((_, list)) = UNITS.iter().find(|(name, _)| *name == unit) else {
            return found;
        };
        // SAFETY: the function returns the first entry of a list, or null.
        let mut at = unsafe { list() };
        // SAFETY: entries are static, and each has the address of the next one or null.
        while let Some(entry) = unsafe { at.as_ref() } {
            found.push(entry);
            // SAFETY: as above.
            at = unsafe { upright_emulator_next(entry) };
        }
        found
    }

    pub(super) fn find(unit: &str, kernel: &str) -> Option<(&'static Entry, Signature)> {
        entries(unit)
            .into_iter()
            .map(|entry| (entry, signature(entry)))
            .find(|(_, signature)| signature.name == kernel)
    }

    pub(super) fn signature(entry: &'static Entry) -> Signature {
        // SAFETY: an entry's name is a literal, and its other fields are numbers.
        let (name, threads, count) = unsafe {
            (
                CStr::from_ptr(upright_emulator_name(entry)),
                upright_emulator_threads(entry),
                upright_emulator_parameters(entry),
            )
        };
        let mut parameters = Vec::new();
        for index in 0..count {
            // SAFETY: the index is below the count.
            let code = unsafe { upright_emulator_code(entry, index) };
            let element = Element::ALL[(code % 16) as usize];
            let passing = [Passing::Number, Passing::In, Passing::Out][(code / 16) as usize];
            parameters.push((element, passing));
        }
        Signature {
            name: name.to_string_lossy().into_owned(),
            threads: threads.unsigned_abs(),
            parameters,
        }
    }

    /// Runs a kernel whose signature fits the arguments.
    pub(super) fn run(
        entry: &'static Entry,
        shared: u32,
        grid: [u32; 3],
        seed: u64,
        args: &mut [Arg<'_>],
    ) -> Result<(), String> {
        // Who touched each element of a buffer that is written.
        let mut touched: Vec<Vec<u64>> = Vec::new();
        let mut arguments = Vec::new();
        for arg in args {
            let (element, passing) = type_of(arg);
            let mut argument = Argument {
                code: element as u32 + 16 * passing as u32,
                padding: 0,
                bits: 0,
                bytes: 0,
                touched: std::ptr::null_mut(),
            };
            match arg {
                Arg::I32(x) => argument.bits = u64::from(x.cast_unsigned()),
                Arg::U32(x) => argument.bits = u64::from(*x),
                Arg::U64(x) => argument.bits = *x,
                Arg::F32(x) => argument.bits = u64::from(x.to_bits()),
                Arg::F64(x) => argument.bits = x.to_bits(),
                Arg::In(_, bytes) => {
                    argument.bits = bytes.as_ptr() as u64;
                    argument.bytes = bytes.len() as u64;
                }
                Arg::Out(element, bytes) => {
                    argument.bits = bytes.as_mut_ptr() as u64;
                    argument.bytes = bytes.len() as u64;
                    let mut marks = vec![0; bytes.len() / element.size()];
                    argument.touched = marks.as_mut_ptr().cast();
                    touched.push(marks);
                }
            }
            arguments.push(argument);
        }
        let workers = std::thread::available_parallelism().map_or(1, |count| count.get() as u32);
        let mut error = vec![0u8; 4096];
        // SAFETY: the arguments have the types that the entry declares. Buffers outlive the call with exclusive access where
        // they are written, and the emulator checks every access to them. Text ends with a zero byte within the capacity.
        let failed = unsafe {
            upright_emulator_launch(
                entry,
                grid.as_ptr(),
                shared,
                arguments.as_ptr(),
                seed,
                workers,
                error.as_mut_ptr().cast(),
                error.len() as u64,
            )
        };
        drop(touched);
        if failed == 0 {
            return Ok(());
        }
        let end = error.iter().position(|byte| *byte == 0).unwrap_or(0);
        Err(String::from_utf8_lossy(&error[..end]).into_owned())
    }
}

#[cfg(not(compiled))]
mod inner {
    use super::{Arg, Signature};

    /// Nothing was compiled, so there is no entry.
    pub(super) enum Entry {}

    pub(super) fn entries(_: &str) -> Vec<&'static Entry> {
        Vec::new()
    }

    pub(super) fn find(_: &str, _: &str) -> Option<(&'static Entry, Signature)> {
        None
    }

    pub(super) fn signature(entry: &'static Entry) -> Signature {
        match *entry {}
    }

    pub(super) fn run(
        entry: &'static Entry,
        _: u32,
        _: [u32; 3],
        _: u64,
        _: &mut [Arg<'_>],
    ) -> Result<(), String> {
        match *entry {}
    }
}
