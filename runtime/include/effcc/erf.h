// effcc/erf.h: the error function, its complement, and one more than it; a gelu is 0.5 * x * (1 + erf(x * sqrt(1/2))).
//
//   erf, erfc, erf_plus_one
//
// float: |x| < 15/16: x + x P(x^2);  beyond: 1 - exp(x Q(x)), where x Q(x) = log(erfc(x)), up to |x| = 4, where it is 1.
// erfc, |x| = a: e^(-a^2) R(t) / (1 + 2 a), t = (a - 2) / (a + 2), with what a^2 lost to rounding put back; 2 - that for
// negative x.
// erf_plus_one, |x| = a: E = exp(a Q(a)), which is erfc(a), where x is negative, 2 - E where it is not. Q's error
// counts beside the square root of E, for sums with what is larger; beyond a = 5, where E is 1.5e-12, it is 0.
// double: the C library, lane by lane.
#pragma once

#include "effcc/exp_log.h"

namespace effcc {

template <class V>
EFFCC_INLINE V erf(V x) {
    if constexpr (detail::is_f64<V>) {
        return detail::call_lanes(EFFCC_LIBM(erf), x);
    } else {
        V a = abs(x), z = a * a;
        V p = detail::polynomial(z, 0.128379166f, -0.376126289f, 0.112836257f, -0.026855737f, 0.00519243814f,
                                 -0.000805038435f, 8.00027919e-05f);
        V near = mul_add(a, p, a);
        V c = detail::squeeze_below(a, 4.0f);
        V q = detail::polynomial(c, -1.12846529f, -0.636096776f, -0.104160748f, 0.021233853f, -0.00177948875f,
                                 -0.000525459822f, 0.000221047085f, -3.48155008e-05f, 2.17299112e-06f);
        V far = broadcast<V>(1) - detail::exp_normal(c * q);
        return copysign(select(a < broadcast<V>(0.9375f), near, far), x);
    }
}

template <class V>
EFFCC_INLINE V erf_plus_one(V x) {
    if constexpr (detail::is_f64<V>) {
        return erf(x) + broadcast<V>(1);
    } else {
        const V zero = broadcast<V>(0), end = broadcast<V>(5);
        V a = abs(x), c = detail::squeeze_below(a, 5.0f), z = c * c;
        // Even and odd powers apart: half the steps that wait for each other.
        V even = detail::polynomial(z, -1.12837982f, -0.102837183f, -2.54764491e-05f, 0.000606005953f, 1.41176097e-05f);
        V odd = detail::polynomial(z, -0.636608481f, 0.0193002503f, -0.00154933787f, -0.00012490635f, -6.86001158e-07f);
        V e = detail::exp_normal(c * mul_add(c, odd, even));
        return select(x < zero, select(a > end, zero, e), broadcast<V>(2) - e);
    }
}

namespace detail {

// x * x - square exactly (up to one rounding), where square is x * x rounded.
template <class V>
EFFCC_INLINE V square_rest(V x, V square) {
#if defined(__FMA__) || defined(__ARM_FEATURE_FMA)
    return fma(x, x, -square);
#else
    V head = from_bits<V>(bits(x) & ~0xfff), tail = x - head;
    return ((head * head - square) + (head + head) * tail) + tail * tail;
#endif
}

}  // namespace detail

template <class V>
EFFCC_INLINE V erfc(V x) {
    if constexpr (detail::is_f64<V>) {
        return detail::call_lanes(EFFCC_LIBM(erfc), x);
    } else {
        const V zero = broadcast<V>(0), one = broadcast<V>(1), two = broadcast<V>(2);
        V a = abs(x);
        auto vanishes = a > broadcast<V>(10.06f);  // spared the underflow, as in exp
        a = select(vanishes, zero, a);
        V t = (a - two) / (a + two);
        V h = detail::polynomial(t, 1.27697837f, -0.0927638561f, -0.166030824f, 0.164052591f, -0.0542091914f,
                                 -0.00804276671f, 0.00865022466f, 0.00127292844f, -0.00126638729f, -0.000367399392f,
                                 2.93154299e-05f);
        V square = a * a;
        auto [n, r] = detail::reduce_exp(-square);
        V p = detail::exp_reduced(r - detail::square_rest(a, square));
        V y = select(vanishes, zero, detail::scale(p * (h / (one + (a + a))), n));
        return select(x < zero, two - y, y);
    }
}

}  // namespace effcc
