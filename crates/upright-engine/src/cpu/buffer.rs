//! Buffers that outlive their use: a step's activations are as large as the last step's, and fresh pages of the system
//! cost as much as reading them several times.

use std::{
    cell::RefCell,
    ops::{Deref, DerefMut},
    sync::{Mutex, MutexGuard, PoisonError},
};

use bytemuck::Pod;
use memmap2::{Advice, MmapMut, MmapOptions};

/// Up to this size, some spares stay with the thread that gave them back, by powers of two.
const SMALL: usize = 1 << 20;
/// Bytes of small spares of one size that a thread keeps; what is beyond them is there for every thread.
const KEPT: usize = 4 << 20;
/// From this size on, memory in large pages is asked for.
const LARGE: usize = 4 << 20;
/// The smallest: a page.
const PAGE: usize = 4096;

/// Sizes of small buffers.
const CLASSES: usize = (SMALL / PAGE).ilog2() as usize + 1;

/// Small spares: number i has `PAGE << i` bytes.
type Spares = [Vec<MmapMut>; CLASSES];

const NO_SPARES: Spares = [const { Vec::new() }; CLASSES];

thread_local! {
    /// Those of this thread.
    static OWN: RefCell<Spares> = const { RefCell::new(NO_SPARES) };
}

/// Those of all threads: activations are made by one and given back by another, who would pile them up.
static SHARED: Mutex<Spares> = Mutex::new(NO_SPARES);

/// A spare serves up to so many times less than it has: packs differ in size from step to step.
const ROOMY: usize = 4;

static POOL: Mutex<Pool> = Mutex::new(Pool {
    spares: Vec::new(),
    held: 0,
    used: 0,
    most_used: 0,
});

/// What is not small.
struct Pool {
    /// Longest unused first.
    spares: Vec<MmapMut>,
    /// Bytes of all memory, the spares' and that in use.
    held: usize,
    /// Bytes asked for of what is in use.
    used: usize,
    /// The most that ever were.
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
        // What nobody asked for in a long time goes back to the system before the whole grows by a quarter.
        while !self.spares.is_empty() && self.held > self.most_used / 4 * 5 {
            self.held -= self.spares.remove(0).len();
        }
        None
    }

    /// Takes back memory of which `bytes` were asked for.
    fn give(&mut self, memory: MmapMut, bytes: usize) {
        self.used -= bytes;
        self.spares.push(memory);
    }
}

/// `len` values in memory that is taken from, and goes back to, a pool of the process. Starts on a page.
pub(crate) struct Buffer<T> {
    /// `None` where `len` is 0, and while the buffer is dropped.
    memory: Option<MmapMut>,
    len: usize,
    value: std::marker::PhantomData<T>,
}

impl<T: Pod> Buffer<T> {
    /// Values of unspecified content.
    ///
    /// # Panics
    /// If the system has no more memory.
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
        // A thread that is ending keeps nothing.
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

/// Bytes that are asked for where so many are needed that they are not small.
fn rounded(bytes: usize) -> usize {
    bytes.next_multiple_of(bytes.next_power_of_two() / 16)
}

/// A spare of that size or somewhat above, or fresh memory.
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
        memory.unwrap_or_else(|error| panic!("no memory for a buffer of {bytes} bytes: {error}"));
    if bytes >= LARGE {
        // Only a wish: a system without large pages serves small ones.
        #[cfg(target_os = "linux")]
        let _ = memory.advise(Advice::HugePage);
    }
    memory
}

/// Bytes that the process holds and that the next buffers will take, so that they are no use of memory.
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

    /// A hundred buffers at a time, made by one thread and given back by another, a hundred times: the memory is that of two
    /// hundred, besides what threads keep.
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
