//! Microbenchmarks: the throughput of the kernels on this machine beside the limits of the
//! hardware, both measured.

use std::hint::black_box;
use std::time::Instant;

use half::bf16;
use rayon::prelude::*;
use rayon::{ThreadPool, ThreadPoolBuilder};

use crate::cpu::{
    kernels::{
        Lanes, Saved, Work, activation,
        attention::{self, HeadLayout, Known, Shape},
        dispatch,
        gemm::{View, product},
        norm::Norm,
        rope::Angles,
    },
    tier::Tier,
};
use upright_base::{Error, Result, processor};
use upright_model::config::{Activation, NormKind, Rotary};
use upright_model::pack::Pack;
use upright_model::weights::NormWeights;

/// Rates of the matrix products of a device, in operations/s: on all threads of a CPU together, or of a GPU. A multiply-add counts as
/// two.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct MatrixRate {
    /// Upper bound: multiply-adds on registers only, without loads, on a CPU; the published peak of a GPU, if it is known.
    pub bound: Option<f64>,
    /// Highest rate of large products as the decoder runs them, with operands in memory and packing
    /// included.
    pub product: f64,
}

/// The measurement of a kernel on one shape.
#[derive(Clone, Debug, PartialEq)]
pub struct KernelRate {
    /// Name of the kernel, e.g. `linear forward`.
    pub kernel: &'static str,
    /// The sizes, for display.
    pub shape: String,
    /// Best time of several runs.
    pub seconds: f64,
    /// Operations/s, or bytes/s if memory is the bound.
    pub rate: f64,
    /// Upper bound of the rate on this machine, in the same unit.
    pub bound: f64,
    /// Kind of bound.
    pub limit: Limit,
}

/// What bounds a kernel, and the unit of its rate.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Limit {
    /// Multiply-adds of the tier on registers only, in operations/s.
    Tier,
    /// A plain copy of the same number of bytes, in bytes read and written per second.
    Memory,
}

impl Limit {
    /// Unit of rate and bound after division by 10^9.
    pub fn unit(self) -> &'static str {
        match self {
            Self::Tier => "GFLOP/s",
            Self::Memory => "GB/s",
        }
    }
}

/// Measures the limits of the tier's products on `threads` threads (0: one per core).
///
/// # Errors
/// The machine lacks the tier, or the threads cannot be started.
pub fn matrix(tier: Tier, threads: usize) -> Result<MatrixRate> {
    let pool = pool(tier, threads)?;
    Ok(pool.install(|| {
        let sizes = [(1024, 2048, 2048), (1024, 3072, 768)];
        let product = sizes
            .into_iter()
            .map(|(m, n, k)| linear(tier, m, n, k, true))
            .map(|(rate, _)| rate);
        MatrixRate {
            bound: Some(registers(tier)),
            product: product.fold(0.0, f64::max),
        }
    }))
}

/// Measures every kernel of a training step on a few shapes, on `threads` threads (0: one per
/// core). Calls `each` with every measurement.
///
/// # Errors
/// The machine lacks the tier, or the threads cannot be started.
pub fn kernels(tier: Tier, threads: usize, mut each: impl FnMut(KernelRate) + Send) -> Result<()> {
    let pool = pool(tier, threads)?;
    pool.install(|| {
        products(tier, &mut each);
        attentions(tier, &mut each);
        along_memory(tier, &mut each);
    });
    Ok(())
}

fn pool(tier: Tier, threads: usize) -> Result<ThreadPool> {
    if !tier.available() {
        return Err(
            Error::input(format!("this machine cannot run the {tier} tier")).hint(format!(
                "use {}, the best tier of this machine",
                Tier::detect()
            )),
        );
    }
    ThreadPoolBuilder::new()
        .num_threads(threads)
        .build()
        .map_err(|error| {
            Error::input(format!("cannot start {threads} threads: {error}"))
                .hint("use fewer threads (--threads)")
        })
}

/// Best time of at least five runs and a quarter of a second. On one thread this is CPU time, which
/// other processes disturb less than wall time.
fn seconds(run: impl FnMut()) -> f64 {
    best_of(0.25, run)
}

/// Best time of at least five runs and `least` seconds.
fn best_of(least: f64, mut run: impl FnMut()) -> f64 {
    let begin = Instant::now();
    let now = || {
        if rayon::current_num_threads() == 1 {
            processor::seconds()
        } else {
            begin.elapsed().as_secs_f64()
        }
    };
    let (mut best, mut runs) = (f64::INFINITY, 0);
    while runs < 5 || begin.elapsed().as_secs_f64() < least {
        let start = now();
        run();
        best = best.min(now() - start);
        runs += 1;
    }
    best
}

