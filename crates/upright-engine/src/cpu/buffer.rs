//! A pool of buffers reused from step to step. Activations have similar sizes in every step, and
//! faulting in fresh pages costs as much as reading them several times.

use std::{
    cell::RefCell,
    ops::{Deref, DerefMut},
    sync::{Mutex, MutexGuard, PoisonError},
};

use bytemuck::Pod;
use memmap2::{Advice, MmapMut, MmapOptions};

/// Largest small buffer. Some small spares, sorted by powers of two, stay with the thread that
/// freed them.
const SMALL: usize = 1 << 20;
/// Bytes of small spares of one size that a thread keeps. Further spares are shared by all threads.
const KEPT: usize = 4 << 20;
/// From this size on, large pages are requested.
const LARGE: usize = 4 << 20;
/// Smallest buffer: one page.
const PAGE: usize = 4096;

/// Number of sizes of small buffers.
const CLASSES: usize = (SMALL / PAGE).ilog2() as usize + 1;

/// Small spares by size: those at index i have `PAGE << i` bytes.
type Spares = [Vec<MmapMut>; CLASSES];

const NO_SPARES: Spares = [const { Vec::new() }; CLASSES];

thread_local! {
    /// Spare buffers of this thread.
    static OWN: RefCell<Spares> = const { RefCell::new(NO_SPARES) };
}

/// Spare buffers shared by all threads. A buffer is often freed on another thread than the one that
/// allocated it. Without sharing, the list of that thread would grow without bound.
static SHARED: Mutex<Spares> = Mutex::new(NO_SPARES);

/// A spare may be up to this many times larger than the request: packs differ in size from step to
/// step.
const ROOMY: usize = 4;

static POOL: Mutex<Pool> = Mutex::new(Pool {
    spares: Vec::new(),
    held: 0,
    used: 0,
    most_used: 0,
});

/// Buffers above [`SMALL`].
struct Pool {
    /// Spare buffers, longest unused first.
    spares: Vec<MmapMut>,
    /// Bytes of all buffers, spare and in use.
    held: usize,
    /// Requested bytes of the buffers in use.
    used: usize,
    /// Peak of `used`.
    most_used: usize,
}

impl Pool {
    fn take(&mut self, bytes: usize) -> Option<MmapMut> {
        self.used += bytes;
        self.most_used = self.most_used.max(self.used);
        let fits = |memory: &MmapMut| memory.len() >= bytes && memory.len() <= ROOMY * bytes;
        let fitting = self
            .spares
            .iter()
            .enumerate()
            .filter(|(_, memory)| fits(memory));
        if let Some((index, _)) = fitting.min_by_key(|(_, memory)| memory.len()) {
            return Some(self.spares.remove(index));
        }
        self.held += bytes;
        // The longest unused spares go back to the system before the pool exceeds the peak use by a
        // quarter.
        while !self.spares.is_empty() && self.held > self.most_used / 4 * 5 {
            self.held -= self.spares.remove(0).len();
        }
        None
    }

    /// Takes back a buffer of which `bytes` were requested.
    fn give(&mut self, memory: MmapMut, bytes: usize) {
        self.used -= bytes;
        self.spares.push(memory);
    }
}

/// `len` values in memory from a pool of the process, to which it returns on drop. Aligned to a
/// page.
pub(crate) struct Buffer<T> {
    /// `None` if `len` is 0, and during drop.
    memory: Option<MmapMut>,
    len: usize,
    value: std::marker::PhantomData<T>,
}

impl<T: Pod> Buffer<T> {
    /// Values of unspecified content.
    ///
    /// # Panics
    /// If the system is out of memory.
    pub(crate) fn new(len: usize) -> Self {
        let bytes = len
            .checked_mul(size_of::<T>())
            .expect("a length that can be addressed");
        let memory = (bytes > 0).then(|| take(bytes));
        Self {
            memory,
            len,
            value: std::marker::PhantomData,
        }
    }

    /// Zeros.
    pub(crate) fn zeroed(len: usize) -> Self {
        let mut buffer = Self::new(len);
        buffer.fill(T::zeroed());
        buffer
    }
}

impl<T: Pod> Deref for Buffer<T> {
    type Target = [T];

    fn deref(&self) -> &[T] {
        self.memory.as_ref().map_or(&[], |memory| {
            bytemuck::cast_slice(&memory[..self.len * size_of::<T>()])
        })
    }
}

