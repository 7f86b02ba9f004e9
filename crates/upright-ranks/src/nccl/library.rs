//! The NCCL library, opened at run time, and a communicator that does not block.

use std::{
    ffi::{CStr, c_char, c_int, c_void},
    path::{Path, PathBuf},
    ptr::{null, null_mut},
    sync::{Mutex, MutexGuard, PoisonError},
};

use cudarc::driver::sys::{CUdeviceptr, CUstream};
use libloading::os::unix::RTLD_LOCAL;
use upright_base::{Error, Result};

use crate::functions::{self, functions};

/// Results of NCCL's functions.
const SUCCESS: c_int = 0;
const IN_PROGRESS: c_int = 7;

/// NCCL's numbers of types and of the sum.
const BYTE: c_int = 0;
const INT64: c_int = 4;
const SUM: c_int = 0;

/// A communicator of NCCL.
type Comm = *mut c_void;

/// What ranks have in common before they are connected.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(C)]
pub(super) struct UniqueId([u8; 128]);

/// How a communicator is made: the fields of version 2.18, which later versions still read.
#[repr(C)]
struct Config {
    size: usize,
    magic: u32,
    version: u32,
    blocking: c_int,
    cga_cluster_size: c_int,
    min_ctas: c_int,
    max_ctas: c_int,
    net_name: *const c_char,
    split_share: c_int,
}

/// The oldest version that this crate speaks: 2.18.
const OLDEST: c_int = 21_800;

/// The library. It is never closed.
#[derive(Debug)]
pub(super) struct Library {
    /// Where it was opened.
    pub(super) path: PathBuf,
    functions: Functions,
}

functions! {
    Functions:
    version = "ncclGetVersion" (*mut c_int) -> c_int;
    unique_id = "ncclGetUniqueId" (*mut UniqueId) -> c_int;
    init = "ncclCommInitRankConfig" (*mut Comm, c_int, UniqueId, c_int, *mut Config) -> c_int;
    async_error = "ncclCommGetAsyncError" (Comm, *mut c_int) -> c_int;
    abort = "ncclCommAbort" (Comm) -> c_int;
    finalize = "ncclCommFinalize" (Comm) -> c_int;
    destroy = "ncclCommDestroy" (Comm) -> c_int;
    all_gather = "ncclAllGather" (*const c_void, *mut c_void, usize, c_int, Comm, CUstream) -> c_int;
    all_reduce = "ncclAllReduce" (*const c_void, *mut c_void, usize, c_int, c_int, Comm, CUstream) -> c_int;
    broadcast = "ncclBroadcast" (*const c_void, *mut c_void, usize, c_int, c_int, Comm, CUstream) -> c_int;
    error_string = "ncclGetErrorString" (c_int) -> *const c_char;
    last_error = "ncclGetLastError" (Comm) -> *const c_char;
}

impl Library {
    /// Opens the library by a path or a name.
    pub(super) fn open(path: &Path) -> std::result::Result<Self, String> {
        let library = functions::open(path, RTLD_LOCAL)?;
        let functions = Functions::load(&library)
            .map_err(|name| format!("{} has no {name}", path.display()))?;
        // NCCL has threads that outlive its calls.
        std::mem::forget(library);
        Ok(Self {
            path: path.to_path_buf(),
            functions,
        })
    }

    /// Its version, such as 2.27.5.
    pub(super) fn version(&self) -> Result<String> {
        let version = self.version_number()?;
        let (major, minor) = (version / 10_000, version / 100 % 100);
        Ok(format!("{major}.{minor}.{}", version % 100))
    }

    fn version_number(&self) -> Result<c_int> {
        let mut version = 0;
        // SAFETY: the call writes one number.
        let code = unsafe { (self.functions.version)(&raw mut version) };
        self.check("ncclGetVersion", code, null_mut())?;
        Ok(version)
    }

    /// The id of ranks to be connected. With `NCCL_COMM_ID` in the environment it is the same on all
    /// ranks.
    pub(super) fn unique_id(&self) -> Result<UniqueId> {
        let mut id = UniqueId([0; 128]);
        // SAFETY: the call writes 128 bytes.
        let code = unsafe { (self.functions.unique_id)(&raw mut id) };
        self.check("ncclGetUniqueId", code, null_mut())?;
        Ok(id)
    }

    /// Turns NCCL's result into an error, unless the call succeeded or goes on.
    fn check(&self, name: &str, code: c_int, comm: Comm) -> Result<()> {
        if code == SUCCESS || code == IN_PROGRESS {
            return Ok(());
        }
        // SAFETY: both texts are NCCL's own and last until its next error.
        let [text, last] = unsafe {
            [
                (self.functions.error_string)(code),
                (self.functions.last_error)(comm),
            ]
            .map(|text| match text.is_null() {
                true => String::new(),
                false => CStr::from_ptr(text).to_string_lossy().trim().to_owned(),
            })
        };
        let detail = if last.is_empty() {
            text
        } else {
            format!("{text}: {last}")
        };
        Err(Error::failure(format!("{name}: {detail}")).hint(
            "NCCL_DEBUG=WARN shows more; run the same command with --resume to continue, or use --ranks mpi",
        ))
    }
}

