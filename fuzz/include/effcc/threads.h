// effcc/threads.h of the fuzzer: the interface of runtime/include/effcc/threads.h, one thread at a time.
//
// Threads take turns: each runs until its next barrier, in the order 0, 1, 2 ... or, for a negative number of threads,
// in the opposite order. A kernel that reads what a later thread has yet to write, for want of a barrier, then reads it
// unwritten at every run, not once in a thousand. Each does its own part of the work: the first would take it all.
#pragma once

#include "effcc/barrier.h"
#include "effcc/claims.h"

namespace effcc {

namespace detail {

struct member {
    turns* all;
    int thread;
};

static inline void* run_member(void* given) {
    member* m = static_cast<member*>(given);
    m->all->await(m->thread);
    m->all->fn(m->thread, m->all->team, m->all->context);
    m->all->pass();
    return nullptr;
}

}  // namespace detail

static inline void parallel(int threads, region fn, void* context) {
    constexpr int most = 16;
    detail::turns all;
    all.backwards = threads < 0;
    all.team = threads < 0 ? -threads : threads;
    if (all.team > most) all.team = most;
    if (all.team <= 1) {
        fn(0, 1, context);
        return;
    }
    all.fn = fn;
    all.context = context;
    detail::current = &all;
    pthread_t threads_made[most];
    detail::member members[most];
    for (int t = 0; t < all.team; ++t) {
        members[t] = {&all, t};
        pthread_create(&threads_made[t], nullptr, detail::run_member, &members[t]);
    }
    for (int t = 0; t < all.team; ++t) pthread_join(threads_made[t], nullptr);
}

}  // namespace effcc
