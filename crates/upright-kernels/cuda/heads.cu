// Queries, keys and values between their projection and attention: rotary embedding, and norms of heads (Qwen3).
//
// A row holds the heads of a token, `head` columns each. The heads lie in one of two orders:
//   grouped = 0: `heads` queries, `kv_heads` keys, `kv_heads` values;
//   grouped = 1: query, key and value of every head in turn (GPT-NeoX). Then kv_heads = heads.
// Rotary embedding turns column i < half of a query or key with column i + half. Other columns stay. positions[t] is
// the position of token t, and row p of `cosines` and `sines` [positions, half] has the angles of position p. `sign` -1 turns
// back, which is the backward pass. No product is fused with a sum, so the CPU engine has the same bits.
#include "device.h"
#include "eight.h"
#include "reduce.h"

constexpr int THREADS = 128;
constexpr int WARPS = THREADS / 32;

// The angles of a token.
struct Angles {
    In<float> cosines, sines;
    u64 start;
    int half;
    float sign;
};

DEVICE Angles angles_of(In<int> positions, In<float> cosines, In<float> sines, int half, float sign) {
    return Angles{cosines, sines, (u64)positions[block_x()] * half, half, sign};
}

// A head in a buffer.
template <class T> struct Head {
    In<T> x;
    u64 start;
};

// A normalized head.
struct NormalHead {
    Head<float> head;
    In<float> scale;
    float factor;
};

// The value in a column of a head.
DEVICE float value(const Head<float>& head, int column) { return head.x[head.start + column]; }
DEVICE float value(const Head<bf16>& head, int column) { return widen(head.x[head.start + column]); }
DEVICE float value(const NormalHead& normal, int column) {
    return value(normal.head, column) * normal.factor * normal.scale[column];
}

// The value in a column of a head after the turn.
template <class AnyHead> DEVICE float turned(const AnyHead& head, int column, const Angles& angles) {
    if (column >= 2 * angles.half) return value(head, column);
    int pair = column < angles.half ? column : column - angles.half;
    float a = value(head, pair), b = value(head, pair + angles.half);
    float c = angles.cosines[angles.start + pair], s = angles.sines[angles.start + pair] * angles.sign;
    return column < angles.half ? a * c - b * s : b * c + a * s;
}

// Whether a head of a row is a query or a key.
DEVICE bool is_turned(int slot, int heads, int kv_heads, int grouped) { return grouped ? slot % 3 < 2 : slot < heads + kv_heads; }

// y = x [tokens, row] with queries and keys turned, rounded to bf16. Rows of y are `stride` apart. Block (t, p) takes the columns
// 1024 p to 1024 p + 1023 of token t.
KERNEL(rotary_rounded, THREADS,
       (In<float> x, In<int> positions, In<float> cosines, In<float> sines, Out<bf16> y, int heads, int kv_heads, int head,
        int half, int grouped, int stride, float sign)) {
    Angles angles = angles_of(positions, cosines, sines, half, sign);
    int row = (heads + 2 * kv_heads) * head, first = 8 * (block_y() * THREADS + thread()), count = row - first;
    if (count <= 0) return;
    u64 from = (u64)block_x() * row, to = (u64)block_x() * stride;
    Eight e;
    if (head % 8 == 0 && half % 8 == 0) {
        // Eight columns of one half of a head.
        int slot = first / head, column = first % head;
        e = read(x, from + first, 8);
        if (column < 2 * half && is_turned(slot, heads, kv_heads, grouped)) {
            bool is_first = column < half;
            u64 at = angles.start + (is_first ? column : column - half);
            Eight other = read(x, from + (is_first ? first + half : first - half), 8);
            Eight c = read(cosines, at, 8), s = read(sines, at, 8);
            UNROLL for (int i = 0; i < 8; i++) {
                float turn = other.values[i] * (s.values[i] * sign);
                float stay = e.values[i] * c.values[i];
                e.values[i] = is_first ? stay - turn : stay + turn;
            }
        }
    } else {
        UNROLL for (int i = 0; i < 8; i++) {
            int slot = (first + i) / head, column = (first + i) % head;
            Head<float> before{x, from + (u64)slot * head};
            bool turns = is_turned(slot, heads, kv_heads, grouped);
            e.values[i] = i >= count ? 0.0f : turns ? turned(before, column, angles) : value(before, column);
        }
    }
    write(y, to + first, count, e);
}

