//! Resource use and operation counts of a device.

/// Memory and busy time of a decoder's device since this process started, and the decoder's own
/// operation counts.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Usage {
    /// Peak memory in bytes; `None` if the system does not report it.
    pub peak_bytes: Option<usize>,
    /// Seconds of work, summed over all units of the device: CPU time of all threads on a CPU, time in which a kernel ran on a
    /// GPU. `None` if the device does not say.
    pub busy_seconds: Option<f64>,
    /// Energy of the whole device in joules, from any start on. `None` if the device does not count it, as for a CPU.
    pub energy_joules: Option<f64>,
    /// Units that can be busy at once: the cores of a CPU, 1 for a GPU.
    pub units: usize,
    /// Operations done.
    pub counts: Counts,
}

/// Operation counts, taken where the work is done and never derived from a model's shape.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counts {
    /// Multiply-adds of matrix products: M N K each.
    pub products: u64,
    /// Multiply-adds of attention, over the pairs of a query and a key that it attends to.
    pub attention: u64,
    /// Packs of forward passes, with or without a backward pass.
    pub packs: u64,
    /// Tokens of forward passes, with or without a backward pass.
    pub tokens_forward: u64,
    /// Tokens of backward passes.
    pub tokens_backward: u64,
}

impl Counts {
    /// Multiply-adds of products and attention. Each counts as two operations in FLOP/s.
    pub fn multiply_adds(self) -> u64 {
        self.products + self.attention
    }
}

impl std::ops::Sub for Counts {
    type Output = Self;

    /// The work between an earlier count (on the right) and this one.
    fn sub(self, earlier: Self) -> Self {
        Self {
            products: self.products - earlier.products,
            attention: self.attention - earlier.attention,
            packs: self.packs - earlier.packs,
            tokens_forward: self.tokens_forward - earlier.tokens_forward,
            tokens_backward: self.tokens_backward - earlier.tokens_backward,
        }
    }
}

impl std::ops::Add for Counts {
    type Output = Self;

    fn add(self, other: Self) -> Self {
        Self {
            products: self.products + other.products,
            attention: self.attention + other.attention,
            packs: self.packs + other.packs,
            tokens_forward: self.tokens_forward + other.tokens_forward,
            tokens_backward: self.tokens_backward + other.tokens_backward,
        }
    }
}

impl std::iter::Sum for Counts {
    fn sum<I: Iterator<Item = Self>>(all: I) -> Self {
        all.fold(Self::default(), std::ops::Add::add)
    }
}
