// Attention over a tree of spans, backward, without atomics. Three kernels run one after another:
//
//   delta = rowsum(d_out * out)
//   dq: a block owns a tile of queries and walks their keys
//   dk, dv: a block owns a tile of keys and walks the tiles of queries that see them, in the order of the host's list
//
// Both recompute the weights p = exp2(scale log2(e) q k^T - lse) and form ds = p (d_out v^T - delta).
#include "attention.h"

// delta [rows, heads] from d_out [rows, heads, size] and out with rows of out_row values. A warp has one row and head; `count` is
// rows * heads.
KERNEL(attention_delta, 128, (In<bf16> d_out, In<bf16> out, Out<float> delta, int out_row, int heads, int size, int count)) {
    int at = block_x() * 4 + warp();
    float sum = 0;
    if (at < count && lane() * 8 < size) {
        int column = lane() * 8;
        Quad a = d_out.quad((u64)at * size + column);
        Quad b = out.quad((u64)(at / heads) * out_row + (u64)(at % heads) * size + column);
        UNROLL for (int i = 0; i < 4; i++) {
            sum = multiply_add(float_of(a.words[i] << 16), float_of(b.words[i] << 16), sum);
            sum = multiply_add(float_of(a.words[i] & 0xffff0000u), float_of(b.words[i] & 0xffff0000u), sum);
        }
    }
    UNROLL for (int mask = 16; mask > 0; mask /= 2) sum += shuffle_xor(sum, mask);
    if (at < count && lane() == 0) delta[at] = sum;
}

// dq = scale * sum over keys of ds k, for a tile of queries and one head. It goes into d[r * d_row + h * d_head + c], so `d` points
// to the gradient of the first query. With two stages, the next keys and values arrive while these are worked on.
template <int D, int KEYS, int STAGES>
DEVICE void backward_queries(In<Tile> tiles, In<Run> runs, In<bf16> q, In<bf16> k, In<bf16> v, In<bf16> d_out, In<float> lse,
                             In<float> delta, Out<float> d, int q_row, int q_head, int kv_row, int kv_head, int d_row, int d_head,
                             int heads, int group, int size, int window, float scale) {
    Shared<bf16> queries = shared<bf16>(0, TILE * pitch(D));
    Shared<bf16> d_outs = shared<bf16>(bytes(TILE, D), TILE * pitch(D));
    auto keys = [](int stage) { return shared<bf16>(bytes(2 * TILE + 2 * stage * KEYS, D), KEYS * pitch(D)); };
    auto values = [](int stage) { return shared<bf16>(bytes(2 * TILE + (2 * stage + 1) * KEYS, D), KEYS * pitch(D)); };
    Tile tile = tiles[block_x()];
    int head = block_y();
    u64 kv_start = (u64)(head / group) * kv_head;
    int first = first_seen(tile, window) / KEYS * KEYS, last = tile.position + tile.count;
    Walk at = walk(runs, tile, tile.runs, first);
    auto load = [&](int stage, int key) {
        if (key >= at.next) at = walk(runs, tile, at.run, key);
        load_path<D, KEYS>(keys(stage), k, kv_start, kv_row, runs, tile, at, key, last, size);
        load_path<D, KEYS>(values(stage), v, kv_start, kv_row, runs, tile, at, key, last, size);
        commit_copies();
    };
    load_rows<D, TILE>(queries, q, (u64)tile.row * q_row + (u64)head * q_head, q_row, tile.count, size);
    load_rows<D, TILE>(d_outs, d_out, ((u64)tile.row * heads + head) * size, (u64)heads * size, tile.count, size);
    load(0, first);

    float sum[D / 8][4] = {}, of_lse[2] = {}, of_delta[2] = {};
    int position[2];
    UNROLL for (int h = 0; h < 2; h++) {
        int row = warp() * 16 + row_of(2 * h);
        position[h] = tile.position + row;
        if (row < tile.count) {
            of_lse[h] = lse[(u64)(tile.row + row) * heads + head];
            of_delta[h] = delta[(u64)(tile.row + row) * heads + head];
        }
    }
    for (int key = first, stage = 0; key < last; key += KEYS) {
        if (STAGES == 2 && key + KEYS < last) {
            load(stage ^ 1, key + KEYS);
            wait_for_copies<1>();
        } else {
            wait_for_copies<0>();
        }
        barrier();  // The keys and values are there.
        float p[KEYS / 8][4] = {}, ds[KEYS / 8][4] = {};
        UNROLL for (int depth = 0; depth < D; depth += 16) {
            add_product<D, KEYS / 16>(p, left_operand<D>(queries, depth), keys(stage), depth);
            add_product<D, KEYS / 16>(ds, left_operand<D>(d_outs, depth), values(stage), depth);
        }
        bool whole = all_seen<KEYS>(tile.position, TILE, key, window);
        UNROLL for (int n = 0; n < KEYS / 8; n++) UNROLL for (int i = 0; i < 4; i++) {
            bool seen = whole || sees(position[i / 2], key + column_of(n, i), window);
            float weight = fast_exp2(multiply_add(p[n][i], scale * LOG2_E, -of_lse[i / 2]));
            ds[n][i] = seen ? weight * (ds[n][i] - of_delta[i / 2]) : 0.0f;
        }
        add_weighted<D, KEYS / 16, D>(sum, ds, keys(stage), 0);
        barrier();  // All warps have read the keys and values.
        if (STAGES == 2) stage ^= 1;
        else if (key + KEYS < last) load(0, key + KEYS);
    }

    UNROLL for (int h = 0; h < 2; h++) {
        int row = warp() * 16 + row_of(2 * h);
        u64 start = (u64)(tile.row + row) * d_row + (u64)head * d_head;
        UNROLL for (int n = 0; n < D / 8; n++) {
            int column = column_of(n, 0);
            if (row < tile.count && column < size)
                d.set_two(start + column, sum[n][2 * h] * scale, sum[n][2 * h + 1] * scale);
        }
    }
}

