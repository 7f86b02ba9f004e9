use half::bf16;
use proptest::prelude::*;
use upright_emulator::{Arg, Buffer, launch};
use upright_model::{
    config::{NormKind, Rotary},
    weights::NormWeights,
};

use super::{bits, by_columns, ints, numbers, round};
use crate::cpu::kernels::{attention::HeadLayout, norm::Norm, rope::Angles};

/// Positions in the tables of angles.
const POSITIONS: usize = 50;
const EPS: f32 = 1e-3;

/// Tokens and their heads.
#[derive(Clone, Debug)]
struct Case {
    heads: usize,
    kv_heads: usize,
    head: usize,
    half: usize,
    is_grouped: bool,
    positions: Vec<usize>,
    seed: u64,
}

fn cases() -> impl Strategy<Value = Case> {
    let head = prop::sample::select(vec![12usize, 36, 37, 64, 80, 128]);
    let positions = prop::collection::vec(0..POSITIONS, 1..4);
    (
        1usize..3,
        1usize..4,
        head,
        any::<bool>(),
        any::<bool>(),
        positions,
        any::<u64>(),
    )
        .prop_map(
            |(kv_heads, group, head, is_grouped, is_partial, positions, seed)| Case {
                heads: if is_grouped {
                    kv_heads
                } else {
                    kv_heads * group
                },
                kv_heads,
                head,
                half: if is_partial { head / 8 } else { head / 2 },
                is_grouped,
                positions,
                seed,
            },
        )
}

impl Case {
    fn rotary(&self) -> Rotary {
        let frequency = |pair: usize| 100f64.powf(-(pair as f64) / self.half as f64);
        Rotary {
            dims: 2 * self.half,
            frequencies: (0..self.half).map(frequency).collect(),
        }
    }

    fn row(&self) -> usize {
        (self.heads + 2 * self.kv_heads) * self.head
    }

    /// Queries and keys in a row.
    fn layouts(&self) -> [(HeadLayout, usize); 2] {
        let (row, d) = (self.row(), self.head);
        let head = if self.is_grouped { 3 * d } else { d };
        let first_key = if self.is_grouped { d } else { self.heads * d };
        let layout = |offset| HeadLayout { row, head, offset };
        [(layout(0), self.heads), (layout(first_key), self.kv_heads)]
    }

    fn numbers(&self, key: u64) -> Vec<f32> {
        numbers(self.seed ^ key, self.positions.len() * self.row())
    }

    /// Cosines and sines of all positions, in f64 as the CPU engine computes them.
    fn tables(&self) -> [Buffer<f32>; 2] {
        let rotary = self.rotary();
        let (mut cosines, mut sines) = (Vec::new(), Vec::new());
        for position in 0..POSITIONS {
            for frequency in &rotary.frequencies {
                let angle = position as f64 * frequency;
                cosines.push(angle.cos() as f32);
                sines.push(angle.sin() as f32);
            }
        }
        [cosines, sines].map(Buffer::from)
    }

    fn position_buffer(&self) -> Buffer<i32> {
        Buffer::from(
            self.positions
                .iter()
                .map(|position| *position as i32)
                .collect::<Vec<_>>(),
        )
    }

