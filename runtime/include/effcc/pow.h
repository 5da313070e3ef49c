// effcc/pow.h: powers, division with a remainder, and functions that are rare enough to be the C library's.
//
//   pow(a, b)              C's pow, special cases and all
//   fmod(a, b)             the remainder with a's sign, exact
//   remainder(a, b)        torch.remainder: the remainder with b's sign
//   floor_divide(a, b)     torch.floor_divide: the quotient rounded down; floats and integers
//   sinh, cosh, asinh, acosh, atanh, lgamma
//
// Integers: b == 0 gives 0 (eager raises; generated code must be guarded where b may be 0), and the lowest integer
// divided by -1 wraps around to itself.
#pragma once

#include "effcc/libm.h"

namespace effcc {

template <class V>
EFFCC_INLINE V sinh(V x) { return detail::call_lanes(EFFCC_LIBM(sinh), x); }
template <class V>
EFFCC_INLINE V cosh(V x) { return detail::call_lanes(EFFCC_LIBM(cosh), x); }
template <class V>
EFFCC_INLINE V asinh(V x) { return detail::call_lanes(EFFCC_LIBM(asinh), x); }
template <class V>
EFFCC_INLINE V acosh(V x) { return detail::call_lanes(EFFCC_LIBM(acosh), x); }
template <class V>
EFFCC_INLINE V atanh(V x) { return detail::call_lanes(EFFCC_LIBM(atanh), x); }
template <class V>
EFFCC_INLINE V lgamma(V x) { return detail::call_lanes(EFFCC_LIBM(lgamma), x); }
template <class V>
EFFCC_INLINE V pow(V a, V b) { return detail::call_lanes(EFFCC_LIBM(pow), a, b); }

namespace detail {

// Whether a / b would trap or overflow.
template <class T>
EFFCC_INLINE bool traps(T a, T b) {
    constexpr bool is_signed = T(-1) < T(0);
    return b == 0 || (is_signed && b == T(-1) && a == T(u64(1) << (8 * sizeof(T) - 1)));
}

template <class T>
EFFCC_INLINE T divide(T a, T b) {
    return traps(a, b) ? (b == 0 ? T(0) : a) : T(a / b);
}

template <class T>
EFFCC_INLINE T modulo(T a, T b) {
    return traps(a, b) ? T(0) : T(a % b);
}

}  // namespace detail

template <class V>
EFFCC_INLINE V fmod(V a, V b) {
    if constexpr (detail::floating<element<V>>)
        return detail::call_lanes(EFFCC_LIBM(fmod), a, b);
    else
        return detail::each_lane([](element<V> x, element<V> y) { return detail::modulo(x, y); }, a, b);
}

template <class V>
EFFCC_INLINE V remainder(V a, V b) {
    const V zero = broadcast<V>(0);
    V m = fmod(a, b);
    auto turn = (m != zero) & ((m < zero) != (b < zero));
    if constexpr (detail::floating<element<V>>)
        return select(turn, V(m + b), m);  // keeps m = -0
    else
        return m + select(turn, b, zero);  // never overflows
}

template <class V>
EFFCC_INLINE V floor_divide(V a, V b) {
    const V zero = broadcast<V>(0), one = broadcast<V>(1);
    V m = fmod(a, b);
    auto uneven = (m != zero) & ((m < zero) != (b < zero));
    if constexpr (detail::floating<element<V>>) {
        V q = (a - m) / b;
        q = select(uneven, q - one, q);
        V down = floor(q);
        down = select(q - down > broadcast<V>(0.5f), down + one, down);
        V r = select(q != zero, down, copysign(zero, a / b));
        return select(b == zero, a / b, r);
    } else {
        V q = detail::each_lane([](element<V> x, element<V> y) { return detail::divide(x, y); }, a, b);
        return q - select(uneven, one, zero);
    }
}

}  // namespace effcc