// A step of the keys' kernel: queries [at, at + QUERIES) of a reader, for one head.
struct Step {
    Tile tile;
    int reader, head, at;
};

// dk and dv of a tile of keys and one head of keys and values: dv = sum of p d_out, and dk = scale * sum of ds q, over the queries
// of all heads of the group. They go into d[k_start + r * d_row + h * d_head + c] and d[v_start + r * d_row + h * d_head + c]. A
// block writes columns [COLUMNS * block_z(), COLUMNS * (block_z() + 1)): for large heads the sums of all columns do not fit into
// registers. With two stages, the next queries arrive while these are worked on.
template <int D, int QUERIES, int COLUMNS, int STAGES>
DEVICE void backward_keys(In<Tile> tiles, In<KeyTile> key_tiles, In<int> readers, In<bf16> q, In<bf16> k, In<bf16> v,
                          In<bf16> d_out, In<float> lse, In<float> delta, Out<float> d, int q_row, int q_head, int kv_row,
                          int kv_head, int d_row, int d_head, int k_start, int v_start, int heads, int group, int size, int window,
                          float scale) {
    Shared<bf16> keys = shared<bf16>(0, TILE * pitch(D));
    Shared<bf16> values = shared<bf16>(bytes(TILE, D), TILE * pitch(D));
    auto queries = [](int stage) { return shared<bf16>(bytes(2 * TILE + 2 * stage * QUERIES, D), QUERIES * pitch(D)); };
    auto d_outs = [](int stage) { return shared<bf16>(bytes(2 * TILE + (2 * stage + 1) * QUERIES, D), QUERIES * pitch(D)); };
    const int floats = bytes(2 * TILE + 2 * STAGES * QUERIES, D);
    Shared<float> of_lse = shared<float>(floats, QUERIES), of_delta = shared<float>(floats + QUERIES * 4, QUERIES);
    KeyTile own = key_tiles[block_x()];
    int kv = block_y(), column = block_z() * COLUMNS;
    u64 start = (u64)own.row * kv_row + (u64)kv * kv_head;

    auto advance = [&](Step& step) {
        step.at += QUERIES;
        if (step.at < step.tile.count) return;
        step.at = 0;
        if (++step.head < (kv + 1) * group) return;
        step.head = kv * group;
        if (++step.reader < own.readers_end) step.tile = tiles[readers[step.reader]];
    };
    auto load = [&](int stage, const Step& step) {
        u64 row = (u64)(step.tile.row + step.at);
        int count = step.tile.count - step.at;
        load_rows<D, QUERIES>(queries(stage), q, row * q_row + (u64)step.head * q_head, q_row, count, size);
        load_rows<D, QUERIES>(d_outs(stage), d_out, (row * heads + step.head) * size, (u64)heads * size, count, size);
        commit_copies();
    };
    // Thread i has the numbers of query i until all warps have read those of the last step.
    float next_lse = 0, next_delta = 0;
    auto load_numbers = [&](const Step& step) {
        bool real = thread() < QUERIES && thread() < step.tile.count - step.at;
        u64 place = (u64)(step.tile.row + step.at + thread()) * heads + step.head;
        next_lse = real ? lse[place] : 0.0f;
        next_delta = real ? delta[place] : 0.0f;
    };
    auto store_numbers = [&] {
        if (thread() >= QUERIES) return;
        of_lse[thread()] = next_lse;
        of_delta[thread()] = next_delta;
    };

    float sum_k[COLUMNS / 8][4] = {}, sum_v[COLUMNS / 8][4] = {};
    int position[2] = {own.position + warp() * 16 + row_of(0), own.position + warp() * 16 + row_of(2)};
    Step step = {};
    step.reader = own.readers;
    step.head = kv * group;
    load_rows<D, TILE>(keys, k, start, kv_row, own.count, size);
    load_rows<D, TILE>(values, v, start, kv_row, own.count, size);
    commit_copies();
    if (step.reader < own.readers_end) {
        step.tile = tiles[readers[step.reader]];
        load(0, step);
        load_numbers(step);
        store_numbers();
    }
    for (int stage = 0; step.reader < own.readers_end;) {
        Step next = step;
        advance(next);
        bool more = next.reader < own.readers_end;
        if (STAGES == 2 && more) {
            load(stage ^ 1, next);
            wait_for_copies<1>();
        } else {
            wait_for_copies<0>();
        }
        if (more) load_numbers(next);
        barrier();  // The queries are there.
        // Transposed: a row per key, a column per query.
        float p[QUERIES / 8][4] = {}, ds[QUERIES / 8][4] = {};
        KEEP_LOOP for (int depth = 0; depth < D; depth += 16) {
            add_product<D, QUERIES / 16>(p, left_operand<D>(keys, depth), queries(stage), depth);
            add_product<D, QUERIES / 16>(ds, left_operand<D>(values, depth), d_outs(stage), depth);
        }
        UNROLL for (int n = 0; n < QUERIES / 8; n++) UNROLL for (int i = 0; i < 4; i++) {
            int query = column_of(n, i);
            bool seen = step.at + query < step.tile.count && sees(step.tile.position + step.at + query, position[i / 2], window);
            float weight = fast_exp2(multiply_add(p[n][i], scale * LOG2_E, -of_lse[query]));
            p[n][i] = seen ? weight : 0.0f;
            ds[n][i] = seen ? weight * (ds[n][i] - of_delta[query]) : 0.0f;
        }
        add_weighted<D, QUERIES / 16, COLUMNS>(sum_v, p, d_outs(stage), column);
        add_weighted<D, QUERIES / 16, COLUMNS>(sum_k, ds, queries(stage), column);
        barrier();  // All warps have read the queries.
        if (more) {
            store_numbers();
            if (STAGES == 1) load(0, next);
        }
        if (STAGES == 2) stage ^= 1;
        step = next;
    }
    // A tile without readers has waited for nothing yet.
    wait_for_copies<0>();

    UNROLL for (int h = 0; h < 2; h++) {
        int row = warp() * 16 + row_of(2 * h);
        u64 place = (u64)(own.row + row) * d_row + (u64)kv * d_head;
        UNROLL for (int n = 0; n < COLUMNS / 8; n++) {
            int to = column + column_of(n, 0);
            if (row < own.count && to < size) {
                d.set_two(k_start + place + to, sum_k[n][2 * h] * scale, sum_k[n][2 * h + 1] * scale);
                d.set_two(v_start + place + to, sum_v[n][2 * h], sum_v[n][2 * h + 1]);
            }
        }
    }
}

