//! A linear's LoRA pair beside the CPU's. The card rounds parameters, u and du to bf16, which the CPU's tier here does not do:
//! each by at most 1 / 256, and the errors of a sum cancel. So the distance is at most 1 / 200 of the length.

use half::bf16;
use proptest::prelude::*;
use upright_emulator::{Arg, Buffer, launch};
use upright_model::{
    adapter::{AdapterLayout, LoraTarget, Slot},
    weights::{Linear, Matrix},
};

use super::numbers;
use crate::cpu::{
    kernels::gemm::{Onto, Packed, View},
    linear::{HostAdapter, Output, Reduced, Scope},
    tier::Tier,
};

fn sizes(sizes: &[usize]) -> Vec<Arg<'static>> {
    sizes.iter().map(|size| Arg::I32(*size as i32)).collect()
}

/// Root of the squared distance, relative to the length of `want`.
fn distance(found: impl Iterator<Item = f32>, want: &[f32]) -> f32 {
    let (mut wrong, mut length) = (0.0, 0.0);
    for (found, want) in found.zip(want) {
        wrong += (found - want).powi(2);
        length += want.powi(2);
    }
    (wrong / f32::max(length, 1e-30)).sqrt()
}

/// Rows of `columns` values that bf16 holds, with zeros up to `stride`.
fn wide(values: &[f32], columns: usize, stride: usize) -> Buffer<bf16> {
    let mut wide = Vec::new();
    for row in values.chunks(columns) {
        wide.extend(row.iter().map(|value| bf16::from_f32(*value)));
        wide.resize(wide.len() + stride - columns, bf16::ZERO);
    }
    Buffer::from(wide)
}

/// Numbers that bf16 holds.
fn coarse(seed: u64, count: usize) -> Vec<f32> {
    let mut values = numbers(seed, count);
    for value in &mut values {
        *value = bf16::from_f32(*value).to_f32();
    }
    values
}