impl<T: Pod> DerefMut for Buffer<T> {
    fn deref_mut(&mut self) -> &mut [T] {
        let bytes = self.len * size_of::<T>();
        self.memory.as_mut().map_or(&mut [], |memory| {
            bytemuck::cast_slice_mut(&mut memory[..bytes])
        })
    }
}

impl<T: Pod> From<&[T]> for Buffer<T> {
    fn from(values: &[T]) -> Self {
        let mut buffer = Self::new(values.len());
        buffer.copy_from_slice(values);
        buffer
    }
}

impl<T> Drop for Buffer<T> {
    fn drop(&mut self) {
        let Some(memory) = self.memory.take() else {
            return;
        };
        if memory.len() > SMALL {
            return locked(&POOL).give(memory, rounded(self.len * size_of::<T>()));
        }
        let class = class(memory.len());
        let mut memory = Some(memory);
        // A thread that is exiting keeps nothing.
        let _ = OWN.try_with(|own| {
            let own = &mut own.borrow_mut()[class];
            if (own.len() + 1) * (PAGE << class) <= KEPT {
                own.extend(memory.take());
            }
        });
        if memory.is_some() {
            locked(&SHARED)[class].extend(memory);
        }
    }
}

impl<T> std::fmt::Debug for Buffer<T> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Buffer")
            .field("len", &self.len)
            .finish_non_exhaustive()
    }
}

fn locked<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

fn class(bytes: usize) -> usize {
    (bytes / PAGE).ilog2() as usize
}

/// Bytes to allocate for a request above [`SMALL`].
fn rounded(bytes: usize) -> usize {
    bytes.next_multiple_of(bytes.next_power_of_two() / 16)
}

/// A spare of this size or somewhat larger, or fresh memory.
fn take(bytes: usize) -> MmapMut {
    if bytes <= SMALL {
        let bytes = bytes.next_power_of_two().max(PAGE);
        let own = OWN
            .try_with(|own| own.borrow_mut()[class(bytes)].pop())
            .ok()
            .flatten();
        let spare = own.or_else(|| locked(&SHARED)[class(bytes)].pop());
        return spare.unwrap_or_else(|| fresh(bytes));
    }
    let bytes = rounded(bytes);
    let spare = locked(&POOL).take(bytes);
    spare.unwrap_or_else(|| fresh(bytes))
}

fn fresh(bytes: usize) -> MmapMut {
    let memory = MmapOptions::new().len(bytes).map_anon();
    let memory =
        memory.unwrap_or_else(|error| panic!("cannot allocate a buffer of {bytes} bytes: {error}"));
    if bytes >= LARGE {
        // Only a hint: a system without large pages falls back to small ones.
        #[cfg(target_os = "linux")]
        let _ = memory.advise(Advice::HugePage);
    }
    memory
}

/// Bytes of all spare buffers. The process holds this memory, but the next buffers reuse it, so it
/// counts as available.
pub(crate) fn spare_bytes() -> usize {
    let large: usize = locked(&POOL).spares.iter().map(|memory| memory.len()).sum();
    large
        + locked(&SHARED)
            .iter()
            .flatten()
            .map(|memory| memory.len())
            .sum::<usize>()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn holds_what_was_written_and_starts_on_a_page() {
        let mut buffer = Buffer::<f32>::new(100_000);
        buffer.fill(2.0);
        assert!(buffer.iter().all(|x| *x == 2.0) && buffer.len() == 100_000);
        assert_eq!(buffer.as_ptr() as usize % 4096, 0);
        drop(buffer);
        assert!(Buffer::<f32>::zeroed(100_000).iter().all(|x| *x == 0.0));
        assert!(Buffer::<f32>::new(0).is_empty());
        assert_eq!(&Buffer::from(&[1u32, 2][..])[..], [1, 2]);
    }

    /// One thread allocates a hundred buffers at a time and another frees them, a hundred times.
    /// Memory stays at two hundred buffers plus what threads keep.
    #[test]
    fn memory_goes_back_to_those_who_need_it() {
        let (hand_over, taken) = std::sync::mpsc::sync_channel::<Vec<Buffer<u8>>>(0);
        let maker = std::thread::spawn(move || {
            let mut places = std::collections::HashSet::new();
            for _ in 0..100 {
                let made: Vec<_> = (0..100).map(|_| Buffer::<u8>::new(300_000)).collect();
                places.extend(made.iter().map(|buffer| buffer.as_ptr() as usize));
                hand_over.send(made).unwrap();
            }
            places.len()
        });
        taken.iter().for_each(drop);
        let places = maker.join().unwrap();
        assert!((100..400).contains(&places), "{places} buffers");
    }
}
