// effcc/reduce.h: one number from the lanes of a vector, always in the same order.
//
// Each halves the vector until one lane is left: lane i meets lane i + lanes/2 first. So a sum of 16 lanes has the
// rounding error of four additions, and the same lanes give the same bits on every instruction set.
//
//   reduce_sum(v), reduce_prod(v)
//   reduce_max(v), reduce_min(v)           NaN if any lane is
//   reduce(v, f)                           any f(a, b) that takes vectors of every size and scalars
//   first_lane_of(mask)                    the lowest lane where mask holds; lanes if none
#pragma once

#include "effcc/arith.h"

namespace effcc {

template <class V, class F>
EFFCC_INLINE element<V> reduce(V v, F f) {
    if constexpr (detail::Vector<V>)
        return reduce(f(low(v), high(v)), f);
    else
        return v;
}

template <class V>
EFFCC_INLINE element<V> reduce_sum(V v) {
    return reduce(v, [](auto a, auto b) __attribute__((always_inline)) { return decltype(a)(a + b); });
}
template <class V>
EFFCC_INLINE element<V> reduce_prod(V v) {
    return reduce(v, [](auto a, auto b) __attribute__((always_inline)) { return decltype(a)(a * b); });
}
template <class V>
EFFCC_INLINE element<V> reduce_max(V v) {
    return reduce(v, [](auto a, auto b) __attribute__((always_inline)) { return maximum(a, b); });
}
template <class V>
EFFCC_INLINE element<V> reduce_min(V v) {
    return reduce(v, [](auto a, auto b) __attribute__((always_inline)) { return minimum(a, b); });
}

template <class M>
EFFCC_INLINE int first_lane_of(M mask) {
    for (int i = 0; i < lanes<M>; ++i)
        if (lane(mask, i)) return i;
    return lanes<M>;
}

}  // namespace effcc
