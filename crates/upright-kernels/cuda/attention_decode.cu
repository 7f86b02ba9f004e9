// Attention of one new token per sequence over its keys and values.
#include "attention.h"

constexpr int WARPS = 4, GROUPS = 4;  // a warp has 4 groups of 8 lanes, and a group takes one key at a time

// out = softmax(scale q k^T) v for one token and one head, in f32. A tile has one query. Group g of warp w takes the positions
// first + 4 w + g, 16 more, 32 more and so on, and keeps its own running maximum and sums. They are joined at the end, so a
// token's bits depend on its path alone. Lane l has columns l % 8 * 8 to l % 8 * 8 + 7 of each 64 columns, PARTS times.
template <int PARTS>
DEVICE void decode(In<Tile> tiles, In<Run> runs, In<bf16> q, In<bf16> k, In<bf16> v, Out<bf16> out, int q_row, int q_head,
                   int kv_row, int kv_head, int out_row, int heads, int group, int size, int window, float scale) {
    constexpr int COLUMNS = PARTS * 64;
    Shared<float> sums = shared<float>(0, WARPS * COLUMNS);
    Shared<float> tops = shared<float>(WARPS * COLUMNS * 4, WARPS);
    Shared<float> totals = shared<float>(WARPS * COLUMNS * 4 + 16, WARPS);
    Tile tile = tiles[block_x()];
    int head = block_y();
    u64 kv_start = (u64)(head / group) * kv_head;
    scale *= LOG2_E;

    float query[PARTS][8] = {}, sum[PARTS][8] = {}, top = -1e30f, total = 0;
    UNROLL for (int part = 0; part < PARTS; part++) {
        int column = part * 64 + lane() % 8 * 8;
        if (column >= size) continue;
        Quad words = q.quad((u64)tile.row * q_row + (u64)head * q_head + column);
        UNROLL for (int i = 0; i < 4; i++) {
            query[part][2 * i] = float_of(words.words[i] << 16);
            query[part][2 * i + 1] = float_of(words.words[i] & 0xffff0000u);
        }
    }
    Walk at = walk(runs, tile, tile.runs, first_seen(tile, window));
    KEEP_LOOP for (int first = first_seen(tile, window); first <= tile.position; first += WARPS * GROUPS) {
        int position = first + warp() * GROUPS + lane() / 8;
        bool seen = position <= tile.position;
        u64 start = 0;
        if (seen) {
            if (position >= at.next) at = walk(runs, tile, at.run, position);
            start = kv_start + (u64)(position + at.shift) * kv_row;
        }
        float score = 0;
        Quad values[PARTS];
        UNROLL for (int part = 0; part < PARTS; part++) {
            int column = part * 64 + lane() % 8 * 8;
            values[part] = Quad{};
            if (!seen || column >= size) continue;
            Quad key = k.quad(start + column);
            values[part] = v.quad(start + column);
            UNROLL for (int i = 0; i < 4; i++) {
                score = multiply_add(query[part][2 * i], float_of(key.words[i] << 16), score);
                score = multiply_add(query[part][2 * i + 1], float_of(key.words[i] & 0xffff0000u), score);
            }
        }
        UNROLL for (int mask = 4; mask > 0; mask /= 2) score += shuffle_xor(score, mask);
        score = seen ? score * scale : -INFINITE;
        float before = top;
        top = larger(top, score);
        float factor = fast_exp2(before - top), weight = fast_exp2(score - top);
        total = multiply_add(total, factor, weight);
        UNROLL for (int part = 0; part < PARTS; part++) UNROLL for (int i = 0; i < 4; i++) {
            float low = float_of(values[part].words[i] << 16), high = float_of(values[part].words[i] & 0xffff0000u);
            sum[part][2 * i] = multiply_add(sum[part][2 * i], factor, weight * low);
            sum[part][2 * i + 1] = multiply_add(sum[part][2 * i + 1], factor, weight * high);
        }
    }

    // Join the groups of a warp, then the warps in order.
    float best = larger(top, shuffle_xor(top, 8));
    best = larger(best, shuffle_xor(best, 16));
    float factor = fast_exp2(top - best);
    total *= factor;
    total += shuffle_xor(total, 8);
    total += shuffle_xor(total, 16);
    UNROLL for (int part = 0; part < PARTS; part++) UNROLL for (int i = 0; i < 8; i++) {
        float x = sum[part][i] * factor;
        x += shuffle_xor(x, 8);
        x += shuffle_xor(x, 16);
        if (lane() < 8) sums[warp() * COLUMNS + part * 64 + lane() * 8 + i] = x;
    }
    if (lane() == 0) {
        tops[warp()] = best;
        totals[warp()] = total;
    }
    barrier();
    best = tops[0];
    UNROLL for (int w = 1; w < WARPS; w++) best = larger(best, tops[w]);
    float factors[WARPS], all = 0;
    UNROLL for (int w = 0; w < WARPS; w++) {
        factors[w] = fast_exp2(tops[w] - best);
        all = multiply_add(factors[w], totals[w], all);
    }
    for (int column = thread(); column < size; column += ATTENTION_THREADS) {
        float x = 0;
        UNROLL for (int w = 0; w < WARPS; w++) x = multiply_add(factors[w], sums[w * COLUMNS + column], x);
        out[(u64)tile.row * out_row + (u64)head * size + column] = round_to_bf16(divide(x, all));
    }
}

// Grid: sequences, heads. An instance takes heads of up to the size in its name.
#define DECODE(D)                                                                                                                \
    KERNEL(attention_decode_##D, ATTENTION_THREADS,                                                                              \
           (In<Tile> tiles, In<Run> runs, In<bf16> q, In<bf16> k, In<bf16> v, Out<bf16> out, int q_row, int q_head, int kv_row,  \
            int kv_head, int out_row, int heads, int group, int size, int window, float scale)) {                                \
        decode<D / 64>(tiles, runs, q, k, v, out, q_row, q_head, kv_row, kv_head, out_row, heads, group, size, window, scale);   \
    }

DECODE(64)
DECODE(128)
DECODE(256)
