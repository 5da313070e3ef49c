// effcc/convert.h: one dtype's lanes into another's.
//
//   convert<T>(v)          v's lanes as T; T is a C++ arithmetic type. As torch's Tensor.to on this machine:
//                          float to integer cuts towards zero; what does not fit gives the lowest i32 or i64 (x86), of
//                          which i8, i16 and u8 keep the low bits; integer to integer keeps the low bits
//   nearest<T>(v)          convert<T>(round(v)) of f32, T an integer of up to 32 bits
//   to_mask(v)             v != 0 (so NaN is true): a conversion to bool
//   from_mask<V>(m)        1 where m, else 0
//   widen_bf16(h), narrow_bf16(v)          u16 lanes holding bfloat16 <-> f32 lanes
//   widen_f16(h), narrow_f16(v)            u16 lanes holding IEEE half <-> f32 lanes
//
// Narrowing rounds to nearest, ties to even, keeps denormals, and quiets a NaN while keeping its sign and upper payload.
#pragma once

#include "effcc/arith.h"

namespace effcc {

namespace detail {

// GCC 12 takes a conversion between lanes of very different size apart, lane by lane, when its operand comes straight from
// memory; so the widening of bytes and shorts to i32 is asked for by name, and narrowing is a shuffle of bytes.
template <class V>
EFFCC_INLINE with_element<V, i32> widen_int(V v) {
#if defined(__clang__)
    return __builtin_convertvector(v, with_element<V, i32>);
#else
#define EFFCC_WIDEN(FROM, LANES, TYPE, BUILTIN, ...)                                                      \
    if constexpr (lanes<V> == LANES && same<element<V>, FROM>) {                                          \
        constexpr int bytes = sizeof(V) < 16 ? 16 : sizeof(V);                                            \
        vec<TYPE, bytes / sizeof(TYPE)> w;                                                                \
        if constexpr (sizeof(V) == 8)                                                                     \
            w = __builtin_bit_cast(decltype(w), i64x<2>{__builtin_bit_cast(i64, v), 0});                  \
        else if constexpr (sizeof(V) == 4)                                                                \
            w = __builtin_bit_cast(decltype(w), i32x<4>{__builtin_bit_cast(i32, v), 0, 0, 0});            \
        else                                                                                              \
            w = __builtin_bit_cast(decltype(w), v);                                                       \
        return __builtin_ia32_##BUILTIN(w __VA_OPT__(, ) __VA_ARGS__);                                    \
    }
#if defined(__AVX512F__)
    EFFCC_WIDEN(i8, 16, char, pmovsxbd512_mask, i32x<16>{}, -1)
    EFFCC_WIDEN(u8, 16, char, pmovzxbd512_mask, i32x<16>{}, -1)
    EFFCC_WIDEN(i16, 16, short, pmovsxwd512_mask, i32x<16>{}, -1)
    EFFCC_WIDEN(u16, 16, short, pmovzxwd512_mask, i32x<16>{}, -1)
#endif
#if defined(__AVX2__)
    EFFCC_WIDEN(i8, 8, char, pmovsxbd256)
    EFFCC_WIDEN(u8, 8, char, pmovzxbd256)
    EFFCC_WIDEN(i16, 8, short, pmovsxwd256)
    EFFCC_WIDEN(u16, 8, short, pmovzxwd256)
#endif
#if defined(__SSE4_1__)
    EFFCC_WIDEN(i8, 4, char, pmovsxbd128)
    EFFCC_WIDEN(u8, 4, char, pmovzxbd128)
    EFFCC_WIDEN(i16, 4, short, pmovsxwd128)
    EFFCC_WIDEN(u16, 4, short, pmovzxwd128)
#endif
#undef EFFCC_WIDEN
    return __builtin_convertvector(v, with_element<V, i32>);
#endif
}

template <class To, class V>
EFFCC_INLINE with_element<V, To> narrow_int(V v) {
    constexpr int step = sizeof(element<V>) / sizeof(To);
    using words = vec<To, lanes<V> * step>;
    words w = __builtin_bit_cast(words, v);
#if defined(__AVX2__) && !defined(__clang__)
    if constexpr (lanes<words> == 32 && step == 4) {  // within halves of 16 bytes first: what crosses them is slower
        const words packed = __builtin_shufflevector(w, w, 0, 4, 8, 12, 0, 4, 8, 12, 0, 4, 8, 12, 0, 4, 8, 12,
            16, 20, 24, 28, 16, 20, 24, 28, 16, 20, 24, 28, 16, 20, 24, 28);
        const i32x<8> halves = __builtin_bit_cast(i32x<8>, packed);
        const i32x<4> a = __builtin_shufflevector(halves, halves, 0, 1, 2, 3);
        const i32x<4> b = __builtin_shufflevector(halves, halves, 4, 5, 6, 7);
        return __builtin_bit_cast(with_element<V, To>, __builtin_shufflevector(a, b, 0, 5));
    }
#endif
    return [&]<int... I>(indices<I...>) __attribute__((always_inline)) {
        return __builtin_shufflevector(w, w, (I * step)...);
    }(index_pack<lanes<V>>{});
}

// A double that was rounded to a float, and is no longer known to have been one: GCC 12 makes vectors of neighbours that
// are narrowed and widened again, and takes the result for what was given, unrounded.
EFFCC_INLINE float rounded(double v) {
    float r = static_cast<float>(v);
#if defined(__GNUC__) && !defined(__clang__)
#if defined(__SSE2__)
    asm("" : "+x"(r));
#else
    asm("" : "+m"(r));
#endif
#endif
    return r;
}

template <class To, class V>
EFFCC_INLINE with_element<V, To> cast(V v) {
    if constexpr (same<V, double> && same<To, float>)
        return rounded(v);
    else if constexpr (Vector<V> && same<To, i32> && sizeof(element<V>) < 4)
        return widen_int(v);
#if defined(__AVX2__) && !defined(__AVX512F__)
    else if constexpr (Vector<V> && !floating<element<V>> && sizeof(To) < 4 && sizeof(element<V>) == 4)
        return narrow_int<To>(v);
#endif
    else if constexpr (Vector<V>)
        return __builtin_convertvector(v, with_element<V, To>);
    else
        return static_cast<To>(v);
}

}  // namespace detail

template <class T, class V>
EFFCC_INLINE with_element<V, T> convert(V v) {
    using From = element<V>;
    constexpr bool small_to = sizeof(T) < 4, small_from = sizeof(From) < 4;
    if constexpr (detail::same<From, T>) {
        return v;
    } else if constexpr (detail::floating<From> && small_to) {
        // A float beyond i32 is a multiple of 256, so i32 and i64 agree on its low byte; a double need not be.
        if constexpr (detail::same<T, u8> && detail::same<From, double>)
            return detail::cast<T>(detail::cast<i64>(v));
        else
            return detail::cast<T>(detail::cast<i32>(v));
    } else if constexpr (small_from && detail::floating<T>) {
        return detail::cast<T>(detail::cast<i32>(v));
    } else {
        return detail::cast<T>(v);
    }
}

template <class T, class V>
EFFCC_INLINE with_element<V, T> nearest(V v) {
#if defined(__AVX512F__) && !defined(__clang__)
    if constexpr (detail::same<V, f32x<16>>)
        return convert<T>(i32x<16>(__builtin_ia32_cvtps2dq512_mask(v, i32x<16>{}, -1, 8)));
#endif
#if defined(__AVX2__) && !defined(__clang__)
    if constexpr (detail::same<V, f32x<8>>) return convert<T>(i32x<8>(__builtin_ia32_cvtps2dq256(v)));
#endif
    return convert<T>(round(v));
}

template <class V>
EFFCC_INLINE mask_of<V> to_mask(V v) {
    return v != broadcast<V>(0);
}

template <class V, class M>
EFFCC_INLINE V from_mask(M m) {
    if constexpr (detail::Vector<V> && !detail::floating<element<V>>)
        return detail::cast<element<V>>(m) & broadcast<V>(1);
    else
        return select(mask_cast<V>(m), broadcast<V>(1), broadcast<V>(0));
}

template <class H>
EFFCC_INLINE with_element<H, f32> widen_bf16(H h) {
    using V = with_element<H, f32>;
    return from_bits<V>(detail::cast<i32>(h) << 16);
}

template <class V>
EFFCC_INLINE with_element<V, u16> narrow_bf16(V v) {
    using U = with_element<V, u32>;
    U u = __builtin_bit_cast(U, v);
    U rounded = (u + (0x7fffu + ((u >> 16) & 1u))) >> 16;
    U quieted = (u >> 16) | 0x40u;
    return detail::cast<u16>(is_nan(v) ? quieted : rounded);
}

template <class H>
EFFCC_INLINE with_element<H, f32> widen_f16(H h) {
    using V = with_element<H, f32>;
#if defined(__clang__) && (defined(__F16C__) || defined(__aarch64__))
    return detail::cast<f32>(__builtin_bit_cast(with_element<H, _Float16>, h));
#elif defined(__F16C__)
    using shorts = short __attribute__((vector_size(16)));
    if constexpr (lanes<H> == 8) return __builtin_ia32_vcvtph2ps256(__builtin_bit_cast(shorts, h));
    if constexpr (lanes<H> == 1) return __builtin_ia32_vcvtph2ps(shorts{short(h)})[0];
    if constexpr (lanes<H> == 4) {
        using half = short __attribute__((vector_size(8)));
        return __builtin_ia32_vcvtph2ps(__builtin_shufflevector(__builtin_bit_cast(half, h), half{}, 0, 1, 2, 3, 4, 5, 6, 7));
    }
#if defined(__AVX512F__)
    using wide_shorts = short __attribute__((vector_size(32)));
    if constexpr (lanes<H> == 16)
        return __builtin_ia32_vcvtph2ps512_mask(__builtin_bit_cast(wide_shorts, h), f32x<16>{}, -1, 4);
#endif
#endif
    using I = int_of<V>;
    I wide = detail::cast<i32>(h);
    I magnitude = (wide & 0x7fff) << 13;
    // Moving the exponent from bias 15 to bias 127 by a multiplication makes denormals normal on the way.
    V scaled = from_bits<V>(magnitude) * broadcast<V>(0x1p112f);
    I size = bits(scaled);
    I special = size | 0x7f800000 | select(magnitude > (0x7c00 << 13), broadcast<I>(0x400000), broadcast<I>(0));
    I r = select(magnitude >= (0x7c00 << 13), special, size);
    return from_bits<V>(r | ((wide & 0x8000) << 16));
}

template <class V>
EFFCC_INLINE with_element<V, u16> narrow_f16(V v) {
#if defined(__clang__) && (defined(__F16C__) || defined(__aarch64__))
    return __builtin_bit_cast(with_element<V, u16>, detail::cast<_Float16>(v));
#elif defined(__F16C__)
    using H = with_element<V, u16>;
    if constexpr (lanes<V> == 8) return __builtin_bit_cast(H, __builtin_ia32_vcvtps2ph256(v, 0));
#if defined(__AVX512F__)
    if constexpr (lanes<V> == 16)
        return __builtin_bit_cast(H, __builtin_ia32_vcvtps2ph512_mask(v, 0, i16x<16>{}, -1));
#endif
#endif
    using I = int_of<V>;
    I u = bits(v) & 0x7fffffff;
    I sign_bit = ((bits(v) >> 16) & 0x8000);
    I normal = (u - ((127 - 15) << 23) + 0xfff + ((u >> 13) & 1)) >> 13;
    // Adding 0.5 pushes a value below 2^-14 down to where a half's last denormal bit is a float's last bit.
    I denormal = bits(from_bits<V>(u) + broadcast<V>(0.5f)) - 0x3f000000;
    I infinite = broadcast<I>(0x7c00);
    I nan = infinite | 0x200 | ((u >> 13) & 0x3ff);
    I r = select(u < 0x38800000, denormal, normal);
    r = select(u >= 0x47800000, infinite, r);
    r = select(u > 0x7f800000, nan, r);
    return detail::cast<u16>(r | sign_bit);
}

}  // namespace effcc
