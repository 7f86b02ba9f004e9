//! Rotary embedding, bit by bit, and norms of heads against f64.

use half::bf16;
use proptest::prelude::*;
use upright_emulator::{Arg, Buffer, Number, launch};

use crate::{
    needs_compiler,
    numbers::{bits, by_columns, ints, numbers},
};

/// Tokens and their heads.
#[derive(Clone, Debug)]
struct Case {
    heads: usize,
    kv_heads: usize,
    /// Columns of a head, and how many of them are no padding.
    head: usize,
    size: usize,
    half: usize,
    is_grouped: bool,
    positions: Vec<i32>,
    /// Columns of a row of the output after the last head.
    more: usize,
    seed: u64,
}

/// Positions in the tables of angles.
const POSITIONS: usize = 40;

/// Sizes of models, with padding or not, and odd ones.
fn cases() -> impl Strategy<Value = Case> {
    let size = prop_oneof![
        (1usize..40).boxed(),
        prop::sample::select(vec![64usize, 80, 96, 128]).boxed()
    ];
    let padding = prop_oneof![(0usize..1).boxed(), (0usize..6).boxed()];
    let heads = (1usize..4, 1usize..4, any::<bool>());
    let positions = prop::collection::vec(0..POSITIONS as i32, 1..5);
    (
        heads,
        size,
        padding,
        0.0..=1.0,
        positions,
        0usize..9,
        any::<u64>(),
    )
        .prop_map(
            |((kv_heads, group, is_grouped), size, padding, share, positions, more, seed)| Case {
                heads: if is_grouped {
                    kv_heads
                } else {
                    kv_heads * group
                },
                kv_heads,
                head: size + padding,
                size,
                // All of the head in half of the cases.
                half: if share < 0.5 {
                    size / 2
                } else {
                    (size as f64 * (share - 0.5)) as usize / 8 * 8
                },
                is_grouped,
                positions,
                more,
                seed,
            },
        )
}

impl Case {
    fn tokens(&self) -> usize {
        self.positions.len()
    }

    /// Columns of a row of heads.
    fn row(&self) -> usize {
        (self.heads + 2 * self.kv_heads) * self.head
    }

    fn stride(&self) -> usize {
        self.row() + self.more
    }

    /// Cosines and sines of all positions.
    fn angles(&self) -> [Buffer<f32>; 2] {
        let (mut cosines, mut sines) = (Vec::new(), Vec::new());
        for position in 0..POSITIONS {
            for pair in 0..self.half {
                let angle = position as f64 / 100f64.powf(pair as f64 / self.half as f64);
                cosines.push(angle.cos() as f32);
                sines.push(angle.sin() as f32);
            }
        }
        [Buffer::from(cosines), Buffer::from(sines)]
    }

    /// Where queries and keys begin in a row.
    fn turning(&self) -> Vec<usize> {
        let mut starts = Vec::new();
        for slot in 0..self.row() / self.head {
            let turns = if self.is_grouped {
                slot % 3 < 2
            } else {
                slot < self.heads + self.kv_heads
            };
            if turns {
                starts.push(slot * self.head);
            }
        }
        starts
    }

    /// Turns queries and keys in f32, as a plain loop does.
    fn turned(&self, x: &[f32], sign: f32) -> Vec<f32> {
        let [cosines, sines] = self.angles();
        let mut y = x.to_vec();
        for (y, position) in y.chunks_exact_mut(self.row()).zip(&self.positions) {
            for start in self.turning() {
                for pair in 0..self.half {
                    let at = *position as usize * self.half + pair;
                    let (c, s) = (cosines[at], sines[at] * sign);
                    let (a, b) = (y[start + pair], y[start + pair + self.half]);
                    y[start + pair] = a * c - b * s;
                    y[start + pair + self.half] = b * c + a * s;
                }
            }
        }
        y
    }

