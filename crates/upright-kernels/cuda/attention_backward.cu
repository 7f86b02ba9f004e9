// Attention over a tree of spans, backward, without atomics. Three kernels run one after another:
//
//   delta = rowsum(d_out * out)
//   dq: a block owns a tile of queries and walks their keys
//   dk, dv: a block owns a tile of keys and walks the tiles of queries that see them, in the order of the host's list
//
// Both recompute the weights p = exp2(scale log2(e) q k^T - lse) and form ds = p (d_out v^T - delta).
#include "attention.h"

// delta [rows, heads] from d_out and out [rows, heads, size]. A warp has one row and head; `count` is rows * heads.
KERNEL(attention_delta, 128, (In<bf16> d_out, In<bf16> out, Out<float> delta, int size, int count)) {
    int at = block_x() * 4 + warp();
    float sum = 0;
    if (at < count && lane() * 8 < size) {
        u64 start = (u64)at * size + lane() * 8;
        Quad a = d_out.quad(start), b = out.quad(start);
        UNROLL for (int i = 0; i < 4; i++) {
            sum = multiply_add(float_of(a.words[i] << 16), float_of(b.words[i] << 16), sum);
            sum = multiply_add(float_of(a.words[i] & 0xffff0000u), float_of(b.words[i] & 0xffff0000u), sum);
        }
    }
    UNROLL for (int mask = 16; mask > 0; mask /= 2) sum += shuffle_xor(sum, mask);
    if (at < count && lane() == 0) delta[at] = sum;
}

// dq [rows, heads, size] = scale * sum over keys of ds k, for a tile of queries and one head.
template <int D, int KEYS>
DEVICE void backward_queries(In<Tile> tiles, In<Run> runs, In<bf16> q, In<bf16> k, In<bf16> v, In<bf16> d_out, In<float> lse,
                             In<float> delta, Out<float> dq, int q_row, int q_head, int kv_row, int kv_head, int heads, int group,
                             int size, int window, float scale) {
    Shared<bf16> queries = shared<bf16>(0, TILE * pitch(D));
    Shared<bf16> d_outs = shared<bf16>(bytes(TILE, D), TILE * pitch(D));
    Shared<bf16> keys = shared<bf16>(bytes(2 * TILE, D), KEYS * pitch(D));
    Shared<bf16> values = shared<bf16>(bytes(2 * TILE + KEYS, D), KEYS * pitch(D));
    Tile tile = tiles[block_x()];
    int head = block_y();
    u64 kv_start = (u64)(head / group) * kv_head;
    load_rows<D, TILE>(queries, q, (u64)tile.row * q_row + (u64)head * q_head, q_row, tile.count, size);
    load_rows<D, TILE>(d_outs, d_out, ((u64)tile.row * heads + head) * size, (u64)heads * size, tile.count, size);

    float sum[D / 8][4] = {}, of_lse[2] = {}, of_delta[2] = {};
    int position[2];
    UNROLL for (int h = 0; h < 2; h++) {
        int at = warp() * 16 + row_of(2 * h);
        position[h] = tile.position + at;
        if (at < tile.count) {
            of_lse[h] = lse[(u64)(tile.row + at) * heads + head];
            of_delta[h] = delta[(u64)(tile.row + at) * heads + head];
        }
    }
    int last = tile.position + tile.count;
    for (int key = first_seen(tile, window) / KEYS * KEYS; key < last; key += KEYS) {
        barrier();  // All warps have read the last keys and values.
        load_path<D, KEYS>(keys, k, kv_start, kv_row, runs, tile, key, last, size);
        load_path<D, KEYS>(values, v, kv_start, kv_row, runs, tile, key, last, size);
        commit_copies();
        wait_for_copies<0>();
        barrier();  // These are there.
        float p[KEYS / 8][4] = {}, ds[KEYS / 8][4] = {};
        UNROLL for (int d = 0; d < D; d += 16) {
            add_product<D, KEYS / 16>(p, left_operand<D>(queries, d), keys, d);
            add_product<D, KEYS / 16>(ds, left_operand<D>(d_outs, d), values, d);
        }
        bool whole = all_seen<KEYS>(tile.position, TILE, key, window);
        UNROLL for (int n = 0; n < KEYS / 8; n++) UNROLL for (int i = 0; i < 4; i++) {
            bool seen = whole || sees(position[i / 2], key + column_of(n, i), window);
            float weight = fast_exp2(multiply_add(p[n][i], scale * LOG2_E, -of_lse[i / 2]));
            ds[n][i] = seen ? weight * (ds[n][i] - of_delta[i / 2]) : 0.0f;
        }
        add_weighted<D, KEYS / 16, D>(sum, ds, keys, 0);
    }

    UNROLL for (int h = 0; h < 2; h++) {
        int at = warp() * 16 + row_of(2 * h);
        u64 start = ((u64)(tile.row + at) * heads + head) * size;
        UNROLL for (int d = 0; d < D / 8; d++) {
            int column = column_of(d, 0);
            if (at < tile.count && column < size)
                dq.set_two(start + column, sum[d][2 * h] * scale, sum[d][2 * h + 1] * scale);
        }
    }
}

