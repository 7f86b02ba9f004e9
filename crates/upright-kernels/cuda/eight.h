// Eight neighboring columns of a row: the unit in which kernels on rows read, compute and write.
//
// They are read or written 16 bytes at a time where all eight exist and begin at a multiple of eight elements, and one by one
// elsewhere. Results do not depend on which. Buffers begin at a multiple of 16 bytes.
#pragma once
#include "device.h"

struct Eight {
    float values[8];
};

// Columns from `at` on, of which `count` exist. The others are 0.
template <class Buffer> DEVICE Eight read_floats(const Buffer& from, u64 at, int count) {
    Eight e;
    if (count >= 8 && at % 8 == 0) {
        Quad low = from.quad(at), high = from.quad(at + 4);
        UNROLL for (int i = 0; i < 4; i++) {
            e.values[i] = float_of(low.words[i]);
            e.values[4 + i] = float_of(high.words[i]);
        }
    } else {
        UNROLL for (int i = 0; i < 8; i++) e.values[i] = i < count ? (float)from[at + i] : 0.0f;
    }
    return e;
}
DEVICE Eight read(const In<float>& from, u64 at, int count) { return read_floats(from, at, count); }
DEVICE Eight read(const Out<float>& from, u64 at, int count) { return read_floats(from, at, count); }
DEVICE Eight read(const In<bf16>& from, u64 at, int count) {
    Eight e;
    if (count >= 8 && at % 8 == 0) {
        Quad quad = from.quad(at);
        UNROLL for (int i = 0; i < 4; i++) {
            e.values[2 * i] = float_of(quad.words[i] << 16);
            e.values[2 * i + 1] = float_of(quad.words[i] & 0xffff0000u);
        }
    } else {
        UNROLL for (int i = 0; i < 8; i++) e.values[i] = i < count ? widen(from[at + i]) : 0.0f;
    }
    return e;
}

// Writes the first `count` of eight columns.
DEVICE void write(const Out<float>& to, u64 at, int count, const Eight& e) {
    if (count >= 8 && at % 8 == 0) {
        Quad low, high;
        UNROLL for (int i = 0; i < 4; i++) {
            low.words[i] = bits_of(e.values[i]);
            high.words[i] = bits_of(e.values[4 + i]);
        }
        to.set_quad(at, low);
        to.set_quad(at + 4, high);
    } else {
        UNROLL for (int i = 0; i < 8; i++)
            if (i < count) to[at + i] = e.values[i];
    }
}
// The same, rounded to bf16.
DEVICE void write(const Out<bf16>& to, u64 at, int count, const Eight& e) {
    if (count >= 8 && at % 8 == 0) {
        Quad quad;
        UNROLL for (int i = 0; i < 4; i++) quad.words[i] = pack(e.values[2 * i], e.values[2 * i + 1]);
        to.set_quad(at, quad);
    } else {
        UNROLL for (int i = 0; i < 8; i++)
            if (i < count) to[at + i] = round_to_bf16(e.values[i]);
    }
}
