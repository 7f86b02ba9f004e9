//! Matrix products `C = A B` and `C += A B` of strided f32 and bf16 matrices.
//!
//! Both operands are packed into panels, lines of A side by side and lines of B side by side, in blocks of K. A kernel
//! (one a tier) then multiplies panels in registers.
//!
//! Element `C[m, n]` depends on row m of A, column n of B and K alone, to the last bit: every block of K is summed from
//! zero in ascending k, blocks are cut at a constant, and added to C in ascending order. M, N, strides of C, threads and
//! the place in the matrix decide only who computes an element.

#[cfg(target_arch = "x86_64")]
mod amx;
#[cfg(target_arch = "x86_64")]
mod avx512;
#[cfg(target_arch = "x86_64")]
mod pack;
mod portable;
#[cfg(test)]
mod tests;

use std::cell::RefCell;
use std::ops::Range;

use bytemuck::{Pod, Zeroable};
use half::bf16;
use rayon::prelude::*;

use super::{Tier, counters};

/// Values of an operand.
#[derive(Clone, Copy, Debug)]
pub enum Values<'a> {
    /// Activations, adapters, gradients. The bf16 tiers round them to nearest even while packing.
    F32(&'a [f32]),
    /// Frozen weights.
    Bf16(&'a [bf16]),
}

/// A strided matrix: element `(i, j)` is `values[i * row_stride + j * column_stride]`. A transpose swaps the strides.
#[derive(Clone, Copy, Debug)]
pub struct View<'a> {
    /// The values.
    pub values: Values<'a>,
    /// Rows.
    pub rows: usize,
    /// Columns.
    pub cols: usize,
    /// Distance between rows.
    pub row_stride: usize,
    /// Distance between columns.
    pub column_stride: usize,
}

impl<'a> View<'a> {
    /// f32 values `[rows, cols]`, row-major.
    pub fn rows(values: &'a [f32], rows: usize, cols: usize) -> Self {
        Self::strided(Values::F32(values), rows, cols, cols)
    }

    /// bf16 values `[rows, cols]`, row-major.
    pub fn bf16(values: &'a [bf16], rows: usize, cols: usize) -> Self {
        Self::strided(Values::Bf16(values), rows, cols, cols)
    }

    /// `[rows, cols]`, row-major, of which row `i` starts at `i * row_stride`.
    pub fn strided(values: Values<'a>, rows: usize, cols: usize, row_stride: usize) -> Self {
        Self { values, rows, cols, row_stride, column_stride: 1 }
    }

    /// The transpose, `[cols, rows]`, of the same values.
    #[must_use]
    pub fn t(self) -> Self {
        Self {
            values: self.values,
            rows: self.cols,
            cols: self.rows,
            row_stride: self.column_stride,
            column_stride: self.row_stride,
        }
    }

    /// The rows of `range`, `[range.len(), cols]`.
    #[must_use]
    pub fn row_range(self, range: Range<usize>) -> Self {
        assert!(range.start <= range.end && range.end <= self.rows, "rows {range:?} of {}", self.rows);
        let skip = if range.is_empty() { 0 } else { range.start * self.row_stride };
        let values = match self.values {
            Values::F32(values) => Values::F32(&values[skip..]),
            Values::Bf16(values) => Values::Bf16(&values[skip..]),
        };
        Self { values, rows: range.len(), ..self }
    }

    /// The columns of `range`, `[rows, range.len()]`.
    #[must_use]
    pub fn col_range(self, range: Range<usize>) -> Self {
        self.t().row_range(range).t()
    }

    /// Packing reads through pointers: every element must lie within the values.
    fn assert_within(&self) {
        let len = match self.values {
            Values::F32(values) => values.len(),
            Values::Bf16(values) => values.len(),
        };
        assert!(
            self.rows == 0 || self.cols == 0 || last_index(self, self.column_stride).is_some_and(|last| last < len),
            "a view of {}x{}, strides {} and {}, over {len} values",
            self.rows,
            self.cols,
            self.row_stride,
            self.column_stride
        );
    }
}

fn last_index(view: &View<'_>, column_stride: usize) -> Option<usize> {
    let row = (view.rows - 1).checked_mul(view.row_stride)?;
    row.checked_add((view.cols - 1).checked_mul(column_stride)?)
}

