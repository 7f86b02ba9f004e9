//! Rates of the CPU kernels: `cargo bench --bench kernels [-- THREADS]`. Best of several runs, GFLOP/s.

use std::hint::black_box;
use std::time::Instant;

use half::bf16;
use upright_engine::cpu::Tier;
use upright_engine::cpu::attention::{HeadLayout, Shape, backward, forward};
use upright_engine::cpu::gemm::{View, product};
use upright_engine::pack::Pack;

fn main() {
    let threads = std::env::args().filter_map(|word| word.parse().ok()).next().unwrap_or(1);
    let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).build().expect("a thread pool");
    println!("{threads} thread(s)");
    pool.install(|| {
        attention();
        products();
    });
}

/// Best time of at least five runs and half a second; on one thread the processor's time, which neighbours on the
/// machine disturb less than the clock's.
fn seconds(mut run: impl FnMut()) -> f64 {
    let (begin, first) = (Instant::now(), processor_seconds());
    let now = || match (rayon::current_num_threads(), first, processor_seconds()) {
        (1, Some(first), Some(now)) => now - first,
        _ => begin.elapsed().as_secs_f64(),
    };
    let (mut best, mut runs) = (f64::INFINITY, 0);
    while runs < 5 || begin.elapsed().as_secs_f64() < 0.5 {
        let start = now();
        run();
        best = best.min(now() - start);
        runs += 1;
    }
    best
}

/// Time that the process has spent on processors, where the system tells.
fn processor_seconds() -> Option<f64> {
    #[cfg(unix)]
    {
        let mut time = libc::timespec { tv_sec: 0, tv_nsec: 0 };
        // SAFETY: the call writes the struct.
        let refused = unsafe { libc::clock_gettime(libc::CLOCK_PROCESS_CPUTIME_ID, &raw mut time) } != 0;
        (!refused).then_some(time.tv_sec as f64 + time.tv_nsec as f64 * 1e-9)
    }
    #[cfg(not(unix))]
    None
}

fn floats(count: usize) -> Vec<f32> {
    (0..count).map(|i| (i * 37 % 101) as f32 / 50.0 - 1.0).collect()
}

/// GFLOP/s count the pairs that are attended: 2 multiply-adds a value forward, 5 backward.
fn attention() {
    let packs = [(12, 180, 9, 3, 64, None), (1, 2048, 9, 3, 64, None), (2, 1024, 8, 8, 128, Some(256))];
    for (rows, len, heads, kv_heads, size, window) in packs {
        let mut pack = Pack::default();
        (0..rows).for_each(|_| _ = pack.root(&vec![0; len]));
        let shape = Shape { heads, kv_heads, head_size: size, window, scale: 1.0 / (size as f32).sqrt() };
        let row = (heads + 2 * kv_heads) * size;
        let layout = |before: usize| HeadLayout { row, head: size, offset: before * size };
        let (q, k, v) = (layout(0), layout(heads), layout(heads + kv_heads));
        let (qkv, d_out) = (floats(rows * len * row), floats(rows * len * heads * size));
        let (mut out, mut lse) = (vec![0.0; d_out.len()], vec![0.0; rows * len * heads]);
        let mut d_qkv = vec![0.0; qkv.len()];
        for tier in Tier::ALL.into_iter().filter(|tier| tier.available()) {
            let there = seconds(|| forward(tier, &pack, &shape, &qkv, q, k, v, &mut out, &mut lse));
            let back = seconds(|| backward(tier, &pack, &shape, &qkv, q, k, v, &out, &lse, &d_out, &mut d_qkv));
            let pairs: usize = (1..=len).map(|seen| seen.min(window.unwrap_or(len))).sum();
            let flops = 4e-9 * (rows * pairs * heads * size) as f64;
            println!(
                "{tier} attention {rows} x {len} tokens, {heads}/{kv_heads} heads of {size}, window {window:?}: \
             forward {:.2} ms ({:.0} GFLOP/s), backward {:.2} ms ({:.0} GFLOP/s)",
                there * 1e3,
                flops / there,
                back * 1e3,
                2.5 * flops / back
            );
        }
    }
}

