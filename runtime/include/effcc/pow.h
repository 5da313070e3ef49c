// effcc/pow.h: powers, division with a remainder, and functions that are rare enough to be the C library's.
//
//   pow(a, b)              C's pow, special cases and all; of floats 2^(b log2 |a|), computed in doubles
//   fmod(a, b)             the remainder with a's sign, exact
//   remainder(a, b)        torch.remainder: the remainder with b's sign
//   floor_divide(a, b)     torch.floor_divide: the quotient rounded down; floats and integers
//   sinh, cosh, asinh, acosh, atanh, lgamma
//
// Integers: b == 0 gives 0 (eager raises; generated code must be guarded where b may be 0), and the lowest integer
// divided by -1 wraps around to itself.
#pragma once

#include "effcc/exp_log.h"

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

namespace detail {

// 2^(y log2 x) for x = 2^n (1 + f), n infinite or NaN where x is 0, infinite or NaN.
//   log2(1 + f) = (2 / ln 2) (s + s^3/3 + s^5/5 + ...),  s = f / (2 + f), |s| < 0.172
//   2^p = 2^k e^(r ln 2),  p = k + r, |r| <= 1/2
// Both series are cut where the rest is below 2^-31 of the result, whatever b; converting to float rounds it once,
// denormals and overflows too.
template <class V>
EFFCC_INLINE V power_of_parts(V n, V f, V y) {
    using D = with_element<V, double>;
    const D limit = broadcast<D>(300), shift = broadcast<D>(0x1.8p52);
    D g = convert<double>(f), s = g / (g + broadcast<D>(2)), t = s * s;
    D log = broadcast<D>(2 / (13 * 0x1.62e42fefa39efp-1));
    log = mul_add(log, t, broadcast<D>(2 / (11 * 0x1.62e42fefa39efp-1)));
    log = mul_add(log, t, broadcast<D>(2 / (9 * 0x1.62e42fefa39efp-1)));
    log = mul_add(log, t, broadcast<D>(2 / (7 * 0x1.62e42fefa39efp-1)));
    log = mul_add(log, t, broadcast<D>(2 / (5 * 0x1.62e42fefa39efp-1)));
    log = mul_add(log, t, broadcast<D>(2 / (3 * 0x1.62e42fefa39efp-1)));
    log = mul_add(log, t, broadcast<D>(2 / 0x1.62e42fefa39efp-1));
    D p = convert<double>(y) * mul_add(s, log, convert<double>(n));
    p = select(p > limit, limit, select(p < -limit, -limit, p));  // NaN passes
    D shifted = p + shift, r = (p - (shifted - shift)) * broadcast<D>(0x1.62e42fefa39efp-1);
    D e = broadcast<D>(1.0 / 40320);
    e = mul_add(e, r, broadcast<D>(1.0 / 5040));
    e = mul_add(e, r, broadcast<D>(1.0 / 720));
    e = mul_add(e, r, broadcast<D>(1.0 / 120));
    e = mul_add(e, r, broadcast<D>(1.0 / 24));
    e = mul_add(e, r, broadcast<D>(1.0 / 6));
    e = mul_add(e, r, broadcast<D>(0.5));
    e = mul_add(e, r, broadcast<D>(1));
    e = mul_add(e, r, broadcast<D>(1));
    // k stands in the low bits of `shifted`, and goes where the exponent is. A NaN's low bits are 0.
    return convert<float>(from_bits<D>(bits(e) + (bits(shifted) << 52)));
}

// Parts of a vector at a time, each as wide in doubles as a register.
template <class V>
EFFCC_INLINE V power_in_registers(V n, V f, V y) {
    if constexpr (lanes<V> > EFFCC_LANES / 2)
        return join(power_in_registers(low(n), low(f), low(y)), power_in_registers(high(n), high(f), high(y)));
    else
        return power_of_parts(n, f, y);
}

}  // namespace detail

template <class V>
EFFCC_INLINE V pow(V a, V b) {
    if constexpr (detail::is_f64<V>) {
        return detail::call_lanes(EFFCC_LIBM(pow), a, b);
    } else {
        const V zero = broadcast<V>(0), one = broadcast<V>(1), inf = broadcast<V>(__builtin_inff());
        V x = abs(a);
        auto [n, f] = detail::split_exponent(x);
        n = select(x < inf, n, x);
        V r = detail::power_in_registers(select(x == zero, -inf, n), f, b);
        V half = b * broadcast<V>(0.5f);
        auto odd = (trunc(b) == b) & (trunc(half) != half);
        r = select(odd, copysign(r, a), r);
        r = select((a < zero) & (x < inf) & (trunc(b) != b), broadcast<V>(__builtin_nanf("")), r);
        return select((b == zero) | (a == one) | ((a == -one) & (abs(b) == inf)), one, r);
    }
}

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