// dk and dv [rows, kv_heads, size] of a tile of keys and one head of keys and values: dv = sum of p d_out, and dk = scale * sum of
// ds q, over the queries of all heads of the group. A block writes columns [COLUMNS * block_z(), COLUMNS * (block_z() + 1)): for
// large heads the sums of all columns do not fit into registers.
template <int D, int QUERIES, int COLUMNS>
DEVICE void backward_keys(In<Tile> tiles, In<KeyTile> key_tiles, In<int> readers, In<bf16> q, In<bf16> k, In<bf16> v,
                          In<bf16> d_out, In<float> lse, In<float> delta, Out<float> dk, Out<float> dv, int q_row, int q_head,
                          int kv_row, int kv_head, int heads, int group, int size, int window, float scale) {
    Shared<bf16> keys = shared<bf16>(0, TILE * pitch(D));
    Shared<bf16> values = shared<bf16>(bytes(TILE, D), TILE * pitch(D));
    Shared<bf16> queries = shared<bf16>(bytes(2 * TILE, D), QUERIES * pitch(D));
    Shared<bf16> d_outs = shared<bf16>(bytes(2 * TILE + QUERIES, D), QUERIES * pitch(D));
    Shared<float> of_lse = shared<float>(bytes(2 * TILE + 2 * QUERIES, D), QUERIES);
    Shared<float> of_delta = shared<float>(bytes(2 * TILE + 2 * QUERIES, D) + QUERIES * 4, QUERIES);
    KeyTile own = key_tiles[block_x()];
    int kv = block_y(), column = block_z() * COLUMNS;
    u64 start = (u64)own.row * kv_row + (u64)kv * kv_head;
    load_rows<D, TILE>(keys, k, start, kv_row, own.count, size);
    load_rows<D, TILE>(values, v, start, kv_row, own.count, size);

    float sum_k[COLUMNS / 8][4] = {}, sum_v[COLUMNS / 8][4] = {};
    int position[2] = {own.position + warp() * 16 + row_of(0), own.position + warp() * 16 + row_of(2)};
    for (int reader = own.readers; reader < own.readers_end; reader++) {
        Tile tile = tiles[readers[reader]];
        for (int head = kv * group; head < (kv + 1) * group; head++)
            for (int at = 0; at < tile.count; at += QUERIES) {
                int count = tile.count - at;
                u64 row = (u64)(tile.row + at);
                barrier();  // All warps have read the last queries.
                load_rows<D, QUERIES>(queries, q, row * q_row + (u64)head * q_head, q_row, count, size);
                load_rows<D, QUERIES>(d_outs, d_out, (row * heads + head) * size, (u64)heads * size, count, size);
                commit_copies();
                if (thread() < QUERIES) {
                    bool real = thread() < count;
                    of_lse[thread()] = real ? lse[(row + thread()) * heads + head] : 0.0f;
                    of_delta[thread()] = real ? delta[(row + thread()) * heads + head] : 0.0f;
                }
                wait_for_copies<0>();
                barrier();  // These are there.
                // Transposed: a row per key, a column per query.
                float p[QUERIES / 8][4] = {}, ds[QUERIES / 8][4] = {};
                KEEP_LOOP for (int d = 0; d < D; d += 16) {
                    add_product<D, QUERIES / 16>(p, left_operand<D>(keys, d), queries, d);
                    add_product<D, QUERIES / 16>(ds, left_operand<D>(values, d), d_outs, d);
                }
                UNROLL for (int n = 0; n < QUERIES / 8; n++) UNROLL for (int i = 0; i < 4; i++) {
                    int query = column_of(n, i);
                    bool seen = query < count && sees(tile.position + at + query, position[i / 2], window);
                    float weight = fast_exp2(multiply_add(p[n][i], scale * LOG2_E, -of_lse[query]));
                    p[n][i] = seen ? weight : 0.0f;
                    ds[n][i] = seen ? weight * (ds[n][i] - of_delta[query]) : 0.0f;
                }
                add_weighted<D, QUERIES / 16, COLUMNS>(sum_v, p, d_outs, column);
                add_weighted<D, QUERIES / 16, COLUMNS>(sum_k, ds, queries, column);
            }
    }
    // A tile without readers has waited for nothing yet.
    commit_copies();
    wait_for_copies<0>();

    int kv_heads = heads / group;
    UNROLL for (int h = 0; h < 2; h++) {
        int at = warp() * 16 + row_of(2 * h);
        u64 place = ((u64)(own.row + at) * kv_heads + kv) * size;
        UNROLL for (int d = 0; d < COLUMNS / 8; d++) {
            int to = column + column_of(d, 0);
            if (at < own.count && to < size) {
                dk.set_two(place + to, sum_k[d][2 * h] * scale, sum_k[d][2 * h + 1] * scale);
                dv.set_two(place + to, sum_v[d][2 * h], sum_v[d][2 * h + 1]);
            }
        }
    }
}

