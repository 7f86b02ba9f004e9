// Thin products of LoRA: one side has the rank of an adapter. All of them are bound by the memory that they read.
//
// Rows of tokens are [x, u] or [dy, du]: the input or gradient of a linear, and the LoRA part in the columns after it. Matrices
// begin at multiples of 16 bytes. Their strides, and the columns at which a part begins, are multiples of 8. Sums over tokens are
// cut at multiples of 1024 tokens, and the parts are added in order.
#include "device.h"

// Eight values from column `column` on, with zeros from column `end` on.
template <class Buffer> DEVICE Quad eight(Buffer from, u64 row, int column, int end, bool is_real) {
    Quad quad = {};
    if (!is_real || column >= end) return quad;
    quad = from.quad(row + column);
    UNROLL for (int i = 0; i < 4; i++) {
        if (column + 2 * i >= end) quad.words[i] = 0;
        else if (column + 2 * i + 1 >= end) quad.words[i] &= 0xffff;
    }
    return quad;
}

constexpr int PRODUCT_THREADS = 256;
// Tokens of a block. Each of its 8 warps adds up every eighth group of 32 columns.
constexpr int TOKENS = 32;

// x[t][to + r] = scale * sum over k of x[t][from + k] a[r][k], rounded to bf16, for `rank` rows of a. Columns from `rank` to
// `padded` become zero. Row r of a begins at a_start + r * a_stride. There are `inner` values of k.
// Blocks: x 32 tokens, y 8 TILES ranks. A lane reads 8 columns at once. So the tensor cores meet the columns of a group in
// another order, which is the same for both operands.
template <int TILES>
DEVICE void product(Out<bf16> x, In<bf16> a, int tokens, int inner, int stride, int from, int to, int rank, int padded,
                    u64 a_start, int a_stride, float scale) {
    const int RANKS = 8 * TILES, WARPS = PRODUCT_THREADS / 32;
    Shared<float> sums = shared<float>(0, WARPS / 2 * TOKENS * RANKS);
    int first_token = block_x() * TOKENS, first_rank = block_y() * RANKS;
    int group = lane() / 4, part = lane() % 4;
    float sum[2][TILES][4] = {};
#pragma unroll 2
    for (int start = warp() * 32; start < inner; start += WARPS * 32) {
        int column = start + part * 8;
        Quad rows[2][2], columns[TILES];
        UNROLL for (int m = 0; m < 2; m++)
            UNROLL for (int half = 0; half < 2; half++) {
                int token = first_token + m * 16 + half * 8 + group;
                rows[m][half] = eight(x, (u64)token * stride + from, column, inner, token < tokens);
            }
        UNROLL for (int n = 0; n < TILES; n++) {
            int r = first_rank + n * 8 + group;
            columns[n] = eight(a, a_start + (u64)r * a_stride, column, inner, r < rank);
        }
        UNROLL for (int word = 0; word < 4; word += 2)
            UNROLL for (int m = 0; m < 2; m++) {
                Matrices fragment = {{rows[m][0].words[word], rows[m][1].words[word], rows[m][0].words[word + 1],
                                      rows[m][1].words[word + 1]}};
                UNROLL for (int n = 0; n < TILES; n++)
                    mma(sum[m][n], fragment, columns[n].words[word], columns[n].words[word + 1]);
            }
    }
    // The second four warps give their sums to the first four, which add them to their own.
    int slot = warp() % (WARPS / 2) * TOKENS * RANKS;
    UNROLL for (int turn = 1; turn >= 0; turn--) {
        if (warp() / (WARPS / 2) == turn) {
            UNROLL for (int m = 0; m < 2; m++)
                UNROLL for (int n = 0; n < TILES; n++)
                    UNROLL for (int i = 0; i < 4; i++) {
                        int place = slot + (m * 16 + i / 2 * 8 + group) * RANKS + n * 8 + part * 2 + i % 2;
                        if (turn == 0) sum[m][n][i] += (float)sums[place];
                        sums[place] = sum[m][n][i];
                    }
        }
        barrier();
    }
    for (int place = thread(); place < TOKENS * RANKS; place += PRODUCT_THREADS) {
        int token = first_token + place / RANKS, r = first_rank + place % RANKS;
        float value = sums[place];
        UNROLL for (int other = 1; other < WARPS / 2; other++) value += sums[other * TOKENS * RANKS + place];
        if (token < tokens && r < padded) x[(u64)token * stride + to + r] = round_to_bf16(r < rank ? scale * value : 0.0f);
    }
}

