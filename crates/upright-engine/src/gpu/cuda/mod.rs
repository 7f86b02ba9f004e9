//! NVIDIA cards, through the driver and cuBLASLt. Both are opened when a card is used, so the program starts without them.
//!
//! All work goes to one stream, so it happens in its order. Memory comes from the driver's pool, which keeps what is freed.

mod libraries;
mod monitor;
mod products;
mod timing;

use std::{
    collections::HashMap,
    ffi::{CString, c_void},
    sync::{Mutex, MutexGuard, PoisonError},
};

use cudarc::driver::{
    result::{self, DriverError},
    sys,
};
use upright_base::{Error, Result};
use upright_kernels::{FAMILIES, Kernel, Target};

use super::device::{Arg, Device, LaunchTimes, PRODUCTS, Place, Product, UNIT};
use monitor::Monitor;
use products::Products;
use timing::TimedLaunch;

pub use libraries::{Card, Libraries};

/// A card.
pub(crate) struct Cuda {
    context: sys::CUcontext,
    stream: sys::CUstream,
    pool: sys::CUmemoryPool,
    device: sys::CUdevice,
    modules: Vec<sys::CUmodule>,
    functions: HashMap<&'static str, sys::CUfunction>,
    products: Products,
    /// `None` if the card's utilization cannot be read.
    monitor: Option<Monitor>,
    /// The driver's name for the card.
    name: String,
    /// Architecture, number of multiprocessors, version of cuBLASLt, and the kernels.
    arithmetic: String,
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    sizes: HashMap<u64, usize>,
    used: usize,
    peak: usize,
    /// `None` if nothing is measured.
    timed: Option<Vec<TimedLaunch>>,
    failure: Option<Error>,
}

// SAFETY: handles of the driver may be used by any thread on which the context is current, and every method makes it so.
unsafe impl Send for Cuda {}
// SAFETY: as above; the driver serializes calls, and `state` has a lock.
unsafe impl Sync for Cuda {}

/// An error of the driver.
fn failed(what: &str, error: DriverError) -> Error {
    let text = error.error_string().map(|text| text.to_string_lossy());
    let text = text.unwrap_or_else(|_| "unknown error".into());
    Error::failure(format!("CUDA: {what}: {text}"))
        .hint("look at `nvidia-smi` and the system's log; --device cpu runs without the GPU")
}

/// An attribute of a card.
fn attribute(device: sys::CUdevice, attribute: sys::CUdevice_attribute) -> Result<u32> {
    // SAFETY: the device comes from the driver.
    let value = unsafe { result::device::get_attribute(device, attribute) };
    let value = value.map_err(|error| failed("read an attribute of the GPU", error))?;
    Ok(value.unsigned_abs())
}

