// The output head between its two products: softmax over chunks of the vocabulary, log-probabilities of targets, the N best
// tokens of a row, and the gradient.
//
// One block processes one row, and the chunks come in ascending order. z holds a chunk's logits: `width` columns from token
// `first` on, in rows that are `stride` apart. The targets of row r are first_target[r] to first_target[r + 1] - 1.
// Thread t adds the columns t, t + 256, ... in order, so the bits of a row depend on the row and the chunks alone.
#include "device.h"
#include "reduce.h"

constexpr int THREADS = 256;
constexpr int WARPS = THREADS / 32;

// e^x for x <= 0, with a relative error below 1.5e-7; 0 below -87; NaN for NaN. The CPU engine's bits.
DEVICE float exp_below_zero(float x) {
    const float LOWEST = -87.0f;
    const float ROUND = 12582912.0f;  // Adding it rounds to an integer, which then lies in the low bits.
    float clamped = x < LOWEST ? LOWEST : x;
    float shifted = multiply_add(clamped, 1.44269504f, ROUND);
    float n = shifted - ROUND;
    float r = multiply_add(n, -0.6933594f, clamped);
    r = multiply_add(n, 2.1219444e-4f, r);
    float q = 1.9875691e-4f;
    q = multiply_add(q, r, 1.3982e-3f);
    q = multiply_add(q, r, 8.333452e-3f);
    q = multiply_add(q, r, 4.1665796e-2f);
    q = multiply_add(q, r, 1.6666665e-1f);
    q = multiply_add(q, r, 0.5f);
    float e = multiply_add(q, r * r, r) + 1.0f;
    float power = float_of((bits_of(shifted) << 23) + (127u << 23));
    return x < LOWEST ? 0.0f : e * power;
}

// ln x for x in [1, 2^63), with an error below 1e-15; NaN for NaN.
DEVICE double natural_log(double x) {
    int halvings = 0;
    while (x > 1.4142135623730951 && halvings < 64) {
        x *= 0.5;
        halvings++;
    }
    // ln x = 2 artanh(f), and |f| < 0.172.
    double f = divide(x - 1.0, x + 1.0), square = f * f, series = 0;
    for (int odd = 25; odd >= 1; odd -= 2) series = multiply_add(series, square, divide(1.0, (double)odd));
    return multiply_add((double)halvings, 0.6931471805599453, 2.0 * f * series);
}

// Largest value of a block; every thread gets it. `room` holds WARPS values.
DEVICE float block_maximum(float x, Shared<float> room) {
    x = warp_largest(x);
    if (lane() == 0) room[warp()] = x;
    barrier();
    float found = room[0];
    UNROLL for (int other = 1; other < WARPS; other++) found = larger(found, room[other]);
    return found;
}

// Adds a chunk of a row to its softmax: the new maximum, the sum of e^(z - maximum), and the logits of targets in this chunk.
// Returns the factor by which the maximum shrinks all earlier chunks. Writes e^(z - maximum) as bf16 if SHARES.
template <bool SHARES>
DEVICE float absorb(In<float> z, In<int> first_target, In<int> tokens, Out<float> maximum, Out<double> sum, Out<float> logits,
                    Out<bf16> shares, int first, int width, int stride, int padded) {
    Shared<float> maxima = shared<float>(0, WARPS);
    Shared<double> sums = shared<double>(32, WARPS);
    int row = block_x();
    u64 from = (u64)row * stride, to = (u64)row * padded;
    float before = first == 0 ? float_of(0xff800000) : (float)maximum[row];
    float largest = before;
    for (int column = thread(); column < width; column += THREADS) largest = larger(largest, z[from + column]);
    largest = block_maximum(largest, maxima);
    double total = 0;
    for (int start = thread(); start < width; start += 16 * THREADS) {
        // A few values are added in f32 before the sum continues in f64.
        float few = 0;
        UNROLL for (int i = 0; i < 16; i++) {
            int column = start + i * THREADS;
            if (column < width) {
                float e = exp_below_zero(z[from + column] - largest);
                few += e;
                if (SHARES) shares[to + column] = round_to_bf16(e);
            }
        }
        total += (double)few;
    }
    if (SHARES)
        for (int column = width + thread(); column < padded; column += THREADS) shares[to + column] = bf16{0};
    total = block_sum<WARPS>(total, sums);
    float correction = exp_below_zero(before - largest);
    for (int target = first_target[row] + thread(); target < first_target[row + 1]; target += THREADS) {
        int column = tokens[target] - first;
        if (column >= 0 && column < width) logits[target] = z[from + column];
    }
    if (thread() == 0) {
        double old = first == 0 ? 0.0 : (double)sum[row];
        sum[row] = old * (double)correction + total;
        maximum[row] = largest;
    }
    return correction;
}

