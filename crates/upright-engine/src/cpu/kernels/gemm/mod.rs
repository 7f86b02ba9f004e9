//! Matrix products `C = A1 B1 + A2 B2 + ...` of strided f32 and bf16 matrices.
//!
//! Both operands are packed into panels (lines of A or of B, side by side) in blocks of K. A
//! microkernel, one per tier, then multiplies panels in registers. A linear and its LoRA pair, or
//! the gradients of several linears of one input, are the terms of one sum, so C is written once.
//!
//! The bits of element `C[m, n]` depend only on row m of every A, column n of every B and the K of
//! the terms. A pass is summed in ascending k and in the order of the terms. Passes are split at
//! constant sizes and added in ascending order. The tier determines whether the value that a pass
//! is added to comes before its products or after them. M, N, strides of C, threads and the
//! position in the matrix decide only which task computes an element.

#[cfg(target_arch = "x86_64")]
mod amx;
#[cfg(target_arch = "x86_64")]
mod avx512;
mod driver;
#[cfg(target_arch = "x86_64")]
mod pack;
mod packed;
mod portable;
#[cfg(test)]
mod tests;
mod view;

pub(super) use driver::Pack;
pub(crate) use packed::Packed;
pub(crate) use view::ValueType;
pub(crate) use view::{Values, View};

use std::ops::Range;

use bytemuck::Pod;

use super::{Tier, counters};

/// The left operand of a term.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Operand<'a> {
    /// Packed by the product.
    View(View<'a>),
    /// Packed in advance, for several products.
    Packed(&'a Packed),
}

impl<'a> From<View<'a>> for Operand<'a> {
    fn from(view: View<'a>) -> Self {
        Self::View(view)
    }
}

impl<'a> From<&'a Packed> for Operand<'a> {
    fn from(packed: &'a Packed) -> Self {
        Self::Packed(packed)
    }
}

impl Operand<'_> {
    fn rows(&self) -> usize {
        match self {
            Self::View(view) => view.rows,
            Self::Packed(packed) => packed.rows(),
        }
    }

    fn cols(&self) -> usize {
        match self {
            Self::View(view) => view.cols,
            Self::Packed(packed) => packed.cols(),
        }
    }
}

/// One product of a sum: A `[M, K]` times B `[K, N]`.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Term<'a> {
    /// Left operand.
    pub a: Operand<'a>,
    /// Right operand.
    pub b: View<'a>,
}

impl<'a> Term<'a> {
    /// `A B`.
    pub(crate) fn new(a: impl Into<Operand<'a>>, b: View<'a>) -> Self {
        Self { a: a.into(), b }
    }
}

/// What the sum of the terms is added to.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) enum Onto<'a> {
    /// Nothing: C is overwritten.
    #[default]
    Nothing,
    /// The values in C.
    Itself,
    /// A matrix `[M, N]`, row-major without gaps: a residual.
    Rows(&'a [f32]),
}

/// What is added to the sums before they are written to C.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Finish<'a> {
    /// C itself or a residual.
    pub onto: Onto<'a>,
    /// One value per column, `[N]`.
    pub bias: Option<&'a [f32]>,
}

/// `C[m, n] = sum_k A[m, k] B[k, n]`, or `C += ...` if `accumulate`: [`sum`] of one term.
///
/// # Panics
/// As [`sum`].
pub(crate) fn product(
    tier: Tier,
    a: View<'_>,
    b: View<'_>,
    c: &mut [f32],
    c_stride: usize,
    accumulate: bool,
) {
    let onto = if accumulate {
        Onto::Itself
    } else {
        Onto::Nothing
    };
    sum(
        tier,
        &[Term::new(a, b)],
        c,
        c_stride,
        Finish { onto, bias: None },
    );
}

