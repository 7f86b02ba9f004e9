//! Memory of a card through which bytes of the host travel.

use std::sync::Arc;

use cudarc::driver::{
    CudaContext, CudaSlice, CudaStream, DevicePtrMut, DriverError, result,
    sys::{self, CUdeviceptr, CUresult},
};
use upright_base::{Error, Result};

/// A stream of a card and memory for one operation.
#[derive(Debug)]
pub(super) struct Card {
    context: Arc<CudaContext>,
    stream: Arc<CudaStream>,
    memory: Option<CudaSlice<u8>>,
}

/// The number of cards that this process sees; 0 without a driver.
pub(crate) fn visible() -> usize {
    // SAFETY: the library is the driver, whose constructors any program may run.
    if !unsafe { sys::is_culib_present() } {
        return 0;
    }
    let count = result::init().and_then(|()| result::device::get_count());
    count.map_or(0, |count| count.unsigned_abs() as usize)
}

impl Card {
    pub(super) fn open(index: usize) -> Result<Self> {
        let count = visible();
        if index >= count {
            return Err(Error::input(format!(
                "--ranks nccl: this process sees {count} GPUs and needs GPU {index}"
            ))
            .hint("start one rank per GPU, or use --ranks mpi"));
        }
        let context = CudaContext::new(index).map_err(failed)?;
        let stream = context.new_stream().map_err(failed)?;
        Ok(Self {
            context,
            stream,
            memory: None,
        })
    }

    /// Makes the card that of this thread, as NCCL expects it.
    pub(super) fn bind(&self) -> Result<()> {
        self.context.bind_to_thread().map_err(failed)
    }

    /// Its stream.
    pub(super) fn stream(&self) -> sys::CUstream {
        self.stream.cu_stream()
    }

    /// Copies bytes to the memory, which grows if needed. Returns its address.
    pub(super) fn write(&mut self, bytes: &[u8]) -> Result<CUdeviceptr> {
        let mut memory = match self.memory.take() {
            Some(memory) if memory.len() >= bytes.len() => memory,
            _ => self.stream.alloc_zeros(bytes.len()).map_err(failed)?,
        };
        let mut part = memory.slice_mut(..bytes.len());
        self.stream.memcpy_htod(bytes, &mut part).map_err(failed)?;
        let (address, guard) = memory.device_ptr_mut(&self.stream);
        drop(guard);
        self.memory = Some(memory);
        Ok(address)
    }

    /// Copies bytes from the memory.
    pub(super) fn read(&self, bytes: &mut [u8]) -> Result<()> {
        let Some(memory) = &self.memory else {
            return Ok(());
        };
        let part = memory.slice(..bytes.len());
        self.stream.memcpy_dtoh(&part, bytes).map_err(failed)?;
        self.stream.synchronize().map_err(failed)
    }

    /// Whether the stream has come to its end.
    pub(super) fn is_done(&self) -> Result<bool> {
        // SAFETY: the stream is this card's own and open.
        match unsafe { sys::cuStreamQuery(self.stream()) } {
            CUresult::CUDA_SUCCESS => Ok(true),
            CUresult::CUDA_ERROR_NOT_READY => Ok(false),
            code => Err(failed(DriverError(code))),
        }
    }

    /// Leaks the memory, which an operation that never ended may still use.
    pub(super) fn leak(&mut self) {
        std::mem::forget(self.memory.take());
    }
}

/// The error about a call of the driver.
fn failed(error: DriverError) -> Error {
    let text = error.error_string().map(|text| text.to_string_lossy());
    let text = text.unwrap_or_else(|_| "unknown error".into());
    Error::failure(format!("the NVIDIA driver: {text}"))
}
