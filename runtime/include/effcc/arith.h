// effcc/arith.h: arithmetic that one machine instruction does, but no C operator says.
//
// V is float, double or a vector of either; + - * / and the comparisons are the operators themselves.
//
//   mul_add(a, b, c)       a * b + c; rounded once where the target has FMA instructions, twice where it has not
//   neg_mul_add(a, b, c)   c - a * b, likewise
//   fma(a, b, c)           a * b + c rounded once, always (slow without FMA instructions)
//   abs(v), copysign(magnitude, sign)      also of NaN and of -0; abs also for integers
//   sqrt(v)                correctly rounded
//   rsqrt(v)               1 / sqrt(v), rounded twice, as torch.rsqrt
//   floor(v) ceil(v) trunc(v) round(v)     round: to nearest, ties to even, as torch.round
//   maximum(a, b), minimum(a, b)           NaN if either is; in a chain let b be the accumulator: it is the faster side
//   fmax(a, b), fmin(a, b)                 the other one if one is NaN
//   clamp(v, lo, hi)                       minimum(maximum(v, lo), hi)
//   at_least(v, least)                     v < least ? least : v, which keeps NaN and the sign of zero
//   at_most(v, most)                       most < v ? most : v, likewise
//   sign(v)                -1, 0 or 1; of NaN, 0 (as torch.sign)
//   is_nan(v), is_inf(v), is_finite(v)     masks
//
// maximum, minimum, clamp and sign take integers too.
//
// On contraction. Generated code is compiled with -ffp-contract=off, so `a * b + c` is rounded twice everywhere, as eager
// rounds it. A contraction kernel (and every polynomial here) asks for the fused form by name, with mul_add. Both kinds
// therefore live in one translation unit with one set of flags; no pragma or attribute is involved, and inlining cannot
// carry one function's rounding into another.
#pragma once

#include "effcc/types.h"