/// `C = sum of the terms`, plus what `finish` adds. Row `i` of C starts at `c[i * c_stride]`. Runs
/// on the current rayon pool; small products run on the calling thread.
///
/// # Panics
/// If there is no term, the shapes do not match each other or the lengths of the slices, an operand
/// was packed for another tier, or the machine lacks the tier.
pub(crate) fn sum(
    tier: Tier,
    terms: &[Term<'_>],
    c: &mut [f32],
    c_stride: usize,
    finish: Finish<'_>,
) {
    let (m, n) = (terms[0].a.rows(), terms[0].b.cols);
    for term in terms {
        assert_eq!((term.a.rows(), term.b.cols), (m, n), "shapes of the terms");
        assert_eq!(term.a.cols(), term.b.rows, "columns of A and rows of B");
        match term.a {
            Operand::View(view) => view.assert_within(),
            Operand::Packed(packed) => assert_eq!(packed.tier(), tier, "the tier of packed rows"),
        }
        term.b.assert_within();
    }
    assert!(
        finish.bias.is_none_or(|bias| bias.len() == n),
        "one bias per column"
    );
    if m == 0 || n == 0 {
        return;
    }
    let end = (m - 1)
        .checked_mul(c_stride)
        .and_then(|start| start.checked_add(n));
    assert!(
        c_stride >= n && end.is_some_and(|end| end <= c.len()),
        "C of {m}x{n}, stride {c_stride}, in {}",
        c.len()
    );
    let to = c.as_mut_ptr();
    let onto = match finish.onto {
        Onto::Nothing => None,
        Onto::Itself => Some((to.cast_const(), c_stride)),
        Onto::Rows(rows) => {
            assert_eq!(rows.len(), m * n, "values of the residual");
            Some((rows.as_ptr(), n))
        }
    };
    let to = Destination {
        to,
        stride: c_stride,
        onto,
        bias: finish.bias.map(<[f32]>::as_ptr),
    };
    if terms.iter().all(|term| term.b.rows == 0) {
        // SAFETY: C and what it is added to hold M rows of N values, the bias holds N.
        unsafe { (0..m).for_each(|i| (0..n).for_each(|j| to.at(i, j).write(0.0))) };
        return;
    }
    terms
        .iter()
        .for_each(|term| counters::product(m, n, term.b.rows));
    on_kernel(tier, driver::Sum { terms, m, n, to });
}

/// Work that is generic over the kernel.
pub(super) trait Visit {
    type Output;
    fn visit<K: Kernel>(self) -> Self::Output;
}

/// Runs the work on the tier's kernel.
pub(super) fn on_kernel<V: Visit>(tier: Tier, work: V) -> V::Output {
    assert!(tier.available(), "this machine cannot run the {tier} tier");
    match tier {
        Tier::Portable => portable::on_widest(work),
        #[cfg(target_arch = "x86_64")]
        Tier::Avx512 => work.visit::<avx512::Avx512>(),
        #[cfg(target_arch = "x86_64")]
        Tier::Amx => work.visit::<amx::Amx>(),
        #[cfg(not(target_arch = "x86_64"))]
        _ => unreachable!("no other tier is available"),
    }
}

/// Where sums are written, and what is added to them. Tasks write disjoint rectangles.
#[derive(Clone, Copy)]
pub(super) struct Destination {
    pub(super) to: *mut f32,
    pub(super) stride: usize,
    /// Start and row stride of the residual.
    pub(super) onto: Option<(*const f32, usize)>,
    /// Start of the bias.
    pub(super) bias: Option<*const f32>,
}

// SAFETY: the pointers come from borrows that outlive the product, and no two tasks share an element of C.
unsafe impl Send for Destination {}
// SAFETY: as above.
unsafe impl Sync for Destination {}

impl Destination {
    /// # Safety
    /// `(m, n)` lies within C.
    unsafe fn at(self, m: usize, n: usize) -> Self {
        // SAFETY: guaranteed by the caller.
        unsafe {
            Self {
                to: self.to.add(m * self.stride + n),
                stride: self.stride,
                onto: self
                    .onto
                    .map(|(onto, stride)| (onto.add(m * stride + n), stride)),
                bias: self.bias.map(|bias| bias.add(n)),
            }
        }
    }

    /// Adds bias and residual to one sum and writes it.
    ///
    /// # Safety
    /// The element lies within C, and only the caller accesses it.
    unsafe fn write(self, mut sum: f32) {
        // SAFETY: guaranteed by the caller.
        unsafe {
            if let Some(bias) = self.bias {
                sum += *bias;
            }
            if let Some((onto, _)) = self.onto {
                sum += *onto;
            }
            *self.to = sum;
        }
    }

    /// The destination of every pass but the first.
    fn again(self) -> Self {
        Self {
            onto: Some((self.to.cast_const(), self.stride)),
            bias: None,
            ..self
        }
    }
}

/// Panels of a stretch of K.
#[derive(Clone, Copy)]
pub(super) struct Segment<'a, V> {
    /// Panels of all rows.
    pub(super) a: &'a [V],
    /// Values from one panel of rows to the next.
    pub(super) a_panel: usize,
    /// Panels of all columns.
    pub(super) b: &'a [V],
    /// Values from one panel of columns to the next.
    pub(super) b_panel: usize,
    /// Elements of k.
    pub(super) k: usize,
}

/// A tier's microkernel and its panels. A line is a row of A or a column of B; a panel is `A_PANEL`
/// or `B_PANEL` lines of a stretch of K, padded with zeros.
pub(super) trait Kernel {
    /// Packed value.
    type Value: Pod + Send + Sync;
    /// Maximum K of a pass; a LoRA pair may join a full pass.
    const BLOCK: usize;
    /// Lines of A in a panel.
    const A_PANEL: usize;
    /// Lines of B in a panel.
    const B_PANEL: usize;
    /// Multiple of `A_PANEL` at which M is best cut.
    const A_UNIT: usize;
    /// Multiple of `B_PANEL` at which N is best cut.
    const B_UNIT: usize;

    /// Values per line of a panel for `k` elements.
    fn padded(k: usize) -> usize;

    /// Packs `lines` of A, a view of lines by k, at the given k, into `out`.
    fn pack_a(view: &View<'_>, lines: Range<usize>, k: Range<usize>, out: &mut [Self::Value]);

    /// Packs `lines` of B, a view of lines by k (the transpose of B), at the given k, into `out`.
    fn pack_b(view: &View<'_>, lines: Range<usize>, k: Range<usize>, out: &mut [Self::Value]);

    /// Adds up the products of all segments and writes the sums to `to`. If `stream_a`, the panels
    /// of A stream past and those of B stay in the core's L2 cache; otherwise the other way round.
    ///
    /// # Safety
    /// `to` has `m` rows and `n` columns that nothing else accesses meanwhile, the panels hold `m`
    /// and `n` lines of `k` elements, and the machine can run the kernel.
    unsafe fn block(
        segments: &[Segment<'_, Self::Value>],
        m: usize,
        n: usize,
        to: Destination,
        stream_a: bool,
    );
}
