// effcc/permute.h: lanes in another order, and tables of as many lanes as a register has.
//
//   permute<3, 0, ...>(v)      for every lane of the result, the lane of v that it is
//   lookup(table, index)       for every lane of index, that lane of table; of an index the low bits count
//   lookup_codes<part, shift>(low, high, bytes)
//       of the table low, high the lanes whose numbers stand in bytes from a bit on, for one of four parts of the bytes
#pragma once

#include "effcc/types.h"

namespace effcc {

template <int... I, detail::Vector V>
EFFCC_INLINE vec<element<V>, sizeof...(I)> permute(V v) {
    if constexpr (sizeof...(I) == 1)
        return v[(I + ...)];
    else
        return __builtin_shufflevector(v, v, I...);
}

template <detail::Vector V, class X>
EFFCC_INLINE vec<element<V>, lanes<X>> lookup(V table, X index) {
#if !defined(__clang__)
    if constexpr (detail::Vector<X> && lanes<X> == lanes<V> && sizeof(element<X>) == sizeof(element<V>))
        return __builtin_shuffle(table, index);
#endif
    vec<element<V>, lanes<X>> r{};
    for (int i = 0; i < lanes<X>; ++i) set_lane(r, i, table[lane(index, i) & (lanes<V> - 1)]);
    return r;
}

#if defined(__AVX2__) && !defined(__clang__)
namespace detail {

// Byte `b` of each of the 16 numbers of a table, in both halves of a register.
template <int b>
EFFCC_INLINE u8x<32> plane(f32x<8> low, f32x<8> high) {
    constexpr int h = 32 + b;
    return __builtin_shufflevector((u8x<32>)low, (u8x<32>)high,
        b, b + 4, b + 8, b + 12, b + 16, b + 20, b + 24, b + 28, h, h + 4, h + 8, h + 12, h + 16, h + 20, h + 24, h + 28,
        b, b + 4, b + 8, b + 12, b + 16, b + 20, b + 24, b + 28, h, h + 4, h + 8, h + 12, h + 16, h + 20, h + 24, h + 28);
}

template <int b>
EFFCC_INLINE u8x<32> byte_of(f32x<8> low, f32x<8> high, u8x<32> codes) {
    typedef char bytes __attribute__((vector_size(32)));
    return (u8x<32>)__builtin_ia32_pshufb256((bytes)plane<b>(low, high), (bytes)codes);
}

// Neighbours by turns, of the lower or the upper half of each 16 bytes.
template <int part>
EFFCC_INLINE i16x<16> interleave(u8x<32> a, u8x<32> b) {
    constexpr int l = 8 * part, h = 16 + l;
    return (i16x<16>)__builtin_shufflevector(a, b,
        l, l + 32, l + 1, l + 33, l + 2, l + 34, l + 3, l + 35, l + 4, l + 36, l + 5, l + 37, l + 6, l + 38, l + 7, l + 39,
        h, h + 32, h + 1, h + 33, h + 2, h + 34, h + 3, h + 35, h + 4, h + 36, h + 5, h + 37, h + 6, h + 38, h + 7, h + 39);
}

template <int part>
EFFCC_INLINE f32x<8> interleave(i16x<16> a, i16x<16> b) {
    constexpr int l = 4 * part, h = 8 + l;
    return (f32x<8>)__builtin_shufflevector(a, b,
        l, l + 16, l + 1, l + 17, l + 2, l + 18, l + 3, l + 19, h, h + 16, h + 1, h + 17, h + 2, h + 18, h + 3, h + 19);
}

}  // namespace detail
#endif

template <int part, int shift, detail::Vector V, detail::Vector B>
EFFCC_INLINE V lookup_codes(V low, V high, B bytes) {
    constexpr int n = lanes<V>;
#if defined(__AVX2__) && !defined(__clang__)
    if constexpr (n == 8 && sizeof(element<V>) == 4) {
        // Groups of four bytes so that interleaving, which halves of a register do apart, leaves them in order.
        const i32x<8> groups = (i32x<8>)bytes;
        const i32x<8> apart = __builtin_shufflevector(groups, groups, 0, 2, 4, 6, 1, 3, 5, 7);
        const u8x<32> codes = (u8x<32>)(apart >> shift) & 15;
        const f32x<8> l = (f32x<8>)low, h = (f32x<8>)high;
        const i16x<16> a = detail::interleave<part / 2>(detail::byte_of<0>(l, h, codes), detail::byte_of<1>(l, h, codes));
        const i16x<16> b = detail::interleave<part / 2>(detail::byte_of<2>(l, h, codes), detail::byte_of<3>(l, h, codes));
        return (V)detail::interleave<part % 2>(a, b);
    }
#endif
    V r{};
    for (int i = 0; i < n; ++i) {
        const int code = bytes[part * n + i] >> shift & (2 * n - 1);
        r[i] = code < n ? low[code] : high[code - n];
    }
    return r;
}

}  // namespace effcc
