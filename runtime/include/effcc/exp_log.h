// effcc/exp_log.h: exponentials, logarithms, and what is built of one exponential.
//
//   exp, exp2, expm1, log, log2, log10, log1p, tanh, sigmoid
//
// All take a float, a double, or a vector of either. For float: polynomials, inlined, exact special values (NaN, both
// infinities, both zeros, denormal arguments and results). For double: the C library, lane by lane.
// Worst errors over all 2^32 floats stand in benchmarks/ulp.md; where the coefficients come from, in
// benchmarks/minimax.py.
//
// Range reductions.
//   exp      x = n ln 2 + r, |r| <= ln 2 / 2;  ln 2 in two parts, the first of 9 bits, so that n times it is exact
//   exp2     x = n + r, |r| <= 1/2, exact
//   log      x = 2^n (1 + f), sqrt(1/2) <= 1 + f < sqrt(2);  log1p likewise, with what 1 + x lost added back to f
//   tanh     |x| < 5/8: odd polynomial;  else 1 - 2 / (exp(2 |x|) + 1)
//   sigmoid  from exp(-|x|), which cannot overflow
#pragma once

#include "effcc/convert.h"
#include "effcc/libm.h"

namespace effcc {

namespace detail {

template <class V>
inline constexpr bool is_f64 = same<element<V>, double>;

// c0 + c1 x + c2 x^2 + ... by Horner's rule.
template <class V>
EFFCC_INLINE V polynomial(V, float c) { return broadcast<V>(c); }
template <class V, class... C>
EFFCC_INLINE V polynomial(V x, float c, C... rest) {
    return mul_add(polynomial(x, rest...), x, broadcast<V>(c));
}

// p * 2^n for integral n in -126 .. 127.
template <class V>
EFFCC_INLINE V scale_normal(V p, V n) {
    return p * from_bits<V>((convert<i32>(n) + 127) << 23);
}

// p * 2^n for integral n in -252 .. 254; overflow and denormal results round once.
template <class V>
EFFCC_INLINE V scale(V p, V n) {
#if defined(__AVX512F__) && !defined(__clang__)
    if constexpr (same<V, f32x<16>>) return __builtin_ia32_scalefps512_mask(p, n, p, -1, 4);
#endif
    int_of<V> whole = convert<i32>(n), half = whole >> 1;
    return p * from_bits<V>((half + 127) << 23) * from_bits<V>((whole - half + 127) << 23);
}

// The nearest integer, for |v| < 2^22: adding 1.5 * 2^23 leaves no room for a fraction.
template <class V>
EFFCC_INLINE V nearest(V v) {
    return (v + broadcast<V>(12582912.0f)) - broadcast<V>(12582912.0f);
}

template <class V>
struct exp_parts {
    V n, r;
};

template <class V>
EFFCC_INLINE exp_parts<V> reduce_exp(V x) {
    const V shift = broadcast<V>(12582912.0f);
    V n = mul_add(x, broadcast<V>(1.44269504f), shift) - shift;
    V r = neg_mul_add(n, broadcast<V>(0.693359375f), x);
    return {n, neg_mul_add(n, broadcast<V>(-2.12194440e-4f), r)};
}

// e^r for |r| <= ln 2 / 2.
template <class V>
EFFCC_INLINE V exp_reduced(V r) {
    V q = polynomial(r, 0.49999994f, 0.166665226f, 0.0416682921f, 0.00836853217f, 0.00138182985f);
    return mul_add(r * r, q, r) + broadcast<V>(1);
}

// e^x for -87 < x < 88, where nothing overflows or is denormal. NaN passes.
template <class V>
EFFCC_INLINE V exp_normal(V x) {
    auto [n, r] = reduce_exp(x);
    return scale_normal(exp_reduced(r), n);
}

// most where v is above it; NaN where it is NaN.
template <class V>
EFFCC_INLINE V squeeze_below(V v, float most) {
    V m = broadcast<V>(most);
    return m < v ? m : v;
}

// least where v is below it; NaN where it is NaN.
template <class V>
EFFCC_INLINE V squeeze_above(V v, float least) {
    V l = broadcast<V>(least);
    return l > v ? l : v;
}

// e^x for x <= 89. Where it is 0, the work is done on 0 instead of x: an underflow costs the processor some 150 cycles,
// and a masked softmax is full of e^-inf.
template <class V>
EFFCC_INLINE V exp_no_overflow(V x) {
    const V zero = broadcast<V>(0);
    auto vanishes = x < broadcast<V>(-104.0f);
    auto [n, r] = reduce_exp(select(vanishes, zero, x));
    return select(vanishes, zero, scale(exp_reduced(r), n));
}

template <class V>
struct log_parts {
    V f, n, rest;  // log(x) = n ln 2 + f + rest
};

// rest = log(1 + f) - f, for sqrt(1/2) <= 1 + f < sqrt(2).
template <class V>
EFFCC_INLINE V log_rest(V f) {
    V p = polynomial(f, 0.333333135f, -0.250000089f, 0.200020716f, -0.166679889f, 0.142203584f, -0.124062337f,
                     0.118835486f, -0.116700977f, 0.0674926788f);
    V z = f * f;
    return mul_add(z, broadcast<V>(-0.5f), z * f * p);
}

// The bits of v less those of sqrt(1/2), whose exponent field is then n, and whose fraction bits are those of 1 + f.
template <class V>
EFFCC_INLINE int_of<V> bits_over_sqrt_half(V v) {
    return __builtin_bit_cast(int_of<V>, wrapping(bits(v)) - 0x3f3504f3u);
}

template <class V>
struct exponent_parts {
    V n, f;  // x = 2^n (1 + f), sqrt(1/2) <= 1 + f < sqrt(2)
};

// Of 0 < x < inf, exactly.
template <class V>
EFFCC_INLINE exponent_parts<V> split_exponent(V x) {
    auto denormal = x < broadcast<V>(0x1p-126f);
    int_of<V> b = bits_over_sqrt_half(select(denormal, x * broadcast<V>(0x1p23f), x));
    V n = convert<f32>(b >> 23) - select(denormal, broadcast<V>(23), broadcast<V>(0));
    return {n, from_bits<V>((b & 0x7fffff) + 0x3f3504f3) - broadcast<V>(1)};
}

template <class V>
EFFCC_INLINE log_parts<V> reduce_log(V x) {
    auto [n, f] = split_exponent(x);
    return {f, n, log_rest(f)};
}

// A logarithm's values outside (0, inf): -inf at zero, NaN below, x itself at +inf and NaN.
template <class V>
EFFCC_INLINE V log_special(V x, V r) {
    const V zero = broadcast<V>(0), inf = broadcast<V>(__builtin_inff());
    r = select(x < inf, r, x);
    r = select(x < zero, broadcast<V>(__builtin_nanf("")), r);
    return select(x == zero, -inf, r);
}

}  // namespace detail

template <class V>
EFFCC_INLINE V exp(V x) {
    if constexpr (detail::is_f64<V>) {
        return detail::call_lanes(EFFCC_LIBM(exp), x);
    } else {
        return detail::exp_no_overflow(detail::squeeze_below(x, 89.0f));
    }
}

template <class V>
EFFCC_INLINE V exp2(V x) {
    if constexpr (detail::is_f64<V>) {
        return detail::call_lanes(EFFCC_LIBM(exp2), x);
    } else {
        const V zero = broadcast<V>(0);
        auto vanishes = x < broadcast<V>(-150.0f);
        V y = select(vanishes, zero, detail::squeeze_below(x, 129.0f)), n = detail::nearest(y), r = y - n;
        V q = detail::polynomial(r, 0.693147182f, 0.240226507f, 0.0555040501f, 0.00961808674f, 0.00133379723f,
                                 0.000154520938f, 1.43202287e-05f);
        return select(vanishes, zero, detail::scale(mul_add(q, r, broadcast<V>(1)), n));
    }
}

template <class V>
EFFCC_INLINE V expm1(V x) {
    if constexpr (detail::is_f64<V>) {
        return detail::call_lanes(EFFCC_LIBM(expm1), x);
    } else {
        auto [n, r] = detail::reduce_exp(detail::squeeze_above(detail::squeeze_below(x, 88.9f), -30.0f));
        V q = detail::polynomial(r, 0.5f, 0.166666657f, 0.0416664928f, 0.00833354797f, 0.00139323086f,
                                 0.000197601912f);
        V small = mul_add(r * r, q, r);  // e^r - 1
        // 2^n e^r - 1 = 2 (2^(n-1) (e^r - 1) + (2^(n-1) - 1/2)): the bracket is exact, and 2^(n-1) does not overflow.
        V half = from_bits<V>((convert<i32>(n) + 126) << 23);
        V scaled = mul_add(half, small, half - broadcast<V>(0.5f)) * broadcast<V>(2);
        V y = select(n == broadcast<V>(0), small, scaled);
        return select(abs(x) < broadcast<V>(0x1p-24f), x, y);  // keeps -0 and denormals
    }
}

template <class V>
EFFCC_INLINE V log(V x) {
    if constexpr (detail::is_f64<V>) {
        return detail::call_lanes(EFFCC_LIBM(log), x);
    } else {
        auto [f, n, rest] = detail::reduce_log(x);
        V r = mul_add(n, broadcast<V>(-2.12194440e-4f), rest);
        return detail::log_special(x, mul_add(n, broadcast<V>(0.693359375f), f + r));
    }
}

template <class V>
EFFCC_INLINE V log2(V x) {
    if constexpr (detail::is_f64<V>) {
        return detail::call_lanes(EFFCC_LIBM(log2), x);
    } else {
        auto [f, n, rest] = detail::reduce_log(x);
        V r = mul_add(f, broadcast<V>(1.92596303e-8f), rest * broadcast<V>(1.44269502f));
        return detail::log_special(x, n + mul_add(f, broadcast<V>(1.44269502f), r));
    }
}

template <class V>
EFFCC_INLINE V log10(V x) {
    if constexpr (detail::is_f64<V>) {
        return detail::call_lanes(EFFCC_LIBM(log10), x);
    } else {
        auto [f, n, rest] = detail::reduce_log(x);
        V r = mul_add(f, broadcast<V>(-1.01032143e-8f), rest * broadcast<V>(0.434294492f));
        r = mul_add(n, broadcast<V>(4.60503181e-6f), r);
        r = mul_add(f, broadcast<V>(0.434294492f), r);
        return detail::log_special(x, mul_add(n, broadcast<V>(0.301025391f), r));
    }
}

template <class V>
EFFCC_INLINE V log1p(V x) {
    if constexpr (detail::is_f64<V>) {
        return detail::call_lanes(EFFCC_LIBM(log1p), x);
    } else {
        const V one = broadcast<V>(1), zero = broadcast<V>(0);
        V u = one + x;
        V lost = select(x >= one, one - (u - x), x - (u - one));  // 1 + x = u + lost, exactly
        int_of<V> b = detail::bits_over_sqrt_half(u);
        int_of<V> n = b >> 23;
        V f = from_bits<V>((b & 0x7fffff) + 0x3f3504f3) - one;
        f += lost * from_bits<V>(maximum(127 - n, broadcast<int_of<V>>(0)) << 23);  // at n >= 127 nothing is lost
        V e = convert<f32>(n);
        V r = mul_add(e, broadcast<V>(-2.12194440e-4f), detail::log_rest(f));
        r = mul_add(e, broadcast<V>(0.693359375f), f + r);
        r = detail::log_special(u, r);
        return select(x == zero, x, r);  // keeps -0
    }
}

template <class V>
EFFCC_INLINE V tanh(V x) {
    if constexpr (detail::is_f64<V>) {
        return detail::call_lanes(EFFCC_LIBM(tanh), x);
    } else {
        const V one = broadcast<V>(1), two = broadcast<V>(2);
        V a = abs(x), z = a * a;
        V p = detail::polynomial(z, -0.333333313f, 0.133332208f, -0.0539481789f, 0.021706894f, -0.00819001347f,
                                 0.00215268391f);
        V near = mul_add(z * a, p, a);
        V c = detail::squeeze_below(a, 10.0f);
        V far = one - two / (detail::exp_normal(c + c) + one);
        return copysign(select(a < broadcast<V>(0.625f), near, far), x);
    }
}

template <class V>
EFFCC_INLINE V sigmoid(V x) {
    const V one = broadcast<V>(1), zero = broadcast<V>(0);
    if constexpr (detail::is_f64<V>) {
        return one / (one + exp(-x));
    } else {
        V e = detail::exp_no_overflow(-abs(x));
        return select(x < zero, e, one) / (one + e);
    }
}

}  // namespace effcc