    /// Turns queries and keys on the CPU.
    fn turn(&self, token: usize, row: &mut [f32], is_back: bool) {
        let angles = Angles::new(&self.rotary(), &self.positions);
        for (layout, heads) in self.layouts() {
            angles.turn(token, row, layout, heads, is_back);
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 20, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn rotary_embedding_has_the_bits_of_the_cpu(case in cases(), is_back: bool) {
        if upright_emulator::missing().is_some() {
            return Ok(());
        }
        let mut want = case.numbers(0);
        let x = Buffer::from(want.clone());
        for (token, row) in want.chunks_exact_mut(case.row()).enumerate() {
            case.turn(token, row, is_back);
        }
        let ([cosines, sines], positions) = (case.tables(), case.position_buffer());
        let sizes = [case.heads, case.kv_heads, case.head, case.half, usize::from(case.is_grouped)];
        let mut y = Buffer::<bf16>::unwritten(x.len());
        let mut args = vec![x.input(), positions.input(), cosines.input(), sines.input(), y.output()];
        args.extend(ints(sizes));
        args.extend(ints([case.row()]));
        args.push(Arg::F32(if is_back { -1.0 } else { 1.0 }));
        launch("rotary_rounded", by_columns(case.positions.len(), case.row()), case.seed, &mut args).unwrap();
        prop_assert_eq!(bits(&y), bits(&round(&want)));
    }

    #[test]
    fn norms_of_heads_are_those_of_the_cpu(mut case in cases()) {
        if upright_emulator::missing().is_some() {
            return Ok(());
        }
        case.is_grouped = false;
        let (row, d) = (case.row(), case.head);
        let turning = (case.heads + case.kv_heads) * d;
        let scales = [1, 2].map(|key| numbers(case.seed ^ key, d));
        let weights = scales.clone().map(|scale| NormWeights { scale, bias: None });
        let norm = |at: usize| Norm { kind: NormKind::Rms, eps: EPS, weights: &weights[at] };
        let (x, d_y) = (case.numbers(3), case.numbers(4));
        // As the block of the CPU engine: norms, then the turn; back in reverse, from the kept values.
        let kept = round(&x);
        let (mut want, mut want_d) = (x.clone(), d_y.clone());
        for token in 0..case.positions.len() {
            let at = token * row..(token + 1) * row;
            let (y, back) = (&mut want[at.clone()], &mut want_d[at.clone()]);
            case.turn(token, back, true);
            for (which, (layout, heads)) in case.layouts().into_iter().enumerate() {
                for start in (0..heads).map(|head| layout.offset + head * layout.head) {
                    norm(which).row(&x[at.start + start..][..d], &mut y[start..start + d]);
                    let before: Vec<f32> = kept[at.start + start..][..d].iter().map(|x| x.to_f32()).collect();
                    let mut dx = vec![0.0; d];
                    norm(which).row_backward(&before, &back[start..start + d], &mut dx);
                    back[start..start + d].copy_from_slice(&dx);
                }
            }
            case.turn(token, y, false);
        }

        let ([cosines, sines], positions) = (case.tables(), case.position_buffer());
        let [q_scale, k_scale] = scales.map(Buffer::from);
        let (x, d_y) = (Buffer::from(x), Buffer::from(d_y));
        let mut sizes = Vec::from(ints([case.heads, case.kv_heads, d, d, case.half, row]));
        sizes.push(Arg::F32(EPS));
        let grid = [case.positions.len() as u32, (row / d).div_ceil(4) as u32, 1];
        let mut before = Buffer::<bf16>::unwritten(case.positions.len() * turning);
        let mut y = Buffer::<bf16>::unwritten(x.len());
        let mut args = vec![x.input(), q_scale.input(), k_scale.input(), positions.input(), cosines.input()];
        args.extend([sines.input(), before.output(), y.output()]);
        args.extend(sizes);
        launch("head_norm_forward", grid, case.seed, &mut args).unwrap();
        for (before, kept) in before.chunks_exact(turning).zip(kept.chunks_exact(row)) {
            prop_assert_eq!(bits(before), bits(&kept[..turning]));
        }
        let mut d_x = Buffer::<bf16>::unwritten(x.len());
        let mut args = vec![d_y.input(), before.input(), q_scale.input(), k_scale.input(), positions.input()];
        args.extend([cosines.input(), sines.input(), d_x.output()]);
        args.extend(ints([case.heads, case.kv_heads, d, d, case.half, row]));
        args.push(Arg::F32(EPS));
        launch("head_norm_backward", grid, case.seed, &mut args).unwrap();
        for (found, want) in y.iter().zip(&want).chain(d_x.iter().zip(&want_d)) {
            // A unit in the last place of bf16, and the order of sums relative to the largest number.
            let bound = want.abs() / 256.0 + 1e-5;
            prop_assert!((found.to_f32() - want).abs() <= bound, "{} {}", found, want);
        }
    }
}
