//! An MPI library, opened at run time: its functions, behind calls that own their memory.

use std::{
    ffi::{CStr, c_char, c_int, c_void},
    mem::ManuallyDrop,
    path::{Path, PathBuf},
    ptr::{null, null_mut},
    sync::{Mutex, MutexGuard, PoisonError},
};

use libloading::os::unix::{RTLD_GLOBAL, RTLD_LOCAL};
use upright_base::{Error, Result};

use super::abi::{Abi, Constants, Handle};
use crate::functions::{self, functions};

/// Who sees the symbols of an opened library.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Scope {
    /// This crate alone, which asks for the version.
    Local,
    /// All, as Open MPI's plug-ins need it.
    Global,
}

/// An MPI library. It is never closed.
#[derive(Debug)]
pub(super) struct Library {
    /// Its file.
    pub(super) path: PathBuf,
    constants: Constants,
    functions: Functions,
    /// Held during each function, because MPI is asked for calls from one thread at a time.
    lock: Mutex<()>,
}

functions! {
    Functions:
    abort = "MPI_Abort" (Handle, c_int) -> c_int;
    init_thread = "MPI_Init_thread" (*mut c_int, *mut *mut *mut c_char, c_int, *mut c_int) -> c_int;
    finalize = "MPI_Finalize" () -> c_int;
    comm_rank = "MPI_Comm_rank" (Handle, *mut c_int) -> c_int;
    comm_size = "MPI_Comm_size" (Handle, *mut c_int) -> c_int;
    set_errhandler = "MPI_Comm_set_errhandler" (Handle, Handle) -> c_int;
    error_string = "MPI_Error_string" (c_int, *mut c_char, *mut c_int) -> c_int;
    version = "MPI_Get_library_version" (*mut c_char, *mut c_int) -> c_int;
    iallgather = "MPI_Iallgather" (*const c_void, c_int, Handle, *mut c_void, c_int, Handle, Handle, *mut Handle) -> c_int;
    iallgatherv = "MPI_Iallgatherv" (*const c_void, c_int, Handle, *mut c_void, *const c_int, *const c_int, Handle, Handle, *mut Handle) -> c_int;
    iallreduce = "MPI_Iallreduce" (*const c_void, *mut c_void, c_int, Handle, Handle, Handle, *mut Handle) -> c_int;
    ibcast = "MPI_Ibcast" (*mut c_void, c_int, Handle, c_int, Handle, *mut Handle) -> c_int;
    test = "MPI_Test" (*mut Handle, *mut c_int, *mut Status) -> c_int;
}

/// Bytes for a text of MPI: no library's limit is above 8192.
const TEXT: usize = 16_384;

/// Memory for MPI's status, which no library's exceeds. `MPI_STATUS_IGNORE` differs per library.
#[repr(C, align(64))]
struct Status([u8; 256]);

/// A call that MPI works on, and the memory that it reads and writes. If it is dropped before it is
/// done, the memory is leaked, because MPI and other ranks may still write to it.
#[derive(Debug)]
pub(super) struct Pending<B> {
    name: &'static str,
    request: Handle,
    buffers: ManuallyDrop<B>,
}

/// The buffers of a gather of different lengths.
#[derive(Debug)]
pub(super) struct Parts {
    mine: Vec<u8>,
    /// The bytes of all ranks, one after the other.
    pub(super) all: Vec<u8>,
    counts: Vec<c_int>,
    places: Vec<c_int>,
}

impl Library {
    /// Opens a library by a path or a name, and finds out its interface.
    pub(super) fn open(path: &Path, scope: Scope) -> std::result::Result<Self, String> {
        let scope = match scope {
            Scope::Local => RTLD_LOCAL,
            Scope::Global => RTLD_GLOBAL,
        };
        let library = functions::open(path, scope)?;
        let functions = Functions::load(&library)
            .map_err(|name| format!("{} has no {name}", path.display()))?;
        let path = file_of(functions.version as *const c_void).unwrap_or_else(|| path.into());
        let address = |name: &str| {
            // SAFETY: the symbol is used as an address only.
            let symbol = unsafe { library.get::<*mut c_void>(name) }.ok()?;
            Some(symbol.into_raw() as usize)
        };
        let name = path.file_name().unwrap_or_default().to_string_lossy();
        let constants = Abi::of(&name, &address).constants(&address);
        let constants = constants.ok_or_else(|| format!("{} lacks a symbol", path.display()))?;
        // MPI cannot be unloaded: its threads and handlers stay.
        std::mem::forget(library);
        Ok(Self {
            path,
            constants,
            functions,
            lock: Mutex::new(()),
        })
    }

