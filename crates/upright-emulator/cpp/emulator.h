// The names of device.h on a CPU, for kernels that a C++17 compiler builds.
//
// A block's threads are fibers on one thread of the host. Every access to a buffer or to shared memory is checked: bounds,
// alignment, races, memory that nobody wrote, copies that nobody waited for. The first violation ends the launch with a text.
#pragma once

#include <cmath>
#include <cstdint>
#include <cstring>
#include <utility>

#define DEVICE static inline
#define CONSTANT static constexpr
#define UNROLL
#define KEEP_LOOP

namespace emulator {

// A place in a kernel's source.
struct Site {
    const char* file;
    int line;
};
// Parameters that default to the place of the call.
#define CALL_SITE const char *file = __builtin_FILE(), int line = __builtin_LINE()
#define SITE emulator::Site{file, line}

// Types of elements; the same numbers as in the Rust crate.
enum Element { F32 = 0, BF16 = 1, I32 = 2, U32 = 3, U64 = 4, F64 = 5, U8 = 6, I64 = 7 };
// How a parameter is passed: a number, a buffer to read, a buffer to write.
enum Passing { NUMBER = 0, IN = 16, OUT = 32 };

template <class T> struct Code;
template <> struct Code<float> { enum { value = F32 }; };
template <> struct Code<bf16> { enum { value = BF16 }; };
template <> struct Code<int> { enum { value = I32 }; };
template <> struct Code<u32> { enum { value = U32 }; };
template <> struct Code<u64> { enum { value = U64 }; };
template <> struct Code<double> { enum { value = F64 }; };
template <> struct Code<u8> { enum { value = U8 }; };
template <> struct Code<long long> { enum { value = I64 }; };

#define INT_STRUCT(name)                                 \
    template <> struct emulator::Code<name> {            \
        enum { value = emulator::I32 };                  \
        static_assert(sizeof(name) % sizeof(int) == 0);  \
    };

// An argument of a launch.
struct Argument {
    u32 code;       // Element plus Passing
    u32 padding;
    u64 bits;       // a number's bits, or a buffer's address
    u64 bytes;      // a buffer's size
    void* touched;  // of an OUT buffer: one u64 per element that says who touched it, zero at the start
};

// Indices and sizes of the running thread.
int thread_index();
int block_index(int axis);

// Checked accesses. `parameter` counts from 0. They return only if the access is allowed.
void check_in(int parameter, u64 index, u64 elements, u64 count, u64 size);
void check_out(int parameter, u64 index, u64 elements, u64 count, u64 size, void* touched, bool write);
// Checks an access to shared memory and returns its address.
void* shared_access(u32 start, int index, int elements, int count, u32 size, bool write);
// Checks that a part of shared memory exists.
void check_shared(int offset, int count, u32 size);

void barrier(Site site);
void warp_barrier(Site site);
u64 shuffle_xor(u64 bits, int mask, Site site);
Matrices load_matrices(u32 start, int index, int count, bool transposed, Site site);
void mma(float (&c)[4], const Matrices& a, u32 b0, u32 b1, Site site);
void copy_async(u32 start, int at, int count, u32 size, const void* from);
void commit_copies();
void wait_for_copies(int groups);

}  // namespace emulator

DEVICE int thread() { return emulator::thread_index(); }
DEVICE int warp() { return emulator::thread_index() / 32; }
DEVICE int lane() { return emulator::thread_index() % 32; }
DEVICE int block_x() { return emulator::block_index(0); }
DEVICE int block_y() { return emulator::block_index(1); }
DEVICE int block_z() { return emulator::block_index(2); }

DEVICE float float_of(u32 bits) {
    float x;
    memcpy(&x, &bits, 4);
    return x;
}
DEVICE u32 bits_of(float x) {
    u32 bits;
    memcpy(&bits, &x, 4);
    return bits;
}
#define INFINITE float_of(0x7f800000)
#define NOT_A_NUMBER float_of(0x7fffffff)
DEVICE float widen(bf16 x) { return float_of((u32)x.bits << 16); }
DEVICE bf16 round_to_bf16(float x) {
    u32 bits = bits_of(x);
    if (x != x) return bf16{0x7fff};
    return bf16{(u16)((bits + 0x7fff + (bits >> 16 & 1)) >> 16)};
}
DEVICE u32 pack(float low, float high) { return round_to_bf16(low).bits | (u32)round_to_bf16(high).bits << 16; }

