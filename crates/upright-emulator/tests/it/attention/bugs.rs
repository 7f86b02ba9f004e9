//! Seeded bugs of the attention kernels: patched copies, each of which has to be caught.

use upright_emulator::Buffer;

use super::{Shape, Source, attention, forest, tree::error};
use crate::{needs_compiler, numbers::rounded};

/// What becomes of a tree with a window when one kernel is replaced: an error, or how far the results are from the definition.
fn outcome(source: &Source<'_>, seed: u64) -> Result<f64, String> {
    let spans = forest(&[(0, 130), (1, 70), (2, 9)]);
    let shape = Shape {
        kv_heads: 2,
        group: 2,
        size: 64,
        window: Some(100),
        fused: false,
        gap: 2,
    };
    let qkv = Buffer::from(rounded(1, 209 * shape.row()));
    let d_out = Buffer::from(rounded(2, 209 * shape.heads() * 64));
    let found = attention(source, &spans, &shape, &qkv, &d_out, seed)?;
    Ok(error(&found, &spans, &shape, &qkv, &d_out))
}

#[test]
fn bugs_of_attention_are_found() {
    needs_compiler!();
    assert!(outcome(&Source::RIGHT, 0).unwrap() <= 1.0);
    for (bug, words) in [
        ("forward_without_barrier_before_values", "barrier"),
        ("forward_without_barrier_before_keys", "barrier"),
        (
            "forward_that_does_not_wait_for_values",
            "was not waited for",
        ),
        (
            "forward_that_loads_keys_after_the_last",
            "ends while copies",
        ),
        ("forward_that_writes_rows_of_the_next_tile", "which block"),
        ("backward_queries_without_barrier", "barrier"),
        ("backward_keys_without_barrier", "barrier"),
        ("backward_keys_that_waits_for_nothing", "was not waited for"),
        (
            "backward_queries_that_mixes_up_stages",
            "was not waited for",
        ),
        ("forward_with_rows_too_close", "between the heads"),
        ("backward_queries_with_heads_too_close", "between the heads"),
        ("backward_keys_with_heads_too_close", "between the heads"),
        (
            "backward_keys_with_values_at_the_keys",
            "of dv was not written",
        ),
    ] {
        for seed in 0..2 {
            let unit = format!("bug_{bug}");
            let source = if bug.starts_with("forward") {
                Source {
                    forward: &unit,
                    ..Source::RIGHT
                }
            } else {
                Source {
                    backward: &unit,
                    ..Source::RIGHT
                }
            };
            let error = outcome(&source, seed).expect_err(bug);
            assert!(error.contains(words), "{bug}: {error}");
        }
    }
    // These break no rule of the card. Only their results are wrong.
    for bug in [
        "forward_with_mask_off_by_one",
        "forward_that_does_not_rescale",
        "forward_with_half_a_sum",
        "backward_keys_with_mask_off_by_one",
        "backward_keys_of_one_head",
        "backward_keys_with_numbers_of_the_next_step",
        "backward_queries_with_swapped_columns",
        "backward_with_outputs_too_close",
    ] {
        let unit = format!("bug_{bug}");
        let source = if bug.starts_with("forward") {
            Source {
                forward: &unit,
                ..Source::RIGHT
            }
        } else {
            Source {
                backward: &unit,
                ..Source::RIGHT
            }
        };
        let error = outcome(&source, 0).unwrap();
        assert!(error.is_nan() || error > 1.0, "{bug}: {error}");
    }
}
