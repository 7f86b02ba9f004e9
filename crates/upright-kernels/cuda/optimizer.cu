// The adapter's gradient, its optimizer and its average: the arithmetic of the CPU engine, to the bit.
//
// Thread t of a block processes the values t, t + 256, ... of a chunk of 4096 values. No value depends on another one, except
// in the norm, whose additions have the CPU's order. Multiplications and additions are rounded separately (-fmad=false).
#include "device.h"

constexpr int THREADS = 256;
// Values of a block, and of a chunk of the norm.
constexpr int CHUNK = 4096;
// Bits of the smallest magnitude that is not finite.
constexpr u32 INFINITE_BITS = 0x7f800000;

// Bits of |x|. Among finite numbers they have the order of the magnitudes; infinity and NaN lie above.
DEVICE u32 magnitude_bits(float x) { return bits_of(x) & 0x7fffffff; }

// Index of value `i` of this thread.
DEVICE u64 index_of(int i) { return (u64)block_x() * CHUNK + i * THREADS + thread(); }

// Largest number of a block of WARPS warps; every thread gets it. `room` holds WARPS numbers.
template <int WARPS> DEVICE u32 block_largest(u32 x, Shared<u32> room) {
    UNROLL for (int mask = 16; mask > 0; mask /= 2) {
        u32 other = shuffle_xor(x, mask);
        if (other > x) x = other;
    }
    if (lane() == 0) room[warp()] = x;
    barrier();
    u32 largest = 0;
    UNROLL for (int other = 0; other < WARPS; other++) {
        u32 found = room[other];
        if (found > largest) largest = found;
    }
    barrier();  // `room` can be written again.
    return largest;
}

// Smallest number of a block, in the same way.
template <int WARPS> DEVICE u32 block_smallest(u32 x, Shared<u32> room) { return ~block_largest<WARPS>(~x, room); }

// A value in units of the sum, 1 / scale. Whether a sum can hold it: it is finite and below 2^63 units.
DEVICE bool fits(float value, double scale) {
    const double LIMIT = 9.223372036854775e18;
    double units = (double)value * scale;
    return units < LIMIT && units > -LIMIT;
}

// A value that fits, rounded to whole units, ties to even. An f32 of 2^24 units or more is whole, as `scale` is a power of two.
DEVICE long long in_units(float value, double scale) {
    const double WHOLE = 6755399441055744.0;  // 1.5 * 2^52: adding it rounds to an integer.
    double units = (double)value * scale;
    if (units < 16777216.0 && units > -16777216.0) units = (units + WHOLE) - WHOLE;
    return (long long)units;
}

// sum += gradient, in units of 1 / scale. Values that do not fit are left out; `gradient_sum_check` finds them.
// gradient [n], sum [n]. largest [blocks] gets the largest magnitude of each block, as bits.
KERNEL(gradient_sum_add, THREADS, (In<float> gradient, Out<long long> sum, Out<u32> largest, u64 n, double scale)) {
    Shared<u32> room = shared<u32>(0, THREADS / 32);
    u32 found = 0;
    UNROLL for (int i = 0; i < CHUNK / THREADS; i++) {
        u64 index = index_of(i);
        if (index < n) {
            float value = gradient[index];
            u32 bits = magnitude_bits(value);
            if (bits > found) found = bits;
            if (fits(value, scale)) sum[index] = (long long)((u64)(long long)sum[index] + (u64)in_units(value, scale));
        }
    }
    found = block_largest<THREADS / 32>(found, room);
    if (thread() == 0) largest[block_x()] = found;
}

constexpr int CHECKERS = 1024;

