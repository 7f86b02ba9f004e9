//! Counts of the arithmetic that this process has done: taken where the work is done, never worked out from a model's shape.

use std::sync::atomic::{AtomicU64, Ordering};

static PRODUCTS: AtomicU64 = AtomicU64::new(0);
static ATTENTION: AtomicU64 = AtomicU64::new(0);
static FORWARD: AtomicU64 = AtomicU64::new(0);
static BACKWARD: AtomicU64 = AtomicU64::new(0);

/// Work of this process, on all threads and by every decoder in it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counts {
    /// Multiply-adds of matrix products: M N K each.
    pub products: u64,
    /// Multiply-adds of attention: of the pairs of a query and a key that it sees.
    pub attention: u64,
    /// Tokens that went forward through the decoder, with a backward to come or without.
    pub tokens_forward: u64,
    /// Tokens that went backward through it.
    pub tokens_backward: u64,
}

impl Counts {
    /// Everything since the process began. Exact while no decoder is at work.
    pub fn now() -> Self {
        Self {
            products: PRODUCTS.load(Ordering::Relaxed),
            attention: ATTENTION.load(Ordering::Relaxed),
            tokens_forward: FORWARD.load(Ordering::Relaxed),
            tokens_backward: BACKWARD.load(Ordering::Relaxed),
        }
    }

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

/// A matrix product of `[m, k]` and `[k, n]` is about to be computed.
pub(super) fn product(m: usize, n: usize, k: usize) {
    PRODUCTS.fetch_add(m as u64 * n as u64 * k as u64, Ordering::Relaxed);
}

/// So many multiply-adds of attention are about to be computed.
pub(super) fn attention(multiply_adds: usize) {
    ATTENTION.fetch_add(multiply_adds as u64, Ordering::Relaxed);
}

/// So many tokens went forward through a decoder.
pub(crate) fn forward(tokens: usize) {
    FORWARD.fetch_add(tokens as u64, Ordering::Relaxed);
}

/// So many tokens went backward through a decoder.
pub(crate) fn backward(tokens: usize) {
    BACKWARD.fetch_add(tokens as u64, Ordering::Relaxed);
}
