//! A device that only counts. A pass that runs on it takes the memory that it would take on a card, and lists what it would
//! launch, without computing anything.

use std::{
    collections::BTreeMap,
    sync::{Mutex, MutexGuard, PoisonError},
};

use upright_base::Result;
use upright_kernels::{Element, Kernel};

use super::{
    device::{Arg, Device, LaunchTimes, Place, Product, UNIT},
    traffic,
};

/// Launches, products and copies.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Work {
    /// Launches of every kernel, and the bytes that they read and write in global memory. What several blocks read counts once.
    /// Attention's bytes are not counted here: they depend on the tiles of a pack, and `upright_kernels::work` has them.
    pub launches: BTreeMap<&'static str, (usize, u64)>,
    /// Matrix products by shape `[m, n, k]`.
    pub products: BTreeMap<[usize; 3], usize>,
    /// Bytes of the products' operands, each once.
    pub product_bytes: u64,
    /// Copies and fills on the device, and their bytes.
    pub copies: (usize, u64),
    /// Transfers between host and device, and their bytes.
    pub transfers: (usize, u64),
}

impl Work {
    /// Multiply-adds of all products.
    pub fn multiply_adds(&self) -> u64 {
        let mut sum = 0;
        for ([m, n, k], count) in &self.products {
            sum += (*m * *n * *k * *count) as u64;
        }
        sum
    }

    /// Number of all launches.
    pub fn launch_count(&self) -> usize {
        self.launches.values().map(|(count, _)| count).sum()
    }

    /// Bytes of all launches.
    pub fn launch_bytes(&self) -> u64 {
        self.launches.values().map(|(_, bytes)| bytes).sum()
    }
}

/// A device without memory.
#[derive(Default)]
pub(crate) struct Meter {
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    sizes: BTreeMap<u64, usize>,
    next: u64,
    used: usize,
    peak: usize,
    work: Work,
}

impl Meter {
    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Bytes that are allocated now.
    pub(crate) fn used(&self) -> usize {
        self.state().used
    }

    /// Forgets the peak and the work so far.
    pub(crate) fn restart(&self) {
        let mut state = self.state();
        state.peak = state.used;
        state.work = Work::default();
    }

    /// The work since it was taken last.
    pub(crate) fn take(&self) -> Work {
        std::mem::take(&mut self.state().work)
    }
}

impl Device for Meter {
    fn allocate(&self, bytes: usize) -> Result<u64> {
        let mut state = self.state();
        let bytes = bytes.next_multiple_of(UNIT);
        let address = state.next;
        state.next += bytes as u64;
        state.sizes.insert(address, bytes);
        state.used += bytes;
        state.peak = state.peak.max(state.used);
        Ok(address)
    }

    fn free(&self, address: u64) {
        let mut state = self.state();
        if let Some(bytes) = state.sizes.remove(&address) {
            state.used -= bytes;
        }
    }

    fn upload(&self, bytes: &[u8], _: usize, _: Place, _: usize) -> Result<()> {
        let mut state = self.state();
        state.work.transfers.0 += 1;
        state.work.transfers.1 += bytes.len() as u64;
        Ok(())
    }

    fn download(&self, _: Place, bytes: &mut [u8]) -> Result<()> {
        let mut state = self.state();
        state.work.transfers.0 += 1;
        state.work.transfers.1 += bytes.len() as u64;
        bytes.fill(0);
        Ok(())
    }

    fn copy(&self, _: Place, _: Place, bytes: usize) -> Result<()> {
        let mut state = self.state();
        state.work.copies.0 += 1;
        state.work.copies.1 += 2 * bytes as u64;
        Ok(())
    }

    fn zero(&self, _: Place, bytes: usize) -> Result<()> {
        let mut state = self.state();
        state.work.copies.0 += 1;
        state.work.copies.1 += bytes as u64;
        Ok(())
    }

    fn launch(&self, kernel: &'static Kernel, grid: [u32; 3], args: &[Arg]) -> Result<()> {
        let bytes = traffic::bytes(kernel.name, grid, args);
        let mut state = self.state();
        let entry = state.work.launches.entry(kernel.name).or_default();
        entry.0 += 1;
        entry.1 += bytes;
        Ok(())
    }

    fn multiply(&self, product: &Product) -> Result<()> {
        let Product { m, n, k, .. } = *product;
        let of_d = if product.d_element == Element::F32 {
            4
        } else {
            2
        };
        let of_c = if product.c.is_some() { 4 } else { 0 };
        let mut state = self.state();
        *state.work.products.entry([m, n, k]).or_default() += 1;
        state.work.product_bytes += (2 * (m * k + n * k) + (of_d + of_c) * m * n) as u64;
        Ok(())
    }

    fn available(&self) -> Option<usize> {
        None
    }

    fn peak(&self) -> usize {
        self.state().peak
    }

    fn busy_seconds(&self) -> Option<f64> {
        None
    }

    fn energy_joules(&self) -> Option<f64> {
        None
    }

    fn units(&self) -> usize {
        1
    }

    fn large_product(&self) -> usize {
        256
    }

    fn peak_rate(&self) -> Option<f64> {
        None
    }

    fn start_times(&self) {}

    fn take_times(&self) -> Result<LaunchTimes> {
        Ok(LaunchTimes::new())
    }

    fn note(&self) -> String {
        "device: none".to_owned()
    }

    fn arithmetic(&self) -> String {
        "meter".to_owned()
    }
}