#define PRODUCT(name, tiles)                                                                                                 \
    KERNEL(name, PRODUCT_THREADS,                                                                                            \
           (Out<bf16> x, In<bf16> a, int tokens, int inner, int stride, int from, int to, int rank, int padded, u64 a_start, \
            int a_stride, float scale)) {                                                                                    \
        product<tiles>(x, a, tokens, inner, stride, from, to, rank, padded, a_start, a_stride, scale);                       \
    }
PRODUCT(thin_product_16, 2)
PRODUCT(thin_product_32, 4)
PRODUCT(thin_product_64, 8)

constexpr int GRADIENT_THREADS = 128;
// Columns of a block, tokens in shared memory at a time, and tokens of a part of the sum.
constexpr int COLUMNS = 64;
constexpr int STAGE = 64;
constexpr int SLAB = 1024;
// Distance of rows in shared memory: 16 bytes more than they have, so that eight of them lie in different banks.
constexpr int X_STRIDE = COLUMNS + 8;

// Begins to copy `WIDTH` columns from column `column` on of the tokens from `token` on. Tokens from `end` on become zero.
template <int WIDTH>
DEVICE void copy_tokens(Shared<bf16> to, In<bf16> from, int token, int end, int stride, int column, int columns, int first) {
    UNROLL for (int i = 0; i < STAGE * WIDTH / 8 / GRADIENT_THREADS; i++) {
        int quad = thread() + i * GRADIENT_THREADS;
        int row = quad / (WIDTH / 8), at = quad % (WIDTH / 8) * 8;
        bool is_real = token + row < end && column + at < columns;
        u64 index = is_real ? (u64)(token + row) * stride + first + column + at : 0;
        copy_async(to, row * (WIDTH + 8) + at, from, index, is_real);
    }
}

// partials[z] = sum over the tokens t of part z of x[t][x_from + k] d[t][d_from + r], for `columns` columns k and `rank` ranks r:
// [rank, columns] if `by_rank`, else [columns, rank].
// Blocks: x 64 columns, y 8 TILES ranks, z 1024 tokens. Each of the 4 warps has 16 columns.
template <int TILES>
DEVICE void gradient(In<bf16> x, In<bf16> d, Out<float> partials, int tokens, int columns, int x_from, int x_stride, int rank,
                     int d_from, int d_stride, int by_rank) {
    const int RANKS = 8 * TILES, D_STRIDE = RANKS + 8;
    const int X_SIZE = STAGE * X_STRIDE, SIZE = X_SIZE + STAGE * D_STRIDE;
    int first_column = block_x() * COLUMNS, first_rank = block_y() * RANKS, token = block_z() * SLAB;
    int end = tokens - token < SLAB ? tokens : token + SLAB;
    float sum[TILES][4] = {};
    // Two stages: one is read while the next is copied.
    int stages = (end - token + STAGE - 1) / STAGE;
    for (int stage = -1; stage < stages; stage++) {
        if (stage + 1 < stages) {
            int at = (stage + 1) % 2 * SIZE * 2, from = token + (stage + 1) * STAGE;
            copy_tokens<COLUMNS>(shared<bf16>(at, X_SIZE), x, from, end, x_stride, first_column, columns, x_from);
            copy_tokens<RANKS>(shared<bf16>(at + X_SIZE * 2, SIZE - X_SIZE), d, from, end, d_stride, first_rank, rank, d_from);
        }
        commit_copies();
        if (stage < 0) continue;
        wait_for_copies<1>();
        barrier();  // The copies of all threads are there.
        Shared<bf16> x_rows = shared<bf16>(stage % 2 * SIZE * 2, X_SIZE);
        Shared<bf16> d_rows = shared<bf16>(stage % 2 * SIZE * 2 + X_SIZE * 2, SIZE - X_SIZE);
        UNROLL for (int k = 0; k < STAGE; k += 16) {
            int x_row = k + lane() % 8 + lane() / 16 * 8, x_column = warp() * 16 + lane() / 8 % 2 * 8;
            Matrices left = load_transposed(x_rows, x_row * X_STRIDE + x_column);
            UNROLL for (int n = 0; n < TILES; n += 2) {
                int d_row = k + lane() % 8 + lane() / 8 % 2 * 8, d_column = n * 8 + lane() / 16 * 8;
                Matrices right = load_transposed(d_rows, d_row * D_STRIDE + d_column);
                mma(sum[n], left, right.r[0], right.r[1]);
                mma(sum[n + 1], left, right.r[2], right.r[3]);
            }
        }
        barrier();  // All warps have read this stage.
    }
    u64 slab = (u64)block_z() * columns * rank;
    UNROLL for (int n = 0; n < TILES; n++)
        UNROLL for (int i = 0; i < 4; i++) {
            int column = first_column + warp() * 16 + i / 2 * 8 + lane() / 4;
            int r = first_rank + n * 8 + lane() % 4 * 2 + i % 2;
            if (column < columns && r < rank)
                partials[slab + (by_rank != 0 ? (u64)r * columns + column : (u64)column * rank + r)] = sum[n][i];
        }
}