// Adds a chunk to the softmax of every row. maximum [rows], sum [rows]; tokens [targets], logits [targets].
KERNEL(head_absorb, THREADS,
       (In<float> z, In<int> first_target, In<int> tokens, Out<float> maximum, Out<double> sum, Out<float> logits, int first,
        int width, int stride)) {
    absorb<false>(z, first_target, tokens, maximum, sum, logits, Out<bf16>{}, first, width, stride, 0);
}

// The same, and writes shares [rows, padded] = e^(z - maximum), with zeros from column `width` on, for the product with the
// chunk's weights; corrections [rows] are the factors for `head_rescale` before that product is added.
KERNEL(head_absorb_shares, THREADS,
       (In<float> z, In<int> first_target, In<int> tokens, Out<float> maximum, Out<double> sum, Out<float> logits,
        Out<bf16> shares, Out<float> corrections, int first, int width, int stride, int padded)) {
    float correction =
        absorb<true>(z, first_target, tokens, maximum, sum, logits, shares, first, width, stride, padded);
    if (thread() == 0) corrections[block_x()] = correction;
}

// expected [rows, width] *= corrections [rows]. The maximum rarely grows, and then nothing is read.
KERNEL(head_rescale, THREADS, (Out<float> expected, In<float> corrections, int width)) {
    float correction = corrections[block_x()];
    if (correction == 1.0f) return;
    u64 start = (u64)block_x() * width;
    for (int column = thread(); column < width; column += THREADS)
        expected[start + column] = expected[start + column] * correction;
}

// Sum of the slopes of a row's targets, in order, rounded once.
DEVICE float total_slope(In<int> first_target, In<double> slopes, int row) {
    double total = 0;
    for (int target = first_target[row]; target < first_target[row + 1]; target++) total += slopes[target];
    return (float)total;
}

// The gradient of the hidden states, from the sum of the shares' products with the weights:
//   d [rows, width] = sum over targets of slope W[token]  -  sum of slopes * expected / sum
// slopes [targets] = d loss / d logp. weights [V, weight_stride]; d's rows are `padded` apart, and columns from `width` on
// become zero.
KERNEL(head_gradient, THREADS,
       (In<float> expected, In<double> sum, In<int> first_target, In<int> tokens, In<double> slopes, In<bf16> weights,
        Out<float> d, int width, int padded, int weight_stride)) {
    int row = block_x();
    float scale = (float)divide(1.0, sum[row]), total = total_slope(first_target, slopes, row);
    int begin = first_target[row], end = first_target[row + 1];
    for (int column = thread(); column < padded; column += THREADS) {
        float value = 0;
        if (column < width) {
            value = -total * (expected[(u64)row * width + column] * scale);
            for (int target = begin; target < end; target++) {
                float weight = widen(weights[(u64)tokens[target] * weight_stride + column]);
                value += (float)slopes[target] * weight;
            }
        }
        d[(u64)row * padded + column] = value;
    }
}

// A token and its logit; the token is -1 for none.
struct Candidate {
    float logit;
    int token;
};

// Whether `a` comes before `b`: the larger logit, of equal ones the smaller token.
DEVICE bool is_before(Candidate a, Candidate b) {
    if (a.token < 0) return false;
    return b.token < 0 || a.logit > b.logit || (a.logit == b.logit && a.token < b.token);
}

// The first of this thread's columns that comes after `last`, or after none. NaN comes nowhere.
DEVICE Candidate next_of_thread(In<float> z, u64 from, int first, int width, Candidate last) {
    Candidate best{0, -1};
    for (int column = thread(); column < width; column += THREADS) {
        Candidate found{z[from + column], first + column};
        bool is_number = found.logit == found.logit;
        if (is_number && (last.token < 0 || is_before(last, found)) && is_before(found, best)) best = found;
    }
    return best;
}

