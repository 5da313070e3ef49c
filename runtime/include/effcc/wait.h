// effcc/wait.h: how a thread waits for another, first awake and then asleep: what event and barrier (barrier.h) declare.
//
// Cores may be shared: a team larger than the number of cores this process may run on hardly spins at all, for the thread
// it waits for may need this very core.
#pragma once

#include "effcc/barrier.h"

#include <sched.h>
#include <unistd.h>
#if defined(__linux__)
#include <sys/syscall.h>
#endif

namespace effcc {

namespace detail {

static inline void relax() {
#if defined(__x86_64__) || defined(__i386__)
    __builtin_ia32_pause();
#elif defined(__aarch64__)
    __asm__ volatile("yield" ::: "memory");
#endif
}

// Cores this process may run on, asked once.
static inline int usable_cores() {
    static int known = 0;
    int cores = __atomic_load_n(&known, __ATOMIC_RELAXED);
    if (cores == 0) {
        cores = static_cast<int>(sysconf(_SC_NPROCESSORS_ONLN));
#if defined(__linux__) && defined(CPU_COUNT)
        cpu_set_t allowed;
        if (sched_getaffinity(0, sizeof allowed, &allowed) == 0) cores = CPU_COUNT(&allowed);
#endif
        if (cores < 1) cores = 1;
        __atomic_store_n(&known, cores, __ATOMIC_RELAXED);
    }
    return cores;
}

// A pause takes 10 to 45 ns on x86, depending on the processor. A virtual machine takes some 100 microseconds to wake a
// thread, and pieces of work end further apart than 1000 pauses: with so few ResNet-50 slept 40 times a call.
inline constexpr int spins = 20000, spins_on_shared_core = 20;

}  // namespace detail

inline void event::wait_for(unsigned wanted, int team) {
    for (int spun = 0; spun < detail::spins; ++spun) {
        if (reached(__atomic_load_n(&count, __ATOMIC_ACQUIRE), wanted)) return;
        detail::relax();
        if (spun == detail::spins_on_shared_core && team > detail::usable_cores()) break;
    }
#if defined(__linux__)
    // Announce the sleep before looking again: raise_to() looks at sleepers after it has changed the count.
    __atomic_add_fetch(&sleepers, 1, __ATOMIC_SEQ_CST);
    unsigned seen;
    while (!reached(seen = __atomic_load_n(&count, __ATOMIC_SEQ_CST), wanted))
        syscall(SYS_futex, &count, 128 /* wait, private */, seen, nullptr, nullptr, 0);
    __atomic_sub_fetch(&sleepers, 1, __ATOMIC_RELAXED);
#else
    while (!reached(__atomic_load_n(&count, __ATOMIC_ACQUIRE), wanted)) sched_yield();
#endif
}

inline void event::raise_to(unsigned next) {
    __atomic_store_n(&count, next, __ATOMIC_SEQ_CST);
#if defined(__linux__)
    if (__atomic_load_n(&sleepers, __ATOMIC_SEQ_CST) != 0)
        syscall(SYS_futex, &count, 129 /* wake, private */, __INT_MAX__, nullptr, nullptr, 0);
#endif
}

// Hidden, and there for the kernels, which are compiled apart, even where an entry point does not wait itself.
__attribute__((used, noinline, visibility("hidden"))) inline void barrier::wait(int thread, int team) {
    if (team <= 1) return;
    EFFCC_PREEMPT();
    if (team <= small)
        watch_each_other<false>(thread, team);
    else
        count_arrivals(team);
}

__attribute__((used, noinline, visibility("hidden"))) inline void barrier::wait_for_begun(int thread, int team) {
    if (team <= 1) return;
    EFFCC_PREEMPT();
    if (team <= small)
        watch_each_other<true>(thread, team);
    else
        count_arrivals(team);
}

// Each thread raises its own count and watches everyone else's: one trip of a cache line from core to core. Who took a
// piece of this round's work had noted before that it began, and who found that piece taken (claims.h) sees the note.
template <bool only_begun>
inline void barrier::watch_each_other(int thread, int team) {
    event& mine = counts_[thread];
    unsigned round = mine.count + 1;
    mine.raise_to(round);
    for (int other = 0; other < team; ++other) {
        if (other == thread) continue;
        event& its = counts_[other];
        const unsigned begun = __atomic_load_n(&its.begun, __ATOMIC_RELAXED);
        if (!only_begun || static_cast<int>(begun - round) >= 0) its.wait_for(round, team);
    }
}

// The last to arrive raises the count that all others watch: three trips, however large the team.
inline void barrier::count_arrivals(int team) {
    event& rounds = counts_[0];
    unsigned round = __atomic_load_n(&rounds.count, __ATOMIC_RELAXED) + 1;  // stays until the last of us arrives
    if (__atomic_add_fetch(&arrived_, 1, __ATOMIC_ACQ_REL) == team) {
        __atomic_store_n(&arrived_, 0, __ATOMIC_RELAXED);
        rounds.raise_to(round);
    } else {
        rounds.wait_for(round, team);
    }
}

}  // namespace effcc
