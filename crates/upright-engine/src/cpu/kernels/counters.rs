//! Operation counters of a decoder. Every thread of a decoder's pool adds to the counters of that
//! decoder.

use std::{
    cell::RefCell,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
};

use crate::usage::Counts;

/// The counters of one decoder.
#[derive(Debug, Default)]
pub(crate) struct Counters {
    products: AtomicU64,
    attention: AtomicU64,
    packs: AtomicU64,
    forward: AtomicU64,
    backward: AtomicU64,
}

thread_local! {
    /// The counters of the decoder that this thread works for; `None` on other threads.
    static OWN: RefCell<Option<Arc<Counters>>> = const { RefCell::new(None) };
}

impl Counters {
    /// Makes this thread add to these counters.
    pub(crate) fn attach(self: Arc<Self>) {
        OWN.set(Some(self));
    }

    /// Counts a forward pass of `tokens` tokens.
    pub(crate) fn forward(&self, tokens: usize) {
        self.packs.fetch_add(1, Ordering::Relaxed);
        self.forward.fetch_add(tokens as u64, Ordering::Relaxed);
    }

    /// Counts a backward pass of `tokens` tokens.
    pub(crate) fn backward(&self, tokens: usize) {
        self.backward.fetch_add(tokens as u64, Ordering::Relaxed);
    }

    /// Counts multiply-adds of matrix products.
    pub(crate) fn add_products(&self, multiply_adds: u64) {
        self.products.fetch_add(multiply_adds, Ordering::Relaxed);
    }

    /// Counts multiply-adds of attention.
    pub(crate) fn add_attention(&self, multiply_adds: u64) {
        self.attention.fetch_add(multiply_adds, Ordering::Relaxed);
    }

    /// All counts so far. Exact while the decoder is idle.
    pub(crate) fn counts(&self) -> Counts {
        Counts {
            products: self.products.load(Ordering::Relaxed),
            attention: self.attention.load(Ordering::Relaxed),
            packs: self.packs.load(Ordering::Relaxed),
            tokens_forward: self.forward.load(Ordering::Relaxed),
            tokens_backward: self.backward.load(Ordering::Relaxed),
        }
    }
}

/// Counts a matrix product of `[m, k]` and `[k, n]`.
pub(super) fn product(m: usize, n: usize, k: usize) {
    OWN.with_borrow(|own| {
        if let Some(counters) = own {
            counters.add_products(m as u64 * n as u64 * k as u64);
        }
    });
}

/// Counts multiply-adds of attention.
pub(super) fn attention(multiply_adds: usize) {
    OWN.with_borrow(|own| {
        if let Some(counters) = own {
            counters.add_attention(multiply_adds as u64);
        }
    });
}
