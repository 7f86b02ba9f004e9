// The nonlinearity between the two halves of an MLP, forward and backward.
//
// Block (r, p) takes the columns 1024 p to 1024 p + 1023 of row r, eight per thread. So block_y() runs over the columns of a row
// of the output, divided by 1024 and rounded up. All functions are made of operations with one rounding each.
//
// SwiGLU reads a row of `inner` that holds `width` gates and then `width` values of `up`. GELU reads `width` values. A backward
// pass turns the gradient of h into that of `inner`. Rows of h are `stride` apart, its columns from `width` to `padded` become
// zero. Rows of d_inner are `stride` apart, too. All other rows are as wide as they have values.
#include "device.h"
#include "eight.h"
#include "exponential.h"

constexpr int THREADS = 128;

// The first of the thread's columns.
DEVICE int first_column() { return 8 * (block_y() * THREADS + thread()); }

// The error function, absolute error below 3e-7: a rational minimax approximation on [-4, 4] (Eigen).
DEVICE float error_function(float x) {
    x = at_most(x < -4.0f ? -4.0f : x, 4.0f);
    float s = x * x;
    float p = -2.7261423e-10f;
    p = multiply_add(p, s, 2.7706814e-8f);
    p = multiply_add(p, s, -2.101024e-6f);
    p = multiply_add(p, s, -5.6925064e-5f);
    p = multiply_add(p, s, -7.3499063e-4f);
    p = multiply_add(p, s, -2.9546e-3f);
    p = multiply_add(p, s, -1.6096033e-2f);
    float q = -1.4566072e-5f;
    q = multiply_add(q, s, -2.1337406e-4f);
    q = multiply_add(q, s, -1.682827e-3f);
    q = multiply_add(q, s, -7.373329e-3f);
    q = multiply_add(q, s, -1.4264739e-2f);
    return divide(x * p, q);
}

// x Phi(x), Phi being the standard normal distribution function.
struct Gelu {};
DEVICE float value(Gelu, float x) { return x * multiply_add(0.5f, error_function(x * 0.70710678f), 0.5f); }
// Phi(x) + x Phi'(x). One exponential e^(-x^2 / 2) serves both terms: the tail of Phi is half of it times a polynomial in
// 1 / (1 + p |x| / sqrt 2), with an absolute error below 8e-8 (Abramowitz and Stegun 7.1.26).
DEVICE float slope(Gelu, float x) {
    float e = exponential(x * x * -0.5f);
    float t = divide(1.0f, multiply_add(magnitude(x), 0.3275911f * 0.70710678f, 1.0f));
    float tail = 0.5f * 1.0614054f;
    tail = multiply_add(tail, t, 0.5f * -1.453152f);
    tail = multiply_add(tail, t, 0.5f * 1.4214137f);
    tail = multiply_add(tail, t, 0.5f * -0.28449674f);
    tail = multiply_add(tail, t, 0.5f * 0.2548296f);
    tail = tail * t * e;
    // Phi(x) is 1 - tail above 0, and tail below.
    float phi = tail + (x < 0.0f ? 0.0f : 1.0f - (tail + tail));
    return multiply_add(x * e, 0.3989423f, phi);
}

// The tanh approximation of GELU: x sigmoid(2 u), u = sqrt(2 / pi) (x + 0.044715 x^3).
struct GeluTanh {};
DEVICE float tanh_gate(float x) {
    float cubic = multiply_add(x * x, 0.044715f, 1.0f) * x;
    return sigmoid(cubic * (2.0f * 0.7978846f));
}
DEVICE float value(GeluTanh, float x) { return x * tanh_gate(x); }
// s + 2 x s (1 - s) u', s = sigmoid(2 u).
DEVICE float slope(GeluTanh, float x) {
    float s = tanh_gate(x);
    float du = multiply_add(x * x, 3.0f * 0.044715f, 1.0f) * (2.0f * 0.7978846f);
    return multiply_add(x * s * (1.0f - s), du, s);
}

