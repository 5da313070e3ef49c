// effcc/claims.h: how a thread takes pieces of a loop's work: what claims (worker.h) declares.
#pragma once

#include "effcc/worker.h"

namespace effcc {

inline range claims::take_from(int other) {
    const range part = share(n_, other, team_);
    const long size = part.end - part.begin, grain = (size + pieces - 1) / pieces;
    unsigned long* counted = &parts_[other].counted;
    unsigned long seen = __atomic_load_n(counted, __ATOMIC_ACQUIRE);
    while (true) {
        const unsigned its = static_cast<unsigned>(seen >> 32);
        const long taken = its == loop_ ? static_cast<long>(seen & 0xffffffffu) : 0;
        if (its > loop_ || taken * grain >= size) return {0, 0};
        between_.begin(thread_);
        const unsigned long next = (static_cast<unsigned long>(loop_) << 32) + static_cast<unsigned long>(taken) + 1;
        if (!__atomic_compare_exchange_n(counted, &seen, next, false, __ATOMIC_ACQ_REL, __ATOMIC_ACQUIRE)) continue;
        EFFCC_PREEMPT();
        const long begin = part.begin + taken * grain;
        return {begin, begin + grain < part.end ? begin + grain : part.end};
    }
}

__attribute__((used, noinline, visibility("hidden"))) inline range claims::next() {
    if (fixed_) {
        fixed_ = false;
        return share(n_, thread_, team_);
    }
    for (; tried_ < others_; ++tried_) {
        const range found = take_from((thread_ + tried_) % team_);
        if (found) return found;
    }
    return {0, 0};
}

}  // namespace effcc