fn floats(count: usize) -> Vec<f32> {
    (0..count)
        .map(|i| (i * 37 % 101) as f32 / 50.0 - 1.0)
        .collect()
}

/// Rate and seconds of `x Wᵀ`, or of `y W` if not `transposed`: x or y `[m, k]`, W in bf16.
fn linear(tier: Tier, m: usize, n: usize, k: usize, transposed: bool) -> (f64, f64) {
    let w: Vec<bf16> = floats(n * k).into_iter().map(bf16::from_f32).collect();
    let w = if transposed {
        View::bf16(&w, n, k).t()
    } else {
        View::bf16(&w, k, n)
    };
    timed(tier, View::rows(&floats(m * k), m, k), w)
}

fn timed(tier: Tier, a: View<'_>, b: View<'_>) -> (f64, f64) {
    let (m, n, k) = (a.rows, b.cols, a.cols);
    let mut c = vec![0.0; m * n];
    let time = seconds(|| product(tier, a, b, black_box(&mut c), n, false));
    ((2 * m * n * k) as f64 / time, time)
}

fn products(tier: Tier, each: &mut impl FnMut(KernelRate)) {
    let bound = registers(tier);
    let mut tell = |kernel, (m, n, k): (usize, usize, usize), (rate, seconds)| {
        each(KernelRate {
            kernel,
            shape: format!("{m} x {n} x {k}"),
            seconds,
            rate,
            bound,
            limit: Limit::Tier,
        });
    };
    // Tokens by outputs by inputs: of Pythia-160M, Pythia-1B and SmolLM2-135M.
    for shape in [
        (1024, 2304, 768),
        (1024, 3072, 768),
        (1024, 768, 3072),
        (1024, 8192, 2048),
        (1024, 1536, 576),
    ] {
        let (m, n, k) = shape;
        tell("linear forward", shape, linear(tier, m, n, k, true));
        tell("linear backward", (m, k, n), linear(tier, m, k, n, false));
    }
    // The head processes the vocabulary in chunks.
    for (m, n, k) in [(1024, 2048, 768), (256, 2048, 576)] {
        tell("head forward", (m, n, k), linear(tier, m, n, k, true));
        tell("head gradient", (m, k, n), linear(tier, m, k, n, false));
    }
    let (tokens, rank, hidden) = (1024, 32, 768);
    let (x, u, a) = (
        floats(tokens * hidden),
        floats(tokens * rank),
        floats(rank * hidden),
    );
    let (x, u, a) = (
        View::rows(&x, tokens, hidden),
        View::rows(&u, tokens, rank),
        View::rows(&a, rank, hidden),
    );
    tell("LoRA down", (tokens, rank, hidden), timed(tier, x, a.t()));
    tell("LoRA up", (tokens, hidden, rank), timed(tier, u, a));
    tell(
        "LoRA gradient",
        (hidden, rank, tokens),
        timed(tier, x.t(), u),
    );
}

/// Only attended pairs count as operations: 2 multiply-adds per value in the forward pass, 5 in the
/// backward pass.
fn attentions(tier: Tier, each: &mut impl FnMut(KernelRate)) {
    let bound = registers(tier);
    for (rows, len, heads, kv_heads, size, window) in [
        (12, 180, 12, 12, 64, None),
        (12, 180, 9, 3, 64, None),
        (1, 2048, 9, 3, 64, None),
        (2, 1024, 8, 8, 128, Some(256)),
    ] {
        let mut pack = Pack::default();
        (0..rows).for_each(|_| _ = pack.root(&vec![0; len]));
        let shape = Shape {
            heads,
            kv_heads,
            head_size: size,
            window,
            scale: 1.0 / (size as f32).sqrt(),
        };
        let row = (heads + 2 * kv_heads) * size;
        let layout = |before: usize| HeadLayout {
            row,
            head: size,
            offset: before * size,
        };
        let (q, k, v) = (layout(0), layout(heads), layout(heads + kv_heads));
        let (qkv, d_out) = (floats(rows * len * row), floats(rows * len * heads * size));
        let (mut out, mut lse) = (vec![0.0; d_out.len()], vec![0.0; rows * len * heads]);
        let mut d_qkv = vec![0.0; qkv.len()];
        let qkv = stored(tier, &qkv);
        let qkv = qkv.values();
        let forward = seconds(|| {
            attention::forward(
                tier,
                &pack,
                Known::NOTHING,
                &shape,
                qkv,
                q,
                k,
                v,
                &mut out,
                &mut lse,
            );
        });
        let out = stored(tier, &out);
        let out = out.values();
        let backward = seconds(|| {
            attention::backward(
                tier, &pack, &shape, qkv, q, k, v, out, &lse, &d_out, &mut d_qkv,
            );
        });
        let pairs: usize = (1..=len).map(|seen| seen.min(window.unwrap_or(len))).sum();
        let multiply_adds = (rows * pairs * heads * size) as f64;
        let seen = window.map_or_else(String::new, |window| format!(", window {window}"));
        let sizes = format!("{rows} x {len} tokens, {heads}/{kv_heads} heads of {size}{seen}");
        for (kernel, seconds, operations) in [
            ("attention forward", forward, 4.0 * multiply_adds),
            ("attention backward", backward, 10.0 * multiply_adds),
        ] {
            let rate = operations / seconds;
            each(KernelRate {
                kernel,
                shape: sizes.clone(),
                seconds,
                rate,
                bound,
                limit: Limit::Tier,
            });
        }
    }
}

