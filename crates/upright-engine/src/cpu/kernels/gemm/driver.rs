//! Splits a sum of products into passes over K and tasks over C.

use std::ops::Range;

use rayon::prelude::*;

use super::{Destination, Kernel, Operand, Packed, Segment, Term, View, Visit};
use crate::cpu::buffer::Buffer;

/// Products with fewer multiplications run on the calling thread: they finish before another thread
/// wakes.
const INLINE: usize = 1 << 20;
/// Bytes of the panels that a task packs for itself: they stay in the core's L2 cache.
const CHUNK: usize = 768 * 1024;
/// Minimum lines of these panels, to amortize the panels that stream past them.
const WORTHY: usize = 128;
/// K by which a pass may exceed a block, so that a LoRA pair can join its linear.
const TOGETHER: usize = 256;

/// A sum of terms to be written to `to`, `[m, n]`.
pub(super) struct Sum<'a> {
    pub(super) terms: &'a [Term<'a>],
    pub(super) m: usize,
    pub(super) n: usize,
    pub(super) to: Destination,
}

/// Rows of A or columns of B.
struct Side<K: Kernel> {
    lines: usize,
    /// Lines of a panel.
    panel: usize,
    /// Multiple at which lines are best cut.
    unit: usize,
    pack: Pack<K>,
}

/// All panels of one term's shared side.
enum Panels<'a, K: Kernel> {
    Packed(&'a Packed),
    Own(Buffer<K::Value>),
}

impl<'a, K: Kernel> Panels<'a, K> {
    fn of(side: &Side<K>, operand: &Operand<'a>, parallel: bool) -> Self {
        match operand {
            Operand::Packed(packed) => Self::Packed(packed),
            Operand::View(view) => {
                let mut panels = Buffer::new(packed_len::<K>(view.rows, side.panel, view.cols));
                pack_whole::<K>(side.pack, view, side.panel, &mut panels, parallel);
                Self::Own(panels)
            }
        }
    }

    fn values(&self) -> &[K::Value] {
        match self {
            Self::Packed(packed) => packed.values(),
            Self::Own(panels) => panels,
        }
    }
}