// Grid of the queries' kernel: tiles, heads. Grid of the keys' kernel: key tiles, heads of keys and values, D / COLUMNS.
#define BACKWARD(D, KEYS, QUERIES, COLUMNS)                                                                                      \
    KERNEL(attention_backward_queries_##D, ATTENTION_THREADS,                                                                    \
           (In<Tile> tiles, In<Run> runs, In<bf16> q, In<bf16> k, In<bf16> v, In<bf16> d_out, In<float> lse, In<float> delta,    \
            Out<float> dq, int q_row, int q_head, int kv_row, int kv_head, int heads, int group, int size, int window,           \
            float scale)) {                                                                                                      \
        backward_queries<D, KEYS>(tiles, runs, q, k, v, d_out, lse, delta, dq, q_row, q_head, kv_row, kv_head, heads, group,     \
                                  size, window, scale);                                                                          \
    }                                                                                                                            \
    KERNEL(attention_backward_keys_##D, ATTENTION_THREADS,                                                                       \
           (In<Tile> tiles, In<KeyTile> key_tiles, In<int> readers, In<bf16> q, In<bf16> k, In<bf16> v, In<bf16> d_out,          \
            In<float> lse, In<float> delta, Out<float> dk, Out<float> dv, int q_row, int q_head, int kv_row, int kv_head,        \
            int heads, int group, int size, int window, float scale)) {                                                          \
        backward_keys<D, QUERIES, COLUMNS>(tiles, key_tiles, readers, q, k, v, d_out, lse, delta, dk, dv, q_row, q_head,         \
                                           kv_row, kv_head, heads, group, size, window, scale);                                  \
    }

BACKWARD(32, 64, 64, 32)
BACKWARD(64, 64, 64, 64)
BACKWARD(80, 64, 32, 80)
BACKWARD(96, 64, 32, 96)
BACKWARD(128, 64, 32, 128)
BACKWARD(256, 16, 16, 128)
