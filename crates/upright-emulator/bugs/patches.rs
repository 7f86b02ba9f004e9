/// A kernel with a bug: its source with some text replaced. Each text occurs once in the file.
struct Patch {
    name: &'static str,
    file: &'static str,
    edits: &'static [(&'static str, &'static str)],
}

const PATCHES: &[Patch] = &[
    Patch {
        name: "product_without_barrier_after_loads",
        file: "product.cu",
        edits: &[("barrier();  // The copies of all threads are there.", "")],
    },
    Patch {
        name: "product_without_barrier_before_loads",
        file: "product.cu",
        edits: &[("barrier();  // All warps have read this stage.", "")],
    },
    Patch {
        name: "product_waits_for_one_group_too_few",
        file: "product.cu",
        edits: &[("wait_for_copies<0>();", "wait_for_copies<1>();")],
    },
    Patch {
        name: "product_with_swapped_fragments",
        file: "product.cu",
        edits: &[("mma(sum[0], fa, fb.r[0], fb.r[1]);", "mma(sum[0], fa, fb.r[1], fb.r[0]);")],
    },
    Patch {
        name: "product_of_transposed_matrices",
        file: "product.cu",
        edits: &[("Matrices fb = load_matrices", "Matrices fb = load_transposed")],
    },
    Patch {
        name: "product_with_wrong_lanes_of_a_fragment",
        file: "product.cu",
        edits: &[("lane() / 4 + i / 2 * 8, x", "lane() / 4 + i % 2 * 8, x")],
    },
    Patch {
        name: "product_with_mask_off_by_one",
        file: "product.cu",
        edits: &[("y < rows && x < columns", "y <= rows && x < columns")],
    },
    Patch {
        name: "product_without_mask_of_loads",
        file: "product.cu",
        edits: &[("first + row < limit && ", "")],
    },
    Patch {
        name: "product_that_loads_too_few_rows",
        file: "product.cu",
        edits: &[("load(left(stage ^ 1), a, row, ROWS,", "load(left(stage ^ 1), a, row, ROWS - 1,")],
    },
    Patch {
        name: "product_that_leaves_a_column",
        file: "product.cu",
        edits: &[("y < rows && x < columns", "y < rows && x < columns - 1")],
    },
    Patch {
        name: "product_with_misaligned_rows",
        file: "product.cu",
        edits: &[("PITCH = DEPTH + 8", "PITCH = DEPTH + 4")],
    },
    Patch {
        name: "forward_without_barrier_before_values",
        file: "attention_forward.cu",
        edits: &[("barrier();  // The keys are there, and all warps have read the last values.", "")],
    },
    Patch {
        name: "forward_without_barrier_before_keys",
        file: "attention_forward.cu",
        edits: &[("barrier();  // The values are there, and all warps have read the keys.", "")],
    },
    Patch {
        name: "forward_that_does_not_wait_for_values",
        file: "attention_forward.cu",
        edits: &[(
            "wait_for_copies<0>();\n        barrier();  // The values are there",
            "barrier();  // The values are there",
        )],
    },
    Patch {
        name: "forward_that_loads_keys_after_the_last",
        file: "attention_forward.cu",
        edits: &[("if (key + KEYS < last) {", "{")],
    },
    Patch {
        name: "forward_that_writes_rows_of_the_next_tile",
        file: "attention_forward.cu",
        edits: &[("if (row < tile.count) {", "if (row <= tile.count && tile.row + row < 209) {")],
    },
    Patch {
        name: "forward_with_mask_off_by_one",
        file: "attention_forward.cu",
        edits: &[("sees(position[i / 2], key", "sees(position[i / 2] + 1, key")],
    },
    Patch {
        name: "forward_that_does_not_rescale",
        file: "attention_forward.cu",
        edits: &[("sum[d][2 * h + i] *= factor;", "(void)sum[d][2 * h + i];")],
    },
    Patch {
        name: "forward_with_half_a_sum",
        file: "attention_forward.cu",
        edits: &[("total[h] += shuffle_xor(total[h], 2);", "")],
    },
    Patch {
        name: "forward_with_rows_too_close",
        file: "attention_forward.cu",
        edits: &[("* out_row", "* (heads * size)")],
    },
    Patch {
        name: "backward_with_outputs_too_close",
        file: "attention_backward.cu",
        edits: &[("* out_row", "* (heads * size)")],
    },
    Patch {
        name: "backward_queries_with_heads_too_close",
        file: "attention_backward.cu",
        edits: &[("(u64)head * d_head", "(u64)head * size")],
    },
    Patch {
        name: "backward_keys_with_heads_too_close",
        file: "attention_backward.cu",
        edits: &[("(u64)kv * d_head", "(u64)kv * size")],
    },
    Patch {
        name: "backward_keys_with_values_at_the_keys",
        file: "attention_backward.cu",
        edits: &[("d.set_two(v_start + place", "d.set_two(k_start + place")],
    },
    Patch {
        name: "backward_queries_without_barrier",
        file: "attention_backward.cu",
        edits: &[("barrier();  // All warps have read the keys and values.", "")],
    },
    Patch {
        name: "backward_queries_with_swapped_columns",
        file: "attention_backward.cu",
        edits: &[(
            "sum[n][2 * h] * scale, sum[n][2 * h + 1] * scale);",
            "sum[n][2 * h + 1] * scale, sum[n][2 * h] * scale);",
        )],
    },
    Patch {
        name: "backward_keys_without_barrier",
        file: "attention_backward.cu",
        edits: &[("barrier();  // All warps have read the queries.", "")],
    },
    Patch {
        name: "backward_keys_that_waits_for_nothing",
        file: "attention_backward.cu",
        edits: &[(
            "wait_for_copies<1>();\n        } else {\n            wait_for_copies<0>();\n        }\n        if (more)",
            "}\n        if (more)",
        )],
    },
    Patch {
        name: "backward_keys_with_mask_off_by_one",
        file: "attention_backward.cu",
        edits: &[("sees(step.tile.position + step.at + query,", "sees(step.tile.position + step.at + query - 1,")],
    },
    Patch {
        name: "backward_keys_of_one_head",
        file: "attention_backward.cu",
        edits: &[("if (++step.head < (kv + 1) * group) return;", "step.head++;")],
    },
    Patch {
        name: "backward_keys_with_numbers_of_the_next_step",
        file: "attention_backward.cu",
        edits: &[("if (more) load_numbers(next);", "if (more) { load_numbers(next); store_numbers(); }")],
    },
    Patch {
        name: "backward_queries_that_mixes_up_stages",
        file: "attention_backward.cu",
        edits: &[("load(stage ^ 1, key + KEYS);", "load(stage, key + KEYS);")],
    },
];
