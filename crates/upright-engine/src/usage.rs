//! What a device has used and done.

/// Memory and busy time of a decoder's device since this process began, and the decoder's own arithmetic.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Usage {
    /// The most memory held at once, in bytes; `None` where the system does not say.
    pub peak_bytes: Option<usize>,
    /// Seconds of work, over all units of the device: processor time of all threads on a CPU.
    pub busy_seconds: f64,
    /// Units that can be busy at once: the cores of a CPU.
    pub units: usize,
    /// Arithmetic that was done.
    pub counts: Counts,
}

/// Arithmetic, counted where it is done, never worked out from a model's shape.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counts {
    /// Multiply-adds of matrix products: M N K each.
    pub products: u64,
    /// Multiply-adds of attention: of the pairs of a query and a key that it sees.
    pub attention: u64,
    /// Tokens of forward passes, with a backward pass to come or without.
    pub tokens_forward: u64,
    /// Tokens of backward passes.
    pub tokens_backward: u64,
}

impl Counts {
    /// Multiply-adds of products and attention. Each is two operations, as FLOP/s count them.
    pub fn multiply_adds(self) -> u64 {
        self.products + self.attention
    }
}

impl std::ops::Sub for Counts {
    type Output = Self;

    /// The work between an earlier count, on the right, and this one.
    fn sub(self, earlier: Self) -> Self {
        Self {
            products: self.products - earlier.products,
            attention: self.attention - earlier.attention,
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
