// effcc/pool.h: a small thread pool for programs that run without OpenMP. Used through threads.h only.
//
// Threads start when first needed and then wait for the next region: awake for a moment, asleep after. A region that
// finds the pool in use (by another thread, or by itself: a region within a region) runs on its caller alone. A child made
// by fork() begins with an empty pool of its own. The pool belongs to the library it is compiled into (hidden visibility)
// and is taken down with it.
#pragma once

#include <pthread.h>

#include "effcc/wait.h"

namespace effcc::detail {

inline constexpr int most_threads = 256;

struct pool_state {
    pthread_mutex_t in_use = PTHREAD_MUTEX_INITIALIZER;
    int workers = 0;  // threads started; worker i is thread i + 1 of a team
    pthread_t handles[most_threads];
    unsigned joined[most_threads];  // the round before a worker's first
    bool stopping = false;

    // The job of the round in progress.
    void (*fn)(int, int, void*) = nullptr;
    void* context = nullptr;
    int team = 0;

    event start;   // counts rounds begun; raised by the caller
    event finish;  // counts rounds ended; raised by the last worker to finish
    alignas(64) int unfinished = 0;
};

__attribute__((visibility("hidden"))) inline pool_state pool;

static inline void* work(void* argument) {
    const long index = reinterpret_cast<long>(argument);
    for (unsigned round = pool.joined[index] + 1;; ++round) {
        pool.start.wait_for(round, __atomic_load_n(&pool.workers, __ATOMIC_RELAXED) + 1);
        if (pool.stopping) return nullptr;
        if (index + 1 < pool.team) pool.fn(static_cast<int>(index) + 1, pool.team, pool.context);
        if (__atomic_sub_fetch(&pool.unfinished, 1, __ATOMIC_ACQ_REL) == 0) pool.finish.raise_to(round);
    }
}

// Every worker takes part in every round, with or without a share of it, so that none can miss one.
static inline void begin_round() {
    __atomic_store_n(&pool.unfinished, pool.workers, __ATOMIC_RELAXED);
    pool.start.raise_to(pool.start.count + 1);
}

static inline void finish_round(int team) {
    pool.finish.wait_for(pool.start.count, team);
}

// Brings the pool to `wanted` workers, or as many as the system gives.
static inline void grow_pool(int wanted) {
    while (pool.workers < wanted && pool.workers < most_threads) {
        long index = pool.workers;
        pool.joined[index] = pool.start.count;
        if (pthread_create(&pool.handles[index], nullptr, work, reinterpret_cast<void*>(index)) != 0) return;
        __atomic_store_n(&pool.workers, pool.workers + 1, __ATOMIC_RELAXED);
    }
}

static inline void run_in_pool(int threads, void (*fn)(int, int, void*), void* context) {
    if (pthread_mutex_trylock(&pool.in_use) != 0) {
        fn(0, 1, context);
        return;
    }
    grow_pool(threads - 1);
    int team = threads - 1 <= pool.workers ? threads : pool.workers + 1;
    pool.fn = fn;
    pool.context = context;
    pool.team = team;
    begin_round();
    fn(0, team, context);
    finish_round(team);
    pthread_mutex_unlock(&pool.in_use);
}

__attribute__((constructor, visibility("hidden"))) inline void watch_pool_forks() {
    // The child has this thread only: it starts anew, without the parent's workers or a lock one of them held.
    pthread_atfork(nullptr, nullptr, [] {
        pool.workers = 0;
        pool.start = event{};
        pool.finish = event{};
        pool.in_use = PTHREAD_MUTEX_INITIALIZER;
    });
}

__attribute__((destructor, visibility("hidden"))) inline void stop_pool() {
    if (pool.workers == 0 || pthread_mutex_trylock(&pool.in_use) != 0) return;
    pool.stopping = true;
    begin_round();
    for (int i = 0; i < pool.workers; ++i) pthread_join(pool.handles[i], nullptr);
    pool.workers = 0;
    pool.stopping = false;
    pthread_mutex_unlock(&pool.in_use);
}

}  // namespace effcc::detail