// h = function(inner) of the thread's columns.
template <class Function> DEVICE void gelu(In<bf16> inner, Out<bf16> h, int width, int padded, int stride) {
    int column = first_column();
    if (column >= padded) return;
    Eight x = read(inner, (u64)block_x() * width + column, width - column);
    UNROLL for (int i = 0; i < 8; i++) x.values[i] = column + i < width ? value(Function{}, x.values[i]) : 0.0f;
    write(h, (u64)block_x() * stride + column, padded - column, x);
}

// d_inner = d_h function'(inner) of the thread's columns.
template <class Function> DEVICE void gelu_slope(In<bf16> inner, In<bf16> d_h, Out<bf16> d_inner, int width, int stride) {
    int column = first_column();
    if (column >= width) return;
    u64 at = (u64)block_x() * width + column;
    Eight x = read(inner, at, width - column), d = read(d_h, at, width - column);
    UNROLL for (int i = 0; i < 8; i++) d.values[i] *= slope(Function{}, x.values[i]);
    write(d_inner, (u64)block_x() * stride + column, width - column, d);
}

// h = silu(gate) up, silu(x) = x sigmoid(x). h [rows, padded] and inner [rows, 2 width].
KERNEL(swiglu_forward, THREADS, (In<bf16> inner, Out<bf16> h, int width, int padded, int stride)) {
    int column = first_column();
    if (column >= padded) return;
    u64 at = (u64)block_x() * 2 * width + column;
    Eight gate = read(inner, at, width - column), up = read(inner, at + width, width - column);
    UNROLL for (int i = 0; i < 8; i++) {
        float value = gate.values[i] * sigmoid(gate.values[i]) * up.values[i];
        gate.values[i] = column + i < width ? value : 0.0f;
    }
    write(h, (u64)block_x() * stride + column, padded - column, gate);
}
// d_gate = d_h up silu'(gate), d_up = d_h silu(gate); silu'(x) = s (1 + x (1 - s)), s = sigmoid(x). d_h [rows, width], d_inner
// [rows, 2 width].
KERNEL(swiglu_backward, THREADS, (In<bf16> inner, In<bf16> d_h, Out<bf16> d_inner, int width, int stride)) {
    int column = first_column();
    if (column >= width) return;
    int count = width - column;
    u64 at = (u64)block_x() * 2 * width + column;
    Eight gate = read(inner, at, count), up = read(inner, at + width, count);
    Eight d = read(d_h, (u64)block_x() * width + column, count);
    UNROLL for (int i = 0; i < 8; i++) {
        float g = gate.values[i], s = sigmoid(g);
        float slope = multiply_add(g, 1.0f - s, 1.0f) * s;
        gate.values[i] = d.values[i] * up.values[i] * slope;
        up.values[i] = d.values[i] * g * s;
    }
    u64 to = (u64)block_x() * stride + column;
    write(d_inner, to, count, gate);
    write(d_inner, to + width, count, up);
}

// h [rows, padded] and inner [rows, width].
KERNEL(gelu_forward, THREADS, (In<bf16> inner, Out<bf16> h, int width, int padded, int stride)) {
    gelu<Gelu>(inner, h, width, padded, stride);
}
// d_h and d_inner [rows, width].
KERNEL(gelu_backward, THREADS, (In<bf16> inner, In<bf16> d_h, Out<bf16> d_inner, int width, int stride)) {
    gelu_slope<Gelu>(inner, d_h, d_inner, width, stride);
}

// The same with the tanh approximation.
KERNEL(gelu_tanh_forward, THREADS, (In<bf16> inner, Out<bf16> h, int width, int padded, int stride)) {
    gelu<GeluTanh>(inner, h, width, padded, stride);
}
KERNEL(gelu_tanh_backward, THREADS, (In<bf16> inner, In<bf16> d_h, Out<bf16> d_inner, int width, int stride)) {
    gelu_slope<GeluTanh>(inner, d_h, d_inner, width, stride);
}