// Accounts for a vector that `gradient_sum_add` has added. One block. gradient [n], largest [blocks of gradient_sum_add].
// state [4]: an upper bound of the sum's magnitudes in units; 1 if the sum is out of range, and must not be read; then the index
// and the bits of the offending value. That is the first value that does not fit, or else the first of the largest magnitude, if
// the bound exceeds 2^63 - 1. A state that says 1 stays.
KERNEL(gradient_sum_check, CHECKERS, (In<float> gradient, In<u32> largest, Out<u64> state, u64 n, double scale)) {
    Shared<u32> room = shared<u32>(0, CHECKERS / 32);
    u32 blocks = (u32)((n + CHUNK - 1) / CHUNK);
    u32 found = 0;
    for (u32 block = thread(); block < blocks; block += CHECKERS) {
        u32 other = largest[block];
        if (other > found) found = other;
    }
    found = block_largest<CHECKERS / 32>(found, room);
    bool all_fit = fits(float_of(found), scale);
    u64 bound = state[0], failed = state[1];
    // Both are at most 2^63, so their sum does not wrap around.
    if (all_fit) bound += (u64)in_units(float_of(found), scale);
    if (failed != 0) return;
    if (all_fit && bound <= 0x7fffffffffffffffULL) {
        barrier();  // All threads have read the state.
        if (thread() == 0) state[0] = bound;
        return;
    }
    // The first block with an offending value, then the value's place in it.
    u32 first = ~0u;
    for (u32 block = thread(); block < blocks; block += CHECKERS) {
        u32 other = largest[block];
        bool offends = all_fit ? other == found : !fits(float_of(other), scale);
        if (offends && block < first) first = block;
    }
    first = block_smallest<CHECKERS / 32>(first, room);
    u32 place = ~0u;
    for (u32 offset = thread(); offset < CHUNK; offset += CHECKERS) {
        u64 index = (u64)first * CHUNK + offset;
        if (index < n) {
            float value = gradient[index];
            bool offends = all_fit ? magnitude_bits(value) == found : !fits(value, scale);
            if (offends && offset < place) place = offset;
        }
    }
    place = block_smallest<CHECKERS / 32>(place, room);
    if (thread() == 0) {
        u64 index = (u64)first * CHUNK + place;
        state[1] = 1;
        state[2] = index;
        state[3] = bits_of(gradient[index]);
    }
}

// gradient = sum * unit, rounded to f32 once. sum [n] in units, gradient [n].
KERNEL(gradient_sum_read, THREADS, (In<long long> sum, Out<float> gradient, u64 n, double unit)) {
    UNROLL for (int i = 0; i < CHUNK / THREADS; i++) {
        u64 index = index_of(i);
        if (index < n) gradient[index] = (float)((double)sum[index] * unit);
    }
}

// Sums of squares of chunks of x [n], in f64: chunks [ceil(n / 4096)]. Eight threads add up a chunk: thread l takes the values
// l, l + 8, ..., the last one of them also the values after the last whole eight. The eight sums are added in order, then the
// sum of those last values. A block has 32 chunks.
KERNEL(norm_chunks, THREADS, (In<float> x, Out<double> chunks, u64 n)) {
    const int LANES = 8;
    u64 chunk = (u64)block_x() * (THREADS / LANES) + thread() / LANES;
    u64 start = chunk * CHUNK;
    int count = start >= n ? 0 : n - start < CHUNK ? (int)(n - start) : CHUNK;
    int mine = thread() % LANES;
    int whole = count - count % LANES;
    double sum = 0;
#pragma unroll 8
    for (int i = mine; i < whole; i += LANES) {
        double value = (double)x[start + i];
        sum += value * value;
    }
    double rest = 0;
    for (int i = whole; i < count; i++) {
        double value = (double)x[start + i];
        rest += value * value;
    }
    // Only the first of the eight uses these values.
    double total = sum;
    UNROLL for (int other = 1; other < LANES; other++) total += shuffle_xor(sum, other);
    if (mine == 0 && count > 0) chunks[chunk] = total + rest;
}

