#include "block.h"

#include <cstdarg>
#include <cstdio>
#include <cstdlib>
#include <map>

namespace emulator {

thread_local Block* running = nullptr;

// A mark of an access: who made it and when. 0 is no access.
//   bits 0-10: thread + 1;  11-26: barriers of its warp;  27-62: epoch;  63: a copy is under way
static const u64 UNDER_WAY = 1ull << 63;
static u64 thread_of(u64 mark) { return (mark & 0x7ff) - 1; }
static u64 warp_epoch_of(u64 mark) { return mark >> 11 & 0xffff; }
static u64 epoch_of(u64 mark) { return (mark & ~UNDER_WAY) >> 27; }

Block::Block(Launch& launch)
    : launch(launch), threads(launch.entry->threads), shared(launch.shared_bytes), cells(launch.shared_bytes / 2 + 1),
      warp_epochs(threads.size() / LANES), state(launch.seed * 2 + 1) {
    stacks = (char*)std::malloc(threads.size() * STACK);
    if (!stacks) std::abort();
}

Block::~Block() { std::free(stacks); }

u64 Block::random() {
    state = state * 6364136223846793005ull + 1442695040888963407ull;
    return state >> 33;
}

void Block::enter() {
    Block& block = *running;
    started(block.self().fiber, block.scheduler);
    block.launch.entry->call(block.launch.entry->kernel, block.launch.arguments);
    for (auto& group : block.self().groups)
        if (!group.empty()) block.fail("ends while copies to shared memory are under way");
    block.self().state = State::ENDED;
    block.self().site = {"", 0};
    switch_to(block.self().fiber, block.scheduler, true);
    std::abort();
}

void Block::resume(int thread) {
    current = thread;
    switch_to(scheduler, threads[thread].fiber);
}

bool Block::run(u64 which) {
    running = this;
    index = which;
    place[0] = which % launch.grid[0];
    place[1] = which / launch.grid[0] % launch.grid[1];
    place[2] = which / launch.grid[0] / launch.grid[1];
    first_epoch = ++epoch;
    barriers = 0;
    state = (launch.seed + which) * 0x9e3779b97f4a7c15ull + 1;
    // NaN in bf16, f32 and f64. The marks find reads of it too, unless a kernel goes around them.
    for (std::size_t i = 0; i < shared.size(); i++) shared[i] = i % 2 ? 0x7f : 0xc1;
    for (auto& warp_epoch : warp_epochs) warp_epoch = 0;
    for (std::size_t i = 0; i < threads.size(); i++) {
        threads[i].state = State::READY;
        threads[i].groups.assign(1, {});
        prepare(threads[i].fiber, stacks + i * STACK, STACK, &Block::enter);
    }
    // One warp after another runs as far as it can before the next one starts. The order changes from barrier to barrier.
    // What is right only in some order of warps goes wrong.
    int warps = (int)warp_epochs.size();
    std::vector<int> order(warps);
    for (;;) {
        for (int i = 0; i < warps; i++) order[i] = i;
        for (int i = warps - 1; i > 0; i--) std::swap(order[i], order[random() % (i + 1)]);
        bool reversed = random() % 2;
        for (int warp : order)
            if (!run_warp(warp, reversed)) return false;
        int ended = 0;
        for (auto& thread : threads) ended += thread.state == State::ENDED;
        if (ended == (int)threads.size()) return true;
        if (!meet_at_barrier()) return false;
    }
}

// Whether two sites are the same.
static bool same(const Site& a, const Site& b) { return a.line == b.line && (a.file == b.file || std::strcmp(a.file, b.file) == 0); }

// Runs a warp until all of its lanes wait at a barrier of the block or have ended.
bool Block::run_warp(int warp, bool reversed) {
    int first = warp * LANES;
    Thread* lanes = &threads[first];
    for (;;) {
        for (int i = 0; i < LANES; i++) {
            int lane = reversed ? LANES - 1 - i : i;
            if (lanes[lane].state != State::READY) continue;
            resume(first + lane);
            if (!error.empty()) return false;
        }
        int at_operation = 0, together = 0, waiting = 0;
        for (int lane = 0; lane < LANES; lane++) {
            at_operation += lanes[lane].state == State::AT_WARP_OPERATION;
            waiting += lanes[lane].state != State::ENDED;
            together += lanes[lane].operation == lanes[0].operation && same(lanes[lane].site, lanes[0].site);
        }
        if (at_operation == 0) return true;
        if (at_operation < LANES || together < LANES) {
            current = first;
            set_error("warp", "a warp's lanes do not come together (deadlock): " + describe(first, LANES));
            return false;
        }
        if (lanes[0].operation) lanes[0].operation(lanes);
        else warp_epochs[warp]++;
        for (int lane = 0; lane < LANES; lane++) lanes[lane].state = State::READY;
    }
}

bool Block::meet_at_barrier() {
    int count = (int)threads.size(), together = 0;
    for (auto& thread : threads) together += thread.state == State::AT_BARRIER && same(thread.site, threads[0].site);
    if (together < count) {
        set_error("block", "threads do not come together at a barrier (deadlock): " + describe(0, count));
        return false;
    }
    epoch++;
    barriers++;
    for (auto& thread : threads) thread.state = State::READY;
    return true;
}

// Where threads are: "threads 0-31 wait for barrier at norm.cu:12; threads 32-63 have ended".
std::string Block::describe(int first, int count) const {
    std::string text;
    auto where = [&](int i) {
        const Thread& t = threads[i];
        if (t.state == State::ENDED) return std::string("ended");
        std::string file = t.site.file;
        return std::string("wait at ") + t.wait + " (" + file.substr(file.rfind('/') + 1) + ":" + std::to_string(t.site.line) + ")";
    };
    std::map<std::string, std::string> places;
    for (int from = first; from < first + count;) {
        int to = from;
        while (to + 1 < first + count && where(to + 1) == where(from)) to++;
        std::string& list = places[where(from)];
        if (list.size() < 60) {
            list += (list.empty() ? "" : ", ") + std::to_string(from);
            if (to > from) list += "-" + std::to_string(to);
        } else if (list.back() != '.') {
            list += " ...";
        }
        from = to + 1;
    }
    for (auto& [place, list] : places) text += (text.empty() ? "threads " : "; threads ") + list + " " + place;
    return text;
}

void Block::set_error(const char* where, const std::string& text) {
    char head[200];
    if (where[0] == 't')
        std::snprintf(head, sizeof head, "%s, block (%d, %d, %d), thread %d, after %llu barriers: ", launch.entry->name, place[0],
                      place[1], place[2], current, barriers);
    else
        std::snprintf(head, sizeof head, "%s, block (%d, %d, %d), after %llu barriers: ", launch.entry->name, place[0], place[1],
                      place[2], barriers);
    error = head + text;
}

void Block::fail(const char* format, ...) {
    char text[400];
    va_list list;
    va_start(list, format);
    std::vsnprintf(text, sizeof text, format, list);
    va_end(list);
    set_error("thread", text);
    switch_to(self().fiber, scheduler, true);
    std::abort();
}

void Block::wait_at_barrier(Site site) {
    Thread& thread = self();
    thread.state = State::AT_BARRIER;
    thread.wait = "barrier";
    thread.operation = nullptr;
    thread.site = site;
    switch_to(thread.fiber, scheduler);
}

void Block::wait_for_warp(const char* name, WarpOperation operation, Site site) {
    Thread& thread = self();
    thread.state = State::AT_WARP_OPERATION;
    thread.wait = name;
    thread.operation = operation;
    thread.site = site;
    switch_to(thread.fiber, scheduler);
}

u64 Block::mark() const {
    return (u64)(current + 1) | (warp_epochs[current / LANES] & 0xffff) << 11 | epoch << 27;
}

// Whether nothing orders an earlier access and one that the running thread makes now.
bool Block::collides(u64 earlier) const {
    if (epoch_of(earlier) != epoch || (int)thread_of(earlier) == current) return false;
    bool same_warp = (int)thread_of(earlier) / LANES == current / LANES;
    return !same_warp || warp_epoch_of(earlier) == (warp_epochs[current / LANES] & 0xffff);
}

void Block::touch_shared(u32 byte, u32 bytes, bool write) {
    u64 now = mark();
    for (u32 at = byte / 2; at < (byte + bytes + 1) / 2; at++) {
        Cell& cell = cells[at];
        if (cell.write & UNDER_WAY && epoch_of(cell.write) >= first_epoch)
            fail("%s byte %u of shared memory, which a copy of thread %d writes that was not waited for", write ? "writes" : "reads",
                 at * 2, (int)thread_of(cell.write));
        if (!write && epoch_of(cell.write) < first_epoch) fail("reads byte %u of shared memory, which nobody has written (or a barrier is missing)", at * 2);
        if (collides(cell.write))
            fail("race in shared memory: %s byte %u, which thread %d writes; no barrier lies between", write ? "writes" : "reads",
                 at * 2, (int)thread_of(cell.write));
        if (write) {
            for (u64 read : {cell.read, cell.other_read})
                if (collides(read))
                    fail("race in shared memory: writes byte %u, which thread %d reads; no barrier lies between", at * 2,
                         (int)thread_of(read));
            cell.write = now;
        } else if (cell.read == 0 || thread_of(cell.read) == thread_of(now) || epoch_of(cell.read) != epoch) {
            cell.read = now;
        } else {
            cell.other_read = now;
        }
    }
}

// Until a copy is waited for, its place holds NaN and nobody may touch it: it may arrive at any time.
void Block::begin_copy(u32 to, u32 bytes) {
    touch_shared(to, bytes, true);
    for (u32 at = to / 2; at < (to + bytes) / 2; at++) cells[at].write |= UNDER_WAY;
    for (u32 i = 0; i < bytes; i++) shared[to + i] = i % 2 ? 0x7f : 0xc1;
}

void Block::land(const std::vector<Copy>& copies) {
    for (const Copy& copy : copies) {
        for (u32 at = copy.to / 2; at < (copy.to + 16) / 2; at++) cells[at].write = mark();
        if (copy.from) std::memcpy(&shared[copy.to], copy.from, 16);
        else std::memset(&shared[copy.to], 0, 16);
    }
}

}  // namespace emulator
