// The state of a running block, and the scheduler of its threads.
#pragma once

#include <atomic>
#include <cstdint>
#include <string>
#include <vector>

#include "device.h"
#include "fiber.h"

namespace emulator {

const int LANES = 32;
#ifdef __SANITIZE_ADDRESS__
const std::size_t STACK = 256 << 10;
#else
const std::size_t STACK = 64 << 10;
#endif

enum class State { READY, AT_WARP_OPERATION, AT_BARRIER, ENDED };

struct Thread;
// What a warp does once all of its lanes have come: reads the lanes' operands and writes their results.
typedef void (*WarpOperation)(Thread* lanes);

// A copy that has begun.
struct Copy {
    u32 to;
    const void* from;  // null: zeros
};

// A thread of the block.
struct Thread {
    Fiber fiber;
    State state = State::READY;
    // Where it waits, and for what.
    const char* wait = "";
    Site site = {"", 0};
    WarpOperation operation = nullptr;
    // Operands and results of warp operations.
    u64 bits;
    int mask;
    Matrices matrices;
    u32 b[2];
    float c[4];
    u32 address;
    // Copies under way by group, oldest first. The last group is open.
    std::vector<std::vector<Copy>> groups;
};

// Who touched two bytes of shared memory.
struct Cell {
    u64 write = 0;
    // The last reads by two different threads.
    u64 read = 0, other_read = 0;
};

// One launch, shared by the workers.
struct Launch {
    const Entry* entry;
    const Argument* arguments;
    u32 grid[3];
    u32 shared_bytes;
    u64 seed;
    std::atomic<u64> next{0};
    std::atomic<bool> failed{false};
};

// Runs blocks of a launch, one after another, on the calling thread of the host.
class Block {
public:
    explicit Block(Launch& launch);
    ~Block();
    // Runs the block with this index. Returns false and sets `error` if it does something wrong.
    bool run(u64 index);
    std::string error;

    // Called by the running thread.
    [[noreturn]] void fail(const char* format, ...) __attribute__((format(printf, 2, 3)));
    void wait_at_barrier(Site site);
    void wait_for_warp(const char* name, WarpOperation operation, Site site);
    void touch_shared(u32 byte, u32 bytes, bool write);
    void begin_copy(u32 to, u32 bytes);
    void land(const std::vector<Copy>& copies);
    Thread& self() { return threads[current]; }

    Launch& launch;
    std::vector<Thread> threads;
    int current = 0;
    int place[3] = {0, 0, 0};
    u64 index = 0;
    // Counts the barriers of all blocks that this worker has run.
    u64 epoch = 0;
    // Barriers of this block so far.
    u64 barriers = 0;
    std::vector<u8> shared;
    std::vector<Cell> cells;

private:
    static void enter();
    void resume(int thread);
    bool run_warp(int warp, bool reversed);
    bool meet_at_barrier();
    u64 mark() const;
    bool collides(u64 earlier) const;
    void set_error(const char* where, const std::string& text);
    std::string describe(int first, int count) const;
    u64 random();

    Fiber scheduler;
    char* stacks;
    // The first epoch of this block.
    u64 first_epoch = 0;
    std::vector<u64> warp_epochs;
    u64 state;
};

// The block that the calling thread of the host runs.
extern thread_local Block* running;

}  // namespace emulator
