// Attention over a tree of spans, forward.
#include "attention.h"

// out = softmax(scale q k^T) v for a tile of queries and one head, and lse = log2(sum(exp(scale q k^T))).
//
// A warp has 16 queries. Blocks of KEYS keys come one after another: while scores are computed, the values arrive, and while
// values are added up, the next keys arrive. The running maximum and sum are those of flash attention.
template <int D, int KEYS>
DEVICE void forward(In<Tile> tiles, In<Run> runs, In<bf16> q, In<bf16> k, In<bf16> v, Out<bf16> out, Out<float> lse, int q_row,
                    int q_head, int kv_row, int kv_head, int out_row, int heads, int group, int size, int window, float scale) {
    Shared<bf16> queries = shared<bf16>(0, TILE * pitch(D));
    Shared<bf16> keys = shared<bf16>(bytes(TILE, D), KEYS * pitch(D));
    Shared<bf16> values = shared<bf16>(bytes(TILE + KEYS, D), KEYS * pitch(D));
    Tile tile = tiles[block_x()];
    int head = block_y();
    u64 kv_start = (u64)(head / group) * kv_head;
    int last = tile.position + tile.count;
    int first = first_seen(tile, window) / KEYS * KEYS;
    load_rows<D, TILE>(queries, q, (u64)tile.row * q_row + (u64)head * q_head, q_row, tile.count, size);
    Walk at = walk(runs, tile, tile.runs, first);
    load_path<D, KEYS>(keys, k, kv_start, kv_row, runs, tile, at, first, last, size);
    commit_copies();

    float sum[D / 8][4] = {}, top[2] = {-1e30f, -1e30f}, total[2] = {};
    int position[2] = {tile.position + warp() * 16 + row_of(0), tile.position + warp() * 16 + row_of(2)};
    scale *= LOG2_E;
    for (int key = first; key < last; key += KEYS) {
        wait_for_copies<0>();
        barrier();  // The keys are there, and all warps have read the last values.
        load_path<D, KEYS>(values, v, kv_start, kv_row, runs, tile, at, key, last, size);
        commit_copies();
        float p[KEYS / 8][4] = {};
        UNROLL for (int d = 0; d < D; d += 16) add_product<D, KEYS / 16>(p, left_operand<D>(queries, d), keys, d);
        wait_for_copies<0>();
        barrier();  // The values are there, and all warps have read the keys.
        if (key + KEYS < last) {
            if (key + KEYS >= at.next) at = walk(runs, tile, at.run, key + KEYS);
            load_path<D, KEYS>(keys, k, kv_start, kv_row, runs, tile, at, key + KEYS, last, size);
            commit_copies();
        }

        bool whole = all_seen<KEYS>(tile.position, TILE, key, window);
        float before[2] = {top[0], top[1]};
        UNROLL for (int n = 0; n < KEYS / 8; n++) UNROLL for (int i = 0; i < 4; i++) {
            bool seen = whole || sees(position[i / 2], key + column_of(n, i), window);
            p[n][i] = seen ? p[n][i] * scale : -INFINITE;
            top[i / 2] = larger(top[i / 2], p[n][i]);
        }
        UNROLL for (int h = 0; h < 2; h++) {
            top[h] = larger(top[h], shuffle_xor(top[h], 1));
            top[h] = larger(top[h], shuffle_xor(top[h], 2));
            float factor = fast_exp2(before[h] - top[h]);
            total[h] *= factor;
            UNROLL for (int d = 0; d < D / 8; d++) UNROLL for (int i = 0; i < 2; i++) sum[d][2 * h + i] *= factor;
        }
        UNROLL for (int n = 0; n < KEYS / 8; n++) UNROLL for (int i = 0; i < 4; i++) {
            p[n][i] = fast_exp2(p[n][i] - top[i / 2]);
            total[i / 2] += p[n][i];
        }
        add_weighted<D, KEYS / 16, D>(sum, p, values, 0);
    }

    UNROLL for (int h = 0; h < 2; h++) {
        total[h] += shuffle_xor(total[h], 1);
        total[h] += shuffle_xor(total[h], 2);
        int row = warp() * 16 + row_of(2 * h);
        u64 start = (u64)(tile.row + row) * out_row + (u64)head * size;
        float factor = divide(1.0f, total[h]);
        if (row < tile.count) {
            if (lane() % 4 == 0) lse[(u64)(tile.row + row) * heads + head] = top[h] + fast_log2(total[h]);
            UNROLL for (int d = 0; d < D / 8; d++) {
                int column = column_of(d, 0);
                if (column < size) out.set_word(start + column, pack(sum[d][2 * h] * factor, sum[d][2 * h + 1] * factor));
            }
        }
    }
}

// Grid: tiles, heads. `group` is the number of query heads per head of keys and values. lse is [rows, heads].
#define FORWARD(D, KEYS)                                                                                                         \
    KERNEL(attention_forward_##D, ATTENTION_THREADS,                                                                             \
           (In<Tile> tiles, In<Run> runs, In<bf16> q, In<bf16> k, In<bf16> v, Out<bf16> out, Out<float> lse, int q_row,          \
            int q_head, int kv_row, int kv_head, int out_row, int heads, int group, int size, int window, float scale)) {        \
        forward<D, KEYS>(tiles, runs, q, k, v, out, lse, q_row, q_head, kv_row, kv_head, out_row, heads, group, size, window,    \
                         scale);                                                                                                 \
    }

FORWARD(32, 64)
FORWARD(64, 64)
FORWARD(80, 64)
FORWARD(96, 64)
FORWARD(128, 64)
FORWARD(256, 32)