impl Cuda {
    /// Opens card number `index`.
    ///
    /// # Errors
    /// A library or the card is missing, or the card is too old.
    pub(crate) fn open(index: usize) -> Result<Self> {
        use sys::CUdevice_attribute_enum as Attribute;
        let card = Libraries::find().card(index)?;
        let device =
            result::device::get(index as i32).map_err(|error| failed("open the GPU", error))?;
        let target = Target::of(card.capability)?;
        let multiprocessors =
            attribute(device, Attribute::CU_DEVICE_ATTRIBUTE_MULTIPROCESSOR_COUNT)?;
        // SAFETY: the device comes from the driver. The context is released on drop.
        let context = unsafe { result::primary_ctx::retain(device) };
        let context = context.map_err(|error| failed("open a context", error))?;
        let open = || -> std::result::Result<_, DriverError> {
            // SAFETY: the context was retained above, and the stream and the pool belong to its device.
            unsafe {
                result::ctx::set_current(context)?;
                let stream = result::stream::create(result::stream::StreamKind::NonBlocking)?;
                let pool = result::device::get_default_mem_pool(device)?;
                let mut keep = u64::MAX;
                result::mem_pool::set_attribute(
                    pool,
                    sys::CUmemPool_attribute::CU_MEMPOOL_ATTR_RELEASE_THRESHOLD,
                    (&raw mut keep).cast(),
                )?;
                Ok((stream, pool))
            }
        };
        let (stream, pool) = open().map_err(|error| failed("open a stream", error))?;
        let (modules, functions) = load_kernels(card.capability)?;
        let products = Products::open(stream)?;
        let uuid = result::device::get_uuid(device)
            .map_err(|error| failed("read an attribute of the GPU", error))?;
        let uuid = monitor::name_of(uuid.bytes.map(|byte| byte as u8));
        let arithmetic = format!(
            "cuda/{}/{multiprocessors}/lt{}/kernels-{}",
            target.name(),
            products.version(),
            kernels_hash(),
        );
        Ok(Self {
            context,
            stream,
            pool,
            device,
            modules,
            functions,
            products,
            monitor: Monitor::start(uuid),
            name: card.name.clone(),
            arithmetic,
            state: Mutex::default(),
        })
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Does something with the context current, and remembers its error.
    fn run<R>(&self, work: impl FnOnce() -> Result<R>) -> Result<R> {
        if let Some(error) = &self.state().failure {
            return Err(error.clone());
        }
        // SAFETY: the context lives as long as this device.
        let current = unsafe { result::ctx::set_current(self.context) };
        let done = current
            .map_err(|error| failed("use the context", error))
            .and_then(|()| work());
        if let Err(error) = &done {
            self.state().failure = Some(error.clone());
        }
        done
    }

    /// Does something on the stream, between two events if launches are timed.
    fn timed(&self, name: &'static str, work: impl FnOnce() -> Result<()>) -> Result<()> {
        if self.state().timed.is_none() {
            return work();
        }
        let launch = TimedLaunch::begin(name, self.stream)?;
        work()?;
        launch.end(self.stream)?;
        if let Some(timed) = &mut self.state().timed {
            timed.push(launch);
        }
        Ok(())
    }

    /// A number that the pool keeps.
    fn pool_bytes(&self, attribute: sys::CUmemPool_attribute) -> usize {
        let mut bytes = 0u64;
        // SAFETY: the pool belongs to the context, and the attribute is a u64.
        let read = unsafe {
            result::mem_pool::get_attribute(self.pool, attribute, (&raw mut bytes).cast())
        };
        if read.is_ok() { bytes as usize } else { 0 }
    }
}

impl Drop for Cuda {
    fn drop(&mut self) {
        // SAFETY: nothing uses the handles afterwards. Errors at the end are of no use to anybody.
        unsafe {
            let _ = result::ctx::set_current(self.context);
            let _ = result::stream::synchronize(self.stream);
            self.products.close();
            for module in self.modules.drain(..) {
                let _ = result::module::unload(module);
            }
            let _ = result::stream::destroy(self.stream);
            let _ = result::primary_ctx::release(self.device);
        }
    }
}

/// Loads the kernels of all families into the current context.
fn load_kernels(
    capability: (u32, u32),
) -> Result<(Vec<sys::CUmodule>, HashMap<&'static str, sys::CUfunction>)> {
    use sys::CUfunction_attribute_enum as Attribute;
    /// Shared memory above this has to be asked for.
    const PLAIN: u32 = 48 * 1024;
    let mut modules = Vec::new();
    let mut functions = HashMap::new();
    for family in FAMILIES {
        let mut code = upright_kernels::image(family, capability)?.code;
        // PTX is text that ends with a zero.
        code.push(0);
        // SAFETY: the image is a whole cubin or text that ends with a zero.
        let module = unsafe { result::module::load_data(code.as_ptr().cast()) };
        let module = module.map_err(|error| {
            failed(&format!("load the kernels of {}", family.name), error)
                .hint("update the GPU's driver; --device cpu runs without the GPU")
        })?;
        modules.push(module);
        for kernel in family.kernels {
            let name = CString::new(kernel.name).expect("a name without zeros");
            // SAFETY: the module was loaded above.
            let function = unsafe { result::module::get_function(module, name) };
            let function =
                function.map_err(|error| failed(&format!("find {}", kernel.name), error))?;
            if kernel.shared > PLAIN {
                let attribute = Attribute::CU_FUNC_ATTRIBUTE_MAX_DYNAMIC_SHARED_SIZE_BYTES;
                // SAFETY: the function was found above.
                let set = unsafe {
                    result::function::set_function_attribute(
                        function,
                        attribute,
                        kernel.shared as i32,
                    )
                };
                set.map_err(|error| failed(&format!("give {} shared memory", kernel.name), error))?;
            }
            functions.insert(kernel.name, function);
        }
    }
    Ok((modules, functions))
}

/// Identifies the kernels' sources.
fn kernels_hash() -> String {
    // FNV-1a over what `tools/kernels/build` wrote about every family.
    let mut hash = 0xcbf2_9ce4_8422_2325u64;
    for family in FAMILIES {
        for byte in family.record.bytes() {
            hash = (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3);
        }
    }
    format!("{:08x}", hash >> 32)
}

/// The bytes of an argument, as the driver reads them: a number, or an address.
fn bits(arg: &Arg) -> u64 {
    match *arg {
        Arg::I32(number) => u64::from(number.cast_unsigned()),
        Arg::U64(number) => number,
        Arg::F32(number) => u64::from(number.to_bits()),
        Arg::F64(number) => number.to_bits(),
        Arg::In(_, place) | Arg::Out(_, place) => place.address,
    }
}

impl Device for Cuda {
    fn allocate(&self, bytes: usize) -> Result<u64> {
        let bytes = bytes.next_multiple_of(UNIT);
        // SAFETY: the context lives as long as this device.
        let current = unsafe { result::ctx::set_current(self.context) };
        current.map_err(|error| failed("use the context", error))?;
        // SAFETY: the stream belongs to the context, and all uses of the memory are on it.
        let address = unsafe { result::malloc_async(self.stream, bytes) };
        let address = address.map_err(|error| {
            if error.0 != sys::CUresult::CUDA_ERROR_OUT_OF_MEMORY {
                return failed("allocate", error);
            }
            let left = self.available().unwrap_or(0);
            let megabytes = |bytes: usize| bytes.div_ceil(1 << 20);
            Error::failure(format!(
                "the GPU has {} MB left, and {} MB are needed",
                megabytes(left),
                megabytes(bytes)
            ))
            .hint("use shorter packs (--token-budget), or --recompute on; end other programs on the GPU (`nvidia-smi` lists them)")
        })?;
        let mut state = self.state();
        state.sizes.insert(address, bytes);
        state.used += bytes;
        state.peak = state.peak.max(state.used);
        Ok(address)
    }