/// `C[m, n] = sum_k A[m, k] B[k, n]`, or `C += ...` when `accumulate`; row `i` of C starts at `c[i * c_stride]`.
///
/// A is `[M, K]`, B `[K, N]`, C `[M, N]`. Runs on the current rayon pool; small products run on the calling thread.
///
/// # Panics
/// If the shapes do not fit each other or their values, or the machine lacks the tier.
pub fn product(tier: Tier, a: View<'_>, b: View<'_>, c: &mut [f32], c_stride: usize, accumulate: bool) {
    let (m, n, k) = (a.rows, b.cols, a.cols);
    assert_eq!(k, b.rows, "columns of A and rows of B");
    a.assert_within();
    b.assert_within();
    if m == 0 || n == 0 {
        return;
    }
    let end = (m - 1).checked_mul(c_stride).and_then(|start| start.checked_add(n));
    assert!(c_stride >= n && end.is_some_and(|end| end <= c.len()), "C of {m}x{n}, stride {c_stride}, in {}", c.len());
    if k == 0 {
        if !accumulate {
            c.chunks_mut(c_stride).take(m).for_each(|row| row[..n].fill(0.0));
        }
        return;
    }
    assert!(tier.available(), "this machine cannot run the {tier} tier");
    counters::product(m, n, k);
    let c = Destination { start: c.as_mut_ptr(), stride: c_stride };
    match tier {
        Tier::Portable => portable::run(a, b, c, accumulate),
        #[cfg(target_arch = "x86_64")]
        Tier::Avx512 => run::<avx512::Avx512>(a, b, c, accumulate),
        #[cfg(target_arch = "x86_64")]
        Tier::Amx => run::<amx::Amx>(a, b, c, accumulate),
        #[cfg(not(target_arch = "x86_64"))]
        _ => unreachable!("no other tier is available"),
    }
}

/// Where C lies. Tasks write disjoint rectangles of it.
#[derive(Clone, Copy)]
struct Destination {
    start: *mut f32,
    stride: usize,
}

// SAFETY: the pointer comes from one exclusive borrow that outlives the product, and no two tasks share an element.
unsafe impl Send for Destination {}
// SAFETY: as above.
unsafe impl Sync for Destination {}

impl Destination {
    /// # Safety
    /// `(m, n)` lies within C.
    unsafe fn at(self, m: usize, n: usize) -> Self {
        // SAFETY: the caller's.
        Self { start: unsafe { self.start.add(m * self.stride + n) }, stride: self.stride }
    }
}

/// A tier's panels and what multiplies them. A line is a row of A or a column of B; a panel is `A_PANEL` or `B_PANEL`
/// lines of one block of K, padded with zeros.
trait Kernel {
    /// Packed value.
    type Value: Pod + Send + Sync;
    /// K is cut in blocks of this length.
    const BLOCK: usize;
    /// Lines of A in a panel.
    const A_PANEL: usize;
    /// Lines of B in a panel.
    const B_PANEL: usize;
    /// Multiple of `A_PANEL` at which M is best cut.
    const A_UNIT: usize;
    /// Multiple of `B_PANEL` at which N is best cut.
    const B_UNIT: usize;

    /// Values a line of a panel takes for `k` elements.
    fn padded(k: usize) -> usize;

