use half::bf16;
use proptest::prelude::*;

use super::*;

/// A matrix of some layout, with the f64 values that a tier is to multiply.
#[derive(Clone, Debug)]
struct Matrix {
    floats: Vec<f32>,
    halves: Vec<bf16>,
    rows: usize,
    cols: usize,
    row_stride: usize,
    column_stride: usize,
    as_bf16: bool,
}

/// Numbers in (-1, 1) that depend on the seed alone.
fn numbers(seed: u64, count: usize) -> Vec<f32> {
    let mut state = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
    (0..count)
        .map(|_| {
            state ^= state << 13;
            state ^= state >> 7;
            state ^= state << 17;
            (state >> 40) as f32 / (1u64 << 23) as f32 - 1.0
        })
        .collect()
}

impl Matrix {
    /// Layouts: 0 row-major, 1 column-major, 2 row-major with gaps, 3 column-major with gaps, 4 gaps everywhere.
    fn new(seed: u64, rows: usize, cols: usize, layout: u8, as_bf16: bool) -> Self {
        let (row_stride, column_stride) = match layout {
            0 => (cols, 1),
            1 => (1, rows),
            2 => (cols + 5, 1),
            3 => (1, rows + 3),
            _ => (2 * cols + 1, 2),
        };
        let floats = numbers(
            seed,
            (rows - 1) * row_stride + (cols - 1) * column_stride + 1,
        );
        let halves = floats.iter().map(|&x| bf16::from_f32(x)).collect();
        Self {
            floats,
            halves,
            rows,
            cols,
            row_stride,
            column_stride,
            as_bf16,
        }
    }

    fn view(&self) -> View<'_> {
        View {
            values: if self.as_bf16 {
                Values::Bf16(&self.halves)
            } else {
                Values::F32(&self.floats)
            },
            rows: self.rows,
            cols: self.cols,
            row_stride: self.row_stride,
            column_stride: self.column_stride,
        }
    }

    fn element(&self, rounded: bool, i: usize, j: usize) -> f64 {
        let at = i * self.row_stride + j * self.column_stride;
        if rounded || self.as_bf16 {
            self.halves[at].to_f64()
        } else {
            f64::from(self.floats[at])
        }
    }
}