    /// Arguments after the buffers.
    fn sizes(&self) -> Vec<Arg<'static>> {
        Vec::from(ints([
            self.heads,
            self.kv_heads,
            self.head,
            self.half,
            usize::from(self.is_grouped),
        ]))
    }

    fn turn_rounded(&self, x: &[f32], sign: f32) -> Buffer<bf16> {
        let [cosines, sines] = self.angles();
        let (x, positions) = (
            Buffer::from(x.to_vec()),
            Buffer::from(self.positions.clone()),
        );
        let mut y = Buffer::unwritten(self.tokens() * self.stride());
        let mut args = vec![
            x.input(),
            positions.input(),
            cosines.input(),
            sines.input(),
            y.output(),
        ];
        args.extend(self.sizes());
        args.extend([Arg::I32(self.stride() as i32), Arg::F32(sign)]);
        launch(
            "rotary_rounded",
            by_columns(self.tokens(), self.row()),
            self.seed,
            &mut args,
        )
        .unwrap();
        y
    }

    fn scales(&self) -> [Buffer<f32>; 2] {
        [5, 6].map(|seed| Buffer::from(numbers(self.seed ^ seed, self.size)))
    }

    fn blocks(&self) -> [u32; 3] {
        let heads = self.heads + 2 * self.kv_heads;
        [self.tokens() as u32, heads.div_ceil(4) as u32, 1]
    }

    /// Arguments of norms after the buffers.
    fn norm_sizes(&self) -> Vec<Arg<'static>> {
        let sizes = [
            self.heads,
            self.kv_heads,
            self.head,
            self.size,
            self.half,
            self.stride(),
        ];
        let mut args = Vec::from(ints(sizes));
        args.push(Arg::F32(EPS));
        args
    }

    /// What was kept, and the norm.
    fn norm(&self, x: &[f32]) -> (Buffer<bf16>, Buffer<bf16>) {
        let ([cosines, sines], [q_scale, k_scale]) = (self.angles(), self.scales());
        let (x, positions) = (
            Buffer::from(x.to_vec()),
            Buffer::from(self.positions.clone()),
        );
        let mut before =
            Buffer::unwritten(self.tokens() * (self.heads + self.kv_heads) * self.head);
        let mut y = Buffer::unwritten(self.tokens() * self.stride());
        let mut args = vec![
            x.input(),
            q_scale.input(),
            k_scale.input(),
            positions.input(),
            cosines.input(),
        ];
        args.extend([sines.input(), before.output(), y.output()]);
        args.extend(self.norm_sizes());
        launch("head_norm_forward", self.blocks(), self.seed, &mut args).unwrap();
        assert_eq!(before.first_unwritten(), None);
        (before, y)
    }

    fn norm_backward(&self, d: &[f32], before: &Buffer<bf16>) -> Buffer<bf16> {
        let ([cosines, sines], [q_scale, k_scale]) = (self.angles(), self.scales());
        let (d, positions) = (
            Buffer::from(d.to_vec()),
            Buffer::from(self.positions.clone()),
        );
        let mut y = Buffer::unwritten(self.tokens() * self.stride());
        let mut args = vec![
            d.input(),
            before.input(),
            q_scale.input(),
            k_scale.input(),
            positions.input(),
        ];
        args.extend([cosines.input(), sines.input(), y.output()]);
        args.extend(self.norm_sizes());
        launch("head_norm_backward", self.blocks(), self.seed, &mut args).unwrap();
        y
    }

    /// A head in f64 after its norm and turn.
    fn oracle(&self, x: &[f64], scale: &[f32], position: i32) -> Vec<f64> {
        let mean_square = x.iter().map(|x| x * x).sum::<f64>() / x.len() as f64;
        let factor = 1.0 / (mean_square + f64::from(EPS)).sqrt();
        let mut y: Vec<f64> = x
            .iter()
            .zip(scale)
            .map(|(x, scale)| x * factor * f64::from(*scale))
            .collect();
        let [cosines, sines] = self.angles();
        for pair in 0..self.half {
            let at = position as usize * self.half + pair;
            let (c, s) = (f64::from(cosines[at]), f64::from(sines[at]));
            let (a, b) = (y[pair], y[pair + self.half]);
            y[pair] = a * c - b * s;
            y[pair + self.half] = b * c + a * s;
        }
        y
    }
}

const EPS: f32 = 1e-4;

