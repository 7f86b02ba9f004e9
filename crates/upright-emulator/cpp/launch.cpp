// The interface to Rust: launches a kernel, its blocks on several threads of the host.
#include <algorithm>
#include <cstdio>
#include <mutex>
#include <thread>

#include "block.h"

using namespace emulator;

// What Rust sees of an entry.
extern "C" const char* upright_emulator_name(const Entry* entry) { return entry->name; }
extern "C" const Entry* upright_emulator_next(const Entry* entry) { return entry->next; }
extern "C" int upright_emulator_threads(const Entry* entry) { return entry->threads; }
extern "C" int upright_emulator_parameters(const Entry* entry) { return entry->count; }
extern "C" u32 upright_emulator_code(const Entry* entry, int index) { return entry->codes[index]; }

// Runs all blocks of a grid. Returns 0, or 1 and an error as a text that ends with a zero byte. The caller has checked
// the arguments against the entry's codes.
extern "C" int upright_emulator_launch(const Entry* entry, const u32* grid, u32 shared_bytes, const Argument* arguments, u64 seed,
                                       u32 workers, char* error, u64 capacity) {
    Launch launch;
    launch.entry = entry;
    launch.arguments = arguments;
    std::copy(grid, grid + 3, launch.grid);
    launch.shared_bytes = shared_bytes;
    launch.seed = seed;
    u64 blocks = (u64)grid[0] * grid[1] * grid[2];
    std::mutex lock;
    u64 failed = blocks;  // the first turn that failed
    auto work = [&] {
        Block block(launch);
        for (;;) {
            u64 turn = launch.next++;
            if (turn >= blocks || launch.failed) return;
            // Odd seeds run the blocks backwards.
            u64 index = seed % 2 ? blocks - 1 - turn : turn;
            if (block.run(index)) continue;
            // Blocks of earlier turns still run. The error of the first turn is kept, so that it is the same in every launch.
            launch.failed = true;
            std::lock_guard<std::mutex> guard(lock);
            if (turn < failed) std::snprintf(error, capacity, "%s", block.error.c_str());
            failed = std::min(failed, turn);
            return;
        }
    };
    std::vector<std::thread> others;
    for (u32 i = 1; i < workers && i < blocks; i++) others.emplace_back(work);
    work();
    for (auto& other : others) other.join();
    return failed < blocks;
}
