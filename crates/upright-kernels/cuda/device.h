// Everything in a kernel that is not plain C++.
//
// A kernel includes this file and uses nothing else of CUDA. NVRTC and nvcc compile the first half. A C++17 compiler takes
// `emulator.h` of the crate upright-emulator instead, which declares the same names.
//
// Rules for kernels:
//  - A kernel's parameters are `In<T>`, `Out<T>`, `int`, `u32`, `u64`, `float` and `double`.
//  - Shared memory is `shared<T>(offset, count)`, in bytes from the start of the block's memory.
//  - All 32 lanes of a warp call a warp operation together, from the same line. All threads of a block call `barrier`
//    together, from the same line. No thread returns before the last of these calls.
//  - A product and a sum that are rounded once are written `multiply_add`. The compiler fuses nothing (-fmad=false).
#pragma once

typedef unsigned char u8;
typedef unsigned short u16;
typedef unsigned int u32;
typedef unsigned long long u64;

// A bf16 number: the upper half of an f32.
struct bf16 {
    u16 bits;
};

// 16 bytes, the largest single access to memory.
struct alignas(16) Quad {
    u32 words[4];
};

// The four registers of a lane that `ldmatrix` fills: one 8x8 matrix of bf16 per register.
struct Matrices {
    u32 r[4];
};

#ifdef __CUDACC__

// Defines a kernel with `threads` threads per block: KERNEL(name, threads, (In<float> x, Out<float> y, int n)) { ... }
#define KERNEL(name, threads, parameters) extern "C" __global__ void __launch_bounds__(threads, 1) name parameters
// Functions that kernels call.
#define DEVICE __device__ __forceinline__
// Functions whose results are constants of the compiler.
#define CONSTANT __device__ constexpr
// Declares that a struct consists of `int` fields, so that `In<Struct>` reads a buffer of i32.
#define INT_STRUCT(name)
// A loop that is unrolled, so that arrays stay in registers, and one that is not, so that fewer registers are needed.
#define UNROLL _Pragma("unroll")
#define KEEP_LOOP _Pragma("unroll 1")

DEVICE int thread() { return threadIdx.x; }
DEVICE int warp() { return threadIdx.x / 32; }
DEVICE int lane() { return threadIdx.x % 32; }
DEVICE int block_x() { return blockIdx.x; }
DEVICE int block_y() { return blockIdx.y; }
DEVICE int block_z() { return blockIdx.z; }

// Bits of numbers.
DEVICE float float_of(u32 bits) { return __uint_as_float(bits); }
DEVICE u32 bits_of(float x) { return __float_as_uint(x); }
// Positive infinity and NaN.
#define INFINITE float_of(0x7f800000)
#define NOT_A_NUMBER float_of(0x7fffffff)

// bf16 to f32 (exact) and back (nearest, ties to even).
DEVICE float widen(bf16 x) { return __uint_as_float((u32)x.bits << 16); }
DEVICE bf16 round_to_bf16(float x) {
    bf16 y;
    asm("cvt.rn.bf16.f32 %0, %1;" : "=h"(y.bits) : "f"(x));
    return y;
}
// Two f32 to two bf16 in one word, `low` in the lower half.
DEVICE u32 pack(float low, float high) {
    u32 word;
    asm("cvt.rn.bf16x2.f32 %0, %1, %2;" : "=r"(word) : "f"(high), "f"(low));
    return word;
}

// Arithmetic with one rounding, as IEEE 754 defines it.
DEVICE float multiply_add(float a, float b, float c) { return __fmaf_rn(a, b, c); }
DEVICE double multiply_add(double a, double b, double c) { return __fma_rn(a, b, c); }
DEVICE float divide(float a, float b) { return __fdiv_rn(a, b); }
DEVICE double divide(double a, double b) { return __ddiv_rn(a, b); }
DEVICE float square_root(float x) { return __fsqrt_rn(x); }
DEVICE double square_root(double x) { return __dsqrt_rn(x); }
// The larger and the smaller number; the other one if one is NaN.
DEVICE float larger(float a, float b) { return fmaxf(a, b); }
DEVICE float smaller(float a, float b) { return fminf(a, b); }
DEVICE float magnitude(float x) { return fabsf(x); }
// Approximations of the card, within 2 units in the last place. Their last bits differ from the emulator's.
DEVICE float fast_exp2(float x) {
    float y;
    asm("ex2.approx.ftz.f32 %0, %1;" : "=f"(y) : "f"(x));
    return y;
}
DEVICE float fast_log2(float x) {
    float y;
    asm("lg2.approx.ftz.f32 %0, %1;" : "=f"(y) : "f"(x));
    return y;
}

// Waits for all threads of the block. Writes to shared and global memory before it are seen by all of them after it.
DEVICE void barrier() { __syncthreads(); }
// The same for the lanes of a warp.
DEVICE void warp_barrier() { __syncwarp(); }
// The value of lane `lane() ^ mask`.
DEVICE float shuffle_xor(float x, int mask) { return __shfl_xor_sync(~0u, x, mask); }
DEVICE int shuffle_xor(int x, int mask) { return __shfl_xor_sync(~0u, x, mask); }
DEVICE u32 shuffle_xor(u32 x, int mask) { return __shfl_xor_sync(~0u, x, mask); }
DEVICE double shuffle_xor(double x, int mask) { return __shfl_xor_sync(~0u, x, mask); }

