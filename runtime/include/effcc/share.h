// effcc/share.h: each thread's part of some work.
//
//   range share(n, thread, team)   -> begin, end
//       thread's part of 0 .. n - 1: contiguous, sizes differ by at most one, empty (false) where n < team
//   range share(n, thread, team, grain)
//       the same in whole multiples of grain (but for the last end, which is n)
#pragma once

namespace effcc {

struct range {
    long begin, end;
    explicit operator bool() const { return begin < end; }
};

static inline range share(long n, int thread, int team) {
    long each = n / team, more = n % team;
    long begin = thread * each + (thread < more ? thread : more);
    return {begin, begin + each + (thread < more)};
}

static inline range share(long n, int thread, int team, long grain) {
    range r = share((n + grain - 1) / grain, thread, team);
    long begin = r.begin * grain, end = r.end * grain;
    return {begin < n ? begin : n, end < n ? end : n};
}

}  // namespace effcc