fn round(values: &[f32]) -> Vec<bf16> {
    values.iter().map(|x| bf16::from_f32(*x)).collect()
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 48, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn heads_turn_to_the_bit(case in cases(), is_back: bool) {
        if upright_emulator::missing().is_some() {
            return Ok(());
        }
        let sign = if is_back { -1.0 } else { 1.0 };
        let x = numbers(case.seed, case.tokens() * case.row());
        let want = case.turned(&x, sign);
        let rounded = case.turn_rounded(&x, sign);
        for (found, want) in rounded.chunks_exact(case.stride()).zip(want.chunks_exact(case.row())) {
            let mut want = round(want);
            want.resize(case.stride(), bf16::UNWRITTEN);
            prop_assert_eq!(bits(found), bits(&want));
        }
    }

    /// The function is linear, and turning back is its transpose: (turn x) d = x (turn back d) in every pair of columns.
    #[test]
    fn turning_back_is_the_gradient(case in cases()) {
        if upright_emulator::missing().is_some() {
            return Ok(());
        }
        let [x, d] = [case.seed, !case.seed].map(|seed| numbers(seed, case.tokens() * case.row()));
        let (y, back) = (case.turn_rounded(&x, 1.0), case.turn_rounded(&d, -1.0));
        let mut wide_y = Vec::new();
        for y in y.chunks_exact(case.stride()) {
            wide_y.extend(y[..case.row()].iter().map(|y| y.to_f32()));
        }
        let again = case.turn_rounded(&wide_y, -1.0);
        for token in 0..case.tokens() {
            for start in case.turning() {
                for first in start..start + case.half {
                    let (mut along, mut across, mut size) = (0.0, 0.0, 0.0);
                    let columns = [first, first + case.half];
                    for column in columns {
                        let (wide, narrow) = (token * case.row() + column, token * case.stride() + column);
                        let parts = [f64::from(y[narrow]) * f64::from(d[wide]), f64::from(x[wide]) * f64::from(back[narrow])];
                        along += parts[0];
                        across += parts[1];
                        size += parts[0].abs() + parts[1].abs();
                    }
                    // A unit in the last place of bf16 in every product, and errors of f32.
                    prop_assert!((along - across).abs() <= size / 256.0 + 1e-6, "{} {}", along, across);
                    // It is the inverse, too.
                    let size: f32 = columns.iter().map(|column| wide_y[token * case.row() + column].abs()).sum();
                    for column in columns {
                        let found = again[token * case.stride() + column].to_f32();
                        let off = (found - x[token * case.row() + column]).abs();
                        prop_assert!(off <= (size + found.abs()) / 256.0 + 1e-6, "{} {}", found, off);
                    }
                }
            }
        }
    }

    #[test]
    fn norms_of_heads_are_those_of_f64(mut case in cases()) {
        if upright_emulator::missing().is_some() {
            return Ok(());
        }
        case.is_grouped = false;
        // Padding holds numbers that must not count.
        let (head, size, turning) = (case.head, case.size, case.heads + case.kv_heads);
        let x = numbers(case.seed, case.tokens() * case.row());
        let d = numbers(!case.seed, x.len());
        let (before, y) = case.norm(&x);
        let d_x = case.norm_backward(&d, &before);
        for (token, position) in case.positions.iter().enumerate() {
            for slot in 0..turning + case.kv_heads {
                let x = &x[token * case.row() + slot * head..][..head];
                let d = &d[token * case.row() + slot * head..][..head];
                let y = &y[token * case.stride() + slot * head..][..head];
                let d_x = &d_x[token * case.stride() + slot * head..][..head];
                prop_assert!(y[size..].iter().chain(&d_x[size..]).all(|y| y.to_bits() == 0));
                if slot >= turning {
                    prop_assert_eq!(bits(&y[..size]), bits(&round(&x[..size])));
                    prop_assert_eq!(bits(&d_x[..size]), bits(&round(&d[..size])));
                    continue;
                }
                let before = &before[(token * turning + slot) * head..][..head];
                let mut kept = round(&x[..size]);
                kept.resize(head, bf16::ZERO);
                prop_assert_eq!(bits(before), bits(&kept));
                let scale = &case.scales()[usize::from(slot >= case.heads)];
                let exact: Vec<f64> = x[..size].iter().map(|x| f64::from(*x)).collect();
                let want = case.oracle(&exact, scale, *position);
                // A unit in the last place of bf16, and f32's error relative to the largest number.
                let largest = want.iter().fold(0.0, |largest, x| f64::max(largest, x.abs()));
                for (found, want) in y.iter().zip(&want) {
                    let bound = want.abs() / 256.0 + 1e-6 * largest + 1e-30;
                    prop_assert!((f64::from(found.to_f32()) - want).abs() <= bound, "{} {}", found, want);
                }
                // The gradient at the kept values, by finite differences.
                let kept: Vec<f64> = before[..size].iter().map(|x| f64::from(x.to_f32())).collect();
                let norm = kept.iter().map(|x| x * x).sum::<f64>().sqrt();
                let step = 1e-5 * (norm + 1e-2) / (size as f64).sqrt();
                for column in (0..size).step_by(size.div_ceil(10)) {
                    let loss = |step: f64| {
                        let mut moved = kept.clone();
                        moved[column] += step;
                        let y = case.oracle(&moved, scale, *position);
                        y.iter().zip(d).map(|(y, d)| y * f64::from(*d)).sum::<f64>()
                    };
                    let want = (loss(step) - loss(-step)) / (2.0 * step);
                    let factor = 1.0 / (norm * norm / size as f64 + f64::from(EPS)).sqrt();
                    let bound = want.abs() / 256.0 + 4e-6 * factor * (1.0 + largest);
                    let found = f64::from(d_x[column].to_f32());
                    prop_assert!((found - want).abs() <= bound, "{} {} {}", found, want, bound);
                }
            }
            let rest = token * case.stride() + case.row()..(token + 1) * case.stride();
            prop_assert!(y[rest.clone()].iter().chain(&d_x[rest]).all(|y| y.to_bits() == bf16::UNWRITTEN.to_bits()));
        }
    }

    #[test]
    fn bits_of_a_token_depend_on_the_token_alone(mut case in cases()) {
        if upright_emulator::missing().is_some() {
            return Ok(());
        }
        let x = numbers(case.seed, case.tokens() * case.row());
        let grouped = case.is_grouped;
        let turned = case.turn_rounded(&x, 1.0);
        case.is_grouped = false;
        let (before, normed) = case.norm(&x);
        let back = case.norm_backward(&x, &before);
        for token in 0..case.tokens() {
            let alone = Case { positions: vec![case.positions[token]], seed: case.seed ^ 9, ..case.clone() };
            let x = &x[token * case.row()..][..case.row()];
            let at = token * case.stride()..(token + 1) * case.stride();
            let grouped = Case { is_grouped: grouped, ..alone.clone() };
            prop_assert_eq!(bits(&grouped.turn_rounded(x, 1.0)), bits(&turned[at.clone()]));
            // The scales depend on the seed, so the order of warps has to stay.
            let alone = Case { seed: case.seed, ..alone };
            let (before, y) = alone.norm(x);
            prop_assert_eq!(bits(&y), bits(&normed[at.clone()]));
            prop_assert_eq!(bits(&alone.norm_backward(x, &before)), bits(&back[at]));
        }
    }
}

#[test]
fn rounding_is_to_nearest_even_also_for_unusual_numbers() {
    needs_compiler!();
    let mut values = vec![0.0, -0.0, f32::MAX, f32::MIN, f32::INFINITY, -1e-45, 1e-40];
    for bits in [
        0x3f80_8000,
        0x3f81_8000,
        0x3f80_7fff,
        0x3f80_8001,
        0x007f_ffff,
    ] {
        values.push(f32::from_bits(bits));
    }
    for i in 0..4000u32 {
        let value = f32::from_bits(i.wrapping_mul(1_073_807_359));
        if !value.is_nan() {
            values.push(value);
        }
    }
    // Heads that do not turn, of a size that is a multiple of 8 and of one that is not.
    for head in [1304, 1301] {
        let case = Case {
            heads: 1,
            kv_heads: 1,
            head,
            size: head,
            half: 0,
            is_grouped: false,
            positions: vec![0],
            more: 0,
            seed: 0,
        };
        let x = &values[..case.row()];
        assert_eq!(bits(&case.turn_rounded(x, 1.0)), bits(&round(x)));
    }
}
