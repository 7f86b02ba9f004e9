// Norms of rows: root mean square.
//
// One block normalizes one row. Thread t adds up the columns t, t + 256, ... in order, so a row's bits depend on its width alone.
#include "device.h"
#include "reduce.h"

constexpr int THREADS = 256;

// The reciprocal root mean square of a row. A row whose squares overflow gives NaN: zeros would look like a valid result.
DEVICE float reciprocal_rms(In<float> x, u64 start, int width, float eps, Shared<float> room) {
    float sum = 0;
    for (int column = thread(); column < width; column += THREADS) {
        float value = x[start + column];
        sum = multiply_add(value, value, sum);
    }
    float mean_square = divide(block_sum<THREADS / 32>(sum, room), (float)width);
    if (mean_square > 3.4028234663852886e38f) return NOT_A_NUMBER;
    return divide(1.0f, square_root(mean_square + eps));
}

// y = x / sqrt(mean(x^2) + eps) * scale, rounded to bf16. Row block_x() of x [rows, width] goes to row block_x() of y, whose
// rows are `stride` apart. Columns from `width` to `padded` of y become zero.
KERNEL(rms_norm_forward, THREADS, (In<float> x, In<float> scale, Out<bf16> y, int width, int padded, int stride, float eps)) {
    Shared<float> room = shared<float>(0, THREADS / 32);
    u64 from = (u64)block_x() * width, to = (u64)block_x() * stride;
    float factor = reciprocal_rms(x, from, width, eps, room);
    for (int column = thread(); column < padded; column += THREADS) {
        float value = column < width ? x[from + column] * factor * scale[column] : 0.0f;
        y[to + column] = round_to_bf16(value);
    }
}
