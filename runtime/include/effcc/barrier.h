// effcc/barrier.h: the threads of a parallel region (threads.h) wait for each other.
//
//   barrier b;  b.wait(thread, team)
//       returns when all threads of the team have called it; what any of them wrote before, all see after. Lives in or
//       beside the region's context (2 KB), needs no set-up, serves any number of times and of regions that follow one
//       another with the same team; use a new one for each call of the program. A team of 1 does not wait.
#pragma once

#include "effcc/wait.h"

namespace effcc {

class barrier {
  public:
    __attribute__((noinline)) void wait(int thread, int team) {
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
