// What kernels call: checked accesses, barriers, warp operations, asynchronous copies.
#include "block.h"

namespace emulator {

int thread_index() { return running->current; }
int block_index(int axis) { return running->place[axis]; }

static void check_bounds(int parameter, u64 index, u64 elements, u64 count, u64 size) {
    if (index >= count || elements > count - index)
        running->fail("parameter %d: element %lld of a buffer of %llu", parameter, (long long)(index + elements - 1), count);
    if (index * size % (elements * size)) running->fail("parameter %d: %llu bytes at byte %llu are not aligned", parameter, elements * size, index * size);
}

void check_in(int parameter, u64 index, u64 elements, u64 count, u64 size) { check_bounds(parameter, index, elements, count, size); }

// Who touched an element of a buffer: bit 0: it was written; bits 1-11: thread + 1; 12-31: barriers of the block; 32-63: block + 1.
void check_out(int parameter, u64 index, u64 elements, u64 count, u64 size, void* touched, bool write) {
    check_bounds(parameter, index, elements, count, size);
    Block& block = *running;
    u64 now = (u64)write | (u64)(block.current + 1) << 1 | (block.barriers & 0xfffff) << 12 | (block.index + 1) << 32;
    for (u64 i = index; i < index + elements; i++) {
        auto& mark = ((std::atomic<u64>*)touched)[i];
        u64 before = mark.exchange(now, std::memory_order_relaxed);
        if (before == 0) continue;
        if (before >> 32 != now >> 32) {
            if (write || before & 1)
                block.fail("parameter %d: %s element %llu, which block %llu %s", parameter, write ? "writes" : "reads", i,
                           (before >> 32) - 1, before & 1 ? "writes" : "reads");
        } else if (before >> 12 == now >> 12 && (before >> 1 & 0x7ff) != (now >> 1 & 0x7ff) && (write || before & 1)) {
            block.fail("parameter %d: race: %s element %llu, which thread %llu %s; no barrier lies between", parameter,
                       write ? "writes" : "reads", i, (before >> 1 & 0x7ff) - 1, before & 1 ? "writes" : "reads");
        }
        // A read must not hide the thread's own write.
        if (!write && before & 1) mark.fetch_or(1, std::memory_order_relaxed);
    }
}

void check_shared(int offset, int count, u32 size) {
    Block& block = *running;
    if (offset < 0 || offset % 16) block.fail("shared memory at byte %d, which is no multiple of 16", offset);
    if (count < 0 || (u64)offset + (u64)count * size > block.shared.size())
        block.fail("shared memory: %d elements of %u bytes from byte %d on, of %zu bytes", count, size, offset, block.shared.size());
}

void* shared_access(u32 start, int index, int elements, int count, u32 size, bool write) {
    Block& block = *running;
    if (index < 0 || index + elements > count) block.fail("shared memory: element %d of %d", index + elements - 1, count);
    u32 byte = start + (u32)index * size, bytes = (u32)elements * size;
    if (byte % bytes) block.fail("shared memory: %u bytes at byte %u are not aligned", bytes, byte);
    block.touch_shared(byte, bytes, write);
    return &block.shared[byte];
}

void barrier(Site site) { running->wait_at_barrier(site); }

void warp_barrier(Site site) { running->wait_for_warp("warp_barrier", nullptr, site); }

u64 shuffle_xor(u64 bits, int mask, Site site) {
    Thread& self = running->self();
    if (mask < 0 || mask >= LANES) running->fail("shuffle_xor with mask %d", mask);
    self.bits = bits;
    self.mask = mask;
    running->wait_for_warp("shuffle_xor", [](Thread* lanes) {
        u64 values[LANES];
        for (int lane = 0; lane < LANES; lane++) values[lane] = lanes[lane].bits;
        for (int lane = 0; lane < LANES; lane++) lanes[lane].bits = values[lane ^ lanes[lane].mask];
    }, site);
    return running->self().bits;
}

// PTX ISA, ldmatrix: lane m * 8 + r has the address of row r of matrix m.
static void spread(Thread* lanes, bool transposed) {
    u16 matrix[4][8][8];
    for (int lane = 0; lane < LANES; lane++) std::memcpy(matrix[lane / 8][lane % 8], &running->shared[lanes[lane].address], 16);
    for (int lane = 0; lane < LANES; lane++)
        for (int m = 0; m < 4; m++) {
            u32 low, high;
            if (transposed) {
                low = matrix[m][lane % 4 * 2][lane / 4];
                high = matrix[m][lane % 4 * 2 + 1][lane / 4];
            } else {
                low = matrix[m][lane / 4][lane % 4 * 2];
                high = matrix[m][lane / 4][lane % 4 * 2 + 1];
            }
            lanes[lane].matrices.r[m] = low | high << 16;
        }
}

Matrices load_matrices(u32 start, int index, int count, bool transposed, Site site) {
    shared_access(start, index, 8, count, 2, false);
    running->self().address = start + (u32)index * 2;
    if (transposed) running->wait_for_warp("load_transposed", [](Thread* lanes) { spread(lanes, true); }, site);
    else running->wait_for_warp("load_matrices", [](Thread* lanes) { spread(lanes, false); }, site);
    return running->self().matrices;
}

// PTX ISA, fragments of mma.m16n8k16. Each element is one chain of 16 products that starts at 0, and is added to c. A card
// aligns the products and cuts them off instead, so its last bits differ.
static void multiply(Thread* lanes) {
    float a[16][16], b[16][8], sum[16][8] = {};
    auto half = [](u32 word, int which) { return float_of(which ? word & 0xffff0000u : word << 16); };
    for (int lane = 0; lane < LANES; lane++) {
        int group = lane / 4, pair = lane % 4 * 2;
        for (int e = 0; e < 2; e++) {
            for (int r = 0; r < 4; r++) a[group + r % 2 * 8][pair + r / 2 * 8 + e] = half(lanes[lane].matrices.r[r], e);
            for (int r = 0; r < 2; r++) b[pair + r * 8 + e][group] = half(lanes[lane].b[r], e);
        }
    }
    for (int row = 0; row < 16; row++)
        for (int k = 0; k < 16; k++)
            for (int column = 0; column < 8; column++) sum[row][column] += a[row][k] * b[k][column];
    for (int lane = 0; lane < LANES; lane++)
        for (int i = 0; i < 4; i++) lanes[lane].c[i] += sum[lane / 4 + i / 2 * 8][lane % 4 * 2 + i % 2];
}

void mma(float (&c)[4], const Matrices& a, u32 b0, u32 b1, Site site) {
    Thread& self = running->self();
    self.matrices = a;
    self.b[0] = b0;
    self.b[1] = b1;
    std::memcpy(self.c, c, sizeof c);
    running->wait_for_warp("mma", multiply, site);
    std::memcpy(c, running->self().c, sizeof c);
}

void copy_async(u32 start, int at, int count, u32 size, const void* from) {
    Block& block = *running;
    int elements = 16 / (int)size;
    if (at < 0 || at + elements > count) block.fail("shared memory: copy to element %d of %d", at + elements - 1, count);
    u32 byte = start + (u32)at * size;
    if (byte % 16) block.fail("shared memory: copy to byte %u, which is no multiple of 16", byte);
    block.begin_copy(byte, 16);
    block.self().groups.back().push_back(Copy{byte, from});
}

void commit_copies() { running->self().groups.emplace_back(); }

void wait_for_copies(int groups) {
    auto& waiting = running->self().groups;
    // The open group has not been committed, so it is not waited for.
    while ((int)waiting.size() - 1 > groups) {
        running->land(waiting.front());
        waiting.erase(waiting.begin());
    }
}

}  // namespace emulator