DEVICE float multiply_add(float a, float b, float c) { return std::fma(a, b, c); }
DEVICE double multiply_add(double a, double b, double c) { return std::fma(a, b, c); }
DEVICE float divide(float a, float b) { return a / b; }
DEVICE double divide(double a, double b) { return a / b; }
DEVICE float square_root(float x) { return std::sqrt(x); }
DEVICE double square_root(double x) { return std::sqrt(x); }
DEVICE float larger(float a, float b) { return std::fmax(a, b); }
DEVICE float smaller(float a, float b) { return std::fmin(a, b); }
DEVICE float magnitude(float x) { return std::fabs(x); }
DEVICE float fast_exp2(float x) { return std::exp2(x); }
DEVICE float fast_log2(float x) { return std::log2(x); }

DEVICE void barrier(CALL_SITE) { emulator::barrier(SITE); }
DEVICE void warp_barrier(CALL_SITE) { emulator::warp_barrier(SITE); }
template <class T> DEVICE T shuffle_xor(T x, int mask, CALL_SITE) {
    u64 bits = 0;
    memcpy(&bits, &x, sizeof(T));
    bits = emulator::shuffle_xor(bits, mask, SITE);
    memcpy(&x, &bits, sizeof(T));
    return x;
}

template <class T> struct In {
    const T* values;
    u64 count;
    int parameter;
    T operator[](u64 index) const {
        emulator::check_in(parameter, index, 1, count, sizeof(T));
        return values[index];
    }
    Quad quad(u64 index) const {
        emulator::check_in(parameter, index, 16 / sizeof(T), count, sizeof(T));
        Quad q;
        memcpy(&q, values + index, 16);
        return q;
    }
};

template <class T> struct Out {
    T* values;
    u64 count;
    int parameter;
    void* touched;
    // An element, read or written through its operators.
    struct Place {
        const Out& out;
        u64 index;
        operator T() const {
            out.check(index, 1, false);
            return out.values[index];
        }
        const Place& operator=(T x) const {
            out.check(index, 1, true);
            out.values[index] = x;
            return *this;
        }
        const Place& operator=(const Place& other) const { return *this = (T)other; }
        const Place& operator+=(T x) const { return *this = (T)*this + x; }
    };
    Place operator[](u64 index) const { return Place{*this, index}; }
    Quad quad(u64 index) const {
        check(index, 16 / sizeof(T), false);
        Quad q;
        memcpy(&q, values + index, 16);
        return q;
    }
    void set_quad(u64 index, Quad q) const {
        check(index, 16 / sizeof(T), true);
        memcpy((void*)(values + index), &q, 16);
    }
    void set_word(u64 index, u32 word) const {
        check(index, 4 / sizeof(T), true);
        memcpy((void*)(values + index), &word, 4);
    }
    void set_two(u64 index, float a, float b) const {
        static_assert(sizeof(T) == sizeof(float));
        check(index, 2, true);
        values[index] = a;
        values[index + 1] = b;
    }
    void check(u64 index, u64 elements, bool write) const {
        emulator::check_out(parameter, index, elements, count, sizeof(T), touched, write);
    }
};

