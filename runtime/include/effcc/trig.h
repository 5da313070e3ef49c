// effcc/trig.h: circular functions and their inverses.
//
//   sin, cos, tan, asin, acos, atan, atan2(y, x)
//
// float: polynomials; double (and atan2): the C library, lane by lane.
//
// Range reductions.
//   sin, cos, tan   x = n pi/2 + r, |r| <= pi/4 and a rounding; pi/2 in three parts of 24 bits with FMA, where |x| < 2^17;
//                   in four parts of 11 bits without, where |x| < 2^13. Lanes beyond that, infinities among them,
//                   go to the C library, whose reduction is exact for every float
//   atan            |x| > tan(3 pi/8): -1 / x;  > tan(pi/8): (x - 1) / (x + 1)
//   asin, acos      |x| > 1/2: asin(x) = pi/2 - 2 asin(sqrt((1 - x) / 2))
#pragma once

#include "effcc/exp_log.h"

namespace effcc {

namespace detail {

template <class V>
struct angle {
    V r;               // what is left, |r| <= pi/4
    int_of<V> quarter; // how many quarter turns were taken off
};

#if defined(__FMA__) || defined(__ARM_FEATURE_FMA)
inline constexpr float largest_angle = 131072.0f;
#else
inline constexpr float largest_angle = 8192.0f;
#endif

// a >= 0
template <class V>
EFFCC_INLINE angle<V> reduce_angle(V a) {
    V n = nearest(a * broadcast<V>(0.636619772f));
#if defined(__FMA__) || defined(__ARM_FEATURE_FMA)
    V r = neg_mul_add(n, broadcast<V>(0x1.921fb6p+0f), a);
    r = neg_mul_add(n, broadcast<V>(-0x1.777a5cp-25f), r);
    r = neg_mul_add(n, broadcast<V>(-0x1.ee59dap-50f), r);
#else
    V r = a - n * broadcast<V>(0x1.92p+0f);
    r = r - n * broadcast<V>(0x1.fb4p-12f);
    r = r - n * broadcast<V>(0x1.444p-24f);
    r = r - n * broadcast<V>(0x1.68c234p-39f);
#endif
    return {r, convert<i32>(n)};
}

// y where `reduce_angle` holds for a = |x|, else f(x): angles that are too large, infinities, NaN.
template <class V>
EFFCC_INLINE V library_where_far(V a, element<V> (*f)(element<V>), V x, V y) {
    auto far = !(a <= broadcast<V>(largest_angle));
    if (__builtin_expect(any(far), 0)) y = call_lanes_where(far, f, x, y);
    return y;
}

// sin(r) and cos(r) for |r| <= pi/4.
template <class V>
EFFCC_INLINE V sin_reduced(V r, V z) {
    return mul_add(z * r, polynomial(z, -0.166666672f, 0.0083333794f, -0.000198530659f, 2.83254826e-06f), r);
}
template <class V>
EFFCC_INLINE V cos_reduced(V z) {
    V p = polynomial(z, 0.0416666679f, -0.001388898f, 2.48220222e-05f, -2.88812345e-07f);
    return mul_add(z * z, p, mul_add(z, broadcast<V>(-0.5f), broadcast<V>(1)));
}

// sin(r + quarter pi/2)
template <class V>
EFFCC_INLINE V sin_of(V r, int_of<V> quarter) {
    V z = r * r;
    V y = select((quarter & 1) != 0, cos_reduced(z), sin_reduced(r, z));
    return from_bits<V>(bits(y) ^ ((quarter & 2) << 30));
}

// asin(x) - x for 0 <= x <= 1/2, given z = x^2.
template <class V>
EFFCC_INLINE V asin_rest(V x, V z) {
    return z * x * polynomial(z, 0.166666597f, 0.0750052184f, 0.0445133746f, 0.0318390951f,
                              0.0143148098f, 0.0376969203f);
}

// asin(s) = s + rest, with s = |x|, or sqrt((1 - |x|) / 2) where that is `large`: more than 1/2.
template <class V>
struct halved {
    mask_of<V> large;
    V s, rest;
};

template <class V>
EFFCC_INLINE halved<V> halve_arc(V x) {
    V a = abs(x);
    mask_of<V> large = a > broadcast<V>(0.5f);
    V z = select(large, (broadcast<V>(1) - a) * broadcast<V>(0.5f), a * a);
    V s = select(large, sqrt(z), a);
    return {large, s, asin_rest(s, z)};
}

}  // namespace detail

template <class V>
EFFCC_INLINE V sin(V x) {
    if constexpr (detail::is_f64<V>) {
        return detail::call_lanes(EFFCC_LIBM(sin), x);
    } else {
        V a = abs(x);
        auto [r, quarter] = detail::reduce_angle(a);
        V y = from_bits<V>(bits(detail::sin_of(r, quarter)) ^ (bits(x) & detail::sign_bits<V>()));
        return detail::library_where_far(a, EFFCC_LIBM(sin), x, y);
    }
}

template <class V>
EFFCC_INLINE V cos(V x) {
    if constexpr (detail::is_f64<V>) {
        return detail::call_lanes(EFFCC_LIBM(cos), x);
    } else {
        V a = abs(x);
        auto [r, quarter] = detail::reduce_angle(a);
        V y = detail::sin_of(r, quarter + 1);
        return detail::library_where_far(a, EFFCC_LIBM(cos), x, y);
    }
}

template <class V>
EFFCC_INLINE V tan(V x) {
    if constexpr (detail::is_f64<V>) {
        return detail::call_lanes(EFFCC_LIBM(tan), x);
    } else {
        V a = abs(x);
        auto [r, quarter] = detail::reduce_angle(a);
        V z = r * r;
        V p = detail::polynomial(z, 0.333333313f, 0.133334339f, 0.0539510436f, 0.0220104977f, 0.00823294651f,
                                 0.00519734668f, -0.000814853294f, 0.00213560509f);
        V t = mul_add(z * r, p, r);
        auto odd = (quarter & 1) != 0;
        V y = select(odd, broadcast<V>(-1), t) / select(odd, t, broadcast<V>(1));
        y = from_bits<V>(bits(y) ^ (bits(x) & detail::sign_bits<V>()));
        return detail::library_where_far(a, EFFCC_LIBM(tan), x, y);
    }
}

template <class V>
EFFCC_INLINE V atan(V x) {
    if constexpr (detail::is_f64<V>) {
        return detail::call_lanes(EFFCC_LIBM(atan), x);
    } else {
        const V zero = broadcast<V>(0), one = broadcast<V>(1);
        V a = abs(x);
        auto large = a > broadcast<V>(2.41421366f), middle = a > broadcast<V>(0.414213568f);
        V r = select(large, -one, select(middle, a - one, a)) / select(large, a, select(middle, a + one, one));
        V z = r * r;
        V p = detail::polynomial(z, -0.333333164f, 0.199985281f, -0.142443925f, 0.105991915f, -0.0609013885f);
        V base = select(large, broadcast<V>(0x1.921fb6p+0f), select(middle, broadcast<V>(0x1.921fb6p-1f), zero));
        V base_rest = select(large, broadcast<V>(-0x1.777a5cp-25f), select(middle, broadcast<V>(-0x1.777a5cp-26f), zero));
        V y = base + (r + mul_add(z * r, p, base_rest));
        return copysign(y, x);
    }
}

template <class V>
EFFCC_INLINE V asin(V x) {
    if constexpr (detail::is_f64<V>) {
        return detail::call_lanes(EFFCC_LIBM(asin), x);
    } else {
        auto [large, s, rest] = detail::halve_arc(x);
        V turned = broadcast<V>(0x1.921fb6p+0f) - ((s + s) + mul_add(rest, broadcast<V>(2), broadcast<V>(0x1.777a5cp-25f)));
        return copysign(select(large, turned, s + rest), x);
    }
}

template <class V>
EFFCC_INLINE V acos(V x) {
    if constexpr (detail::is_f64<V>) {
        return detail::call_lanes(EFFCC_LIBM(acos), x);
    } else {
        auto [large, s, rest] = detail::halve_arc(x);
        V y = s + rest;  // asin(s) >= 0
        const V half_turn = broadcast<V>(0x1.921fb6p+1f), quarter_turn = broadcast<V>(0x1.921fb6p+0f);
        V outer = select(x < broadcast<V>(0), half_turn - (y + y + broadcast<V>(0x1.777a5cp-24f)), y + y);
        V inner = quarter_turn - (copysign(y, x) + broadcast<V>(0x1.777a5cp-25f));
        return select(large, outer, inner);
    }
}

template <class V>
EFFCC_INLINE V atan2(V y, V x) {
    return detail::call_lanes(EFFCC_LIBM(atan2), y, x);
}

}  // namespace effcc
