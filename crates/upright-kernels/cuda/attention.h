// Attention over a tree of spans: what the forward and the backward kernels share.
//
// A query attends to the positions of its path, from the root of its tree to itself. The host cuts queries into tiles of up to
// 64 rows of one span and describes each tile's path by runs (src/attention.rs). Blocks of keys begin at multiples of a constant
// along the path, and a key that a query does not see has weight 0 exactly. So a row's bits depend on its own path alone.
//
// Layouts: value c of head h of row r of the queries is at q[r * q_row + h * q_head + c], likewise keys and values with kv_row
// and kv_head, gradients with d_row and d_head, and outputs with out_row and `size`. The kernels write nothing between these
// values. The outputs' gradient is [rows, heads, size]. Rows and heads in bf16 begin at multiples of 16 bytes, so q_row, q_head,
// kv_row, kv_head and out_row are multiples of 8. Gradients are written in pairs of f32: `d` is a multiple of 8 bytes, and d_row,
// d_head, k_start and v_start are even. `size` is the head's size, a multiple of 8. An instance for D takes every size up to D:
// columns from `size` to D are zero and change no sum.
#pragma once
#include "device.h"

// Queries of one span: `count` rows from `row` on. Query i is at `position` + i of the path that runs[runs..runs_end] describe.
struct Tile {
    int row, count, position, runs, runs_end;
};
INT_STRUCT(Tile)

// Positions from `position` on are in consecutive rows of keys and values from `row` on, until the next run begins.
struct Run {
    int position, row;
};
INT_STRUCT(Run)

// Keys of one span: `count` rows from `row` on, at `position` and after. The tiles of queries that see any of them are
// readers[readers..readers_end].
struct KeyTile {
    int row, count, position, readers, readers_end;
};
INT_STRUCT(KeyTile)

// Rows of a tile of queries or keys, and threads of a block: one warp for 16 rows.
constexpr int TILE = 64, ATTENTION_THREADS = 128;
constexpr float LOG2_E = 1.4426950408889634f;

// Distance of rows in shared memory, for heads of up to D values. 16 bytes more than a row avoid bank conflicts.
CONSTANT int pitch(int d) { return d + 8; }
// Bytes of `rows` rows.
CONSTANT int bytes(int rows, int d) { return rows * pitch(d) * 2; }

// Begins to copy ROWS rows of one head, zeros after the first `count`. `start` is the first value of the first row.
template <int D, int ROWS> DEVICE void load_rows(Shared<bf16> to, In<bf16> from, u64 start, u64 stride, int count, int size) {
    KEEP_LOOP for (int i = thread(); i < ROWS * (D / 8); i += ATTENTION_THREADS) {
        int row = i / (D / 8), column = i % (D / 8) * 8;
        bool real = row < count && column < size;
        copy_async(to, row * pitch(D) + column, from, start + row * stride + column, real);
    }
}

// Where a thread is on a path: positions before `next` are in the rows position + shift.
struct Walk {
    int run, next, shift;
};

// Goes on to a position, from a run at or before it.
DEVICE Walk walk(In<Run> runs, Tile tile, int run, int position) {
    Run at = runs[run];
    for (;;) {
        if (run + 1 == tile.runs_end) return Walk{run, 0x7fffffff, at.row - at.position};
        Run next = runs[run + 1];
        if (next.position > position) return Walk{run, next.position, at.row - at.position};
        at = next;
        run++;
    }
}

// Begins to copy ROWS positions of a path from `first` on, zeros from `last` on. `start` is the head's first value in row 0.
template <int D, int ROWS>
DEVICE void load_path(Shared<bf16> to, In<bf16> from, u64 start, u64 stride, In<Run> runs, Tile tile, Walk at, int first, int last,
                      int size) {
    KEEP_LOOP for (int i = thread(); i < ROWS * (D / 8); i += ATTENTION_THREADS) {
        int position = first + i / (D / 8), column = i % (D / 8) * 8;
        bool real = position < last && column < size;
        if (real && position >= at.next) at = walk(runs, tile, at.run, position);
        u64 row = real ? (u64)(position + at.shift) : 0;
        copy_async(to, i / (D / 8) * pitch(D) + column, from, start + row * stride + column, real);
    }
}

// The left operand of a product: rows [warp() * 16, warp() * 16 + 16) and columns [column, column + 16) of a matrix in shared
// memory.
template <int D> DEVICE Matrices left_operand(Shared<bf16> from, int column) {
    return load_matrices(fresh(from), (warp() * 16 + lane() % 16) * pitch(D) + column + lane() / 16 * 8);
}

// c += a b^T for 16 rows and 16 * PAIRS columns: `a` is the left operand of columns [column, column + 16) and b has a row for each
// column of c.
template <int D, int PAIRS> DEVICE void add_product(float (&c)[2 * PAIRS][4], const Matrices& a, Shared<bf16> b, int column) {
    b = fresh(b);
    UNROLL for (int n = 0; n < PAIRS; n++) {
        Matrices m = load_matrices(b, (n * 16 + lane() % 8 + lane() / 16 * 8) * pitch(D) + column + lane() / 8 % 2 * 8);
        mma(c[2 * n], a, m.r[0], m.r[1]);
        mma(c[2 * n + 1], a, m.r[2], m.r[3]);
    }
}

// c += p b for 16 rows and COLUMNS columns: p [16, 16 * PAIRS] is rounded to bf16, and b has a row for each column of p. The
// columns of b begin at `column`.
template <int D, int PAIRS, int COLUMNS>
DEVICE void add_weighted(float (&c)[COLUMNS / 8][4], const float (&p)[2 * PAIRS][4], Shared<bf16> b, int column) {
    UNROLL for (int n = 0; n < PAIRS; n++) {
        Matrices a;
        a.r[0] = pack(p[2 * n][0], p[2 * n][1]);
        a.r[1] = pack(p[2 * n][2], p[2 * n][3]);
        a.r[2] = pack(p[2 * n + 1][0], p[2 * n + 1][1]);
        a.r[3] = pack(p[2 * n + 1][2], p[2 * n + 1][3]);
        b = fresh(b);
        UNROLL for (int d = 0; d < COLUMNS / 16; d++) {
            Matrices m = load_transposed(b, (n * 16 + lane() % 16) * pitch(D) + column + d * 16 + lane() / 16 * 8);
            mma(c[2 * d], a, m.r[0], m.r[1]);
            mma(c[2 * d + 1], a, m.r[2], m.r[3]);
        }
    }
}

// Element i of part n of a product [16, N] is at this row and column.
DEVICE int row_of(int i) { return lane() / 4 + i / 2 * 8; }
DEVICE int column_of(int n, int i) { return n * 8 + lane() % 4 * 2 + i % 2; }

// Whether the query at a position sees the key at another. A window of 0 has no end.
DEVICE bool sees(int query, int key, int window) { return key <= query && (window == 0 || key > query - window); }

// First position that the first query of a tile sees.
DEVICE int first_seen(Tile tile, int window) {
    int lowest = window == 0 ? 0 : tile.position - window + 1;
    return lowest > 0 ? lowest : 0;
}

// Whether all `count` queries from a position on see all KEYS keys from another one on.
template <int KEYS> DEVICE bool all_seen(int query, int count, int key, int window) {
    return key + KEYS - 1 <= query && (window == 0 || key > query + count - 1 - window);
}
