//! A device for tests and rehearsals: kernels run in the emulator of `upright-emulator`, and products on the CPU. Every access
//! outside of allocated memory is an error.

use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Instant,
};

use half::bf16;
use rayon::ThreadPool;
use upright_base::{Error, Result};
use upright_kernels::{Element, Kernel};

use super::device::{Arg, Device, LaunchTimes, PRODUCTS, Place, Product, UNIT};
use crate::cpu::{
    kernels::{
        REVISION,
        gemm::{Finish, Onto, Term, Values, View, sum},
        vector_width,
    },
    tier::Tier,
};

/// What nobody has written: NaN as f32 and as bf16, and an index outside of everything.
const UNWRITTEN: u128 = u128::from_le_bytes([
    0xde, 0x7f, 0xde, 0x7f, 0xde, 0x7f, 0xde, 0x7f, 0xde, 0x7f, 0xde, 0x7f, 0xde, 0x7f, 0xde, 0x7f,
]);

/// Distance of allocations, beyond which an access cannot reach by accident.
const GAP: u64 = 1 << 40;

/// Kills the process with a signal at the given upload or launch, for tests of resuming: `launch:1234`.
const KILL: &str = "UPRIGHT_HOST_KILL";

/// A device in host memory.
pub(crate) struct Host {
    pool: Arc<ThreadPool>,
    /// Tier of the products.
    tier: Tier,
    kill: Option<(String, usize)>,
    /// A kernel after which the first bit of its last output is wrong, for tests of comparisons.
    #[cfg(test)]
    flipped: Option<&'static str>,
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    memory: BTreeMap<u64, Allocation>,
    next: u64,
    /// Bytes that can be allocated; `None` for no limit.
    limit: Option<usize>,
    used: usize,
    peak: usize,
    launches: usize,
    uploads: usize,
    /// `None` if nothing is measured.
    times: Option<LaunchTimes>,
    failure: Option<Error>,
}

/// What a product reads, in host memory.
pub(super) struct Operands<'a> {
    pub(super) a: &'a [bf16],
    pub(super) b: &'a [bf16],
    /// `None` if there is no C, or it is D.
    pub(super) c: Option<&'a [f32]>,
    pub(super) bias: Option<&'a [f32]>,
}

/// Multiplies on the CPU. `d` begins with D.
pub(super) fn multiply(
    pool: &ThreadPool,
    tier: Tier,
    product: &Product,
    operands: &Operands<'_>,
    d: &mut [u8],
) {
    let Product { m, n, k, .. } = *product;
    let a = View::strided(Values::Bf16(operands.a), m, k, product.a_stride);
    let b = Values::Bf16(operands.b);
    let b = if product.b_transposed {
        View::strided(b, n, k, product.b_stride).t()
    } else {
        View::strided(b, k, n, product.b_stride)
    };
    let onto = match (product.c, operands.c) {
        (None, _) => Onto::Nothing,
        (Some(_), None) => Onto::Itself,
        (Some(_), Some(c)) => Onto::Rows(&c[..m * n]),
    };
    let finish = Finish {
        onto,
        bias: operands.bias.map(|bias| &bias[..n]),
    };
    let terms = [Term::new(a, b)];
    if product.d_element == Element::F32 {
        let d: &mut [f32] = &mut bytemuck::cast_slice_mut(d)[..m * n];
        pool.install(|| sum(tier, &terms, d, n, finish));
    } else {
        let mut exact = vec![0.0f32; m * n];
        pool.install(|| sum(tier, &terms, &mut exact, n, finish));
        let d: &mut [bf16] = &mut bytemuck::cast_slice_mut(d)[..m * n];
        for (d, exact) in d.iter_mut().zip(exact) {
            *d = bf16::from_f32(exact);
        }
    }
}

struct Allocation {
    units: Vec<u128>,
    bytes: usize,
}

impl Allocation {
    fn bytes(&self) -> &[u8] {
        &bytemuck::cast_slice(&self.units)[..self.bytes]
    }

    fn bytes_mut(&mut self) -> &mut [u8] {
        &mut bytemuck::cast_slice_mut(&mut self.units)[..self.bytes]
    }
}

impl State {
    /// The allocation that a place lies in, and the offset of the place.
    fn find(&self, place: Place) -> Result<(u64, usize)> {
        let found = self.memory.range(..=place.address).next_back();
        if let Some((address, allocation)) = found {
            let offset = (place.address - address) as usize;
            if offset + place.bytes <= allocation.bytes {
                return Ok((*address, offset));
            }
        }
        Err(Error::failure(format!(
            "host device: {} bytes at {:#x} are not allocated",
            place.bytes, place.address
        )))
    }

    fn read(&self, place: Place) -> Result<&[u8]> {
        let (address, offset) = self.find(place)?;
        Ok(&self.memory[&address].bytes()[offset..offset + place.bytes])
    }

