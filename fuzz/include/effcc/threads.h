// effcc/threads.h of the fuzzer: the interface of runtime/include/effcc/threads.h, one thread at a time.
//
// Threads take turns: each runs until its next barrier, in the order 0, 1, 2 ... or, for a negative number of threads,
// in the opposite order. A kernel that reads what a later thread has yet to write, for want of a barrier, then reads it
// unwritten at every run, not once in a thousand. Each does its own part of the work: the first would take it all.
#pragma once

#define EFFCC_FIXED_SHARES

#include <pthread.h>

namespace effcc {

using region = void (*)(int thread, int team, void* context);

namespace detail {

struct turns {
    pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
    pthread_cond_t moved = PTHREAD_COND_INITIALIZER;
    long turn = 0;
    int team = 1;
    bool backwards = false;
    region fn = nullptr;
    void* context = nullptr;

    void await(int thread) {
        int place = backwards ? team - 1 - thread : thread;
        pthread_mutex_lock(&lock);
        while (turn % team != place) pthread_cond_wait(&moved, &lock);
        pthread_mutex_unlock(&lock);
    }

    void pass() {
        pthread_mutex_lock(&lock);
        ++turn;
        pthread_cond_broadcast(&moved);
        pthread_mutex_unlock(&lock);
    }
};

__attribute__((visibility("hidden"))) inline turns* current = nullptr;

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

class barrier {
  public:
    void wait(int thread, int team) {
        if (team <= 1) return;
        detail::turns* all = detail::current;
        all->pass();
        all->await(thread);
    }
};

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