// Grid of the queries' kernel: tiles, heads. Grid of the keys' kernel: key tiles, heads of keys and values, D / COLUMNS.
#define BACKWARD(D, KEYS, QUERIES, COLUMNS, STAGES)                                                                              \
    KERNEL(attention_backward_queries_##D, ATTENTION_THREADS,                                                                    \
           (In<Tile> tiles, In<Run> runs, In<bf16> q, In<bf16> k, In<bf16> v, In<bf16> d_out, In<float> lse, In<float> delta,    \
            Out<float> d, int q_row, int q_head, int kv_row, int kv_head, int d_row, int d_head, int heads, int group, int size, \
            int window, float scale)) {                                                                                          \
        backward_queries<D, KEYS, STAGES>(tiles, runs, q, k, v, d_out, lse, delta, d, q_row, q_head, kv_row, kv_head, d_row,     \
                                          d_head, heads, group, size, window, scale);                                            \
    }                                                                                                                            \
    KERNEL(attention_backward_keys_##D, ATTENTION_THREADS,                                                                       \
           (In<Tile> tiles, In<KeyTile> key_tiles, In<int> readers, In<bf16> q, In<bf16> k, In<bf16> v, In<bf16> d_out,          \
            In<float> lse, In<float> delta, Out<float> d, int q_row, int q_head, int kv_row, int kv_head, int d_row, int d_head, \
            int k_start, int v_start, int heads, int group, int size, int window, float scale)) {                                \
        backward_keys<D, QUERIES, COLUMNS, STAGES>(tiles, key_tiles, readers, q, k, v, d_out, lse, delta, d, q_row, q_head,      \
                                                   kv_row, kv_head, d_row, d_head, k_start, v_start, heads, group, size, window, \
                                                   scale);                                                                       \
    }

BACKWARD(32, 64, 64, 32, 2)
BACKWARD(64, 64, 64, 64, 2)
BACKWARD(80, 32, 32, 80, 2)
BACKWARD(96, 32, 32, 96, 2)
BACKWARD(128, 32, 32, 128, 2)
BACKWARD(256, 16, 16, 128, 1)