    /// What a product reads. D was taken out of the memory.
    fn operands(&self, product: &Product) -> Result<Operands<'_>> {
        let is_itself = product.c.is_some_and(|c| c.address == product.d.address);
        let floats =
            |place: Place| -> Result<&[f32]> { Ok(bytemuck::cast_slice(self.read(place)?)) };
        Ok(Operands {
            a: bytemuck::cast_slice(self.read(product.a)?),
            b: bytemuck::cast_slice(self.read(product.b)?),
            c: product.c.filter(|_| !is_itself).map(&floats).transpose()?,
            bias: product.bias.map(&floats).transpose()?,
        })
    }

    /// Records the time of a launch.
    fn measure(&mut self, name: &'static str, began: Instant) {
        if let Some(times) = &mut self.times {
            let entry = times.entry(name).or_default();
            entry.0 += 1;
            entry.1 += began.elapsed().as_secs_f64();
        }
    }

    fn write(&mut self, place: Place) -> Result<&mut [u8]> {
        let (address, offset) = self.find(place)?;
        let allocation = self.memory.get_mut(&address).expect("found above");
        Ok(&mut allocation.bytes_mut()[offset..offset + place.bytes])
    }
}

impl Host {
    /// A device whose products run on a pool, with a tier of the CPU.
    ///
    /// # Errors
    /// The machine has no C++ compiler, so the kernels were not built.
    pub(crate) fn new(pool: Arc<ThreadPool>, tier: Tier) -> Result<Self> {
        if let Some(why) = upright_emulator::missing() {
            return Err(Error::input(format!("--device host: {why}"))
                .hint("install a C++17 compiler and build again"));
        }
        let kill = std::env::var(KILL).ok().and_then(|text| {
            let (what, count) = text.split_once(':')?;
            Some((what.to_owned(), count.parse().ok()?))
        });
        Ok(Self {
            pool,
            tier,
            kill,
            #[cfg(test)]
            flipped: None,
            state: Mutex::default(),
        })
    }

    /// Allows at most `bytes` bytes from now on.
    #[cfg(test)]
    pub(super) fn set_limit(&self, bytes: usize) {
        self.lock().limit = Some(bytes);
    }

    /// Makes a kernel wrong from now on: the first bit of its last output.
    #[cfg(test)]
    pub(super) fn flip_a_bit_after(&mut self, kernel: &'static str) {
        self.flipped = Some(kernel);
    }

    /// Bytes that are allocated now. Forgets the peak so far.
    #[cfg(test)]
    pub(super) fn used(&self) -> usize {
        let mut state = self.lock();
        state.peak = state.used;
        state.used
    }

    fn state(&self) -> Result<MutexGuard<'_, State>> {
        let state = self.lock();
        match &state.failure {
            Some(error) => Err(error.clone()),
            None => Ok(state),
        }
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Does something, and remembers its error.
    fn run<R>(&self, work: impl FnOnce(&mut State) -> Result<R>) -> Result<R> {
        let mut state = self.state()?;
        let done = work(&mut state);
        if let Err(error) = &done {
            state.failure = Some(error.clone());
        }
        done
    }

    /// Kills the process if this is the upload or launch that a test has chosen.
    fn kill_at(&self, what: &str, count: usize) {
        let is_chosen = |(kind, at): &(String, usize)| kind == what && *at == count;
        if self.kill.as_ref().is_some_and(is_chosen) {
            // SAFETY: the call takes numbers.
            unsafe { libc::kill(libc::getpid(), libc::SIGKILL) };
        }
    }
}

/// An argument of a kernel with its memory.
fn bound<'a>(
    arg: &Arg,
    read: &'a BTreeMap<u64, Allocation>,
    written: &mut BTreeMap<u64, &'a mut [u8]>,
) -> Result<upright_emulator::Arg<'a>> {
    Ok(match arg {
        Arg::I32(number) => upright_emulator::Arg::I32(*number),
        Arg::U64(number) => upright_emulator::Arg::U64(*number),
        Arg::F32(number) => upright_emulator::Arg::F32(*number),
        Arg::F64(number) => upright_emulator::Arg::F64(*number),
        Arg::In(element, place) => {
            let found = read.range(..=place.address).next_back();
            let (address, allocation) = found.ok_or_else(|| overlap(place))?;
            let offset = (place.address - address) as usize;
            let bytes = allocation.bytes().get(offset..offset + place.bytes);
            upright_emulator::Arg::In(*element, bytes.ok_or_else(|| overlap(place))?)
        }
        Arg::Out(element, place) => {
            let bytes = written.remove(&place.address);
            upright_emulator::Arg::Out(*element, bytes.ok_or_else(|| overlap(place))?)
        }
    })
}

fn overlap(place: &Place) -> Error {
    Error::failure(format!(
        "host device: memory at {:#x} is written by one argument and used by another",
        place.address
    ))
}

