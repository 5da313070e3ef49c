// effcc/barrier.h: the threads of a parallel region (threads.h) wait for each other.
//
//   barrier b;  b.wait(thread, team)
//       returns when all threads of the team have called it; what any of them wrote before, all see after. Lives in or
//       beside the region's context (2 KB), needs no set-up, serves any number of times and of regions that follow one
//       another with the same team; use a new one for each call of the program. A team of 1 does not wait.
//   b.begin(thread)
//       in a thread, before it takes a piece of work that any thread may take
//   b.wait_for_begun(thread, team)
//       the same as wait, where all work since the last one was taken in pieces and nothing is left of it: returns when
//       those threads have called it that began something. A thread that comes later passes at once, and finds nothing
//       left to take: nobody waits for one that is not running.
//
//   event e;  e.count                  a number that one thread raises and others watch; it may wrap around
//   e.wait_for(count, team)            returns when e.count has reached count; spins for 0.2 to 0.9 milliseconds, then
//                                      sleeps
//   e.raise_to(count)                  sets it and wakes whoever sleeps; no system call when nobody does
//
// EFFCC_PREEMPT() stands where a thread may lose its core at the worst moment: nothing, unless a test defines it.
//
// What was written before raise_to is seen after wait_for. How they wait is in wait.h, which threads.h includes: a kernel
// need not know it, nor the system's headers.
#pragma once

#if !defined(EFFCC_PREEMPT)
#define EFFCC_PREEMPT()
#endif

namespace effcc {

struct event {
    // Two cache lines: the waker reads sleepers just after those who spin have taken the count's line away from it.
    alignas(64) unsigned count = 0;
    alignas(64) int sleepers = 0;
    unsigned begun = 0;  // what the count will be when the thread that raises it has done what it began

    void wait_for(unsigned wanted, int team);
    void raise_to(unsigned next);

  private:
    static bool reached(unsigned count, unsigned wanted) { return static_cast<int>(count - wanted) >= 0; }
};

class barrier {
  public:
    static constexpr int small = 16;  // of a larger team all are waited for

    __attribute__((visibility("hidden"))) void wait(int thread, int team);
    __attribute__((visibility("hidden"))) void wait_for_begun(int thread, int team);

    void begin(int thread) {
        event& mine = counts_[thread];
        __atomic_store_n(&mine.begun, mine.count + 1, __ATOMIC_RELAXED);
    }

  private:
    event counts_[small];
    int arrived_ = 0;

    template <bool only_begun>
    void watch_each_other(int thread, int team);
    void count_arrivals(int team);
};

}  // namespace effcc
