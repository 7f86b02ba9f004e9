use half::bf16;
use proptest::prelude::*;
use upright_emulator::{Buffer, launch};

use super::{bits, by_columns, ints, numbers, round};
use crate::cpu::kernels::gather::{gather, scatter};

proptest! {
    #![proptest_config(ProptestConfig { cases: 16, failure_persistence: None, ..ProptestConfig::default() })]
    #[test]
    fn rows_are_gathered_and_scattered_as_on_the_cpu(
        width in 1usize..1300, wanted in prop::collection::vec(any::<bool>(), 1..7), seed: u64,
    ) {
        if upright_emulator::missing().is_some() {
            return Ok(());
        }
        let count = wanted.len();
        let mut rows = Vec::new();
        // Where each row of the wide matrix comes from.
        let mut from = vec![-1; count];
        for (row, is_wanted) in wanted.iter().enumerate() {
            if *is_wanted || row + 1 == count {
                from[row] = rows.len() as i32;
                rows.push(row);
            }
        }
        let values = numbers(seed, count * width);
        let want = gather(&values, &rows, width);
        let x = Buffer::from(values);
        let list = Buffer::from(rows.iter().map(|row| *row as i32).collect::<Vec<_>>());
        let mut y = Buffer::<f32>::unwritten(want.len());
        let mut args = vec![x.input(), list.input(), y.output()];
        args.extend(ints([width; 3]));
        launch("gather_f32", by_columns(rows.len(), width), seed, &mut args).unwrap();
        prop_assert_eq!(&y[..], &want[..]);

        let from = Buffer::from(from);
        let mut back = Buffer::<f32>::unwritten(x.len());
        let mut args = vec![y.input(), from.input(), back.output()];
        args.extend(ints([width; 3]));
        launch("gather_f32", by_columns(count, width), seed, &mut args).unwrap();
        prop_assert_eq!(&back[..], &scatter(&want, &rows, count, width)[..]);

        let narrow = round(&x);
        let rounded = Buffer::from(narrow.clone());
        let mut some = Buffer::<bf16>::unwritten(want.len());
        let mut args = vec![rounded.input(), list.input(), some.output()];
        args.extend(ints([width; 3]));
        launch("gather_bf16", by_columns(rows.len(), width), seed, &mut args).unwrap();
        prop_assert_eq!(bits(&some), bits(&gather(&narrow, &rows, width)));
    }
}
