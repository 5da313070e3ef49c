// effcc/libm.h: functions of the C library, lane by lane.
//
//   EFFCC_LIBM(exp)                        an f that is expf for floats and exp for doubles
//   detail::call_lanes(f, v)               f(lane) for every lane of v
//   detail::call_lanes(f, a, b)            f(a's lane, b's lane)
//   detail::call_lanes_where(m, f, v, r)   f(lane) where m, else r's lane
//
// The loop is a function of its own and works on memory: sixteen calls written out would make a kernel's text long and
// would spill every vector register around each of them.
#pragma once

#include "effcc/arith.h"

// The C library's NAME for float or double, whichever it is given. A lambda, since a builtin has no address.
#define EFFCC_LIBM(NAME)                                                   \
    [](auto... x) {                                                        \
        if constexpr ((effcc::detail::same<decltype(x), double> && ...))   \
            return __builtin_##NAME(x...);                                 \
        else                                                               \
            return __builtin_##NAME##f(x...);                              \
    }

namespace effcc::detail {

template <class T>
[[maybe_unused]] static __attribute__((noinline)) void loop_lanes(T (*f)(T), T* x, int n) {
    for (int i = 0; i < n; ++i) x[i] = f(x[i]);
}

template <class T>
[[maybe_unused]] static __attribute__((noinline)) void loop_lanes(T (*f)(T, T), T* x, const T* y, int n) {
    for (int i = 0; i < n; ++i) x[i] = f(x[i], y[i]);
}

template <class V>
EFFCC_INLINE V call_lanes(element<V> (*f)(element<V>), V v) {
    if constexpr (Vector<V>) {
        element<V> x[lanes<V>];
        __builtin_memcpy(x, &v, sizeof v);
        loop_lanes(f, x, lanes<V>);
        __builtin_memcpy(&v, x, sizeof v);
        return v;
    } else {
        return f(v);
    }
}

template <class V>
EFFCC_INLINE V call_lanes(element<V> (*f)(element<V>, element<V>), V a, V b) {
    if constexpr (Vector<V>) {
        element<V> x[lanes<V>], y[lanes<V>];
        __builtin_memcpy(x, &a, sizeof a);
        __builtin_memcpy(y, &b, sizeof b);
        loop_lanes(f, x, y, lanes<V>);
        __builtin_memcpy(&a, x, sizeof a);
        return a;
    } else {
        return f(a, b);
    }
}

// The other lanes are given 0 to work on: a costly argument in a lane nobody asked for costs nothing.
template <class V>
EFFCC_INLINE V call_lanes_where(mask_of<V> m, element<V> (*f)(element<V>), V v, V r) {
    return select(m, call_lanes(f, select(m, v, broadcast<V>(0))), r);
}

}  // namespace effcc::detail
