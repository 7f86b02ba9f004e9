// Small kernels about threads, barriers and memory. Some are right and most are wrong.
#include "device.h"
#include "reduce.h"

// y = x in reverse order within a block of 64, right.
KERNEL(reverse, 64, (In<float> x, Out<float> y)) {
    Shared<float> room = shared<float>(0, 64);
    room[thread()] = x[block_x() * 64 + thread()];
    barrier();
    y[block_x() * 64 + thread()] = room[63 - thread()];
}

// y[block] = sum of 64 values, right.
KERNEL(sum, 64, (In<float> x, Out<float> y)) {
    float total = block_sum<2>((float)x[block_x() * 64 + thread()], shared<float>(0, 2));
    if (thread() == 0) y[block_x()] = total;
}

KERNEL(no_barrier, 64, (In<float> x, Out<float> y)) {
    Shared<float> room = shared<float>(0, 64);
    room[thread()] = x[thread()];
    y[thread()] = room[63 - thread()];
}

// Each value goes one place to the right, twice. The second round writes what others still read.
KERNEL(no_barrier_between_rounds, 64, (In<float> x, Out<float> y)) {
    Shared<float> room = shared<float>(0, 64);
    float value = x[thread()];
    for (int round = 0; round < 2; round++) {
        room[thread()] = value;
        barrier();
        value = room[(thread() + 63) % 64];
    }
    y[thread()] = value;
}

// Lanes of one warp, without the barrier that a warp needs.
KERNEL(no_warp_barrier, 32, (In<float> x, Out<float> y)) {
    Shared<float> room = shared<float>(0, 32);
    room[thread()] = x[thread()];
    y[thread()] = room[31 - thread()];
}

// The same with it, right.
KERNEL(warp_reverse, 32, (In<float> x, Out<float> y)) {
    Shared<float> room = shared<float>(0, 32);
    room[thread()] = x[thread()];
    warp_barrier();
    y[thread()] = room[31 - thread()];
}

KERNEL(barrier_of_one_warp, 64, (Out<float> y)) {
    if (warp() == 0) barrier();
    y[thread()] = 1;
}

KERNEL(barriers_on_two_lines, 64, (Out<float> y)) {
    if (warp() == 0)
        barrier();
    else
        barrier();
    y[thread()] = 1;
}

KERNEL(return_before_barrier, 64, (Out<float> y, int count)) {
    if (thread() >= count) return;
    barrier();
    y[thread()] = 1;
}

KERNEL(shuffle_from_inactive_lane, 32, (In<float> x, Out<float> y, int count)) {
    float value = x[thread()];
    if (thread() < count) value += shuffle_xor(value, 1);
    y[thread()] = value;
}

KERNEL(shuffle_from_ended_lane, 32, (In<float> x, Out<float> y, int count)) {
    if (thread() >= count) return;
    float value = x[thread()];
    y[thread()] = value + shuffle_xor(value, 16);
}

KERNEL(barrier_and_shuffle, 32, (In<float> x, Out<float> y)) {
    float value = x[thread()];
    if (thread() % 2) barrier();
    else value += shuffle_xor(value, 2);
    y[thread()] = value;
}

KERNEL(shared_memory_of_last_block, 32, (In<float> x, Out<float> y)) {
    Shared<float> room = shared<float>(0, 32);
    if (block_x() == 0) room[thread()] = x[thread()];
    barrier();
    y[block_x() * 32 + thread()] = room[thread()];
}

KERNEL(shared_memory_overrun, 32, (Out<float> y)) {
    Shared<float> room = shared<float>(0, 32);
    room[thread() + 1] = 1;
    y[thread()] = 1;
}

KERNEL(too_little_shared_memory, 32, (Out<float> y)) {
    Shared<float> room = shared<float>(64, 32);
    room[thread()] = 1;
    y[thread()] = 1;
}

KERNEL(read_overrun, 32, (In<float> x, Out<float> y)) { y[thread()] = x[thread() + 1]; }

KERNEL(write_underrun, 32, (Out<float> y)) { y[(u64)thread() - 1] = 1; }

KERNEL(misaligned, 32, (In<float> x, Out<float> y)) { y[thread()] = float_of(x.quad(thread()).words[0]); }

KERNEL(two_blocks_write, 32, (Out<float> y)) { y[thread()] = (float)block_x(); }

KERNEL(reads_what_another_block_writes, 32, (Out<float> y)) {
    y[block_x() * 32 + thread()] = 1;
    if (block_x() > 0) y[block_x() * 32 + thread()] += y[(block_x() - 1) * 32 + thread()];
}

// A histogram without atomic additions.
KERNEL(threads_add_to_one_place, 64, (In<int> x, Out<float> y)) { y[x[thread()]] += 1; }

KERNEL(unwritten_output, 32, (In<float> x, Out<float> y, int count)) {
    if (thread() < count - 1) y[thread()] = x[thread()];
}

KERNEL(copy_not_waited_for, 32, (In<float> x, Out<float> y)) {
    Shared<float> room = shared<float>(0, 128);
    copy_async(room, thread() * 4, x, thread() * 4, true);
    commit_copies();
    barrier();
    y[thread()] = room[thread()];
}

KERNEL(copy_not_committed, 32, (In<float> x, Out<float> y)) {
    Shared<float> room = shared<float>(0, 128);
    copy_async(room, thread() * 4, x, thread() * 4, true);
    wait_for_copies<0>();
    barrier();
    y[thread()] = room[thread()];
}

// The wait is a thread's own: others need the barrier after it.
KERNEL(copy_waited_for_after_the_barrier, 32, (In<float> x, Out<float> y)) {
    Shared<float> room = shared<float>(0, 128);
    copy_async(room, thread() * 4, x, thread() * 4, true);
    commit_copies();
    barrier();
    wait_for_copies<0>();
    y[thread()] = room[127 - thread()];
}

KERNEL(copy_at_the_end, 32, (In<float> x, Out<float> y)) {
    copy_async(shared<float>(0, 128), thread() * 4, x, thread() * 4, true);
    commit_copies();
    y[thread()] = 1;
}
