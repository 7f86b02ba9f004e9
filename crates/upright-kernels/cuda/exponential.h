// The exponential function and the sigmoid in operations with one rounding each, so that every card and the emulator give the
// same bits. The CPU engine computes them in the same way.
#pragma once
#include "device.h"

// x, but at most `limit`. NaN stays NaN.
DEVICE float at_most(float x, float limit) { return x > limit ? limit : x; }

// e^x, with a relative error below 1.5e-7 for x in (-87, 88); 0 below.
DEVICE float exponential(float x) {
    float clamped = x < -87.0f ? -87.0f : x;
    // Adding `round` rounds to an integer, which then lies in the low bits.
    const float round = 12582912.0f;
    float shifted = multiply_add(clamped, 1.44269504f, round), n = shifted - round;
    // ln 2 in two parts: products of the first with small integers are exact.
    float r = multiply_add(n, -0.6933594f, clamped);
    r = multiply_add(n, 2.1219444e-4f, r);
    // Minimax on |r| <= ln(2) / 2 (Cephes): e^r = 1 + r + r^2 q(r).
    float q = 1.9875691e-4f;
    q = multiply_add(q, r, 1.3982e-3f);
    q = multiply_add(q, r, 8.333452e-3f);
    q = multiply_add(q, r, 4.1665796e-2f);
    q = multiply_add(q, r, 1.6666665e-1f);
    q = multiply_add(q, r, 0.5f);
    float e = multiply_add(q, r * r, r) + 1.0f;
    return x < -87.0f ? 0.0f : e * float_of((bits_of(shifted) << 23) + 0x3f800000u);
}

// 1 / (1 + e^-x)
DEVICE float sigmoid(float x) { return divide(1.0f, 1.0f + exponential(at_most(0.0f - x, 87.0f))); }
