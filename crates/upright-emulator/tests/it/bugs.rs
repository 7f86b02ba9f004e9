//! Tests of the emulator itself: right kernels run in any order of warps, and every seeded bug is found.

use half::bf16;
use upright_emulator::{Arg, Buffer, launch, launch_unit};

use crate::{
    needs_compiler,
    numbers::{distance, numbers, rounded},
};

/// Runs a kernel of `bugs/threads.cu` that writes `out` floats, given other arguments, and returns what it wrote.
fn threads(
    kernel: &str,
    blocks: u32,
    seed: u64,
    input: Option<Arg<'_>>,
    out: usize,
    more: Option<i32>,
) -> Result<Buffer<f32>, String> {
    let mut y = Buffer::unwritten(out);
    let mut args = Vec::from_iter(input);
    args.push(y.output());
    args.extend(more.map(Arg::I32));
    launch_unit("bug_threads", kernel, 1024, [blocks, 1, 1], seed, &mut args)?;
    Ok(y)
}

#[test]
fn right_kernels_run_in_any_order() {
    needs_compiler!();
    let x = Buffer::from(numbers(1, 256));
    for seed in 0..20 {
        let y = threads("reverse", 4, seed, Some(x.input()), 256, None).unwrap();
        for (at, y) in y.iter().enumerate() {
            assert_eq!(*y, x[at / 64 * 64 + 63 - at % 64]);
        }
        let y = threads("sum", 4, seed, Some(x.input()), 4, None).unwrap();
        let first = threads("sum", 4, 0, Some(x.input()), 4, None).unwrap();
        assert_eq!(y[..], first[..]);
        assert!((y[1] - x[64..128].iter().sum::<f32>()).abs() < 1e-5);
        let y = threads("warp_reverse", 1, seed, Some(x.input()), 32, None).unwrap();
        assert_eq!(y[3], x[28]);
    }
}

/// Each bug of `bugs/threads.cu` with its blocks, its number, and words of the error.
#[test]
fn bugs_of_threads_and_memory_are_found() {
    needs_compiler!();
    let x = Buffer::from(numbers(1, 256));
    let bins = Buffer::from(vec![3i32; 64]);
    let none = None;
    for (kernel, blocks, number, words) in [
        ("no_barrier", 1, none, ["shared memory", "barrier"]),
        (
            "no_barrier_between_rounds",
            1,
            none,
            ["shared memory", "barrier"],
        ),
        ("no_warp_barrier", 1, none, ["shared memory", "barrier"]),
        (
            "barrier_of_one_warp",
            1,
            none,
            ["deadlock", "wait at barrier (threads.cu:"],
        ),
        (
            "barriers_on_two_lines",
            1,
            none,
            ["deadlock", "wait at barrier (threads.cu:"],
        ),
        (
            "return_before_barrier",
            1,
            Some(40),
            ["deadlock", "40-63 ended"],
        ),
        (
            "shuffle_from_inactive_lane",
            1,
            Some(20),
            ["deadlock", "wait at shuffle_xor (threads.cu:"],
        ),
        (
            "shuffle_from_ended_lane",
            1,
            Some(20),
            ["deadlock", "20-31 ended"],
        ),
        (
            "barrier_and_shuffle",
            1,
            none,
            ["deadlock", "wait at barrier (threads.cu:"],
        ),
        (
            "shared_memory_of_last_block",
            2,
            none,
            ["block (1, 0, 0)", "nobody has written"],
        ),
        (
            "shared_memory_overrun",
            1,
            none,
            ["thread 31", "shared memory: element 32 of 32"],
        ),
        (
            "too_little_shared_memory",
            1,
            none,
            ["shared memory: 32 elements of 4 bytes", "of 128 bytes"],
        ),
        (
            "read_overrun",
            1,
            none,
            ["thread 31", "parameter 0: element 32 of a buffer of 32"],
        ),
        (
            "write_underrun",
            1,
            none,
            ["thread 0", "parameter 0: element -1 of a buffer of 32"],
        ),
        ("misaligned", 1, none, ["parameter 0", "not aligned"]),
        (
            "two_blocks_write",
            2,
            none,
            ["parameter 0: writes element", "which block"],
        ),
        (
            "reads_what_another_block_writes",
            3,
            none,
            ["parameter 0: ", "which block"],
        ),
        (
            "threads_add_to_one_place",
            1,
            none,
            ["race", "element 3, which thread"],
        ),
        (
            "copy_not_waited_for",
            1,
            none,
            ["reads byte", "was not waited for"],
        ),
        (
            "copy_not_committed",
            1,
            none,
            ["reads byte", "was not waited for"],
        ),
        (
            "copy_waited_for_after_the_barrier",
            1,
            none,
            ["byte", "of thread"],
        ),
        (
            "copy_at_the_end",
            1,
            none,
            ["ends while copies", "under way"],
        ),
    ] {
        for seed in 0..4 {
            let short = Buffer::from(x[..32].to_vec());
            let input = match kernel {
                "barrier_of_one_warp"
                | "barriers_on_two_lines"
                | "return_before_barrier"
                | "shared_memory_overrun"
                | "too_little_shared_memory"
                | "write_underrun"
                | "two_blocks_write"
                | "reads_what_another_block_writes" => None,
                "threads_add_to_one_place" => Some(bins.input()),
                "read_overrun" => Some(short.input()),
                _ => Some(x.input()),
            };
            let out = match kernel {
                "write_underrun" => 32,
                _ => 128,
            };
            let mut y = Buffer::<f32>::unwritten(out);
            let mut args = Vec::from_iter(input);
            args.push(y.output());
            args.extend(number.map(Arg::I32));
            let shared = if kernel == "too_little_shared_memory" {
                128
            } else {
                1024
            };
            let grid = [blocks, 1, 1];
            let error = launch_unit("bug_threads", kernel, shared, grid, seed, &mut args);
            let error = error.expect_err(kernel);
            assert!(error.starts_with(kernel), "{error}");
            for words in words {
                // The order of blocks and lanes decides which thread is the first to be wrong.
                let thread = words.starts_with("thread ") || words.starts_with("block (");
                assert!(
                    error.contains(words) || thread && seed > 0,
                    "{error}: no {words}"
                );
            }
        }
    }
}