template <class T> struct Shared {
    u32 start;
    int count;
    struct Place {
        const Shared& memory;
        int index;
        operator T() const {
            T x;
            memcpy(&x, memory.access(index, 1, false), sizeof(T));
            return x;
        }
        const Place& operator=(T x) const {
            memcpy(memory.access(index, 1, true), &x, sizeof(T));
            return *this;
        }
        const Place& operator=(const Place& other) const { return *this = (T)other; }
        const Place& operator+=(T x) const { return *this = (T)*this + x; }
    };
    Place operator[](int index) const { return Place{*this, index}; }
    Quad quad(int index) const {
        Quad q;
        memcpy(&q, access(index, 16 / sizeof(T), false), 16);
        return q;
    }
    void set_quad(int index, Quad q) const { memcpy(access(index, 16 / sizeof(T), true), &q, 16); }
    void set_word(int index, u32 word) const { memcpy(access(index, 4 / sizeof(T), true), &word, 4); }
    void* access(int index, int elements, bool write) const {
        return emulator::shared_access(start, index, elements, count, sizeof(T), write);
    }
};

template <class T> DEVICE Shared<T> shared(int offset, int count) {
    emulator::check_shared(offset, count, sizeof(T));
    return Shared<T>{(u32)offset, count};
}

template <class T> DEVICE Shared<T> fresh(Shared<T> from) { return from; }

DEVICE Matrices load_matrices(Shared<bf16> from, int index, CALL_SITE) {
    return emulator::load_matrices(from.start, index, from.count, false, SITE);
}
DEVICE Matrices load_transposed(Shared<bf16> from, int index, CALL_SITE) {
    return emulator::load_matrices(from.start, index, from.count, true, SITE);
}
DEVICE void mma(float (&c)[4], const Matrices& a, u32 b0, u32 b1, CALL_SITE) {
    emulator::mma(c, a, b0, b1, SITE);
}
template <class T>
DEVICE void copy_async(Shared<T> to, int at, In<T> from, u64 index, bool real) {
    if (real) emulator::check_in(from.parameter, index, 16 / sizeof(T), from.count, sizeof(T));
    emulator::copy_async(to.start, at, to.count, sizeof(T), real ? (const void*)(from.values + index) : nullptr);
}
DEVICE void commit_copies() { emulator::commit_copies(); }
template <int N> DEVICE void wait_for_copies() { emulator::wait_for_copies(N); }

namespace emulator {

// Makes parameter `index` of a kernel from its argument.
template <class T> struct Unpack {
    enum { code = Code<T>::value + NUMBER };
    static T from(const Argument& argument, int) {
        T x;
        memcpy(&x, &argument.bits, sizeof(T));
        return x;
    }
};
template <class T> struct Unpack<In<T>> {
    enum { code = Code<T>::value + IN };
    static In<T> from(const Argument& argument, int index) {
        return In<T>{(const T*)argument.bits, argument.bytes / sizeof(T), index};
    }
};
template <class T> struct Unpack<Out<T>> {
    enum { code = Code<T>::value + OUT };
    static Out<T> from(const Argument& argument, int index) {
        return Out<T>{(T*)argument.bits, argument.bytes / sizeof(T), index, argument.touched};
    }
};

// A kernel: its name, size of a block, parameters, and how to call it. Those of a source file form a list.
struct Entry {
    const Entry* next;
    const char* name;
    int threads;
    int count;
    u32 codes[32];
    void (*kernel)();
    void (*call)(void (*kernel)(), const Argument* arguments);

    template <class... P> Entry(const Entry*& list, const char* name, int threads, void (*function)(P...))
        : next(list), name(name), threads(threads), count(sizeof...(P)), codes{Unpack<P>::code...}, kernel((void (*)())function),
          call(&call_with<P...>) {
        list = this;
    }

private:
    template <class... P> static void call_with(void (*kernel)(), const Argument* arguments) {
        unpack((void (*)(P...))kernel, arguments, std::index_sequence_for<P...>{});
    }
    template <class... P, std::size_t... I>
    static void unpack(void (*kernel)(P...), const Argument* arguments, std::index_sequence<I...>) {
        kernel(Unpack<P>::from(arguments[I], (int)I)...);
    }
};

}  // namespace emulator

// The kernels of this source file.
[[maybe_unused]] static const emulator::Entry* kernels_of_this_file = nullptr;

#define KERNEL(name, threads, parameters)                                                       \
    static void name parameters;                                                                \
    static const emulator::Entry entry_of_##name(kernels_of_this_file, #name, threads, name);   \
    static void name parameters