// The Euclidean norm, and the factor that clips it. One block. chunks [count] are added in order; norm [1] is the root of the
// sum; coefficient [1] = max_norm / (norm + 1e-6) if max_norm > 0 and this is below 1, else 1.
KERNEL(norm_finish, THREADS, (In<double> chunks, Out<double> norm, Out<float> coefficient, u64 count, double max_norm)) {
    Shared<double> room = shared<double>(0, THREADS);
    double sum = -0.0;  // The norm of no value is -0, as in Rust.
    for (u64 start = 0; start < count; start += THREADS) {
        int some = count - start < THREADS ? (int)(count - start) : THREADS;
        if (thread() < some) room[thread()] = chunks[start + thread()];
        barrier();
        if (thread() == 0)
            for (int i = 0; i < some; i++) sum += room[i];
        barrier();  // `room` can be written again.
    }
    if (thread() == 0) {
        double length = square_root(sum);
        double factor = divide(max_norm, length + 1e-6);
        norm[0] = length;
        coefficient[0] = max_norm > 0 && factor < 1 ? (float)factor : 1.0f;
    }
}

// One AdamW update of p [n] and its moments m [n] and v [n]:
//   g = gradient * coefficient[0];  p = p * shrink;  m = m + fresh1 (g - m);  v = keep2 v + fresh2 g^2
//   p = p - step_size m / (sqrt(v) / correction + eps)
// largest [blocks] gets the largest magnitude of each block's parameters, as bits.
KERNEL(adamw_update, THREADS,
       (Out<float> p, Out<float> m, Out<float> v, In<float> gradient, In<float> coefficient, Out<u32> largest, u64 n,
        float step_size, float correction, float shrink, float fresh1, float keep2, float fresh2, float eps)) {
    Shared<u32> room = shared<u32>(0, THREADS / 32);
    float clip = coefficient[0];
    u32 found = 0;
#pragma unroll 4
    for (int i = 0; i < CHUNK / THREADS; i++) {
        u64 index = index_of(i);
        if (index < n) {
            float g = gradient[index] * clip;
            float value = p[index] * shrink;
            float first = m[index], second = v[index];
            first += fresh1 * (g - first);
            second = keep2 * second + fresh2 * g * g;
            value -= divide(step_size * first, divide(square_root(second), correction) + eps);
            p[index] = value;
            m[index] = first;
            v[index] = second;
            u32 bits = magnitude_bits(value);
            if (bits > found) found = bits;
        }
    }
    found = block_largest<THREADS / 32>(found, room);
    if (thread() == 0) largest[block_x()] = found;
}

// largest [blocks] gets the largest magnitude of each block of x [n], as bits.
KERNEL(largest_magnitudes, THREADS, (In<float> x, Out<u32> largest, u64 n)) {
    Shared<u32> room = shared<u32>(0, THREADS / 32);
    u32 found = 0;
    UNROLL for (int i = 0; i < CHUNK / THREADS; i++) {
        u64 index = index_of(i);
        if (index < n) {
            u32 bits = magnitude_bits(x[index]);
            if (bits > found) found = bits;
        }
    }
    found = block_largest<THREADS / 32>(found, room);
    if (thread() == 0) largest[block_x()] = found;
}

// broken [1] = 1 if a magnitude among largest [blocks] is not finite, else 0. One block.
KERNEL(finite_check, CHECKERS, (In<u32> largest, Out<u32> broken, int blocks)) {
    Shared<u32> room = shared<u32>(0, CHECKERS / 32);
    u32 found = 0;
    for (int block = thread(); block < blocks; block += CHECKERS) {
        u32 other = largest[block];
        if (other > found) found = other;
    }
    found = block_largest<CHECKERS / 32>(found, room);
    if (thread() == 0) broken[0] = found >= INFINITE_BITS ? 1 : 0;
}

// x += share (target - x); a share of 1 copies the target. x [n], target [n].
KERNEL(move_towards, THREADS, (Out<float> x, In<float> target, u64 n, float share)) {
    UNROLL for (int i = 0; i < CHUNK / THREADS; i++) {
        u64 index = index_of(i);
        if (index < n) {
            float to = target[index];
            if (share == 1.0f) {
                x[index] = to;
            } else {
                float value = x[index];
                x[index] = value + share * (to - value);
            }
        }
    }
}

// x = x * factor. x [n].
KERNEL(scale_values, THREADS, (Out<float> x, u64 n, float factor)) {
    UNROLL for (int i = 0; i < CHUNK / THREADS; i++) {
        u64 index = index_of(i);
        if (index < n) x[index] = x[index] * factor;
    }
}