    /// Packs `lines` of A, a view of lines by k, at the given k, into `out`.
    fn pack_a(view: &View<'_>, lines: Range<usize>, k: Range<usize>, out: &mut [Self::Value]);

    /// Packs `lines` of B, a view of lines by k (the transpose of B), at the given k, into `out`.
    fn pack_b(view: &View<'_>, lines: Range<usize>, k: Range<usize>, out: &mut [Self::Value]);

    /// Multiplies packed panels over one block of K and stores or adds the result at `c`.
    ///
    /// # Safety
    /// `c` holds `m` rows and `n` columns that nothing else touches meanwhile, the panels are those of `m` and `n` lines
    /// and `k` elements, and the machine can run the kernel.
    unsafe fn block(a: &[Self::Value], b: &[Self::Value], m: usize, n: usize, k: usize, c: Destination, add: bool);
}

/// Products with fewer multiplications run on the calling thread: they are over before another one wakes.
const INLINE: usize = 1 << 20;
/// Lines of the operand that a task packs for itself: with a block of K they stay in a core's second cache.
const CHUNK: usize = 256;

/// The product on one kernel. The smaller of A and B is packed whole and shared; the larger is cut into chunks, which the
/// tasks pack for themselves.
fn run<K: Kernel>(a: View<'_>, b: View<'_>, c: Destination, accumulate: bool) {
    let (m, n, depth) = (a.rows, b.cols, a.cols);
    let small = m.saturating_mul(n).saturating_mul(depth) < INLINE;
    let threads = if small { 1 } else { rayon::current_num_threads() };
    let b = b.t();
    let share_a = m <= n;
    let (shared, owned) = if share_a { (&a, &b) } else { (&b, &a) };
    let (pack_shared, pack_owned) = if share_a {
        (K::pack_a as Pack<K>, K::pack_b as Pack<K>)
    } else {
        (K::pack_b as Pack<K>, K::pack_a as Pack<K>)
    };
    let a_sizes = (K::A_PANEL, K::A_UNIT);
    let b_sizes = (K::B_PANEL, K::B_UNIT);
    let ((shared_panel, shared_unit), (owned_panel, owned_unit)) =
        if share_a { (a_sizes, b_sizes) } else { (b_sizes, a_sizes) };

    let width = shared.rows.next_multiple_of(shared_panel);
    let blocks = depth.div_ceil(K::BLOCK);
    let block_values = width * K::padded(K::BLOCK);
    let total = (blocks - 1) * block_values + width * K::padded(depth - (blocks - 1) * K::BLOCK);
    let block_of = |index: usize| index * K::BLOCK..depth.min((index + 1) * K::BLOCK);

    with_scratch::<K::Value>(total, |packed| {
        let group = pieces(shared.rows, shared_panel, threads * 4, usize::MAX);
        let groups: Vec<_> = packed
            .chunks_mut(block_values)
            .enumerate()
            .flat_map(|(index, block)| {
                let k = block_of(index);
                let step = group * K::padded(k.len());
                block.chunks_mut(step).enumerate().map(move |(piece, out)| (k.clone(), piece * group, out))
            })
            .collect();
        each(threads > 1, groups, |(k, start, out)| {
            pack_shared(shared, start..shared.rows.min(start + group), k, out);
        });

        let owned_step = pieces(owned.rows, owned_unit, threads * 4, CHUNK);
        let owned_chunks = owned.rows.div_ceil(owned_step);
        let parts = if threads == 1 { 1 } else { (threads * 2).div_ceil(owned_chunks) };
        let shared_step = pieces(shared.rows, shared_unit, parts, usize::MAX);
        let tasks: Vec<_> = (0..owned.rows)
            .step_by(owned_step)
            .flat_map(|own| (0..shared.rows).step_by(shared_step).map(move |start| (own, start)))
            .collect();
        let packed = &*packed;
        each(threads > 1, tasks, |(own, start)| {
            let owned_lines = own..owned.rows.min(own + owned_step);
            let shared_len = shared_step.min(shared.rows - start);
            let own_width = owned_lines.len().next_multiple_of(owned_panel);
            with_scratch::<K::Value>(own_width * K::padded(depth.min(K::BLOCK)), |chunk| {
                for index in 0..blocks {
                    let k = block_of(index);
                    let chunk = &mut chunk[..own_width * K::padded(k.len())];
                    pack_owned(owned, owned_lines.clone(), k.clone(), chunk);
                    let from = index * block_values + start * K::padded(k.len());
                    let others = &packed[from..from + shared_len.next_multiple_of(shared_panel) * K::padded(k.len())];
                    let add = accumulate || index > 0;
                    // SAFETY: `product` has asserted that C holds M rows and N columns and that the tier is available;
                    // the tasks' rectangles of C are disjoint; the panels were packed above.
                    unsafe {
                        if share_a {
                            K::block(others, chunk, shared_len, owned_lines.len(), k.len(), c.at(start, own), add);
                        } else {
                            K::block(chunk, others, owned_lines.len(), shared_len, k.len(), c.at(own, start), add);
                        }
                    }
                }
            });
        });
    });
}

type Pack<K> = fn(&View<'_>, Range<usize>, Range<usize>, &mut [<K as Kernel>::Value]);

/// Length of the pieces that cut `len` in about `parts`, a multiple of `unit` and not above `most`.
fn pieces(len: usize, unit: usize, parts: usize, most: usize) -> usize {
    let most = (most / unit).max(1).saturating_mul(unit);
    len.div_ceil(parts).next_multiple_of(unit).min(most)
}

fn each<T: Send>(parallel: bool, items: Vec<T>, task: impl Fn(T) + Send + Sync) {
    if parallel && items.len() > 1 {
        items.into_par_iter().with_max_len(1).for_each(task);
    } else {
        items.into_iter().for_each(task);
    }
}

/// A cache line: panels start on one.
#[derive(Clone, Copy, Pod, Zeroable)]
#[repr(C, align(64))]
struct Line([u8; 64]);

thread_local! {
    /// Buffers that a thread is done with. A list, because a thread that waits for its tasks may run another product.
    static SPARE: RefCell<Vec<Vec<Line>>> = const { RefCell::new(Vec::new()) };
}

/// Lends `len` values of unspecified content. Buffers are kept for the thread's next product, which spares the system's
/// zeroing of fresh pages.
fn with_scratch<T: Pod>(len: usize, task: impl FnOnce(&mut [T])) {
    let mut lines = SPARE.with_borrow_mut(Vec::pop).unwrap_or_default();
    let wanted = (len * size_of::<T>()).div_ceil(size_of::<Line>());
    if lines.len() < wanted {
        lines.resize(wanted, Line::zeroed());
    }
    task(&mut bytemuck::cast_slice_mut(&mut lines)[..len]);
    SPARE.with_borrow_mut(|spare| spare.push(lines));
}
