// Real threads that lose their core where it matters: included before the runtime's own headers, for EFFCC_PREEMPT.
//
// A thread that has taken a piece of work, or comes to a barrier, sleeps now and then, longer than others need for all
// that follows: what they should have waited for is then missing at most runs, not once in a thousand.
#pragma once

#include <time.h>

static inline void effcc_preempt() {
    static unsigned long calls;
    unsigned long n = __atomic_add_fetch(&calls, 1, __ATOMIC_RELAXED) * 0x9e3779b97f4a7c15ul;
    if (n >> 62 != 0) return;  // three of four go on
    timespec moment = {0, static_cast<long>(n >> 44 & 0x3ff) * 1000};
    nanosleep(&moment, nullptr);
}

#define EFFCC_PREEMPT() effcc_preempt()
