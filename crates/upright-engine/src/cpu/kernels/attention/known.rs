//! Tokens of a pack whose keys and values an earlier pass has computed. Later tokens attend to them,
//! and nothing else is computed for them. The other tokens get the bits that a whole pass gives them.

use super::{Cache, HeadLayout, Shape};
use crate::cpu::{
    buffer::Buffer,
    kernels::{Saved, gemm::Values, simd::Element},
};
use upright_model::pack::Pack;

/// For every span of a pack, how many of its first tokens are known. `None` means none at all.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Known<'a>(pub(crate) Option<&'a [usize]>);

impl Known<'_> {
    /// Nothing is known.
    pub(crate) const NOTHING: Known<'static> = Known(None);

    /// Number of known tokens of a span.
    pub(crate) fn of(self, span: usize) -> usize {
        self.0.map_or(0, |known| known[span])
    }

    /// Number of known tokens of a pack.
    ///
    /// # Panics
    /// If more tokens of a span are known than it has.
    pub(crate) fn total(self, pack: &Pack) -> usize {
        let mut total = 0;
        for (index, span) in pack.spans.iter().enumerate() {
            let known = self.of(index);
            assert!(known <= span.len, "known tokens are tokens of their span");
            total += known;
        }
        total
    }
}

/// The known tokens of a pack with their keys and values in one block.
pub(crate) struct Earlier<'a> {
    /// Which tokens are known.
    pub(crate) known: Known<'a>,
    /// For every span with known tokens, a cache of a sequence that begins with the span's path.
    pub(crate) caches: Vec<Option<&'a Cache>>,
}

impl Earlier<'_> {
    /// Queries, keys and values of all tokens, `[T, W]`: `computed` `[R, W]` for the tokens that are
    /// not known, the caches' keys and values for the others. Queries of known tokens are not set.
    ///
    /// # Panics
    /// If a cache is missing or too short, or has another precision than `computed`.
    pub(crate) fn join(
        &self,
        pack: &Pack,
        shape: &Shape,
        computed: Values<'_>,
        layouts: [HeadLayout; 2],
    ) -> Saved {
        match computed {
            Values::F32(computed) => {
                Saved::F32(self.rows(pack, shape, computed, layouts, Cache::exact))
            }
            Values::Bf16(computed) => {
                Saved::Bf16(self.rows(pack, shape, computed, layouts, Cache::rounded))
            }
        }
    }

    fn rows<E: Element>(
        &self,
        pack: &Pack,
        shape: &Shape,
        computed: &[E],
        layouts: [HeadLayout; 2],
        take: impl Fn(&Cache) -> &[Vec<E>; 2],
    ) -> Buffer<E> {
        let row = layouts[0].row;
        let width = shape.kv_heads * shape.head_size;
        let mut all = Buffer::<E>::new(pack.tokens.len() * row);
        let mut from = 0;
        for (index, (span, offset)) in pack.spans.iter().zip(pack.offsets()).enumerate() {
            let known = self.known.of(index);
            if known > 0 {
                let cache = take(self.caches[index].expect("a cache for every known token"));
                for token in 0..known {
                    for (values, layout) in cache.iter().zip(layouts) {
                        let values = &values[(offset + token) * width..][..width];
                        for head in 0..shape.kv_heads {
                            let to = layout.at(span.start + token, head);
                            all[to..to + shape.head_size].copy_from_slice(
                                &values[head * shape.head_size..][..shape.head_size],
                            );
                        }
                    }
                }
            }
            let new = span.len - known;
            all[(span.start + known) * row..(span.start + span.len) * row]
                .copy_from_slice(&computed[from * row..(from + new) * row]);
            from += new;
        }
        all
    }
}
