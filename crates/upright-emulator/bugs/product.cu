// c = a b^T, correct: the kernel that patches.rs breaks. It uses what tensor-core kernels use: asynchronous copies in two
// stages, load_matrices, mma, masks at the edges.
#include "device.h"

constexpr int WARPS = 4, DEPTH = 32, PITCH = DEPTH + 8, ROWS = 64, COLUMNS = 16;

// Begins to copy DEPTH columns of `count` rows from row `first` on, zeros where the matrix [limit, depth] ends.
DEVICE void load(Shared<bf16> to, In<bf16> from, int first, int count, int limit, int depth, int at) {
    for (int i = thread(); i < count * (DEPTH / 8); i += WARPS * 32) {
        int row = i / (DEPTH / 8), column = i % (DEPTH / 8) * 8;
        bool real = first + row < limit && at + column < depth;
        copy_async(to, row * PITCH + column, from, (u64)(first + row) * depth + at + column, real);
    }
}

// a [rows, depth], b [columns, depth], c [rows, columns]; depth is a multiple of 8. A block makes 64 x 16 elements of c, a warp
// 16 x 16 of them.
KERNEL(product, WARPS * 32, (In<bf16> a, In<bf16> b, Out<float> c, int rows, int columns, int depth)) {
    int row = block_x() * ROWS, column = block_y() * COLUMNS;
    float sum[2][4] = {};
    const int stage_bytes = (ROWS + COLUMNS) * PITCH * 2;
    auto left = [&](int stage) { return shared<bf16>(stage * stage_bytes, ROWS * PITCH); };
    auto right = [&](int stage) { return shared<bf16>(stage * stage_bytes + ROWS * PITCH * 2, COLUMNS * PITCH); };
    load(left(0), a, row, ROWS, rows, depth, 0);
    load(right(0), b, column, COLUMNS, columns, depth, 0);
    commit_copies();
    for (int at = 0, stage = 0; at < depth; at += DEPTH, stage ^= 1) {
        if (at + DEPTH < depth) {
            load(left(stage ^ 1), a, row, ROWS, rows, depth, at + DEPTH);
            load(right(stage ^ 1), b, column, COLUMNS, columns, depth, at + DEPTH);
            commit_copies();
            wait_for_copies<1>();
        } else {
            wait_for_copies<0>();
        }
        barrier();  // The copies of all threads are there.
        for (int k = 0; k < DEPTH; k += 16) {
            Matrices fa = load_matrices(left(stage), (warp() * 16 + lane() % 16) * PITCH + k + lane() / 16 * 8);
            Matrices fb = load_matrices(right(stage), (lane() % 8 + lane() / 16 * 8) * PITCH + k + lane() / 8 % 2 * 8);
            mma(sum[0], fa, fb.r[0], fb.r[1]);
            mma(sum[1], fa, fb.r[2], fb.r[3]);
        }
        barrier();  // All warps have read this stage.
    }
    for (int n = 0; n < 2; n++)
        for (int i = 0; i < 4; i++) {
            int y = row + warp() * 16 + lane() / 4 + i / 2 * 8, x = column + n * 8 + lane() % 4 * 2 + i % 2;
            if (y < rows && x < columns) c[(u64)y * columns + x] = sum[n][i];
        }
}