/// Activations as the tier saves them.
fn stored(tier: Tier, values: &[f32]) -> Saved {
    Saved::copy(tier, values)
}

/// Kernels that do little work per value.
fn along_memory(tier: Tier, each: &mut impl FnMut(KernelRate)) {
    let (tokens, hidden, wide) = (2048, 768, 3072);
    // Streams of f32, and streams in the tier's precision of saved activations.
    let mut tell = |kernel, width: usize, [streams, kept]: [usize; 2], seconds: f64| {
        let bytes = (4 * streams + Saved::size(tier) * kept) * tokens * width;
        let (rate, bound) = (bytes as f64 / seconds, copy(bytes));
        each(KernelRate {
            kernel,
            shape: format!("{tokens} x {width}"),
            seconds,
            rate,
            bound,
            limit: Limit::Memory,
        });
    };
    let weights = NormWeights {
        scale: vec![1.0; hidden],
        bias: Some(vec![0.0; hidden]),
    };
    let (x, d_y, mut y) = (
        floats(tokens * hidden),
        floats(tokens * hidden),
        vec![0.0; tokens * hidden],
    );
    for (kind, forward, backward) in [
        (NormKind::Layer, "layer norm forward", "layer norm backward"),
        (NormKind::Rms, "RMS norm forward", "RMS norm backward"),
    ] {
        let norm = Norm {
            kind,
            eps: 1e-5,
            weights: &weights,
        };
        tell(
            forward,
            hidden,
            [2, 0],
            seconds(|| norm.forward(&x, black_box(&mut y))),
        );
        // The backward pass adds to its output, so it reads it too.
        tell(
            backward,
            hidden,
            [4, 0],
            seconds(|| norm.backward(&x, &d_y, black_box(&mut y))),
        );
    }
    let size = 64;
    let frequencies = (0..size / 2)
        .map(|pair| 1e4_f64.powf(-2.0 * pair as f64 / size as f64))
        .collect();
    let angles = Angles::new(
        &Rotary {
            dims: size,
            frequencies,
        },
        &(0..tokens).collect::<Vec<_>>(),
    );
    let layout = HeadLayout {
        row: hidden,
        head: size,
        offset: 0,
    };
    let turn =
        |(token, row): (usize, &mut [f32])| angles.turn(token, row, layout, hidden / size, false);
    let along = || {
        black_box(&mut y)
            .par_chunks_mut(hidden)
            .enumerate()
            .for_each(turn);
    };
    tell("rotary embedding", hidden, [2, 0], seconds(along));
    for (kind, parts, forward, backward) in [
        (Activation::Gelu, 1, "GELU forward", "GELU backward"),
        (Activation::SwiGlu, 2, "SwiGLU forward", "SwiGLU backward"),
    ] {
        let inner = stored(Tier::Portable, &floats(tokens * parts * wide));
        let mut h = vec![0.0; tokens * wide];
        let along = || {
            inner.by_rows(parts * wide, black_box(&mut h), |row, h| {
                activation::forward(kind, row, h);
            });
        };
        tell(forward, wide, [parts + 1, 0], seconds(along));
        // The backward pass reads one part of the gradient and writes all parts.
        let (inner, mut d) = (
            stored(tier, &floats(tokens * parts * wide)),
            vec![0.0; tokens * parts * wide],
        );
        let along = || {
            inner.by_rows(parts * wide, black_box(&mut d), |row, d| {
                activation::backward(kind, row, d);
            });
        };
        tell(backward, wide, [parts + 1, parts], seconds(along));
    }
}