// The first candidate of the block; every thread gets it.
DEVICE Candidate first_of_block(Candidate best, Shared<float> logits, Shared<int> tokens) {
    UNROLL for (int mask = 16; mask > 0; mask /= 2) {
        Candidate other{shuffle_xor(best.logit, mask), shuffle_xor(best.token, mask)};
        if (is_before(other, best)) best = other;
    }
    barrier();  // The room may still be read.
    if (lane() == 0) {
        logits[warp()] = best.logit;
        tokens[warp()] = best.token;
    }
    barrier();
    best = Candidate{logits[0], tokens[0]};
    for (int other = 1; other < WARPS; other++) {
        Candidate found{logits[other], tokens[other]};
        if (is_before(found, best)) best = found;
    }
    return best;
}

// Maximum number of best tokens.
constexpr int MOST = 128;

// Adds a chunk to the `count` best tokens of every row, at most 128: best_logits and best_tokens [rows, count], best first, ties
// by token. Places that no token takes hold the token -1.
KERNEL(head_best, THREADS,
       (In<float> z, Out<float> best_logits, Out<int> best_tokens, int first, int width, int stride, int count)) {
    Shared<float> old_logits = shared<float>(0, MOST), new_logits = shared<float>(1024, MOST);
    Shared<int> old_tokens = shared<int>(512, MOST), new_tokens = shared<int>(1536, MOST);
    Shared<float> room_logits = shared<float>(2048, WARPS);
    Shared<int> room_tokens = shared<int>(2080, WARPS), room = shared<int>(2112, WARPS);
    u64 from = (u64)block_x() * stride, list = (u64)block_x() * count;
    int is_held = 0;
    if (thread() < count) {
        int token = first == 0 ? -1 : (int)best_tokens[list + thread()];
        is_held = token >= 0;
        old_tokens[thread()] = token;
        old_logits[thread()] = is_held ? (float)best_logits[list + thread()] : 0.0f;
    }
    int held = block_sum<WARPS>(is_held, room);

    // New tokens, best first, as long as they are among the best of both.
    int added = 0;
    Candidate last{0, -1}, mine{0, -1};
    while (added < count) {
        if (added == 0 || last.token == mine.token) mine = next_of_thread(z, from, first, width, last);
        last = first_of_block(mine, room_logits, room_tokens);
        int rival = count - 1 - added;
        if (last.token < 0 || (rival < held && old_logits[rival] >= last.logit)) break;
        if (thread() == 0) {
            new_logits[added] = last.logit;
            new_tokens[added] = last.token;
        }
        added++;
    }
    barrier();
    // A token's place is its own index plus the number of tokens of the other list before it. Old tokens win ties.
    if (added > 0 && thread() < held) {
        int place = thread();
        for (int i = 0; i < added; i++) place += new_logits[i] > old_logits[thread()] ? 1 : 0;
        if (place < count) {
            best_logits[list + place] = old_logits[thread()];
            best_tokens[list + place] = old_tokens[thread()];
        }
    }
    if (thread() < added) {
        int place = thread();
        for (int i = 0; i < held; i++) place += old_logits[i] >= new_logits[thread()] ? 1 : 0;
        if (place < count) {
            best_logits[list + place] = new_logits[thread()];
            best_tokens[list + place] = new_tokens[thread()];
        }
    }
    int empty = held + added + thread();
    if (first == 0 && empty < count) {
        best_logits[list + empty] = float_of(0xff800000);
        best_tokens[list + empty] = -1;
    }
}

constexpr int FEW_THREADS = 64;

// Log-probabilities in nats, after the last chunk: logit - (maximum + ln sum), in f64. logits and logp [targets]; best_logits and
// best_logp [rows, count].
KERNEL(head_finish, FEW_THREADS,
       (In<float> maximum, In<double> sum, In<int> first_target, In<float> logits, Out<double> logp, In<float> best_logits,
        Out<double> best_logp, int count)) {
    int row = block_x();
    double log_sum = (double)maximum[row] + natural_log(sum[row]);
    for (int target = first_target[row] + thread(); target < first_target[row + 1]; target += FEW_THREADS)
        logp[target] = (double)logits[target] - log_sum;
    for (int place = thread(); place < count; place += FEW_THREADS)
        best_logp[(u64)row * count + place] = (double)best_logits[(u64)row * count + place] - log_sum;
}