    fn free(&self, address: u64) {
        let mut state = self.state();
        let Some(bytes) = state.sizes.remove(&address) else {
            return;
        };
        state.used -= bytes;
        // SAFETY: the address was allocated on this stream and is not used later. After a failure the context is lost anyway.
        unsafe {
            let _ = result::ctx::set_current(self.context);
            let _ = result::free_async(address, self.stream);
        }
    }

    fn upload(&self, bytes: &[u8], row: usize, to: Place, stride: usize) -> Result<()> {
        let rows = bytes.len() / row;
        assert!(
            (rows - 1) * stride + row <= to.bytes,
            "rows within the place"
        );
        self.run(|| {
            // SAFETY: source and destination have the rows. The source is pageable memory, so the call returns when it was read.
            let copied = unsafe {
                if stride == row {
                    result::memcpy_htod_async(to.address, bytes, self.stream)
                } else {
                    let copy = sys::CUDA_MEMCPY2D {
                        srcMemoryType: sys::CUmemorytype::CU_MEMORYTYPE_HOST,
                        srcHost: bytes.as_ptr().cast(),
                        srcPitch: row,
                        dstMemoryType: sys::CUmemorytype::CU_MEMORYTYPE_DEVICE,
                        dstDevice: to.address,
                        dstPitch: stride,
                        WidthInBytes: row,
                        Height: rows,
                        srcXInBytes: 0,
                        srcY: 0,
                        srcDevice: 0,
                        srcArray: std::ptr::null_mut(),
                        dstXInBytes: 0,
                        dstY: 0,
                        dstHost: std::ptr::null_mut(),
                        dstArray: std::ptr::null_mut(),
                    };
                    sys::cuMemcpy2DAsync_v2(&raw const copy, self.stream).result()
                }
            };
            copied.map_err(|error| failed("copy to the GPU", error))
        })
    }

    fn download(&self, from: Place, bytes: &mut [u8]) -> Result<()> {
        assert!(bytes.len() <= from.bytes, "bytes within the place");
        self.run(|| {
            // SAFETY: source and destination have the bytes, and the stream is waited for before the destination is read.
            let copied = unsafe {
                result::memcpy_dtoh_async(bytes, from.address, self.stream)
                    .and_then(|()| result::stream::synchronize(self.stream))
            };
            copied.map_err(|error| failed("copy from the GPU", error))
        })
    }