/// Packs lines of a view at a range of k.
pub(in crate::cpu::kernels) type Pack<K> =
    fn(&View<'_>, Range<usize>, Range<usize>, &mut [<K as Kernel>::Value]);

/// A range of one term's K, at most a block.
struct Piece {
    term: usize,
    k: Range<usize>,
}

/// Blocks of a term's K, in order.
fn blocks<K: Kernel>(depth: usize) -> impl Iterator<Item = Range<usize>> {
    (0..depth)
        .step_by(K::BLOCK)
        .map(move |start| start..depth.min(start + K::BLOCK))
}

/// Number of values in the panels of `lines` lines, over all blocks.
pub(super) fn packed_len<K: Kernel>(lines: usize, panel: usize, depth: usize) -> usize {
    lines.next_multiple_of(panel)
        * blocks::<K>(depth)
            .map(|k| K::padded(k.len()))
            .sum::<usize>()
}

/// Groups the pieces into passes: the pieces of a pass are summed in registers before C is written.
fn passes<K: Kernel>(terms: &[Term<'_>]) -> Vec<Vec<Piece>> {
    let mut passes: Vec<Vec<Piece>> = Vec::new();
    let mut room = 0;
    for (term, depth) in terms.iter().map(|term| term.b.rows).enumerate() {
        for k in blocks::<K>(depth) {
            let len = k.len();
            if passes.is_empty() || len > room {
                passes.push(Vec::new());
                room = K::BLOCK + TOGETHER;
            }
            room -= len;
            passes
                .last_mut()
                .expect("one was pushed")
                .push(Piece { term, k });
        }
    }
    passes
}

impl Visit for Sum<'_> {
    type Output = ();

    /// The panels of one side are shared and packed as a whole, in advance or now. Tasks pack their
    /// own chunks of the other side, and the shared panels stream past them.
    fn visit<K: Kernel>(self) {
        let Self { terms, m, n, to } = self;
        let depth: usize = terms.iter().map(|term| term.b.rows).sum();
        let small = m.saturating_mul(n).saturating_mul(depth) < INLINE;
        let threads = if small {
            1
        } else {
            rayon::current_num_threads()
        };
        let share_a = m <= n
            || terms
                .iter()
                .any(|term| matches!(term.a, Operand::Packed(_)));
        let a = Side::<K> {
            lines: m,
            panel: K::A_PANEL,
            unit: K::A_UNIT,
            pack: K::pack_a,
        };
        let b = Side::<K> {
            lines: n,
            panel: K::B_PANEL,
            unit: K::B_UNIT,
            pack: K::pack_b,
        };
        let (shared, owned) = if share_a { (&a, &b) } else { (&b, &a) };
        let sides = terms.iter().map(|term| match (term.a, share_a) {
            (Operand::View(a), false) => (Operand::View(term.b.t()), a),
            (a, _) => (a, term.b.t()),
        });
        let (shared_operands, owned_views): (Vec<Operand<'_>>, Vec<View<'_>>) = sides.unzip();
        let panels: Vec<Panels<'_, K>> = shared_operands
            .iter()
            .map(|operand| Panels::of(shared, operand, threads > 1))
            .collect();

        let passes = passes::<K>(terms);
        let length = |pass: &Vec<Piece>| {
            pass.iter()
                .map(|piece| K::padded(piece.k.len()))
                .sum::<usize>()
        };
        let deepest = passes.iter().map(length).max().unwrap_or(0);
        let most = (CHUNK / (deepest * size_of::<K::Value>()).max(1)).max(WORTHY);
        let (own_step, shared_step) = cut(owned, shared, most, threads);
        let tasks: Vec<_> = (0..owned.lines)
            .step_by(own_step)
            .flat_map(|own| {
                (0..shared.lines)
                    .step_by(shared_step)
                    .map(move |start| (own, start))
            })
            .collect();
        each(threads > 1, tasks, |(own, start)| {
            let lines = own..owned.lines.min(own + own_step);
            let own_width = lines.len().next_multiple_of(owned.panel);
            let shared_len = shared_step.min(shared.lines - start);
            let mut chunk = Buffer::<K::Value>::new(own_width * deepest);
            for (index, pass) in passes.iter().enumerate() {
                let mut rest = &mut chunk[..];
                let segments = pass.iter().map(|Piece { term, k }| {
                    let line = K::padded(k.len());
                    let (own_panels, others) =
                        std::mem::take(&mut rest).split_at_mut(own_width * line);
                    rest = others;
                    (owned.pack)(&owned_views[*term], lines.clone(), k.clone(), own_panels);
                    // Blocks before this one are full.
                    let before = shared.lines.next_multiple_of(shared.panel) * K::padded(k.start)
                        + start * line;
                    let shared_panels = &panels[*term].values()[before..]
                        [..shared_len.next_multiple_of(shared.panel) * line];
                    let (a, b) = if share_a {
                        (shared_panels, &*own_panels)
                    } else {
                        (&*own_panels, shared_panels)
                    };
                    Segment {
                        a,
                        a_panel: K::A_PANEL * line,
                        b,
                        b_panel: K::B_PANEL * line,
                        k: k.len(),
                    }
                });
                let segments: Vec<_> = segments.collect();
                let (m, n) = if share_a {
                    (shared_len, lines.len())
                } else {
                    (lines.len(), shared_len)
                };
                let (i, j) = if share_a { (start, own) } else { (own, start) };
                // SAFETY: `sum` has asserted that C holds M rows and N columns and that the tier is available; the
                // tasks' rectangles of C are disjoint; the panels were packed above.
                unsafe {
                    let to = to.at(i, j);
                    K::block(
                        &segments,
                        m,
                        n,
                        if index == 0 { to } else { to.again() },
                        share_a,
                    );
                }
            }
        });
    }
}

/// Lines per chunk of the owned side, and per part of the shared side. Every thread gets the same
/// number of chunks: two or more if they stay large enough to amortize the panels that stream past
/// them. If there are too few chunks, the shared side is split into parts.
fn cut<K: Kernel>(
    owned: &Side<K>,
    shared: &Side<K>,
    most: usize,
    threads: usize,
) -> (usize, usize) {
    let rounds = owned
        .lines
        .div_ceil(most * threads)
        .max(if owned.lines >= 2 * threads * WORTHY {
            2
        } else {
            1
        });
    let chunks = if owned.lines >= threads * WORTHY {
        rounds * threads
    } else {
        owned.lines.div_ceil(WORTHY)
    };
    let parts = (2 * threads)
        .div_ceil(chunks)
        .min(shared.lines.div_ceil(WORTHY));
    let chunks = if threads == 1 {
        owned.lines.div_ceil(most)
    } else {
        chunks.max((2 * threads).div_ceil(parts))
    };
    (
        pieces(owned, chunks),
        pieces(shared, if threads == 1 { 1 } else { parts }),
    )
}

/// Length of the pieces that split a side's lines into about `parts`: a multiple of the side's
/// unit.
fn pieces<K: Kernel>(side: &Side<K>, parts: usize) -> usize {
    side.lines
        .div_ceil(parts.max(1))
        .next_multiple_of(side.unit)
}

/// Packs all lines of a view, block by block.
pub(super) fn pack_whole<K: Kernel>(
    pack: Pack<K>,
    view: &View<'_>,
    panel: usize,
    out: &mut [K::Value],
    parallel: bool,
) {
    let width = view.rows.next_multiple_of(panel);
    let parts = if parallel {
        rayon::current_num_threads() * 4
    } else {
        1
    };
    let group = view.rows.div_ceil(parts).next_multiple_of(panel);
    let mut rest = out;
    let mut tasks = Vec::new();
    for k in blocks::<K>(view.cols) {
        let (block, others) = rest.split_at_mut(width * K::padded(k.len()));
        rest = others;
        let step = group * K::padded(k.len());
        tasks.extend(
            block
                .chunks_mut(step)
                .enumerate()
                .map(|(piece, out)| (k.clone(), piece * group, out)),
        );
    }
    each(parallel, tasks, |(k, start, out)| {
        pack(view, start..view.rows.min(start + group), k, out);
    });
}

pub(super) fn each<T: Send>(parallel: bool, items: Vec<T>, task: impl Fn(T) + Send + Sync) {
    if parallel && items.len() > 1 {
        items.into_par_iter().with_max_len(1).for_each(task);
    } else {
        items.into_iter().for_each(task);
    }
}