/// Ranks that are connected. Its calls return at once; [`is_settled`](Self::is_settled) says how they fare.
#[derive(Debug)]
pub(super) struct Communicator {
    library: Library,
    /// The address of NCCL's communicator, until it is aborted or destroyed. The lock is held during
    /// each function.
    comm: Mutex<Option<usize>>,
}

/// An operation on memory of the card.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Operation {
    /// Each rank's bytes stand at its place in the memory of all: `bytes` times its number.
    Gather { bytes: usize },
    /// The bytes of rank 0.
    Broadcast { bytes: usize },
    /// The sums of values of 64 bits.
    Sum { values: usize },
}

impl Communicator {
    /// Starts to connect the ranks.
    pub(super) fn begin(library: Library, rank: usize, size: usize) -> Result<Self> {
        if library.version_number()? < OLDEST {
            let version = library.version()?;
            return Err(Error::input(format!("NCCL {version} is too old"))
                .hint("install NCCL 2.18 or later, or use --ranks mpi"));
        }
        let id = library.unique_id()?;
        let mut config = Config {
            size: size_of::<Config>(),
            magic: 0xcafe_beef,
            version: OLDEST.unsigned_abs(),
            blocking: 0,
            cga_cluster_size: c_int::MIN,
            min_ctas: c_int::MIN,
            max_ctas: c_int::MIN,
            net_name: null(),
            split_share: c_int::MIN,
        };
        let number = |value: usize| {
            c_int::try_from(value).map_err(|_| Error::input("too many ranks for NCCL"))
        };
        let (size, rank) = (number(size)?, number(rank)?);
        let mut comm = null_mut();
        // SAFETY: the call writes a communicator; the configuration is that of version 2.18.
        let code =
            unsafe { (library.functions.init)(&raw mut comm, size, id, rank, &raw mut config) };
        library.check("ncclCommInitRankConfig", code, null_mut())?;
        Ok(Self {
            library,
            comm: Mutex::new(Some(comm.expose_provenance())),
        })
    }

    /// Whether the last call has come to its end on this rank. A card may still work on it.
    pub(super) fn is_settled(&self) -> Result<bool> {
        let comm = self.lock();
        let comm = address(*comm)?;
        let mut state = SUCCESS;
        // SAFETY: the communicator is open, because the lock is held.
        let code = unsafe { (self.library.functions.async_error)(comm, &raw mut state) };
        self.library.check("ncclCommGetAsyncError", code, comm)?;
        self.library.check("NCCL", state, comm)?;
        Ok(state != IN_PROGRESS)
    }

    /// Starts an operation on memory of the card.
    ///
    /// # Safety
    /// `memory` holds the bytes or values of the operation, those of all ranks for a gather, and
    /// lives until the stream has come to its end or the communicator was aborted.
    pub(super) unsafe fn start(
        &self,
        operation: Operation,
        rank: usize,
        memory: CUdeviceptr,
        stream: CUstream,
    ) -> Result<()> {
        let comm = self.lock();
        let comm = address(*comm)?;
        let functions = &self.library.functions;
        let place = |offset: usize| {
            std::ptr::with_exposed_provenance_mut::<c_void>(memory as usize + offset)
        };
        // SAFETY: the caller keeps the memory, the lock keeps the communicator.
        let code = unsafe {
            match operation {
                Operation::Gather { bytes } => {
                    let own = place(rank * bytes);
                    (functions.all_gather)(own, place(0), bytes, BYTE, comm, stream)
                }
                Operation::Broadcast { bytes } => {
                    (functions.broadcast)(place(0), place(0), bytes, BYTE, 0, comm, stream)
                }
                Operation::Sum { values } => {
                    (functions.all_reduce)(place(0), place(0), values, INT64, SUM, comm, stream)
                }
            }
        };
        self.library.check("NCCL", code, comm)
    }

    /// Starts to part from the other ranks.
    pub(super) fn finish(&self) -> Result<()> {
        let comm = self.lock();
        let comm = address(*comm)?;
        // SAFETY: the communicator is open, because the lock is held.
        let code = unsafe { (self.library.functions.finalize)(comm) };
        self.library.check("ncclCommFinalize", code, comm)
    }

    /// Frees a communicator that has parted from the others.
    pub(super) fn destroy(&self) {
        if let Some(comm) = self.lock().take() {
            // SAFETY: it was open and is forgotten.
            let _ = unsafe {
                (self.library.functions.destroy)(std::ptr::with_exposed_provenance_mut(comm))
            };
        }
    }

    /// Ends what the card is doing and frees the communicator. The other ranks find it out by an
    /// error or a timeout.
    pub(super) fn abort(&self) {
        if let Some(comm) = self.lock().take() {
            // SAFETY: it was open and is forgotten.
            let _ = unsafe {
                (self.library.functions.abort)(std::ptr::with_exposed_provenance_mut(comm))
            };
        }
    }

    fn lock(&self) -> MutexGuard<'_, Option<usize>> {
        self.comm.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// NCCL's communicator, if it is open.
fn address(comm: Option<usize>) -> Result<Comm> {
    match comm {
        Some(comm) => Ok(std::ptr::with_exposed_provenance_mut(comm)),
        None => Err(Error::failure("NCCL was aborted")),
    }
}