/// Checks a pair of `rank`: y, dx and the gradients.
fn check_pair(tokens: usize, [inputs, outputs]: [usize; 2], rank: usize, seed: u64) {
    let scale = 0.75;
    let target = LoraTarget {
        module: "q".into(),
        layer: 0,
        slot: Slot::Q,
        inputs,
        outputs,
        rank,
        scale,
        offset: 0,
    };
    let (a_range, b_range) = (target.a(), target.b());
    let layout = AdapterLayout {
        targets: vec![target],
        len: b_range.end,
    };
    let parameters = numbers(seed, layout.len);
    let (x, dy) = (
        coarse(seed ^ 1, tokens * inputs),
        coarse(seed ^ 2, tokens * outputs),
    );

    // The frozen weight is zero, so y and dx are the pair's own.
    let linear = Linear {
        module: "q".into(),
        weight: Matrix::owned(outputs, inputs, vec![bf16::ZERO; outputs * inputs]),
        bias: None,
    };
    let adapter = HostAdapter {
        layout: &layout,
        parameters: &parameters,
    };
    let scope = Scope {
        tier: Tier::Portable,
        layer: 0,
        adapter: Some(adapter),
    };
    let packed = Packed::from_rows(Tier::Portable, tokens, inputs, |row, values| {
        values.copy_from_slice(&x[row * inputs..][..inputs]);
    });
    let part = scope.part(&linear, Slot::Q, &packed);
    let mut y = vec![0.0; tokens * outputs];
    scope.forward(std::slice::from_ref(&part), &mut y, outputs, Onto::Nothing);
    let mut reduced = Reduced::default();
    reduced.keep(part);
    let view = View::rows(&dy, tokens, outputs);
    let output = Output {
        linear: &linear,
        slot: Slot::Q,
        dy: view.into(),
        rows: Some(view),
    };
    let mut want = vec![0.5; layout.len];
    let mut dx = vec![0.0; tokens * inputs];
    let x_view = View::rows(&x, tokens, inputs);
    scope.backward(
        &[output],
        Some(x_view),
        &reduced,
        &mut want,
        Some((&mut dx, inputs)),
    );

    // Copies of A and of B, and of B transposed.
    let (k, n, r) = (
        inputs.next_multiple_of(8),
        outputs.next_multiple_of(8),
        rank.next_multiple_of(8),
    );
    let start = Buffer::from(parameters.clone());
    let mut weights = Buffer::from(vec![bf16::ZERO; (n + r) * (k + r)]);
    let mut transposed = Buffer::from(vec![bf16::ZERO; r * n]);
    let grid = |count: usize| [count.div_ceil(256) as u32, 1, 1];
    for (range, [rows, columns], to) in [
        (&a_range, [rank, inputs], n * (k + r)),
        (&b_range, [outputs, rank], k),
    ] {
        let mut args = vec![
            start.input(),
            weights.output(),
            Arg::U64(range.start as u64),
        ];
        args.extend(sizes(&[rows, columns]));
        args.extend([Arg::U64(to as u64), Arg::I32((k + r) as i32)]);
        launch("thin_copy", grid(rows * columns), seed, &mut args).unwrap();
    }
    let mut args = vec![
        start.input(),
        transposed.output(),
        Arg::U64(b_range.start as u64),
    ];
    args.extend(sizes(&[outputs, rank]));
    args.extend([Arg::U64(0), Arg::I32(n as i32)]);
    launch(
        "thin_copy_transposed",
        [outputs.div_ceil(32) as u32, 1, 1],
        seed,
        &mut args,
    )
    .unwrap();

    // u beside x, and du beside dy.
    let (mut x, mut dy) = (wide(&x, inputs, k + r), wide(&dy, outputs, n + r));
    for (x, [inner, to], a, a_start, a_stride) in [
        (&mut x, [inputs, k], &weights, n * (k + r), k + r),
        (&mut dy, [outputs, n], &transposed, 0, n),
    ] {
        let mut args = vec![x.output(), a.input()];
        args.extend(sizes(&[tokens, inner, to + r, 0, to, rank, r]));
        args.extend([
            Arg::U64(a_start as u64),
            Arg::I32(a_stride as i32),
            Arg::F32(scale),
        ]);
        launch(
            "thin_product_16",
            [tokens.div_ceil(32) as u32, 1, 1],
            seed,
            &mut args,
        )
        .unwrap();
    }
    // y = [x, u] [W, B]ᵀ and dx = [dy, du] [W; A], from the one buffer of weights.
    let at = |values: &[bf16], index: usize| values[index].to_f32();
    let mut found_y = Vec::new();
    let mut found_dx = Vec::new();
    for token in 0..tokens {
        for output in 0..outputs {
            let products = (0..k + r)
                .map(|i| at(&x, token * (k + r) + i) * at(&weights, output * (k + r) + i));
            found_y.push(products.sum::<f32>());
        }
        for input in 0..inputs {
            let products = (0..n + r)
                .map(|i| at(&dy, token * (n + r) + i) * at(&weights, i * (k + r) + input));
            found_dx.push(products.sum::<f32>());
        }
    }
    let bound = 1.0 / 200.0;
    assert!(distance(found_y.into_iter(), &y) < bound);
    assert!(distance(found_dx.into_iter(), &dx) < bound);

    // The gradient, added to what is there.
    let mut gradient = Buffer::from(vec![0.5f32; layout.len]);
    for (range, [x, d], [columns, x_stride, d_from, d_stride, by_rank]) in [
        (&a_range, [&x, &dy], [inputs, k + r, n, n + r, 1]),
        (&b_range, [&dy, &x], [outputs, n + r, k, k + r, 0]),
    ] {
        let count = range.len();
        let mut partials = Buffer::<f32>::unwritten(count);
        let mut args = vec![x.input(), d.input(), partials.output()];
        args.extend(sizes(&[
            tokens, columns, 0, x_stride, rank, d_from, d_stride, by_rank,
        ]));
        launch(
            "thin_gradient_16",
            [columns.div_ceil(64) as u32, 1, 1],
            seed,
            &mut args,
        )
        .unwrap();
        let mut args = vec![partials.input(), gradient.output()];
        args.extend([range.start, count, count].map(|size| Arg::U64(size as u64)));
        args.push(Arg::I32(1));
        launch("thin_gradient_add", grid(count), seed, &mut args).unwrap();
    }
    for range in [a_range, b_range] {
        let want: Vec<f32> = want[range.clone()]
            .iter()
            .map(|value| value - 0.5)
            .collect();
        let found = gradient[range].iter().map(|value| value - 0.5);
        assert!(distance(found, &want) < bound);
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 8, failure_persistence: None, ..ProptestConfig::default() })]
    #[test]
    fn a_lora_pair_is_that_of_the_cpu(
        tokens in 30usize..70, inputs in 20usize..150, outputs in 20usize..150, rank in 1usize..17, seed: u64,
    ) {
        if upright_emulator::missing().is_some() {
            return Ok(());
        }
        check_pair(tokens, [inputs, outputs], rank, seed);
    }
}
