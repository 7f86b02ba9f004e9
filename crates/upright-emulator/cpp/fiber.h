// Fibers: stacks of their own that one thread of the host switches between.
#pragma once

#include <cstddef>

#if !defined(__x86_64__) && !defined(__aarch64__) && !defined(PORTABLE_FIBERS)
#define PORTABLE_FIBERS 1
#endif
#ifdef PORTABLE_FIBERS
#include <ucontext.h>
#endif

namespace emulator {

struct Fiber {
#ifdef PORTABLE_FIBERS
    ucontext_t context;
#else
    void* stack_pointer = nullptr;
#endif
    // The stack, for AddressSanitizer.
    char* stack = nullptr;
    std::size_t size = 0;
    void* fake_stack = nullptr;
};

// Makes `fiber` call `entry` on the stack when it is first switched to. `entry` must not return.
void prepare(Fiber& fiber, char* stack, std::size_t size, void (*entry)());
// Saves the running code in `from` and continues `to`. `ended` says that `from` is never continued.
void switch_to(Fiber& from, Fiber& to, bool ended = false);
// What a fiber calls first, with the code that switched to it.
void started(Fiber& self, Fiber& from);

}  // namespace emulator
