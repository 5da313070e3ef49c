// effcc/worker.h: one thread of the team that runs a program: how it meets the others, and takes its part of the work.
//
//   crew all;                          what the threads share. Lives in or beside the region's context (3 KB), needs no
//                                      set-up; a new one for each region
//   worker me(all, thread, team);      in each of its threads, once
//   me.meet()                          returns when all have called it; what any of them wrote before, all see after
//   me.meet_begun()                    the same, where nothing was done since they last met but in pieces of claims: it
//                                      does not wait for a thread that took none, which may still be asleep
//   for (claims work = me.claim(n); range piece = work.next();)
//       for (long i = piece.begin; i < piece.end; ++i) ...
//                                      0 .. n - 1 in pieces, every one of which some thread gets; n must not depend
//                                      on what threads write, where they then meet_begun()
//
// All threads come past the same calls in the same order. A thread takes the pieces of its own part first (share.h), so
// that it finds in its cache what it wrote there before, and then what others have not begun of theirs: one whose core
// runs something else too delays the team by a piece, not by its part. With EFFCC_FIXED_SHARES nothing is taken from
// others, and a thread's part is one piece. How pieces are taken is in claims.h, which threads.h includes: a program
// compiles it once, not with each of its kernels.
#pragma once

#include "effcc/barrier.h"
#include "effcc/share.h"

namespace effcc {

namespace detail {

// A thread's part of one loop: how many of its pieces are taken. Later loops count on, so nobody need reset anything: a
// count that belongs to an earlier loop than the reader's means none, to a later one all.
struct alignas(64) part {
    unsigned long counted = 0;  // the loop's number << 32 | pieces taken
};

}  // namespace detail

struct crew {
    static constexpr int most = barrier::small;  // of a larger team each thread does its own part only
    barrier between;
    detail::part parts[most];
};

class claims {
  public:
    __attribute__((visibility("hidden"))) range next();

  private:
    friend class worker;
    static constexpr long pieces = 8;  // of a part, at most

    claims(crew& all, int thread, int team, unsigned loop, long n)
        : between_(all.between), parts_(all.parts), n_(n), loop_(loop), thread_(thread), team_(team) {
#if !defined(EFFCC_FIXED_SHARES)
        fixed_ = team == 1 || team > crew::most;
#endif
        others_ = fixed_ ? 0 : team;
    }

    range take_from(int other);

    barrier& between_;
    detail::part* parts_;
    long n_;
    unsigned loop_;
    int thread_, team_, others_, tried_ = 0;
    bool fixed_ = true;  // the thread's own part, whole, still to be given
};

class worker {
  public:
    const int thread, team;

    worker(crew& all, int thread, int team) : thread(thread), team(team), all_(all) {}
    worker(const worker&) = delete;

    void meet() { all_.between.wait(thread, team); }

    void meet_begun() {
#if defined(EFFCC_FIXED_SHARES)
        meet();
#else
        all_.between.wait_for_begun(thread, team);
#endif
    }

    claims claim(long n) { return claims(all_, thread, team, ++loops_, n); }

  private:
    crew& all_;
    unsigned loops_ = 0;
};

}  // namespace effcc