    fn copy(&self, from: Place, to: Place, bytes: usize) -> Result<()> {
        assert!(
            bytes <= from.bytes && bytes <= to.bytes,
            "bytes within the places"
        );
        self.run(|| {
            // SAFETY: both places have the bytes.
            let copied =
                unsafe { result::memcpy_dtod_async(to.address, from.address, bytes, self.stream) };
            copied.map_err(|error| failed("copy on the GPU", error))
        })
    }

    fn zero(&self, to: Place, bytes: usize) -> Result<()> {
        assert!(bytes <= to.bytes, "bytes within the place");
        self.run(|| {
            // SAFETY: the place has the bytes.
            let set = unsafe { result::memset_d8_async(to.address, 0, bytes, self.stream) };
            set.map_err(|error| failed("clear memory", error))
        })
    }

    fn launch(&self, kernel: &'static Kernel, grid: [u32; 3], args: &[Arg]) -> Result<()> {
        assert_eq!(args.len(), kernel.parameters.len(), "{}", kernel.name);
        self.run(|| {
            let mut values: Vec<u64> = args.iter().map(bits).collect();
            let mut addresses: Vec<*mut c_void> = Vec::with_capacity(values.len());
            for value in &mut values {
                addresses.push(std::ptr::from_mut(value).cast());
            }
            let function = self.functions[kernel.name];
            let (grid, threads) = ((grid[0], grid[1], grid[2]), (kernel.threads, 1, 1));
            self.timed(kernel.name, || {
                // SAFETY: numbers and addresses have the sizes of the parameters, on a little-endian machine also where they are
                // shorter than eight bytes, and they live until the call returns.
                let launched = unsafe {
                    result::launch_kernel(
                        function,
                        grid,
                        threads,
                        kernel.shared,
                        self.stream,
                        &mut addresses,
                    )
                };
                launched.map_err(|error| failed(&format!("run {}", kernel.name), error))
            })
        })
    }

    fn multiply(&self, product: &Product) -> Result<()> {
        self.run(|| self.timed(PRODUCTS, || self.products.multiply(product)))
    }

    fn available(&self) -> Option<usize> {
        // SAFETY: the context lives as long as this device.
        unsafe { result::ctx::set_current(self.context) }.ok()?;
        let (free, _) = result::mem_get_info().ok()?;
        let reserved =
            self.pool_bytes(sys::CUmemPool_attribute::CU_MEMPOOL_ATTR_RESERVED_MEM_CURRENT);
        let used = self.pool_bytes(sys::CUmemPool_attribute::CU_MEMPOOL_ATTR_USED_MEM_CURRENT);
        // The pool's pieces do not always fit together, so a twentieth stays free.
        Some((free + reserved.saturating_sub(used)) / 20 * 19)
    }

    fn peak(&self) -> usize {
        self.state().peak
    }

    fn busy_seconds(&self) -> Option<f64> {
        self.monitor.as_ref().map(Monitor::busy_seconds)
    }

    fn energy_joules(&self) -> Option<f64> {
        self.monitor.as_ref()?.energy_joules()
    }

    fn units(&self) -> usize {
        1
    }

    fn large_product(&self) -> usize {
        8192
    }

    fn peak_rate(&self) -> Option<f64> {
        libraries::peak_rate(&self.name)
    }

    fn start_times(&self) {
        // Reading the time between two events takes a call that older drivers lack.
        let driver = Libraries::find().driver.as_ref();
        if driver.is_ok_and(|version| *version >= timing::OLDEST_DRIVER) {
            self.state().timed = Some(Vec::new());
        }
    }

    fn take_times(&self) -> Result<LaunchTimes> {
        let timed = self.state().timed.take().unwrap_or_default();
        self.run(|| {
            // SAFETY: the stream lives as long as this device.
            let done = unsafe { result::stream::synchronize(self.stream) };
            done.map_err(|error| failed("wait for the GPU", error))?;
            let mut times = LaunchTimes::new();
            for launch in timed {
                let entry = times.entry(launch.name()).or_default();
                entry.0 += 1;
                entry.1 += launch.seconds()?;
            }
            Ok(times)
        })
    }

    fn note(&self) -> String {
        format!(
            "device: {}, experimental: not yet checked on a card",
            self.name
        )
    }

    fn arithmetic(&self) -> String {
        self.arithmetic.clone()
    }
}
