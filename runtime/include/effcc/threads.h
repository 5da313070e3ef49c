// effcc/threads.h: one parallel region for a whole program, and barriers between its kernels.
//
//   void parallel(int threads, region fn, void* context)
//       calls fn(thread, team, context) once on each of `team` threads at the same time, thread = 0 .. team - 1, and
//       returns when all have returned. 1 <= team <= threads: fewer than asked where the machine, OpenMP or another
//       region in progress gives fewer, so fn must go by `team`. threads <= 1 is a plain call. Thread 0 is the caller.
//   barrier b;  b.wait(thread, team)
//       returns when all threads of the team have called it; what any of them wrote before, all see after. Lives in or
//       beside the region's context (2 KB), needs no set-up, serves any number of times and of regions that follow one
//       another with the same team; use a new one for each call of the program. A team of 1 does not wait.
//
// How the threads of a team share work is in worker.h.
//
// Two ways to get threads, chosen when compiling:
//   with EFFCC_OPENMP (and -fopenmp): OpenMP's pool. In a process that holds PyTorch it is PyTorch's own, since both
//       load the same libgomp; nothing competes for the cores. A child made by fork() gets one thread: libgomp's
//       threads do not survive a fork, and asking for them would hang;
//   without: a small pool of our own (pool.h), for programs that run without Python.
#pragma once

#include "effcc/wait.h"

namespace effcc {

using region = void (*)(int thread, int team, void* context);

class barrier {
  public:
    void wait(int thread, int team) {
        if (team <= 1) return;
        if (team <= small)
            watch_each_other(thread, team);
        else
            count_arrivals(team);
    }

  private:
    static constexpr int small = 16;
    event counts_[small];
    int arrived_ = 0;

    // Each thread raises its own count and watches everyone else's: one trip of a cache line from core to core.
    void watch_each_other(int thread, int team) {
        event& mine = counts_[thread];
        unsigned round = mine.count + 1;
        mine.raise_to(round);
        for (int other = 0; other < team; ++other)
            if (other != thread) counts_[other].wait_for(round, team);
    }

    // The last to arrive raises the count that all others watch: three trips, however large the team.
    void count_arrivals(int team) {
        event& rounds = counts_[0];
        unsigned round = __atomic_load_n(&rounds.count, __ATOMIC_RELAXED) + 1;  // stays until the last of us arrives
        if (__atomic_add_fetch(&arrived_, 1, __ATOMIC_ACQ_REL) == team) {
            __atomic_store_n(&arrived_, 0, __ATOMIC_RELAXED);
            rounds.raise_to(round);
        } else {
            rounds.wait_for(round, team);
        }
    }
};

}  // namespace effcc

#if defined(EFFCC_OPENMP)

#include <pthread.h>

extern "C" int omp_get_thread_num(void) noexcept;
extern "C" int omp_get_num_threads(void) noexcept;

namespace effcc {

namespace detail {

// Whether this process is a fork of one in which this library was already loaded.
__attribute__((visibility("hidden"))) inline bool forked = false;

__attribute__((constructor, visibility("hidden"))) inline void watch_forks() {
    pthread_atfork(nullptr, nullptr, [] { forked = true; });
}

}  // namespace detail

static inline void parallel(int threads, region fn, void* context) {
    if (threads <= 1 || detail::forked) {
        fn(0, 1, context);
        return;
    }
#pragma omp parallel num_threads(threads)
    fn(omp_get_thread_num(), omp_get_num_threads(), context);
}

}  // namespace effcc

#else

#include "effcc/pool.h"

namespace effcc {

static inline void parallel(int threads, region fn, void* context) {
    if (threads <= 1)
        fn(0, 1, context);
    else
        detail::run_in_pool(threads, fn, context);
}

}  // namespace effcc

#endif
