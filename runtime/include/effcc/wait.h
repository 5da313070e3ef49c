// effcc/wait.h: waiting for another thread, first awake and then asleep.
//
//   event e;  e.count                  a number that one thread raises and others watch; it may wrap around
//   e.wait_for(count, team)            returns when e.count has reached count; spins for some 20 to 50 microseconds,
//                                      then sleeps
//   e.raise_to(count)                  sets it and wakes whoever sleeps; no system call when nobody does
//
// What was written before raise_to is seen after wait_for. Cores may be shared: a team larger than the number of cores
// this process may run on hardly spins at all, for the thread it waits for may need this very core.
#pragma once

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

// A pause takes 10 to 45 ns on x86, depending on the processor.
inline constexpr int spins = 1000, spins_on_shared_core = 20;

}  // namespace detail

struct event {
    // Two cache lines: the waker reads sleepers just after those who spin have taken the count's line away from it.
    alignas(64) unsigned count = 0;
    alignas(64) int sleepers = 0;

    void wait_for(unsigned wanted, int team) {
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

    void raise_to(unsigned next) {
        __atomic_store_n(&count, next, __ATOMIC_SEQ_CST);
#if defined(__linux__)
        if (__atomic_load_n(&sleepers, __ATOMIC_SEQ_CST) != 0)
            syscall(SYS_futex, &count, 129 /* wake, private */, __INT_MAX__, nullptr, nullptr, 0);
#endif
    }

  private:
    static bool reached(unsigned count, unsigned wanted) { return static_cast<int>(count - wanted) >= 0; }
};

}  // namespace effcc
