// Sums and maxima over the lanes of a warp and the threads of a block, in an order that depends on nothing but the size.
#pragma once
#include "device.h"

// Sum over a warp; every lane gets it. Lanes 16 apart are added first, neighbors last.
template <class T> DEVICE T warp_sum(T x) {
    UNROLL for (int mask = 16; mask > 0; mask /= 2) x += shuffle_xor(x, mask);
    return x;
}

// Largest value of a warp; every lane gets it.
DEVICE float warp_largest(float x) {
    UNROLL for (int mask = 16; mask > 0; mask /= 2) x = larger(x, shuffle_xor(x, mask));
    return x;
}

// Sum over a block of WARPS warps; every thread gets it. `room` holds WARPS values. The warps' sums are added in order.
template <int WARPS, class T> DEVICE T block_sum(T x, Shared<T> room) {
    x = warp_sum(x);
    barrier();  // `room` may still be read by the last call.
    if (lane() == 0) room[warp()] = x;
    barrier();
    T sum = room[0];
    UNROLL for (int other = 1; other < WARPS; other++) sum += room[other];
    return sum;
}
