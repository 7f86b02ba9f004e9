//! Attention over the tree of spans, forward and backward, without score matrices in memory.
//!
//! A span's queries attend to one sequence: the tokens of its path from the root. Tasks copy the
//! keys and values of this path into panels of a tier's microkernel and then ignore the tree. Every
//! sum (scores, softmax, outputs, gradients) runs in the order of positions along the path, and
//! masked or padded keys add an exact zero. So a token's output and the gradient of its query have
//! the same bits at any place in a pack, beside any other rows, and on any number of threads.

mod backward;
mod decode;
mod forward;
mod known;
mod panels;
#[cfg(test)]
mod tests;

pub(crate) use backward::backward;
pub(crate) use decode::{Cache, last_token};
pub(crate) use forward::forward;
pub(crate) use known::{Earlier, Known};

use std::ops::Range;

use super::simd::Lanes;
use upright_model::pack::Pack;

/// Keys are processed in multiples of this, so that a sum has the same terms whichever query begins
/// its block.
const KEYS: usize = 32;

/// Layout of the head vectors: head h of token t has `head_size` values at
/// `t * row + h * head + offset`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct HeadLayout {
    /// Distance between tokens.
    pub row: usize,
    /// Distance between heads.
    pub head: usize,
    /// Where head 0 of token 0 starts.
    pub offset: usize,
}

impl HeadLayout {
    fn at(self, token: usize, head: usize) -> usize {
        token * self.row + head * self.head + self.offset
    }

    fn assert_within(self, tokens: usize, heads: usize, size: usize, len: usize) {
        let last = (tokens - 1)
            .checked_mul(self.row)
            .zip((heads - 1).checked_mul(self.head));
        let end = last.and_then(|(row, head)| {
            row.checked_add(head)?
                .checked_add(self.offset)?
                .checked_add(size)
        });
        assert!(
            end.is_some_and(|end| end <= len),
            "{tokens} tokens of {heads} heads at {self:?} in {len} values"
        );
    }
}

/// Sizes of an attention layer.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct Shape {
    /// Query heads.
    pub heads: usize,
    /// Key-value heads; query head h uses key-value head `h / (heads / kv_heads)`.
    pub kv_heads: usize,
    /// Values in a head.
    pub head_size: usize,
    /// Sliding window: a query attends to this many positions, its own included; `None` means all
    /// positions up to its own.
    pub window: Option<usize>,
    /// Factor of the scores.
    pub scale: f32,
}

impl Shape {
    /// Query heads per key-value head.
    fn group(&self) -> usize {
        self.heads / self.kv_heads
    }

    /// Positions that the query at position `p` attends to.
    fn seen(&self, p: usize) -> Range<usize> {
        (p + 1).saturating_sub(self.window.unwrap_or(usize::MAX))..p + 1
    }

    /// Pairs of a query and a key that it attends to, over all tokens of a pack that are not known,
    /// for one head.
    fn pairs(&self, pack: &Pack, known: Known<'_>) -> usize {
        let mut pairs = 0;
        for (index, (span, offset)) in pack.spans.iter().zip(pack.offsets()).enumerate() {
            for position in offset + known.of(index)..offset + span.len {
                pairs += self.seen(position).len();
            }
        }
        pairs
    }

    /// Asserts the bounds of every pointer that the kernels form; `qkv` and `out` are lengths.
    fn assert_fits(
        &self,
        pack: &Pack,
        known: Known<'_>,
        qkv: usize,
        [q, k, v]: [HeadLayout; 3],
        out: usize,
        lse: &[f32],
    ) {
        let tokens = pack.tokens.len();
        let rows = tokens - known.total(pack);
        assert!(
            self.kv_heads > 0 && self.heads.is_multiple_of(self.kv_heads),
            "heads are a multiple of kv_heads"
        );
        assert!(
            self.head_size > 0 && self.window != Some(0),
            "an empty head or window"
        );
        let mut end = 0;
        for (index, span) in pack.spans.iter().enumerate() {
            assert!(
                span.start == end && span.parent.is_none_or(|parent| parent < index),
                "spans of a pack"
            );
            end += span.len;
        }
        assert_eq!(end, tokens, "tokens of all spans");
        if tokens > 0 {
            q.assert_within(tokens, self.heads, self.head_size, qkv);
            k.assert_within(tokens, self.kv_heads, self.head_size, qkv);
            v.assert_within(tokens, self.kv_heads, self.head_size, qkv);
        }
        // Tasks write different heads at the same time, which is sound only if no two heads share a
        // value.
        let starts =
            |l: HeadLayout, heads: usize| (0..heads).map(move |head| l.offset + head * l.head);
        let all = starts(q, self.heads)
            .chain(starts(k, self.kv_heads))
            .chain(starts(v, self.kv_heads));
        let mut all: Vec<usize> = all.collect();
        all.sort_unstable();
        let apart = all
            .windows(2)
            .all(|pair| pair[1] - pair[0] >= self.head_size);
        let one_row = q.row == k.row
            && k.row == v.row
            && all[all.len() - 1] + self.head_size <= all[0] + q.row;
        assert!(apart && one_row, "heads overlap");
        assert_eq!(
            out,
            rows * self.heads * self.head_size,
            "length of the output"
        );
        assert_eq!(lse.len(), rows * self.heads, "length of the log-sum-exps");
    }
}

/// Ranges of rows on the path of a span, from the root down to and including the span itself.
fn path(pack: &Pack, span: usize) -> Vec<Range<usize>> {
    let mut runs = Vec::new();
    let mut at = Some(span);
    while let Some(index) = at {
        let span = pack.spans[index];
        runs.push(span.start..span.start + span.len);
        at = span.parent;
    }
    runs.reverse();
    runs
}

/// Range of keys, in whole vectors, that covers all keys a query attends to.
fn around<L: Lanes>(seen: &Range<usize>) -> Range<usize> {
    seen.start / L::LEN * L::LEN..seen.end.next_multiple_of(L::LEN)
}

/// Rows of the positions `wanted` of a path, in order.
fn rows_of(
    path: &[Range<usize>],
    wanted: Range<usize>,
) -> impl Iterator<Item = usize> + Clone + '_ {
    path.iter()
        .cloned()
        .flatten()
        .skip(wanted.start)
        .take(wanted.len())
}

/// A slice of which tasks write disjoint parts.
#[derive(Clone, Copy)]
struct Shared {
    start: *mut f32,
    len: usize,
}

// SAFETY: made from an exclusive borrow that outlives the tasks; the caller of `part` guarantees
// that nothing else accesses the part.
unsafe impl Send for Shared {}
// SAFETY: as above.
unsafe impl Sync for Shared {}

impl Shared {
    fn new(values: &mut [f32]) -> Self {
        Self {
            start: values.as_mut_ptr(),
            len: values.len(),
        }
    }

    /// # Safety
    /// Nothing else reads or writes the part while the returned slice lives.
    #[allow(clippy::mut_from_ref)]
    unsafe fn part(&self, from: usize, len: usize) -> &mut [f32] {
        assert!(from + len <= self.len);
        // SAFETY: within the slice; the caller guarantees exclusive access.
        unsafe { std::slice::from_raw_parts_mut(self.start.add(from), len) }
    }
}
