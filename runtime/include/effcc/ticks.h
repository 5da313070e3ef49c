// effcc/ticks.h: when each thread had done each step of a program; only a program that is compiled to be watched has it.
//
//   tick(thread, n)      writes the time into the table, if there is one: of CLOCK_MONOTONIC, in nanoseconds
//   effcc_ticks(table, marks, threads)
//       has later calls write to table[thread * marks + n]; a null pointer has them write nothing. What threads from
//       `threads` on do is not written. Not to be called while the program runs
#pragma once

#include <time.h>

#include "effcc/types.h"

namespace effcc {

namespace detail {

static i64* ticks = nullptr;
static i64 tick_marks = 0, tick_threads = 0;

}  // namespace detail

static inline void tick(int thread, i64 n) {
    if (!detail::ticks || thread >= detail::tick_threads || n >= detail::tick_marks) return;
    timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    detail::ticks[thread * detail::tick_marks + n] = now.tv_sec * 1000000000L + now.tv_nsec;
}

}  // namespace effcc

extern "C" void effcc_ticks(effcc::i64* table, effcc::i64 marks, effcc::i64 threads) {
    effcc::detail::ticks = table;
    effcc::detail::tick_marks = marks;
    effcc::detail::tick_threads = threads;
}