    /// Its version in a few words: the first line of what it says, up to a comma. Needs no start.
    pub(super) fn version(&self) -> String {
        // SAFETY: the buffer is larger than any library's text, and the call is allowed before MPI starts.
        let text = self.text(|text, length| unsafe { (self.functions.version)(text, length) });
        let line = text.lines().next().unwrap_or_default();
        let line = line.split(',').next().unwrap_or_default();
        let mut words: Vec<&str> = line.split_whitespace().collect();
        words.retain(|word| *word != "Version:");
        words.join(" ")
    }

    /// Starts MPI for calls from one thread at a time. Errors of later calls are returned.
    pub(super) fn start(&self) -> Result<()> {
        let mut provided = 0;
        let lock = self.lock();
        // SAFETY: MPI takes null for the program's arguments. It is started once per process.
        let code = unsafe {
            (self.functions.init_thread)(
                null_mut(),
                null_mut(),
                self.constants.serialized,
                &raw mut provided,
            )
        };
        drop(lock);
        self.check("MPI_Init_thread", code)?;
        if provided < self.constants.serialized {
            self.finish();
            return Err(Error::input(format!(
                "{} takes calls from the main thread only",
                self.path.display()
            ))
            .hint("UPRIGHT_MPI names another library"));
        }
        let lock = self.lock();
        // SAFETY: MPI has started; both handles are its own.
        let code = unsafe {
            (self.functions.set_errhandler)(self.constants.world, self.constants.errors_return)
        };
        drop(lock);
        self.check("MPI_Comm_set_errhandler", code)
    }

    /// This process's rank and the number of ranks.
    pub(super) fn rank_and_size(&self) -> Result<(usize, usize)> {
        let (mut rank, mut size) = (0, 0);
        // SAFETY: MPI has started; each call writes one number.
        let codes = unsafe {
            [
                (self.functions.comm_rank)(self.constants.world, &raw mut rank),
                (self.functions.comm_size)(self.constants.world, &raw mut size),
            ]
        };
        self.check("MPI_Comm_rank", codes[0])?;
        self.check("MPI_Comm_size", codes[1])?;
        Ok((rank.unsigned_abs() as usize, size.unsigned_abs() as usize))
    }

    /// Ends MPI. Waits for the other ranks to do the same.
    pub(super) fn finish(&self) {
        let _lock = self.lock();
        // SAFETY: MPI has started, and no call is pending. An error leaves nothing to do.
        let _ = unsafe { (self.functions.finalize)() };
    }

    /// Ends all ranks.
    pub(super) fn abort(&self) {
        let _lock = self.lock();
        // SAFETY: MPI has started.
        let _ = unsafe { (self.functions.abort)(self.constants.world, 1) };
    }

    /// Starts a gather of equally many bytes of each rank.
    pub(super) fn gather(&self, mine: Vec<u8>, size: usize) -> Result<Pending<(Vec<u8>, Vec<u8>)>> {
        let all = vec![0; mine.len() * size];
        let count = count(mine.len())?;
        self.begin("MPI_Iallgather", (mine, all), |(mine, all), request| {
            let byte = self.constants.byte;
            // SAFETY: `all` has room for the bytes of each rank; `Pending` keeps both buffers.
            unsafe {
                (self.functions.iallgather)(
                    mine.as_ptr().cast(),
                    count,
                    byte,
                    all.as_mut_ptr().cast(),
                    count,
                    byte,
                    self.constants.world,
                    request,
                )
            }
        })
    }

    /// Starts a gather of `lengths[r]` bytes of each rank `r`.
    pub(super) fn gather_lengths(
        &self,
        mine: Vec<u8>,
        lengths: &[usize],
    ) -> Result<Pending<Parts>> {
        let (mut counts, mut places, mut total) = (Vec::new(), Vec::new(), 0);
        for length in lengths {
            counts.push(count(*length)?);
            places.push(count(total)?);
            total += length;
        }
        count(total)?;
        let (own, all) = (count(mine.len())?, vec![0; total]);
        let parts = Parts {
            mine,
            all,
            counts,
            places,
        };
        self.begin("MPI_Iallgatherv", parts, |parts, request| {
            let byte = self.constants.byte;
            // SAFETY: `all` has room for `counts` at `places`; `Pending` keeps all buffers.
            unsafe {
                (self.functions.iallgatherv)(
                    parts.mine.as_ptr().cast(),
                    own,
                    byte,
                    parts.all.as_mut_ptr().cast(),
                    parts.counts.as_ptr(),
                    parts.places.as_ptr(),
                    byte,
                    self.constants.world,
                    request,
                )
            }
        })
    }