#define GRADIENT(name, tiles)                                                                                            \
    KERNEL(name, GRADIENT_THREADS,                                                                                       \
           (In<bf16> x, In<bf16> d, Out<float> partials, int tokens, int columns, int x_from, int x_stride, int rank,    \
            int d_from, int d_stride, int by_rank)) {                                                                    \
        gradient<tiles>(x, d, partials, tokens, columns, x_from, x_stride, rank, d_from, d_stride, by_rank);             \
    }
GRADIENT(thin_gradient_16, 2)
GRADIENT(thin_gradient_32, 4)
GRADIENT(thin_gradient_64, 8)

constexpr int THREADS = 256;

// gradient[start + i] += the sum over the parts p of partials[p * stride + i], in order, for `count` values i.
KERNEL(thin_gradient_add, THREADS,
       (In<float> partials, Out<float> gradient, u64 start, u64 count, u64 stride, int parts)) {
    u64 i = (u64)block_x() * THREADS + thread();
    if (i >= count) return;
    float sum = partials[i];
    for (int part = 1; part < parts; part++) sum += partials[part * stride + i];
    gradient[start + i] = gradient[start + i] + sum;
}

// Copies parameters [rows, columns], from `start` on, into a matrix of bf16: row i begins at to_start + i * stride.
KERNEL(thin_copy, THREADS,
       (In<float> parameters, Out<bf16> to, u64 start, int rows, int columns, u64 to_start, int stride)) {
    u64 i = (u64)block_x() * THREADS + thread();
    if (i >= (u64)rows * columns) return;
    u64 row = i / columns, column = i % columns;
    to[to_start + row * stride + column] = round_to_bf16(parameters[start + i]);
}

// Rows and columns of a block.
constexpr int SQUARE = 32;

// The same transposed: column j becomes the row that begins at to_start + j * stride. Blocks: x 32 rows, y 32 columns.
KERNEL(thin_copy_transposed, THREADS,
       (In<float> parameters, Out<bf16> to, u64 start, int rows, int columns, u64 to_start, int stride)) {
    Shared<float> square = shared<float>(0, SQUARE * (SQUARE + 1));
    for (int i = warp(); i < SQUARE; i += THREADS / 32) {
        int row = block_x() * SQUARE + i, column = block_y() * SQUARE + lane();
        if (row < rows && column < columns) square[i * (SQUARE + 1) + lane()] = parameters[start + (u64)row * columns + column];
    }
    barrier();
    for (int i = warp(); i < SQUARE; i += THREADS / 32) {
        int row = block_x() * SQUARE + lane(), column = block_y() * SQUARE + i;
        if (row < rows && column < columns)
            to[to_start + (u64)column * stride + row] = round_to_bf16(square[lane() * (SQUARE + 1) + i]);
    }
}