// A buffer that the kernel only reads.
template <class T> struct In {
    const T* values;
    DEVICE T operator[](u64 index) const { return values[index]; }
    // 16 bytes from element `index` on, at a multiple of 16 bytes.
    DEVICE Quad quad(u64 index) const {
        Quad q;
        asm("ld.global.nc.v4.u32 {%0,%1,%2,%3}, [%4];"
            : "=r"(q.words[0]), "=r"(q.words[1]), "=r"(q.words[2]), "=r"(q.words[3])
            : "l"(__cvta_generic_to_global(values + index)));
        return q;
    }
};
template <> DEVICE float In<float>::operator[](u64 index) const { return __ldg(values + index); }
template <> DEVICE int In<int>::operator[](u64 index) const { return __ldg(values + index); }
template <> DEVICE bf16 In<bf16>::operator[](u64 index) const { return bf16{__ldg((const u16*)values + index)}; }

// A buffer that the kernel writes. It may also read it, but no two blocks touch the same element.
template <class T> struct Out {
    T* values;
    DEVICE T& operator[](u64 index) const { return values[index]; }
    // 16 bytes from element `index` on, at a multiple of 16 bytes.
    DEVICE Quad quad(u64 index) const { return *(const Quad*)(values + index); }
    DEVICE void set_quad(u64 index, Quad q) const { *(Quad*)(values + index) = q; }
    // 4 bytes from element `index` on, at a multiple of 4 bytes.
    DEVICE void set_word(u64 index, u32 word) const { *(u32*)(values + index) = word; }
    // 8 bytes from element `index` on, at a multiple of 8 bytes.
    DEVICE void set_two(u64 index, float a, float b) const { *(float2*)(values + index) = make_float2(a, b); }
};

// A part of the block's shared memory.
template <class T> struct Shared {
    u32 start;
    DEVICE u32 address(int index) const { return start + index * (u32)sizeof(T); }
    DEVICE T* pointer(int index) const { return (T*)__cvta_shared_to_generic(address(index)); }
    DEVICE T& operator[](int index) const { return *pointer(index); }
    DEVICE Quad quad(int index) const { return *(const Quad*)pointer(index); }
    DEVICE void set_quad(int index, Quad q) const { *(Quad*)pointer(index) = q; }
    DEVICE void set_word(int index, u32 word) const { *(u32*)pointer(index) = word; }
};

// `count` elements, `offset` bytes (a multiple of 16) from the start of the block's shared memory.
template <class T> DEVICE Shared<T> shared(int offset, int count) {
    extern __shared__ __align__(16) u8 shared_memory[];
    (void)count;
    return Shared<T>{(u32)__cvta_generic_to_shared(shared_memory) + (u32)offset};
}
// The same memory, of which the compiler knows nothing. In a loop it then adds constants to one address where they are used.
// Otherwise it keeps every address in a register of its own from before the loop.
template <class T> DEVICE Shared<T> fresh(Shared<T> from) {
    asm volatile("" : "+r"(from.start));
    return from;
}

// Four 8x8 matrices of bf16 from shared memory. Lane l gives the address of row l % 8 of matrix l / 8, and receives of each
// matrix the elements (l / 4, l % 4 * 2) and (l / 4, l % 4 * 2 + 1).
DEVICE Matrices load_matrices(Shared<bf16> from, int index) {
    Matrices m;
    asm volatile("ldmatrix.sync.aligned.m8n8.x4.shared.b16 {%0,%1,%2,%3}, [%4];"
                 : "=r"(m.r[0]), "=r"(m.r[1]), "=r"(m.r[2]), "=r"(m.r[3])
                 : "r"(from.address(index))
                 : "memory");
    return m;
}
// The same with each matrix transposed: lane l receives (l % 4 * 2, l / 4) and (l % 4 * 2 + 1, l / 4).
DEVICE Matrices load_transposed(Shared<bf16> from, int index) {
    Matrices m;
    asm volatile("ldmatrix.sync.aligned.m8n8.x4.trans.shared.b16 {%0,%1,%2,%3}, [%4];"
                 : "=r"(m.r[0]), "=r"(m.r[1]), "=r"(m.r[2]), "=r"(m.r[3])
                 : "r"(from.address(index))
                 : "memory");
    return m;
}

// c += a b on the tensor cores: a [16, 16] and b [16, 8] in bf16, c [16, 8] in f32, spread over the lanes of a warp as the PTX
// ISA has it (mma.m16n8k16).
DEVICE void mma(float (&c)[4], const Matrices& a, u32 b0, u32 b1) {
    asm volatile("mma.sync.aligned.m16n8k16.row.col.f32.bf16.bf16.f32 {%0,%1,%2,%3}, {%4,%5,%6,%7}, {%8,%9}, {%0,%1,%2,%3};"
                 : "+f"(c[0]), "+f"(c[1]), "+f"(c[2]), "+f"(c[3])
                 : "r"(a.r[0]), "r"(a.r[1]), "r"(a.r[2]), "r"(a.r[3]), "r"(b0), "r"(b1));
}

// Begins to copy 16 bytes, or begins to write 16 zero bytes if `real` is false. Both places are multiples of 16 bytes.
template <class T> DEVICE void copy_async(Shared<T> to, int at, In<T> from, u64 index, bool real) {
    asm volatile("cp.async.cg.shared.global [%0], [%1], 16, %2;" ::"r"(to.address(at)),
                 "l"(__cvta_generic_to_global(from.values + index)), "r"(real ? 16 : 0)
                 : "memory");
}
// Ends a group of this thread's copies.
DEVICE void commit_copies() { asm volatile("cp.async.commit_group;" ::: "memory"); }
// Waits until at most the last N groups of this thread's copies are under way. Other threads see the copies after a barrier.
template <int N> DEVICE void wait_for_copies() { asm volatile("cp.async.wait_group %0;" ::"n"(N) : "memory"); }

#else
#include "emulator.h"
#endif
