// Rows that move: gather and scatter.
//
// Block (r, p) takes the columns 1024 p to 1024 p + 1023 of row r, eight per thread. So block_y() runs over the columns of the
// widest row that is written, divided by 1024 and rounded up.
#include "device.h"
#include "eight.h"

constexpr int THREADS = 128;

// The first of the thread's columns.
DEVICE int first_column() { return 8 * (block_y() * THREADS + thread()); }

// Copies eight columns, of which `count` exist. The bits stay as they are.
template <class T> DEVICE void copy(const In<T>& x, u64 from, const Out<T>& y, u64 to, int count) {
    constexpr int QUAD = 16 / sizeof(T);
    if (count >= 8 && from % 8 == 0 && to % 8 == 0) {
        UNROLL for (int i = 0; i < 8; i += QUAD) y.set_quad(to + i, x.quad(from + i));
    } else {
        UNROLL for (int i = 0; i < 8; i++)
            if (i < count) y[to + i] = x[from + i];
    }
}

// Row r of y is row rows[r] of x, or zero where rows[r] is negative.
template <class T> DEVICE void gather(In<T> x, In<int> rows, Out<T> y, int width, int x_stride, int y_stride) {
    int column = first_column(), row = rows[block_x()];
    if (column >= width) return;
    u64 to = (u64)block_x() * y_stride + column;
    if (row >= 0) copy(x, (u64)row * x_stride + column, y, to, width - column);
    else write(y, to, width - column, Eight{});
}

// Row r of y [rows, stride] is row ids[r] of the table [vocabulary, width]. Columns from `width` on become zero.
KERNEL(gather_embeddings, THREADS, (In<bf16> table, In<int> ids, Out<float> y, int width, int stride)) {
    int column = first_column();
    if (column >= stride) return;
    Eight e = read(table, (u64)ids[block_x()] * width + column, width - column);
    write(y, (u64)block_x() * stride + column, stride - column, e);
}

// `gather` with an index of -1 is also the inverse of `gather` with distinct rows, with zeros elsewhere.
KERNEL(gather_f32, THREADS, (In<float> x, In<int> rows, Out<float> y, int width, int x_stride, int y_stride)) {
    gather(x, rows, y, width, x_stride, y_stride);
}
KERNEL(gather_bf16, THREADS, (In<bf16> x, In<int> rows, Out<bf16> y, int width, int x_stride, int y_stride)) {
    gather(x, rows, y, width, x_stride, y_stride);
}

// Row rows[r] of y becomes row r of x. No row of y occurs twice.
KERNEL(scatter_bf16, THREADS, (In<bf16> x, In<int> rows, Out<bf16> y, int width, int x_stride, int y_stride)) {
    int column = first_column();
    if (column >= width) return;
    copy(x, (u64)block_x() * x_stride + column, y, (u64)rows[block_x()] * y_stride + column, width - column);
}