type Product = fn(&[Term<'_>], Destination);

fn run<K: Kernel>(terms: &[Term<'_>], to: Destination) {
    driver::Sum {
        terms,
        m: terms[0].a.rows(),
        n: terms[0].b.cols,
        to,
    }
    .visit::<K>();
}

fn destination(c: &mut [f32], stride: usize, accumulate: bool) -> Destination {
    let to = c.as_mut_ptr();
    Destination {
        to,
        stride,
        onto: accumulate.then_some((to.cast_const(), stride)),
        bias: None,
    }
}

/// Every kernel that this machine can run: name, whether it rounds to bf16, its product.
fn kernels() -> Vec<(&'static str, bool, Product)> {
    let mut kernels: Vec<(&'static str, bool, Product)> =
        vec![("baseline", false, run::<portable::Baseline>)];
    #[cfg(target_arch = "x86_64")]
    {
        if std::arch::is_x86_feature_detected!("avx2") && std::arch::is_x86_feature_detected!("fma")
        {
            kernels.push(("avx2", false, run::<portable::Avx2>));
        }
        if std::arch::is_x86_feature_detected!("avx512f") {
            kernels.push(("avx512f", false, run::<portable::Avx512f>));
        }
        if Tier::Avx512.available() {
            kernels.push(("avx512", true, run::<avx512::Avx512>));
            kernels.push(("model of amx", true, run::<amx::model::Model>));
        }
        if Tier::Amx.available() {
            kernels.push(("amx", true, run::<amx::Amx>));
        }
    }
    kernels
}

/// Relative error in the Frobenius norm, against f64; `c` holds the result, `before` the previous
/// values.
fn error(
    a: &Matrix,
    b: &Matrix,
    rounded: bool,
    before: Option<&[f32]>,
    c: &[f32],
    stride: usize,
) -> f64 {
    let (mut wrong, mut norm) = (0.0, 0.0);
    for i in 0..a.rows {
        for j in 0..b.cols {
            let sum: f64 = (0..a.cols)
                .map(|k| a.element(rounded, i, k) * b.element(rounded, k, j))
                .sum();
            let want = sum + before.map_or(0.0, |c| f64::from(c[i * stride + j]));
            wrong += (f64::from(c[i * stride + j]) - want).powi(2);
            norm += want.powi(2);
        }
    }
    (wrong / norm.max(1e-30)).sqrt()
}

fn check(a: &Matrix, b: &Matrix, gap: usize, accumulate: bool) {
    let stride = b.cols + gap;
    let before = numbers(7, (a.rows - 1) * stride + b.cols);
    for (name, rounded, product) in kernels() {
        let mut c = before.clone();
        product(
            &[Term::new(a.view(), b.view())],
            destination(&mut c, stride, accumulate),
        );
        let error = error(a, b, rounded, accumulate.then_some(&before), &c, stride);
        let bound = if rounded { 1e-5 } else { 1e-6 };
        assert!(
            error < bound,
            "{name}: {error} on {}x{}x{}",
            a.rows,
            b.cols,
            a.cols
        );
        for (i, row) in c.chunks(stride).enumerate().take(a.rows - 1) {
            assert_eq!(
                row[b.cols..],
                before[i * stride..][b.cols..stride],
                "{name}: between the rows of C"
            );
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 150, failure_persistence: None, ..ProptestConfig::default() })]
    #[test]
    fn equals_f64(
        m in 1usize..200, n in 1usize..200, k in 1usize..200,
        layouts in (0u8..5, 0u8..5), kinds: (bool, bool), gap in 0usize..3, accumulate: bool, seed: u64,
    ) {
        check(&Matrix::new(seed, m, k, layouts.0, kinds.0), &Matrix::new(!seed, k, n, layouts.1, kinds.1), gap, accumulate);
    }

    #[test]
    fn thin_equals_f64(
        long in 1usize..400, rank in 1usize..20, k in 1usize..700,
        layouts in (0u8..5, 0u8..5), kinds: (bool, bool), accumulate: bool, which in 0u8..3, seed: u64,
    ) {
        let (m, n, k) = match which { 0 => (long, rank, k), 1 => (rank, long, k), _ => (long, k.min(200), rank) };
        check(&Matrix::new(seed, m, k, layouts.0, kinds.0), &Matrix::new(!seed, k, n, layouts.1, kinds.1), 0, accumulate);
    }
}

#[test]
fn several_blocks_of_k_and_several_tasks() {
    for (m, n, k) in [
        (1, 1, 1),
        (1, 1, 2),
        (2, 3, 1),
        (70, 600, 1100),
        (600, 70, 1025),
        (300, 310, 513),
        (1, 1000, 1500),
        (1000, 1, 1500),
    ] {
        for accumulate in [false, true] {
            check(
                &Matrix::new(1, m, k, 0, false),
                &Matrix::new(2, k, n, 1, true),
                0,
                accumulate,
            );
            check(
                &Matrix::new(3, m, k, 1, false),
                &Matrix::new(4, k, n, 0, false),
                2,
                accumulate,
            );
        }
    }
}

/// An element has the same bits alone, within a larger product, and on any number of threads, whatever it is added to.
#[test]
fn bits_depend_on_row_column_and_depth_alone() {
    let (m, n, k) = (130, 210, 1100);
    let a = Matrix::new(5, m, k, 0, false);
    let (before, bias) = (numbers(8, m * n), numbers(9, n));
    for (layout, onto, biased) in [
        (0, true, false),
        (1, false, true),
        (0, true, true),
        (1, false, false),
    ] {
        let b = Matrix::new(6, k, n, layout, true);
        for (name, _, product) in kernels() {
            let part = |rows: Range<usize>, cols: Range<usize>| {
                let mut c: Vec<f32> = rows
                    .clone()
                    .flat_map(|i| before[i * n..][cols.clone()].to_vec())
                    .collect();
                let bias = biased.then(|| bias[cols.start..].as_ptr());
                let to = Destination {
                    bias,
                    ..destination(&mut c, cols.len(), onto)
                };
                product(
                    &[Term::new(
                        a.view().row_range(rows),
                        b.view().col_range(cols),
                    )],
                    to,
                );
                c
            };
            let whole = |threads: usize| {
                rayon::ThreadPoolBuilder::new()
                    .num_threads(threads)
                    .build()
                    .unwrap()
                    .install(|| part(0..m, 0..n))
            };
            let one = whole(1);
            for threads in [2, 3, 8] {
                assert!(same(&one, &whole(threads)), "{name}: {threads} threads");
            }
            for rows in [0..1, 17..18, 129..130, 3..60, 40..130] {
                for cols in [0..1, 209..210, 5..100, 0..210] {
                    let c = part(rows.clone(), cols.clone());
                    for (i, row) in rows.clone().enumerate() {
                        let want = &one[row * n..][cols.clone()];
                        assert!(
                            same(want, &c[i * cols.len()..][..cols.len()]),
                            "{name}: {rows:?} {cols:?}"
                        );
                    }
                }
            }
        }
    }
}

#[test]
fn a_bias_and_a_residual_are_added() {
    let (m, n, k) = (50, 70, 40);
    let (a, b) = (
        Matrix::new(1, m, k, 0, false),
        Matrix::new(2, k, n, 1, true),
    );
    let (residual, bias) = (numbers(3, m * n), numbers(4, n));
    for (name, rounded, product) in kernels() {
        for (onto, biased) in [(true, true), (true, false), (false, true)] {
            let before: Vec<f32> = (0..m * n)
                .map(|at| if onto { residual[at] } else { 0.0 } + if biased { bias[at % n] } else { 0.0 })
                .collect();
            let mut c = vec![f32::NAN; m * n];
            let to = Destination {
                to: c.as_mut_ptr(),
                stride: n,
                onto: onto.then_some((residual.as_ptr(), n)),
                bias: biased.then_some(bias.as_ptr()),
            };
            product(&[Term::new(a.view(), b.view())], to);
            let error = error(&a, &b, rounded, Some(&before), &c, n);
            assert!(
                error < 1e-5,
                "{name}: {error}, residual {onto}, bias {biased}"
            );
        }
    }
}

fn same(a: &[f32], b: &[f32]) -> bool {
    a.len() == b.len() && a.iter().zip(b).all(|(a, b)| a.to_bits() == b.to_bits())
}

#[test]
fn what_is_not_finite_stays_so() {
    for tier in Tier::ALL.into_iter().filter(|tier| tier.available()) {
        for layout in [0, 1, 4] {
            for bad in [f32::NAN, f32::INFINITY, f32::NEG_INFINITY] {
                let mut a = Matrix::new(1, 20, 40, layout, false);
                let b = Matrix::new(2, 40, 20, 0, true);
                a.floats[3 * a.row_stride + 7 * a.column_stride] = bad;
                let mut c = vec![0.0; 400];
                product(tier, a.view(), b.view(), &mut c, 20, false);
                for (i, row) in c.chunks(20).enumerate() {
                    assert!(
                        row.iter().all(|x| x.is_finite() == (i != 3)),
                        "{tier}: {bad} in row 3, row {i}"
                    );
                    assert!(i != 3 || !bad.is_nan() || row.iter().all(|x| x.is_nan()));
                }
            }
        }
    }
}

#[test]
fn nothing_to_add_up() {
    let mut c = vec![1.0; 6];
    product(
        Tier::Portable,
        View::rows(&[], 2, 0),
        View::rows(&[], 0, 2),
        &mut c,
        3,
        true,
    );
    assert_eq!(c, [1.0; 6]);
    product(
        Tier::Portable,
        View::rows(&[], 2, 0),
        View::rows(&[], 0, 2),
        &mut c,
        3,
        false,
    );
    assert_eq!(c, [0.0, 0.0, 1.0, 0.0, 0.0, 1.0]);
    product(
        Tier::Portable,
        View::rows(&[], 0, 3),
        View::rows(&[1.0; 6], 3, 2),
        &mut [],
        2,
        false,
    );
}

#[test]
#[should_panic(expected = "a view of 2x3")]
fn a_view_beyond_its_values() {
    product(
        Tier::Portable,
        View::rows(&[0.0; 5], 2, 3),
        View::rows(&[0.0; 6], 3, 2),
        &mut [0.0; 4],
        2,
        false,
    );
}
