//! The trait of a card, below which nothing knows about models.

use std::{collections::BTreeMap, sync::Arc};

use upright_base::Result;
use upright_kernels::{Element, Kernel};

/// Allocations take a multiple of this many bytes.
pub(crate) const UNIT: usize = 256;

/// Memory of a device, from an address on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Place {
    /// Address of the first byte.
    pub(crate) address: u64,
    /// Bytes from there to the end of what may be accessed.
    pub(crate) bytes: usize,
}

/// An argument of a kernel.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) enum Arg {
    /// `int`
    I32(i32),
    /// `u64`
    U64(u64),
    /// `float`
    F32(f32),
    /// `double`
    F64(f64),
    /// `In<T>`
    In(Element, Place),
    /// `Out<T>`
    Out(Element, Place),
}

/// A size as an argument.
///
/// # Panics
/// If it does not fit 31 bits.
pub(crate) fn int(size: usize) -> Arg {
    Arg::I32(i32::try_from(size).expect("a size of a kernel fits 31 bits"))
}

/// A matrix product `D = A B + C + bias`, row-major, accumulated in f32.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct Product {
    /// Rows of A and D.
    pub(crate) m: usize,
    /// Columns of B and D.
    pub(crate) n: usize,
    /// Columns of A and rows of B.
    pub(crate) k: usize,
    /// A `[m, k]` in bf16.
    pub(crate) a: Place,
    /// Values from one row of A to the next.
    pub(crate) a_stride: usize,
    /// B in bf16: `[n, k]` if transposed, else `[k, n]`.
    pub(crate) b: Place,
    /// Values from one row of B, as stored, to the next.
    pub(crate) b_stride: usize,
    /// Whether B is stored as `[n, k]`, as the weight of a linear is in its forward pass.
    pub(crate) b_transposed: bool,
    /// C `[m, n]` in f32, in rows of n values. It may be D.
    pub(crate) c: Option<Place>,
    /// One value per column, in f32.
    pub(crate) bias: Option<Place>,
    /// D `[m, n]`, in rows of n values.
    pub(crate) d: Place,
    /// f32, or bf16 rounded once.
    pub(crate) d_element: Element,
}

impl Product {
    /// Multiply-adds.
    pub(crate) fn multiply_adds(&self) -> u64 {
        self.m as u64 * self.n as u64 * self.k as u64
    }
}

/// What matrix products are called among kernels.
pub(crate) const PRODUCTS: &str = "products";

/// Launches of every kernel and of all products, and their seconds on the device.
pub(crate) type LaunchTimes = BTreeMap<&'static str, (usize, f64)>;

/// A card. Calls take effect in their order. They may return before they have taken effect, except for
/// [`Device::download`]. After an error, every later call returns an error.
pub(crate) trait Device: Send + Sync {
    /// Reserves memory of unspecified content, aligned to [`UNIT`].
    ///
    /// # Errors
    /// The device has too little memory.
    fn allocate(&self, bytes: usize) -> Result<u64>;

    /// Gives memory back.
    fn free(&self, address: u64);

    /// Copies bytes to the device: rows of `row` bytes, which begin `stride` bytes apart on the device.
    fn upload(&self, bytes: &[u8], row: usize, to: Place, stride: usize) -> Result<()>;

    /// Copies bytes from the device, after everything before has taken effect.
    fn download(&self, from: Place, bytes: &mut [u8]) -> Result<()>;

    /// Copies bytes within the device.
    fn copy(&self, from: Place, to: Place, bytes: usize) -> Result<()>;

    /// Sets bytes to zero.
    fn zero(&self, to: Place, bytes: usize) -> Result<()>;

    /// Runs a kernel on a grid of blocks. No two arguments that are written overlap, and none of them overlaps one that is
    /// only read.
    fn launch(&self, kernel: &'static Kernel, grid: [u32; 3], args: &[Arg]) -> Result<()>;

    /// Multiplies. The bits of a row of D depend on the row of A and on everything else but m.
    fn multiply(&self, product: &Product) -> Result<()>;

    /// Bytes that can still be allocated; `None` if there is no limit.
    fn available(&self) -> Option<usize>;

    /// Largest number of bytes allocated at a time so far.
    fn peak(&self) -> usize;

    /// Seconds of work, summed over all units; `None` if the device does not say.
    fn busy_seconds(&self) -> Option<f64>;

    /// Energy of the device in joules, from any start on; `None` if it does not count it.
    fn energy_joules(&self) -> Option<f64>;

    /// Units that can be busy at once.
    fn units(&self) -> usize;

    /// Rows and columns of a square product that is large enough to reach the device's rate.
    fn large_product(&self) -> usize;

    /// Published peak of dense bf16 products, in operations/s, if it is known.
    fn peak_rate(&self) -> Option<f64>;

    /// Measures the time of every launch and product from now on. What was measured before is forgotten.
    fn start_times(&self);

    /// The measurements since [`Device::start_times`], after which nothing is measured. Empty if nothing was started. The time of a
    /// launch includes the few microseconds in which a device that waits for the host is idle.
    fn take_times(&self) -> Result<LaunchTimes>;

    /// What a user should know about the device, in one line.
    fn note(&self) -> String;

    /// Identifies what determines the bits of a result.
    fn arithmetic(&self) -> String;
}

/// Runs a kernel by name.
///
/// # Errors
/// As [`Device::launch`].
///
/// # Panics
/// If no kernel has this name.
pub(crate) fn launch(
    device: &Arc<dyn Device>,
    name: &str,
    grid: [usize; 3],
    args: &[Arg],
) -> Result<()> {
    let (_, kernel) = upright_kernels::kernel(name).expect("the name of a kernel");
    let grid = grid.map(|blocks| u32::try_from(blocks).expect("blocks fit 32 bits"));
    device.launch(kernel, grid, args)
}