namespace effcc {

namespace detail {

// Applies f lane by lane. GCC turns the loop into vector instructions where it knows how (fma, sqrt).
template <class F, class V, class... Vs>
EFFCC_INLINE V each_lane(F f, V first, Vs... rest) {
    if constexpr (Vector<V>) {
        V r;
        for (int i = 0; i < lanes<V>; ++i) r[i] = f(first[i], rest[i]...);
        return r;
    } else {
        return f(first, rest...);
    }
}

// Whether a V fills one register of the instruction set being compiled for.
template <class V>
inline constexpr bool is_register = Vector<V> &&
#if defined(__AVX512F__)
                                    (sizeof(V) == 64 || sizeof(V) == 32 || sizeof(V) == 16);
#elif defined(__AVX__)
                                    (sizeof(V) == 32 || sizeof(V) == 16);
#else
                                    sizeof(V) == 16;
#endif

template <class V>
inline constexpr bool wider_than_register = Vector<V> && !is_register<V> && sizeof(V) > 16;

}  // namespace detail

template <class V>
EFFCC_INLINE V fma(V a, V b, V c) {
    if constexpr (detail::wider_than_register<V>)
        return join(fma(low(a), low(b), low(c)), fma(high(a), high(b), high(c)));
#if defined(__clang__) && defined(__FMA__)
    else if constexpr (detail::Vector<V>)
        return __builtin_elementwise_fma(a, b, c);
#elif defined(__FMA__)
#if defined(__AVX512F__)
    else if constexpr (detail::same<V, f32x<16>>)
        return __builtin_ia32_vfmaddps512_mask(a, b, c, -1, 4);
    else if constexpr (detail::same<V, f64x<8>>)
        return __builtin_ia32_vfmaddpd512_mask(a, b, c, -1, 4);
#endif
    else if constexpr (detail::same<V, f32x<8>>)
        return __builtin_ia32_vfmaddps256(a, b, c);
    else if constexpr (detail::same<V, f64x<4>>)
        return __builtin_ia32_vfmaddpd256(a, b, c);
    else if constexpr (detail::same<V, f32x<4>>)
        return __builtin_ia32_vfmaddps(a, b, c);
    else if constexpr (detail::same<V, f64x<2>>)
        return __builtin_ia32_vfmaddpd(a, b, c);
#endif
    else if constexpr (sizeof(element<V>) == 4)
        return detail::each_lane([](float x, float y, float z) { return __builtin_fmaf(x, y, z); }, a, b, c);
    else
        return detail::each_lane([](double x, double y, double z) { return __builtin_fma(x, y, z); }, a, b, c);
}

template <class V>
EFFCC_INLINE V mul_add(V a, V b, V c) {
#if defined(__FMA__) || defined(__ARM_FEATURE_FMA)
    return fma(a, b, c);
#else
    return a * b + c;
#endif
}
template <detail::Vector V>
EFFCC_INLINE V mul_add(V a, V b, element<V> c) { return mul_add(a, b, broadcast<V>(c)); }
template <detail::Vector V>
EFFCC_INLINE V mul_add(V a, element<V> b, V c) { return mul_add(a, broadcast<V>(b), c); }
template <detail::Vector V>
EFFCC_INLINE V mul_add(element<V> a, V b, V c) { return mul_add(broadcast<V>(a), b, c); }
template <detail::Vector V>
EFFCC_INLINE V mul_add(V a, element<V> b, element<V> c) { return mul_add(a, broadcast<V>(b), broadcast<V>(c)); }

// b is the one negated: where it is a constant, so is -b.
template <class V>
EFFCC_INLINE V neg_mul_add(V a, V b, V c) {
    return mul_add(a, -b, c);
}

namespace detail {

template <class T>
inline constexpr bool floating = same<T, float> || same<T, double>;

// The bits of a lane's sign, and those of all the rest.
template <class V>
EFFCC_INLINE int_of<V> sign_bits() {
    using I = int_of<V>;
    return broadcast<I>(static_cast<element<I>>(u64(1) << (8 * sizeof(element<V>) - 1)));
}

}  // namespace detail

template <class V>
EFFCC_INLINE V abs(V v) {
    if constexpr (detail::floating<element<V>>)
        return from_bits<V>(bits(v) & ~detail::sign_bits<V>());
    else if constexpr (element<V>(-1) < element<V>(0))
        return select(v < broadcast<V>(0), __builtin_bit_cast(V, decltype(detail::wrapping(v))(0 - detail::wrapping(v))), v);
    else
        return v;
}

template <class V>
EFFCC_INLINE V copysign(V magnitude, V sign) {
    return from_bits<V>((bits(magnitude) & ~detail::sign_bits<V>()) | (bits(sign) & detail::sign_bits<V>()));
}

template <class V>
EFFCC_INLINE V sqrt(V v) {
    if constexpr (detail::wider_than_register<V>)
        return join(sqrt(low(v)), sqrt(high(v)));
    else if constexpr (sizeof(element<V>) == 4)
        return detail::each_lane([](float x) { return __builtin_sqrtf(x); }, v);
    else
        return detail::each_lane([](double x) { return __builtin_sqrt(x); }, v);
}

template <class V>
EFFCC_INLINE V rsqrt(V v) {
    return broadcast<V>(1) / sqrt(v);
}

namespace detail {

// The rounding modes as the x86 instructions number them (8: raise no inexact exception).
enum rounding { to_nearest_even = 8, downward = 9, upward = 10, toward_zero = 11 };

template <rounding Mode, class V>
EFFCC_INLINE V round_lanes(V v) {
    using T = element<V>;
    if constexpr (wider_than_register<V>) {
        return join(round_lanes<Mode>(low(v)), round_lanes<Mode>(high(v)));
#if defined(__SSE4_1__) || defined(__aarch64__)
    } else if constexpr (same<V, float>) {
        return Mode == downward ? __builtin_floorf(v) : Mode == upward ? __builtin_ceilf(v)
             : Mode == toward_zero ? __builtin_truncf(v) : __builtin_rintf(v);
    } else if constexpr (same<V, double>) {
        return Mode == downward ? __builtin_floor(v) : Mode == upward ? __builtin_ceil(v)
             : Mode == toward_zero ? __builtin_trunc(v) : __builtin_rint(v);
#endif
#if defined(__AVX512F__)
    } else if constexpr (same<V, f32x<16>>) {
        return __builtin_ia32_rndscaleps_mask(v, Mode, v, -1, 4);
    } else if constexpr (same<V, f64x<8>>) {
        return __builtin_ia32_rndscalepd_mask(v, Mode, v, -1, 4);
#endif
#if defined(__AVX__)
    } else if constexpr (same<V, f32x<8>>) {
        return __builtin_ia32_roundps256(v, Mode);
    } else if constexpr (same<V, f64x<4>>) {
        return __builtin_ia32_roundpd256(v, Mode);
#endif
#if defined(__SSE4_1__)
    } else if constexpr (same<V, f32x<4>>) {
        return __builtin_ia32_roundps(v, Mode);
    } else if constexpr (same<V, f64x<2>>) {
        return __builtin_ia32_roundpd(v, Mode);
#endif
    } else {
        // Adding and taking away 2^23 (2^52) rounds to an integer, ties to even; beyond it every number is one.
        const V big = broadcast<V>(sizeof(T) == 4 ? T(8388608) : T(4503599627370496));
        V size = abs(v);
        V nearest = copysign((size + big) - big, v);
        V one = broadcast<V>(1), zero = broadcast<V>(0), r = nearest;
        if constexpr (Mode == downward) r = nearest - select(nearest > v, one, zero);
        if constexpr (Mode == upward) r = nearest + select(nearest < v, one, zero);
        if constexpr (Mode == toward_zero) r = abs(nearest) - select(abs(nearest) > size, one, zero);
        return select(size < big, copysign(r, v), v);
    }
}

}  // namespace detail

template <class V>
EFFCC_INLINE V floor(V v) { return detail::round_lanes<detail::downward>(v); }
template <class V>
EFFCC_INLINE V ceil(V v) { return detail::round_lanes<detail::upward>(v); }
template <class V>
EFFCC_INLINE V trunc(V v) { return detail::round_lanes<detail::toward_zero>(v); }
template <class V>
EFFCC_INLINE V round(V v) { return detail::round_lanes<detail::to_nearest_even>(v); }

template <class V>
EFFCC_INLINE mask_of<V> is_nan(V v) { return v != v; }
template <class V>
EFFCC_INLINE mask_of<V> is_inf(V v) { return abs(v) == broadcast<V>(element<V>(__builtin_inf())); }
template <class V>
EFFCC_INLINE mask_of<V> is_finite(V v) { return abs(v) < broadcast<V>(element<V>(__builtin_inf())); }

namespace detail {

// A scalar integer stays where addresses are computed: g++ takes what is compared by maximum and minimum to vector
// registers and back, three instructions on the units that multiply and add.
template <class V>
EFFCC_INLINE V in_general_register(V v) {
#if defined(__AVX2__) && !defined(__clang__)
    if constexpr (same<V, i32> || same<V, i64>)
        if (!__builtin_constant_p(v)) __asm__("" : "+r"(v));
#endif
    return v;
}

}  // namespace detail

template <class V>
EFFCC_INLINE V maximum(V a, V b) {
#if defined(__AVX512F__) && !defined(__clang__)
    if constexpr (detail::same<V, f32x<16>>)  // where a is a number: a > b ? a : b, which is b if b is NaN
        return __builtin_ia32_maxps512_mask(a, b, a, __builtin_ia32_cmpps512_mask(a, a, 7, -1, 4), 4);
#endif
#if defined(__AVX2__) && !defined(__AVX512F__) && !defined(__clang__)
    if constexpr (detail::same<V, f32x<8>>) return (a != a) ? a : V(__builtin_ia32_maxps256(a, b));
#endif
    if constexpr (detail::floating<element<V>>)
        return ((a > b) | (a != a)) ? a : b;
    a = detail::in_general_register(a);
    return a > b ? a : b;
}

template <class V>
EFFCC_INLINE V minimum(V a, V b) {
#if defined(__AVX512F__) && !defined(__clang__)
    if constexpr (detail::same<V, f32x<16>>)
        return __builtin_ia32_minps512_mask(a, b, a, __builtin_ia32_cmpps512_mask(a, a, 7, -1, 4), 4);
#endif
#if defined(__AVX2__) && !defined(__AVX512F__) && !defined(__clang__)
    if constexpr (detail::same<V, f32x<8>>) return (a != a) ? a : V(__builtin_ia32_minps256(a, b));
#endif
    if constexpr (detail::floating<element<V>>)
        return ((a < b) | (a != a)) ? a : b;
    a = detail::in_general_register(a);
    return a < b ? a : b;
}

// maxps is a > b ? a : b, b where either is NaN, which g++ does not choose for such a selection of lanes.
template <class V>
EFFCC_INLINE V at_least(V v, element<V> least) {
#if defined(__AVX512F__) && !defined(__clang__)
    if constexpr (detail::same<V, f32x<16>>)
        return __builtin_ia32_maxps512_mask(broadcast<V>(least), v, v, -1, 4);
#endif
#if defined(__AVX2__) && !defined(__clang__)
    if constexpr (detail::same<V, f32x<8>>) return __builtin_ia32_maxps256(broadcast<V>(least), v);
    if constexpr (detail::same<V, f32x<4>>) return __builtin_ia32_maxps(broadcast<V>(least), v);
#endif
    return v < broadcast<V>(least) ? broadcast<V>(least) : v;
}

template <class V>
EFFCC_INLINE V at_most(V v, element<V> most) {
#if defined(__AVX512F__) && !defined(__clang__)
    if constexpr (detail::same<V, f32x<16>>)
        return __builtin_ia32_minps512_mask(broadcast<V>(most), v, v, -1, 4);
#endif
#if defined(__AVX2__) && !defined(__clang__)
    if constexpr (detail::same<V, f32x<8>>) return __builtin_ia32_minps256(broadcast<V>(most), v);
    if constexpr (detail::same<V, f32x<4>>) return __builtin_ia32_minps(broadcast<V>(most), v);
#endif
    return broadcast<V>(most) < v ? broadcast<V>(most) : v;
}

template <class V>
EFFCC_INLINE V fmax(V a, V b) { return ((a > b) | (b != b)) ? a : b; }
template <class V>
EFFCC_INLINE V fmin(V a, V b) { return ((a < b) | (b != b)) ? a : b; }

template <class V>
EFFCC_INLINE V clamp(V v, V lo, V hi) { return minimum(maximum(v, lo), hi); }

template <class V>
EFFCC_INLINE V sign(V v) {
    V one = broadcast<V>(1), zero = broadcast<V>(0);
    return select(v > zero, one, zero) - select(v < zero, one, zero);
}

}  // namespace effcc
