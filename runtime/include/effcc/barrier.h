// effcc/barrier.h: the threads of a parallel region (threads.h) wait for each other.
//
//   barrier b;  b.wait(thread, team)
//       returns when all threads of the team have called it; what any of them wrote before, all see after. Lives in or
//       beside the region's context (2 KB), needs no set-up, serves any number of times and of regions that follow one
//       another with the same team; use a new one for each call of the program. A team of 1 does not wait.
//
//   event e;  e.count                  a number that one thread raises and others watch; it may wrap around
//   e.wait_for(count, team)            returns when e.count has reached count; spins for some 20 to 50 microseconds,
//                                      then sleeps
//   e.raise_to(count)                  sets it and wakes whoever sleeps; no system call when nobody does
//
// What was written before raise_to is seen after wait_for. How they wait is in wait.h, which threads.h includes: a kernel
// need not know it, nor the system's headers.
#pragma once

namespace effcc {

struct event {
    // Two cache lines: the waker reads sleepers just after those who spin have taken the count's line away from it.
    alignas(64) unsigned count = 0;
    alignas(64) int sleepers = 0;

    void wait_for(unsigned wanted, int team);
    void raise_to(unsigned next);

  private:
    static bool reached(unsigned count, unsigned wanted) { return static_cast<int>(count - wanted) >= 0; }
};

class barrier {
  public:
    __attribute__((visibility("hidden"))) void wait(int thread, int team);

  private:
    static constexpr int small = 16;
    event counts_[small];
    int arrived_ = 0;

    void watch_each_other(int thread, int team);
    void count_arrivals(int team);
};

}  // namespace effcc