impl Device for Host {
    fn allocate(&self, bytes: usize) -> Result<u64> {
        let mut state = self.state()?;
        let taken = bytes.next_multiple_of(UNIT);
        if let Some(limit) = state.limit
            && state.used + taken > limit
        {
            return Err(Error::failure(format!(
                "host device: {bytes} bytes do not fit into the {} that are left",
                limit - state.used
            )));
        }
        state.next += GAP;
        let address = state.next;
        let units = vec![UNWRITTEN; bytes.div_ceil(size_of::<u128>())];
        state.memory.insert(address, Allocation { units, bytes });
        state.used += taken;
        state.peak = state.peak.max(state.used);
        Ok(address)
    }

    fn free(&self, address: u64) {
        let mut state = self.lock();
        if let Some(allocation) = state.memory.remove(&address) {
            state.used -= allocation.bytes.next_multiple_of(UNIT);
        }
    }

    fn upload(&self, bytes: &[u8], row: usize, to: Place, stride: usize) -> Result<()> {
        self.run(|state| {
            state.uploads += 1;
            self.kill_at("upload", state.uploads);
            let to = state.write(to)?;
            for (index, bytes) in bytes.chunks(row).enumerate() {
                to[index * stride..index * stride + row].copy_from_slice(bytes);
            }
            Ok(())
        })
    }

    fn download(&self, from: Place, bytes: &mut [u8]) -> Result<()> {
        self.run(|state| {
            bytes.copy_from_slice(&state.read(from)?[..bytes.len()]);
            Ok(())
        })
    }

    fn copy(&self, from: Place, to: Place, bytes: usize) -> Result<()> {
        self.run(|state| {
            let values = state.read(from)?[..bytes].to_vec();
            state.write(to)?[..bytes].copy_from_slice(&values);
            Ok(())
        })
    }

    fn zero(&self, to: Place, bytes: usize) -> Result<()> {
        self.run(|state| {
            state.write(to)?[..bytes].fill(0);
            Ok(())
        })
    }

    fn launch(&self, kernel: &'static Kernel, grid: [u32; 3], args: &[Arg]) -> Result<()> {
        let began = Instant::now();
        self.run(|state| {
            state.launches += 1;
            self.kill_at("launch", state.launches);
            // What is written leaves the map, so that nothing else can read it.
            let mut outputs = Vec::new();
            for arg in args {
                if let Arg::Out(_, place) = arg {
                    let (address, offset) = state.find(*place)?;
                    let allocation = state.memory.remove(&address).expect("found above");
                    outputs.push((address, offset, *place, allocation));
                }
            }
            let mut written = BTreeMap::new();
            for (_, offset, place, allocation) in &mut outputs {
                let bytes = &mut allocation.bytes_mut()[*offset..*offset + place.bytes];
                written.insert(place.address, bytes);
            }
            let memory = &state.memory;
            let bound: Result<Vec<_>> = args
                .iter()
                .map(|arg| bound(arg, memory, &mut written))
                .collect();
            let result = bound.and_then(|mut bound| {
                let seed = state.launches as u64;
                upright_emulator::launch(kernel.name, grid, seed, &mut bound)
                    .map_err(|problem| Error::failure(format!("host device: {problem}")))
            });
            let result = result.map_err(|error| error.at(kernel.name));
            drop(written);
            #[cfg(test)]
            if let (true, Some((_, offset, _, allocation))) =
                (self.flipped == Some(kernel.name), outputs.last_mut())
            {
                allocation.bytes_mut()[*offset] ^= 1;
            }
            for (address, _, _, allocation) in outputs {
                state.memory.insert(address, allocation);
            }
            state.measure(kernel.name, began);
            result
        })
    }

    fn multiply(&self, product: &Product) -> Result<()> {
        let began = Instant::now();
        self.run(|state| {
            let (address, offset) = state.find(product.d)?;
            let mut written = state.memory.remove(&address).expect("found above");
            let result = state.operands(product).map(|operands| {
                let d = &mut written.bytes_mut()[offset..];
                multiply(&self.pool, self.tier, product, &operands, d);
            });
            state.memory.insert(address, written);
            state.measure(PRODUCTS, began);
            result
        })
    }

    fn available(&self) -> Option<usize> {
        let state = self.lock();
        Some(state.limit?.saturating_sub(state.used))
    }

    fn peak(&self) -> usize {
        self.lock().peak
    }

    fn busy_seconds(&self) -> Option<f64> {
        Some(upright_base::processor::seconds())
    }

    fn energy_joules(&self) -> Option<f64> {
        None
    }

    fn units(&self) -> usize {
        std::thread::available_parallelism().map_or(1, usize::from)
    }

    fn large_product(&self) -> usize {
        256
    }

    fn peak_rate(&self) -> Option<f64> {
        None
    }

    fn start_times(&self) {
        self.lock().times = Some(LaunchTimes::new());
    }

    fn take_times(&self) -> Result<LaunchTimes> {
        Ok(self.state()?.times.take().unwrap_or_default())
    }

    fn note(&self) -> String {
        "device: host, for tests: the GPU decoder with its kernels in an emulator".to_owned()
    }

    fn arithmetic(&self) -> String {
        let (tier, width) = (self.tier.name(), vector_width());
        format!("host/{tier}/f32x{width}/{REVISION}")
    }
}
