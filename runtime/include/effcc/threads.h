// effcc/threads.h: one parallel region for a whole program.
//
//   void parallel(int threads, region fn, void* context)
//       calls fn(thread, team, context) once on each of `team` threads at the same time, thread = 0 .. team - 1, and
//       returns when all have returned. 1 <= team <= threads: fewer than asked where the machine, OpenMP or another
//       region in progress gives fewer, so fn must go by `team`. threads <= 1 is a plain call. Thread 0 is the caller.
//
// How they wait for each other is in barrier.h, how they share work in worker.h.
//
// Two ways to get threads, chosen when compiling:
//   with EFFCC_OPENMP (and -fopenmp): OpenMP's pool. In a process that holds PyTorch it is PyTorch's own, since both
//       load the same libgomp; nothing competes for the cores. A child made by fork() gets one thread: libgomp's
//       threads do not survive a fork, and asking for them would hang;
//   without: a small pool of our own (pool.h), for programs that run without Python.
//
// With EFFCC_THREADS_APART nothing of this is compiled here, only declared: it is in another object of the library.
#pragma once

#include "effcc/worker.h"

namespace effcc {

using region = void (*)(int thread, int team, void* context);

__attribute__((visibility("hidden"))) void parallel(int threads, region fn, void* context);

}  // namespace effcc

#if !defined(EFFCC_THREADS_APART)

#include "effcc/claims.h"
#include "effcc/wait.h"

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

__attribute__((used)) inline void parallel(int threads, region fn, void* context) {
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

__attribute__((used)) inline void parallel(int threads, region fn, void* context) {
    if (threads <= 1)
        fn(0, 1, context);
    else
        detail::run_in_pool(threads, fn, context);
}

}  // namespace effcc

#endif  // EFFCC_OPENMP

#endif  // EFFCC_THREADS_APART