// The reciprocal root mean square of a head with `size` columns. Lane l adds up the columns l, l + 32, ... NaN if it overflows.
template <class T> DEVICE float reciprocal_rms(const Head<T>& head, int size, float eps) {
    float sum = 0;
    for (int column = lane(); column < size; column += 32) {
        float x = value(head, column);
        sum = multiply_add(x, x, sum);
    }
    float mean_square = divide(warp_sum(sum), (float)size);
    bool overflows = mean_square > 3.4028234663852886e38f;
    return overflows ? float_of(0x7fffffff) : divide(1.0f, square_root(mean_square + eps));
}

// Writes a head, rounded to bf16. Columns from `size` on become zero.
DEVICE void round_head(const Head<float>& x, Out<bf16> y, u64 to, int head, int size) {
    for (int column = lane(); column < head; column += 32)
        y[to + column] = round_to_bf16(column < size ? value(x, column) : 0.0f);
}

// Norm of every query and key over its first `size` columns, then the turn, rounded to bf16. `before` [tokens, queries and keys]
// keeps them as they came. Values are rounded only. Rows are not grouped, and those of y are `stride` apart. Columns from `size`
// on become zero. Block (t, p) has one warp for each of the heads 4 p to 4 p + 3 of token t.
KERNEL(head_norm_forward, THREADS,
       (In<float> x, In<float> q_scale, In<float> k_scale, In<int> positions, In<float> cosines, In<float> sines, Out<bf16> before,
        Out<bf16> y, int heads, int kv_heads, int head, int size, int half, int stride, float eps)) {
    int slot = WARPS * block_y() + warp(), turning = heads + kv_heads;
    if (slot >= turning + kv_heads) return;
    u64 to = (u64)block_x() * stride + (u64)slot * head;
    Head<float> values{x, ((u64)block_x() * (turning + kv_heads) + slot) * head};
    if (slot >= turning) {
        round_head(values, y, to, head, size);
        return;
    }
    u64 keep = ((u64)block_x() * turning + slot) * head;
    Angles angles = angles_of(positions, cosines, sines, half, 1.0f);
    NormalHead normal{values, slot < heads ? q_scale : k_scale, reciprocal_rms(values, size, eps)};
    for (int column = lane(); column < head; column += 32) {
        bool exists = column < size;
        before[keep + column] = round_to_bf16(exists ? value(values, column) : 0.0f);
        y[to + column] = round_to_bf16(exists ? turned(normal, column, angles) : 0.0f);
    }
}

// Backward pass of head_norm_forward: from the gradient d [tokens, row] of its output to that of its input, rounded to bf16:
//   factor (g scale - x factor^2 mean(g scale x)), x being `before` and g the gradient turned back.
KERNEL(head_norm_backward, THREADS,
       (In<float> d, In<bf16> before, In<float> q_scale, In<float> k_scale, In<int> positions, In<float> cosines, In<float> sines,
        Out<bf16> y, int heads, int kv_heads, int head, int size, int half, int stride, float eps)) {
    int slot = WARPS * block_y() + warp(), turning = heads + kv_heads;
    if (slot >= turning + kv_heads) return;
    u64 to = (u64)block_x() * stride + (u64)slot * head;
    Head<float> values{d, ((u64)block_x() * (turning + kv_heads) + slot) * head};
    if (slot >= turning) {
        round_head(values, y, to, head, size);
        return;
    }
    Head<bf16> x{before, ((u64)block_x() * turning + slot) * head};
    In<float> scale = slot < heads ? q_scale : k_scale;
    Angles angles = angles_of(positions, cosines, sines, half, -1.0f);
    float factor = reciprocal_rms(x, size, eps);
    float along = 0;
    for (int column = lane(); column < size; column += 32)
        along = multiply_add(turned(values, column, angles) * scale[column], value(x, column), along);
    along = divide(warp_sum(along), (float)size) * factor * factor;
    for (int column = lane(); column < head; column += 32) {
        float slope = 0;
        if (column < size) slope = (turned(values, column, angles) * scale[column] - value(x, column) * along) * factor;
        y[to + column] = round_to_bf16(slope);
    }
}