#[test]
fn an_output_that_nobody_wrote_is_found() {
    needs_compiler!();
    let x = Buffer::from(numbers(1, 32));
    let y = threads("unwritten_output", 1, 0, Some(x.input()), 32, Some(32)).unwrap();
    assert_eq!(y.first_unwritten(), Some(31));
}

/// Distance of the product kernel of a unit to f64, or its error.
fn product(unit: &str, seed: u64) -> Result<f64, String> {
    let (rows, columns, depth) = (83, 21, 104);
    let (a, b) = (
        Buffer::from(rounded(1, rows * depth)),
        Buffer::from(rounded(2, columns * depth)),
    );
    let mut c = Buffer::<f32>::unwritten(rows * columns);
    let sizes = [rows, columns, depth].map(|size| Arg::I32(size as i32));
    let mut args = vec![a.input(), b.input(), c.output()];
    args.extend(sizes);
    let shared = 2 * (64 + 16) * 40 * 2;
    launch_unit(unit, "product", shared, [2, 2, 1], seed, &mut args)?;
    if let Some(at) = c.first_unwritten() {
        return Err(format!("element {at} was not written"));
    }
    let double = |values: &[bf16]| values.iter().map(|x| x.to_f64()).collect::<Vec<_>>();
    let (a, b) = (double(&a), double(&b));
    let mut want = Vec::new();
    for row in 0..rows {
        for column in 0..columns {
            let (a, b) = (&a[row * depth..][..depth], &b[column * depth..][..depth]);
            want.push(a.iter().zip(b).map(|(a, b)| a * b).sum::<f64>());
        }
    }
    let found: Vec<_> = c.iter().map(|x| f64::from(*x)).collect();
    Ok(distance(&found, &want))
}

#[test]
fn a_product_on_tensor_cores_is_that_of_f64() {
    needs_compiler!();
    for seed in 0..6 {
        let distance = product("bug_product", seed).unwrap();
        assert!(distance < 1e-6, "{distance}");
    }
}

#[test]
fn bugs_of_a_product_are_found() {
    needs_compiler!();
    for (bug, words) in [
        ("product_without_barrier_after_loads", "barrier"),
        (
            "product_without_barrier_before_loads",
            "no barrier lies between",
        ),
        ("product_waits_for_one_group_too_few", "was not waited for"),
        ("product_with_mask_off_by_one", "of a buffer of 1743"),
        ("product_without_mask_of_loads", "of a buffer of"),
        ("product_that_loads_too_few_rows", "nobody has written"),
        ("product_that_leaves_a_column", "was not written"),
        ("product_with_misaligned_rows", "multiple of 16"),
    ] {
        for seed in 0..4 {
            let error = product(&format!("bug_{bug}"), seed).expect_err(bug);
            assert!(error.contains(words), "{bug}: {error}");
        }
    }
    // These read and write what they may. Only their results are wrong.
    for bug in [
        "product_with_swapped_fragments",
        "product_of_transposed_matrices",
        "product_with_wrong_lanes_of_a_fragment",
    ] {
        let result = product(&format!("bug_{bug}"), 0);
        assert!(
            result.is_err() || result.is_ok_and(|distance| distance > 0.1),
            "{bug}"
        );
    }
}

#[test]
fn arguments_are_checked() {
    needs_compiler!();
    let x = Buffer::from(vec![1.0f32; 4]);
    let error = launch("rms_norm_forward", [1, 1, 1], 0, &mut [x.input()]).unwrap_err();
    assert!(error.contains("takes 8 arguments, not 1"), "{error}");
    let mut y = Buffer::<f32>::unwritten(4);
    let mut args = vec![x.input(), x.input(), y.output()];
    args.extend([4; 4].map(Arg::I32));
    args.push(Arg::F32(0.0));
    let error = launch("rms_norm_forward", [1, 1, 1], 0, &mut args).unwrap_err();
    assert!(
        error.contains("y is (Bf16, Out), not (F32, Out)"),
        "{error}"
    );
    assert!(launch("nothing", [1, 1, 1], 0, &mut []).is_err());
    let error = launch_unit(
        "bug_threads",
        "barrier_of_one_warp",
        0,
        [1, 65_536, 1],
        0,
        &mut [y.output()],
    );
    assert!(error.unwrap_err().contains("cannot launch the grid"));
    let error = launch_unit(
        "bug_threads",
        "barrier_of_one_warp",
        200_000,
        [1, 1, 1],
        0,
        &mut [y.output()],
    );
    assert!(error.unwrap_err().contains("200000 bytes of shared memory"));
}