fn products() {
    let shapes = [
        ("linear NT", 1024, 2048, 2048, true),
        ("linear NN", 1024, 2048, 2048, false),
        ("linear NT", 512, 768, 3072, true),
        ("linear NN", 512, 768, 3072, false),
        ("LoRA NT", 1024, 32, 768, true),
        ("LoRA up NT", 1024, 768, 32, true),
        ("LoRA TN", 768, 32, 1024, false),
        ("head NT", 256, 49152, 576, true),
        ("head NN", 256, 576, 49152, false),
        ("few rows NT", 64, 2048, 2048, true),
    ];
    for tier in Tier::ALL.into_iter().filter(|tier| tier.available()) {
        println!("{tier}: registers only {:.0} a thread", peak(tier));
        for (name, m, n, k, transposed) in shapes {
            let (a, mut c) = (floats(m * k), vec![0.0; m * n]);
            let b: Vec<bf16> = floats(n * k).into_iter().map(bf16::from_f32).collect();
            let thin = floats(n * k);
            let b = match (name.starts_with("LoRA"), transposed) {
                (false, true) => View::bf16(&b, n, k).t(),
                (false, false) => View::bf16(&b, k, n),
                (true, true) => View::rows(&thin, n, k).t(),
                (true, false) => View::rows(&thin, k, n),
            };
            let a = if name.ends_with("TN") { View::rows(&a, k, m).t() } else { View::rows(&a, m, k) };
            let time = seconds(|| product(tier, a, b, black_box(&mut c), n, false));
            let flops = 2.0 * (m * n * k) as f64;
            println!("  {:<12} {m:>5} x {n:>5} x {k:>5}  {:8.1}  {:8.3} ms", name, flops / time / 1e9, time * 1e3);
        }
    }
}

/// GFLOP/s of one thread's multiply-adds without memory; 0 where this bench does not know the tier.
fn peak(tier: Tier) -> f64 {
    #[cfg(target_arch = "x86_64")]
    {
        const TURNS: usize = 2_000_000;
        let (flops, time) = match tier {
            // SAFETY: the tier is available.
            Tier::Avx512 => (24 * 64, seconds(|| unsafe { x86::bf16(TURNS) })),
            Tier::Portable if std::arch::is_x86_feature_detected!("avx512f") => {
                // SAFETY: the feature was detected.
                (24 * 32, seconds(|| unsafe { x86::f32(TURNS) }))
            }
            Tier::Amx => (4 * 16384, seconds(|| x86::tiles(TURNS / 10)) * 10.0),
            Tier::Portable => return 0.0,
        };
        (flops * TURNS) as f64 / time / 1e9
    }
    #[cfg(not(target_arch = "x86_64"))]
    {
        let _ = tier;
        0.0
    }
}

#[cfg(target_arch = "x86_64")]
mod x86 {
    use std::arch::asm;
    use std::arch::x86_64::*;
    use std::hint::black_box;

    #[target_feature(enable = "avx512f,avx512bf16")]
    pub(crate) unsafe fn bf16(turns: usize) {
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

    #[target_feature(enable = "avx512f")]
    pub(crate) unsafe fn f32(turns: usize) {
        let x = _mm512_set1_ps(black_box(1.0));
        let mut sums = [_mm512_setzero_ps(); 24];
        for _ in 0..turns {
            for sum in &mut sums {
                *sum = _mm512_fmadd_ps(x, x, *sum);
            }
        }
        black_box(sums);
    }

    pub(crate) fn tiles(turns: usize) {
        let mut config = [0u8; 64];
        config[0] = 1;
        for tile in 0..8 {
            config[16 + 2 * tile] = 64;
            config[48 + tile] = 16;
        }
        // SAFETY: called where AMX is available; the tiles are configured first and released last.
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