/// Bytes read and written per second by a plain copy that touches `bytes` bytes.
fn copy(bytes: usize) -> f64 {
    let from = floats(bytes / 8);
    let mut to = vec![0.0; from.len()];
    let piece = from.len().div_ceil(rayon::current_num_threads()).max(1);
    let time = seconds(|| {
        black_box(&mut to)
            .par_chunks_mut(piece)
            .zip(from.par_chunks(piece))
            .for_each(|(to, from)| to.copy_from_slice(from));
    });
    (8 * from.len()) as f64 / time
}

/// Iterations of a loop on registers, enough to make the cost of starting the threads negligible.
const TURNS: usize = 2_000_000;

/// Operations/s of the tier's multiply-adds on registers only, over all threads.
fn registers(tier: Tier) -> f64 {
    match tier {
        Tier::Portable => vector_registers(),
        #[cfg(target_arch = "x86_64")]
        // SAFETY: the tier is available.
        Tier::Avx512 => on_every_thread(24 * 64 * TURNS, || unsafe { x86::dot_products(TURNS) }),
        #[cfg(target_arch = "x86_64")]
        // SAFETY: the tier is available.
        Tier::Amx => on_every_thread(4 * 16384 * (TURNS / 10), || unsafe {
            x86::tiles(TURNS / 10);
        }),
        #[cfg(not(target_arch = "x86_64"))]
        _ => unreachable!("no other tier is available"),
    }
}

/// Operations/s of f32 multiply-adds on the widest vectors, on registers only, over all threads.
fn vector_registers() -> f64 {
    /// Independent sums: enough to hide the latency, fewer than there are registers.
    const SUMS: usize = 12;
    struct Chains;
    impl Work for Chains {
        type Output = usize;
        #[inline(always)]
        fn run<L: Lanes>(self) -> usize {
            let x = L::splat(black_box(1.0));
            let mut sums = [L::splat(0.0); SUMS];
            for _ in 0..TURNS {
                for sum in &mut sums {
                    *sum = x.mul_add(x, *sum);
                }
            }
            black_box(sums.map(L::sum));
            L::LEN
        }
    }
    let lanes = dispatch(Chains);
    on_every_thread(2 * lanes * SUMS * TURNS, || {
        dispatch(Chains);
    })
}

/// Rate of work that all threads of the pool run at once, `operations` each.
fn on_every_thread(operations: usize, work: impl Fn() + Sync) -> f64 {
    // Longer than the other measurements: all rates are compared with this bound, so another
    // process that takes a core for a moment must not lower it.
    let time = best_of(1.0, || {
        rayon::broadcast(|_| work());
    });
    (operations * rayon::current_num_threads()) as f64 / time
}

#[cfg(target_arch = "x86_64")]
mod x86 {
    use std::arch::asm;
    use std::arch::x86_64::*;
    use std::hint::black_box;

    /// # Safety
    /// The machine has AVX512-BF16.
    #[target_feature(enable = "avx512f,avx512bf16")]
    pub(super) unsafe fn dot_products(turns: usize) {
        // SAFETY: 512 bits without invalid values.
        let x: __m512bh = unsafe { std::mem::transmute(_mm512_set1_epi32(black_box(0x3f80_3f80))) };
        let mut sums = [_mm512_setzero_ps(); 24];
        for _ in 0..turns {
            for sum in &mut sums {
                *sum = _mm512_dpbf16_ps(*sum, x, x);
            }
        }
        black_box(sums);
    }

    /// # Safety
    /// The process may use AMX.
    pub(super) unsafe fn tiles(turns: usize) {
        let mut config = [0u8; 64];
        config[0] = 1;
        for tile in 0..8 {
            config[16 + 2 * tile] = 64;
            config[48 + tile] = 16;
        }
        // SAFETY: AMX is available; the tiles are configured first and released last.
        unsafe {
            asm!("ldtilecfg [{}]", in(reg) config.as_ptr(), options(nostack));
            for _ in 0..turns {
                asm!(
                    "tdpbf16ps tmm0, tmm4, tmm6",
                    "tdpbf16ps tmm1, tmm4, tmm7",
                    "tdpbf16ps tmm2, tmm5, tmm6",
                    "tdpbf16ps tmm3, tmm5, tmm7",
                    out("tmm0") _, out("tmm1") _, out("tmm2") _, out("tmm3") _,
                    options(nostack, nomem)
                );
            }
            asm!("tilerelease", options(nostack, nomem));
        }
    }
}
