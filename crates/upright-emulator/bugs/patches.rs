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
];
