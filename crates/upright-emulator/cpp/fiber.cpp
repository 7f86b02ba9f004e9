#include "fiber.h"

#include <cstdint>

#if defined(__SANITIZE_ADDRESS__)
#define WITH_ASAN 1
#elif defined(__has_feature)
#if __has_feature(address_sanitizer)
#define WITH_ASAN 1
#endif
#endif

#ifdef WITH_ASAN
#include <sanitizer/asan_interface.h>
#include <sanitizer/common_interface_defs.h>
#endif

#ifdef PORTABLE_FIBERS
// Nothing to define.
#elif defined(__x86_64__)
// Saves the registers that a function must keep and the stack pointer, and loads those of the other stack.
asm(R"(
.text
.globl upright_emulator_switch
upright_emulator_switch:
    pushq %rbp
    pushq %rbx
    pushq %r12
    pushq %r13
    pushq %r14
    pushq %r15
    movq %rsp, (%rdi)
    movq %rsi, %rsp
    popq %r15
    popq %r14
    popq %r13
    popq %r12
    popq %rbx
    popq %rbp
    ret
)");
#elif defined(__aarch64__)
#ifdef __APPLE__
#define SYMBOL "_upright_emulator_switch"
#else
#define SYMBOL "upright_emulator_switch"
#endif
asm(".text\n.globl " SYMBOL "\n.p2align 2\n" SYMBOL ":\n" R"(
    sub sp, sp, #160
    stp x19, x20, [sp, #0]
    stp x21, x22, [sp, #16]
    stp x23, x24, [sp, #32]
    stp x25, x26, [sp, #48]
    stp x27, x28, [sp, #64]
    stp x29, x30, [sp, #80]
    stp d8, d9, [sp, #96]
    stp d10, d11, [sp, #112]
    stp d12, d13, [sp, #128]
    stp d14, d15, [sp, #144]
    mov x9, sp
    str x9, [x0]
    mov sp, x1
    ldp x19, x20, [sp, #0]
    ldp x21, x22, [sp, #16]
    ldp x23, x24, [sp, #32]
    ldp x25, x26, [sp, #48]
    ldp x27, x28, [sp, #64]
    ldp x29, x30, [sp, #80]
    ldp d8, d9, [sp, #96]
    ldp d10, d11, [sp, #112]
    ldp d12, d13, [sp, #128]
    ldp d14, d15, [sp, #144]
    add sp, sp, #160
    ret
)");
#endif

#ifndef PORTABLE_FIBERS
#ifdef __APPLE__
extern "C" void upright_emulator_switch(void** save, void* load) asm("_upright_emulator_switch");
#else
extern "C" void upright_emulator_switch(void** save, void* load);
#endif
#endif

namespace emulator {

void prepare(Fiber& fiber, char* stack, std::size_t size, void (*entry)()) {
    fiber.stack = stack;
    fiber.size = size;
    fiber.fake_stack = nullptr;
#ifdef WITH_ASAN
    // The last fiber on this stack may have been abandoned in the middle of a function.
    ASAN_UNPOISON_MEMORY_REGION(stack, size);
#endif
#ifdef PORTABLE_FIBERS
    getcontext(&fiber.context);
    fiber.context.uc_stack.ss_sp = stack;
    fiber.context.uc_stack.ss_size = size;
    fiber.context.uc_link = nullptr;
    makecontext(&fiber.context, entry, 0);
#elif defined(__x86_64__)
    // `entry` begins as if it had been called: its return address, here 0, lies at 8 modulo 16.
    void** top = (void**)(((std::uintptr_t)stack + size) & ~(std::uintptr_t)15);
    *--top = nullptr;
    *--top = (void*)entry;
    for (int i = 0; i < 6; i++) *--top = nullptr;
    fiber.stack_pointer = top;
#else
    char* top = (char*)(((std::uintptr_t)stack + size) & ~(std::uintptr_t)15) - 160;
    for (int i = 0; i < 20; i++) ((std::uint64_t*)top)[i] = 0;
    ((std::uint64_t*)top)[11] = (std::uint64_t)entry;
    fiber.stack_pointer = top;
#endif
}

void switch_to(Fiber& from, Fiber& to, bool ended) {
#ifdef WITH_ASAN
    __sanitizer_start_switch_fiber(ended ? nullptr : &from.fake_stack, to.stack, to.size);
#else
    (void)ended;
#endif
#ifdef PORTABLE_FIBERS
    swapcontext(&from.context, &to.context);
#else
    upright_emulator_switch(&from.stack_pointer, to.stack_pointer);
#endif
#ifdef WITH_ASAN
    __sanitizer_finish_switch_fiber(from.fake_stack, nullptr, nullptr);
#endif
}

void started(Fiber& self, Fiber& from) {
#ifdef WITH_ASAN
    __sanitizer_finish_switch_fiber(self.fake_stack, (const void**)&from.stack, &from.size);
#else
    (void)self;
    (void)from;
#endif
}

}  // namespace emulator
