// effcc/checks.h: run-time checks of indices, divisors and other values that only the data knows.
//
// A kernel that meets a fault notes it in a local variable, so that loops stay as they were, and goes on safely. When it
// is done, it adds what it noted to the call's record; the entry point returns the first fault in the model's order.
//
//   note_lanes(m, number, bad, values, size)   notes a fault as `note` of faults.h does, in the lanes where `bad`
//
// What is not of lanes is in faults.h.
#pragma once

#include "effcc/faults.h"
#include "effcc/vec.h"

namespace effcc {

template <class M, class V>
EFFCC_INLINE void note_lanes(missed& m, i64 number, M bad, V values, i64 size) {
#pragma GCC unroll 1
    for (int i = 0; i < lanes<M>; ++i)
        if (lane(bad, i)) {
            if constexpr (detail::Vector<V>) note(m, number, i64(lane(values, i)), size);
            else note(m, number, i64(values), size);
        }
}

}  // namespace effcc