    /// Starts to replace bytes by those of rank 0.
    pub(super) fn broadcast(&self, bytes: Vec<u8>) -> Result<Pending<Vec<u8>>> {
        let count = count(bytes.len())?;
        self.begin("MPI_Ibcast", bytes, |bytes, request| {
            // SAFETY: `bytes` has `count` bytes on every rank; `Pending` keeps them.
            unsafe {
                (self.functions.ibcast)(
                    bytes.as_mut_ptr().cast(),
                    count,
                    self.constants.byte,
                    0,
                    self.constants.world,
                    request,
                )
            }
        })
    }

    /// Starts to replace values by their sums.
    pub(super) fn sum(&self, values: Vec<i64>) -> Result<Pending<Vec<i64>>> {
        let count = count(values.len())?;
        self.begin("MPI_Iallreduce", values, |values, request| {
            let in_place = std::ptr::without_provenance(self.constants.in_place);
            // SAFETY: `values` has `count` values on every rank; `Pending` keeps them.
            unsafe {
                (self.functions.iallreduce)(
                    in_place,
                    values.as_mut_ptr().cast(),
                    count,
                    self.constants.int64,
                    self.constants.sum,
                    self.constants.world,
                    request,
                )
            }
        })
    }

    /// Whether a call is done. Lets MPI work on it.
    pub(super) fn is_done<B>(&self, pending: &mut Pending<B>) -> Result<bool> {
        let mut is_done = 0;
        let mut status = Status([0; 256]);
        let lock = self.lock();
        // SAFETY: the request is MPI's own; the status is larger than any library's.
        let code = unsafe {
            (self.functions.test)(&raw mut pending.request, &raw mut is_done, &raw mut status)
        };
        drop(lock);
        self.check(pending.name, code)?;
        Ok(is_done != 0)
    }

    /// Starts a call on buffers that stay where they are until it is done.
    fn begin<B>(
        &self,
        name: &'static str,
        buffers: B,
        call: impl FnOnce(&mut B, *mut Handle) -> c_int,
    ) -> Result<Pending<B>> {
        // Zeros, because MPICH's own interface writes the low half only.
        let mut pending = Pending {
            name,
            request: Handle(0),
            buffers: ManuallyDrop::new(buffers),
        };
        let lock = self.lock();
        let code = call(&mut pending.buffers, &raw mut pending.request);
        drop(lock);
        self.check(name, code)?;
        Ok(pending)
    }

    /// Turns MPI's code of an error into an error.
    fn check(&self, name: &str, code: c_int) -> Result<()> {
        if code == 0 {
            return Ok(());
        }
        // SAFETY: the buffer is larger than any library's text.
        let text =
            self.text(|text, length| unsafe { (self.functions.error_string)(code, text, length) });
        let line = text.lines().next().unwrap_or_default();
        Err(Error::failure(format!("{name}: {line}")).hint(
            "see the launcher's messages, then run the same command with --resume to continue",
        ))
    }

    /// A text that MPI writes into a buffer.
    fn text(&self, write: impl FnOnce(*mut c_char, *mut c_int) -> c_int) -> String {
        let mut buffer = vec![0_u8; TEXT];
        let mut length = 0;
        let _lock = self.lock();
        write(buffer.as_mut_ptr().cast(), &raw mut length);
        let text = CStr::from_bytes_until_nul(&buffer).unwrap_or_default();
        text.to_string_lossy().into_owned()
    }

    fn lock(&self) -> MutexGuard<'_, ()> {
        self.lock.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl<B> Pending<B> {
    /// The buffers of a call that is done.
    pub(super) fn into_buffers(self) -> B {
        ManuallyDrop::into_inner(self.buffers)
    }
}

/// A count as MPI takes it.
fn count(length: usize) -> Result<c_int> {
    c_int::try_from(length)
        .map_err(|_| Error::failure(format!("{length} bytes or values are too many for MPI")))
}

/// The file that holds a function, links resolved.
fn file_of(function: *const c_void) -> Option<PathBuf> {
    let mut found = libc::Dl_info {
        dli_fname: null(),
        dli_fbase: null_mut(),
        dli_sname: null(),
        dli_saddr: null_mut(),
    };
    // SAFETY: the call looks up an address and writes the record.
    let is_found = unsafe { libc::dladdr(function, &raw mut found) } != 0;
    if !is_found || found.dli_fname.is_null() {
        return None;
    }
    // SAFETY: the name is a text of the dynamic linker, which lives as long as the library.
    let name = unsafe { CStr::from_ptr(found.dli_fname) };
    let path = PathBuf::from(name.to_string_lossy().into_owned());
    Some(path.canonicalize().unwrap_or(path))
}
