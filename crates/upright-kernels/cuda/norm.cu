// Norms of rows, forward and backward: root mean square, and layer norm. Scale and bias are frozen: only the input has a gradient.
//
// One block takes one row, block_x(). It reads the row two or three times. The caches are meant to serve all reads but the first,
// so blocks are large and few rows are under way at a time. Thread t adds up the columns 8 t to 8 t + 7, then those 2048 further
// on, and so forth, in order. So a row's bits depend on its width alone.
//
// A row has `width` columns. Rows of f32 are `stride` apart, rows of bf16 `y_stride`. Columns from `width` to `padded` of a row of
// bf16 become zero.
#include "device.h"
#include "eight.h"
#include "reduce.h"

constexpr int THREADS = 256;
constexpr int STEP = 8 * THREADS;

// Mean of a row (0 for root mean square), and its reciprocal standard deviation or root mean square.
struct Statistics {
    float mean, factor;
};

// A row of a buffer.
struct Row {
    In<float> x;
    u64 start;
    int width;
};

// Eight columns of a row.
DEVICE Eight columns(const Row& row, int column) { return read(row.x, row.start + column, row.width - column); }

// Statistics of a row. A row whose squares overflow gives NaN: zeros would look like a valid result.
template <bool LAYER> DEVICE Statistics statistics(const Row& row, float eps, Shared<float> room) {
    Statistics s{0.0f, 0.0f};
    int width = row.width;
    if (LAYER) {
        float sum = 0;
        for (int column = 8 * thread(); column < width; column += STEP) {
            Eight x = columns(row, column);
            UNROLL for (int i = 0; i < 8; i++) sum += x.values[i];
        }
        s.mean = divide(block_sum<THREADS / 32>(sum, room), (float)width);
    }
    float sum = 0;
    for (int column = 8 * thread(); column < width; column += STEP) {
        Eight x = columns(row, column);
        UNROLL for (int i = 0; i < 8; i++) {
            float off = column + i < width ? x.values[i] - s.mean : 0.0f;
            sum = multiply_add(off, off, sum);
        }
    }
    float variance = divide(block_sum<THREADS / 32>(sum, room), (float)width);
    bool overflows = variance > 3.4028234663852886e38f;
    s.factor = overflows ? NOT_A_NUMBER : divide(1.0f, square_root(variance + eps));
    return s;
}

// y = (x - mean) * factor * scale + bias of a row, rounded to bf16.
template <bool LAYER>
DEVICE void normalize(const Row& row, In<float> scale, In<float> bias, Out<bf16> y, int padded, int y_stride, float eps) {
    Statistics s = statistics<LAYER>(row, eps, shared<float>(0, THREADS / 32));
    int width = row.width;
    u64 to = (u64)block_x() * y_stride;
    for (int column = 8 * thread(); column < padded; column += STEP) {
        Eight e = columns(row, column), a = read(scale, column, width - column), b;
        if (LAYER) b = read(bias, column, width - column);
        UNROLL for (int i = 0; i < 8; i++) {
            float value = (e.values[i] - s.mean) * s.factor * a.values[i];
            if (LAYER) value += b.values[i];
            e.values[i] = column + i < width ? value : 0.0f;
        }
        write(y, to + column, padded - column, e);
    }
}

// y = x / sqrt(mean(x^2) + eps) * scale. x [rows, width] in f32, y [rows, padded] in bf16.
KERNEL(rms_norm_forward, THREADS,
       (In<float> x, In<float> scale, Out<bf16> y, int width, int stride, int padded, int y_stride, float eps)) {
    Row row{x, (u64)block_x() * stride, width};
    normalize<false>(row, scale, scale, y, padded, y_stride, eps);
}

// y = (x - mean(x)) / sqrt(variance(x) + eps) * scale + bias.
KERNEL(layer_norm_forward, THREADS,
       (In<float> x, In<float> scale, In<float> bias, Out<bf16> y, int width, int stride, int padded, int y_stride, float eps)) {
    Row row{x, (u64)block_x() * stride, width};
    normalize<true>(row, scale, bias, y, padded, y_stride, eps);
}

// Adds to dx the gradient with respect to x, given dy, and writes the sum to `rounded` in bf16:
//   dx += factor (dy scale - mean(dy scale) - (x - mean) factor^2 mean(dy scale (x - mean)))
// The first mean is 0 for root mean square.
template <bool LAYER>
DEVICE void backward(In<float> x, In<float> scale, In<float> dy, Out<float> dx, Out<bf16> rounded, int width, int stride,
                     int padded, int y_stride, float eps) {
    Shared<float> room = shared<float>(0, THREADS / 32);
    u64 start = (u64)block_x() * stride, to = (u64)block_x() * y_stride;
    Row row{x, start, width};
    Statistics s = statistics<LAYER>(row, eps, room);
    float along = 0, shift = 0;
    for (int column = 8 * thread(); column < width; column += STEP) {
        int count = width - column;
        Eight e = columns(row, column), d = read(dy, start + column, count), a = read(scale, column, count);
        UNROLL for (int i = 0; i < 8; i++) {
            // 0 where there is no column, because scale is.
            float slope = d.values[i] * a.values[i];
            along = multiply_add(slope, e.values[i] - s.mean, along);
            if (LAYER) shift += slope;
        }
    }
    along = divide(block_sum<THREADS / 32>(along, room), (float)width) * s.factor * s.factor;
    if (LAYER) shift = divide(block_sum<THREADS / 32>(shift, room), (float)width);
    int end = width > padded ? width : padded;
    for (int column = 8 * thread(); column < end; column += STEP) {
        int count = width - column;
        Eight e = columns(row, column), d = read(dy, start + column, count), a = read(scale, column, count);
        Eight sum = read(dx, start + column, count);
        UNROLL for (int i = 0; i < 8; i++) {
            float slope = d.values[i] * a.values[i];
            if (LAYER) slope -= shift;
            sum.values[i] += (slope - (e.values[i] - s.mean) * along) * s.factor;
            if (i >= count) sum.values[i] = 0.0f;
        }
        write(dx, start + column, count, sum);
        write(rounded, to + column, padded - column, sum);
    }
}

// Backward pass of rms_norm_forward. All rows of f32 are `stride` apart. With `padded` 0, `rounded` is not written.
KERNEL(rms_norm_backward, THREADS,
       (In<float> x, In<float> scale, In<float> dy, Out<float> dx, Out<bf16> rounded, int width, int stride, int padded,
        int y_stride, float eps)) {
    backward<false>(x, scale, dy, dx, rounded, width, stride, padded, y_stride, eps);
}

// Backward pass of layer_norm_forward.
KERNEL(layer_norm_backward, THREADS,
       (In<float> x, In<float> scale, In<float> dy, Out<float> dx, Out<bf16> rounded, int width, int stride, int padded,
        int y_stride, float eps)) {
    backward<true>(x, scale, dy, dx, rounded, width, stride, padded, y_stride, eps);
}
