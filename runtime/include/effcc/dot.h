// effcc/dot.h: sums of products of packed neighbours, the one kind of arithmetic at which narrow numbers are quick.
//
//   dot(a, b, c)         c[i] + the products of those lanes of a and b that share c's lane i
//   repeat<V>(few)       neighbours of one lane in every lane: two bf16, four bytes
//   dot_small(a, b, c)   the same, of u7 x i8 or u8 x i7: no lane of a is above 127, or all of b are from
//                        -64 to 63; quicker without VNNI
//   dot_pairs(a, b, c)   c[i] + two products, in i16, of u8 x l8: i16 holds four such sums (pairs of 8 weights whose
//                        positive ones, and negative ones, add up to no more than 128)
//   dot_balanced(a, b, c)  the same, of b8 x i8: no lane of a is -128; quicker with AVX2 alone
//
//     a       b       c      neighbours
//     i8      i8      i32    4            exact, modulo 2^32
//     u8      i8      i32    4            exact, modulo 2^32
//     i16     i16     i32    2            exact, modulo 2^32
//     u8      l8      i16    2            exact (dot_pairs)
//     bf16    bf16    f32    2            rounded after each of the two products, the odd one first
//
// Packed bf16 are the bits, u16x<2 * lanes>. AVX-512 BF16 takes denormals as 0 and gives none; elsewhere the same two
// steps are fused multiply-adds, which keep them.
//
// Which instructions. VNNI: vpdpbusd (u8 x i8) and vpdpwssd (i16 x i16). Neither saturates. For i8 x i8 there is none:
// turning over a's sign bits adds 128 to it, and 128 times b's sum is taken away, by a vpdpbusd of b alone, which
// compilers move out of a loop over rows of a. Without VNNI: bytes of even and of odd place widened to i16 where they
// lie, then vpmaddwd of each; the widening of an operand that is used again is done once. vpmaddubsw takes bytes as they
// are, but saturates at i16: exact only where the unsigned side is at most 127, or the signed one in -64 to 63,
// which is dot_small; or where that side is |b| and the other one a with b's sign (vpsignb), which i16 holds for any b
// if a has a negative in i8: dot_balanced. |b| is computed once for all rows of a tile. Measured in benchmarks/dot.md.
#pragma once

#include "effcc/convert.h"

namespace effcc {

namespace detail {

template <class T, int Bytes>
struct raw_of {
    typedef T type __attribute__((vector_size(Bytes)));
};
template <class T, int Bytes>
using raw = typename raw_of<T, Bytes>::type;

// Any lanes: sums in order.
template <class A, class B, class C>
EFFCC_INLINE C dot_lanes(A a, B b, C c) {
    constexpr int n = lanes<A> / lanes<C>;
    for (int i = 0; i < lanes<C>; ++i) {
        u32 sum = static_cast<u32>(lane(c, i));
        for (int k = 0; k < n; ++k) sum += static_cast<u32>(i32(lane(a, n * i + k)) * i32(lane(b, n * i + k)));
        set_lane(c, i, static_cast<i32>(sum));
    }
    return c;
}

template <class C, class V>
EFFCC_INLINE C as(V v) { return __builtin_bit_cast(C, v); }

// Whether there is a vpdpbusd, or a vpmaddwd, for i32 lanes of so many bytes.
template <int Bytes>
inline constexpr bool has_vnni =
#if defined(__clang__)
    false;
#elif defined(__AVX512VNNI__) && defined(__AVX512VL__)
    Bytes == 64 || Bytes == 32 || Bytes == 16;
#elif defined(__AVX512VNNI__)
    Bytes == 64;
#elif defined(__AVXVNNI__)
    Bytes == 32 || Bytes == 16;
#else
    false;
#endif
template <int Bytes>
inline constexpr bool has_madd =
#if defined(__clang__)
    false;
#elif defined(__AVX512BW__)
    Bytes == 64 || Bytes == 32 || Bytes == 16;
#elif defined(__AVX2__)
    Bytes == 32 || Bytes == 16;
#else
    false;
#endif

#if !defined(__clang__)
template <class C, class A, class B>
EFFCC_INLINE C vpdpbusd([[maybe_unused]] C c, [[maybe_unused]] A a, [[maybe_unused]] B b) {
#if defined(__AVX512VNNI__)
    if constexpr (sizeof(C) == 64)
        return as<C>(__builtin_ia32_vpdpbusd_v16si(as<raw<int, 64>>(c), as<raw<int, 64>>(a), as<raw<int, 64>>(b)));
#endif
#if defined(__AVXVNNI__) || (defined(__AVX512VNNI__) && defined(__AVX512VL__))
    if constexpr (sizeof(C) == 32)
        return as<C>(__builtin_ia32_vpdpbusd_v8si(as<raw<int, 32>>(c), as<raw<int, 32>>(a), as<raw<int, 32>>(b)));
    if constexpr (sizeof(C) == 16)
        return as<C>(__builtin_ia32_vpdpbusd_v4si(as<raw<int, 16>>(c), as<raw<int, 16>>(a), as<raw<int, 16>>(b)));
#endif
    return c;
}

// Pairs of neighbouring i16 products.
template <class C, class A, class B>
EFFCC_INLINE C vpmaddwd([[maybe_unused]] A a, [[maybe_unused]] B b) {
#if defined(__AVX512BW__)
    if constexpr (sizeof(C) == 64)
        return as<C>(__builtin_ia32_pmaddwd512_mask(as<raw<short, 64>>(a), as<raw<short, 64>>(b), raw<int, 64>{}, -1));
#endif
#if defined(__AVX2__)
    if constexpr (sizeof(C) == 32)
        return as<C>(__builtin_ia32_pmaddwd256(as<raw<short, 32>>(a), as<raw<short, 32>>(b)));
    if constexpr (sizeof(C) == 16)
        return as<C>(__builtin_ia32_pmaddwd128(as<raw<short, 16>>(a), as<raw<short, 16>>(b)));
#endif
    return C{};
}

template <class C, class A, class B>
EFFCC_INLINE C vpdpwssd(C c, A a, B b) {
#if defined(__AVX512VNNI__)
    if constexpr (sizeof(C) == 64)
        return as<C>(__builtin_ia32_vpdpwssd_v16si(as<raw<int, 64>>(c), as<raw<int, 64>>(a), as<raw<int, 64>>(b)));
#endif
#if defined(__AVXVNNI__) || (defined(__AVX512VNNI__) && defined(__AVX512VL__))
    if constexpr (sizeof(C) == 32)
        return as<C>(__builtin_ia32_vpdpwssd_v8si(as<raw<int, 32>>(c), as<raw<int, 32>>(a), as<raw<int, 32>>(b)));
    if constexpr (sizeof(C) == 16)
        return as<C>(__builtin_ia32_vpdpwssd_v4si(as<raw<int, 16>>(c), as<raw<int, 16>>(a), as<raw<int, 16>>(b)));
#endif
    return c + vpmaddwd<C>(a, b);
}

// The bytes of even, and of odd, place as i16 where they lie.
template <class V>
EFFCC_INLINE auto even_bytes(V v) {
    using W = i16x<lanes<V> / 2>;
    if constexpr (same<element<V>, u8>) return W(as<W>(v) & broadcast<W>(0xff));
    else return W(W(as<W>(v) << 8) >> 8);
}
template <class V>
EFFCC_INLINE auto odd_bytes(V v) {
    using W = i16x<lanes<V> / 2>;
    if constexpr (same<element<V>, u8>) return as<W>(u16x<lanes<W>>(as<u16x<lanes<W>>>(v) >> 8));
    else return W(as<W>(v) >> 8);
}
#endif

template <class A, class B, class C>
EFFCC_INLINE C dot_bf16(A a, B b, C c) {
#if defined(__AVX512BF16__) && !defined(__clang__)
#if __GNUC__ >= 13
    using half = __bf16;
#else
    using half = short;
#endif
    if constexpr (sizeof(C) == 64)
        return __builtin_ia32_dpbf16ps_v16sf(c, as<raw<half, 64>>(a), as<raw<half, 64>>(b));
#if defined(__AVX512VL__)
    else if constexpr (sizeof(C) == 32)
        return __builtin_ia32_dpbf16ps_v8sf(c, as<raw<half, 32>>(a), as<raw<half, 32>>(b));
    else if constexpr (sizeof(C) == 16)
        return __builtin_ia32_dpbf16ps_v4sf(c, as<raw<half, 16>>(a), as<raw<half, 16>>(b));
#endif
    else
#endif
    {
        using W = int_of<C>;
        const auto odd = [](auto v) { return as<C>(W(as<W>(v) & broadcast<W>(i32(0xffff0000u)))); };
        const auto even = [](auto v) { return as<C>(W(as<W>(v) << 16)); };
        return fma(even(a), even(b), fma(odd(a), odd(b), c));
    }
}

}  // namespace detail

template <class V, class Few>
EFFCC_INLINE V repeat(Few few) {
    static_assert(sizeof(Few) == 4, "neighbours of one lane");
    using W = i32x<sizeof(V) / 4>;
    return __builtin_bit_cast(V, broadcast<W>(__builtin_bit_cast(i32, few)));
}

template <class A, class B, class C>
EFFCC_INLINE C dot(A a, B b, C c) {
    using namespace detail;
    constexpr int n = lanes<A> / lanes<C>;
    if constexpr (wider_than_register<C>) {
        return join(dot(low(a), low(b), low(c)), dot(high(a), high(b), high(c)));
    } else if constexpr (same<element<C>, f32>) {
        static_assert(n == 2, "bf16 by two");
        return dot_bf16(a, b, c);
    } else if constexpr (n == 2) {
#if !defined(__clang__)
        if constexpr (has_vnni<sizeof(C)> || has_madd<sizeof(C)>) return vpdpwssd(c, a, b);
        else
#endif
            return dot_lanes(a, b, c);
    } else {
        static_assert(n == 4, "bytes by four");
#if !defined(__clang__)
        if constexpr (has_vnni<sizeof(C)>) {
            if constexpr (same<element<A>, u8>) return vpdpbusd(c, a, b);
            using U = u8x<lanes<A>>;
            const U offset = broadcast<U>(128);
            return vpdpbusd(c, U(as<U>(a) ^ offset), b) - vpdpbusd(C{}, offset, b);
        } else if constexpr (has_madd<sizeof(C)>) {
            const C even = vpmaddwd<C>(even_bytes(a), even_bytes(b)), odd = vpmaddwd<C>(odd_bytes(a), odd_bytes(b));
            return c + even + odd;
        } else
#endif
            return dot_lanes(a, b, c);
    }
}

template <class A, class B, class C>
EFFCC_INLINE C dot_small(A a, B b, C c) {
#if defined(__AVX2__) && !defined(__clang__)
    using namespace detail;
    if constexpr (sizeof(C) == 32 && !has_vnni<32>) {
        const auto pairs = __builtin_ia32_pmaddubsw256(as<raw<char, 32>>(a), as<raw<char, 32>>(b));
        return c + vpmaddwd<C>(pairs, broadcast<i16x<16>>(1));
    }
#if defined(__AVX512BW__)
    if constexpr (sizeof(C) == 64 && !has_vnni<64>) {
        const auto pairs = __builtin_ia32_pmaddubsw512_mask(as<raw<char, 64>>(a), as<raw<char, 64>>(b), raw<short, 64>{}, -1);
        return c + vpmaddwd<C>(pairs, broadcast<i16x<32>>(1));
    }
#endif
#endif
    return dot(a, b, c);
}

// The sum is kept where it is: compilers add up all pairs last otherwise, which takes a register for each.
template <class A, class B, class C>
EFFCC_INLINE C dot_pairs(A a, B b, C c) {
#if defined(__AVX2__) && !defined(__clang__)
    using namespace detail;
    if constexpr (sizeof(C) == 32) {
        auto sum = as<raw<short, 32>>(c) + __builtin_ia32_pmaddubsw256(as<raw<char, 32>>(a), as<raw<char, 32>>(b));
        asm("" : "+x"(sum));
        return as<C>(sum);
    }
#if defined(__AVX512BW__)
    if constexpr (sizeof(C) == 64) {
        const auto pairs = __builtin_ia32_pmaddubsw512_mask(as<raw<char, 64>>(a), as<raw<char, 64>>(b), raw<short, 64>{}, -1);
        auto sum = as<raw<short, 64>>(c) + pairs;
        asm("" : "+v"(sum));
        return as<C>(sum);
    }
#endif
#endif
    for (int i = 0; i < lanes<C>; ++i) {
        const i32 pair = i32(lane(a, 2 * i)) * i32(lane(b, 2 * i)) + i32(lane(a, 2 * i + 1)) * i32(lane(b, 2 * i + 1));
        set_lane(c, i, static_cast<i16>(lane(c, i) + pair));
    }
    return c;
}

template <class A, class B, class C>
EFFCC_INLINE C dot_balanced(A a, B b, C c) {
    using namespace detail;
#if defined(__AVX2__) && !defined(__AVX512BW__) && !defined(__clang__)
    if constexpr (sizeof(C) == 32 && !has_vnni<32>) {
        const auto size = __builtin_ia32_pabsb256(as<raw<char, 32>>(b));
        const auto turned = __builtin_ia32_psignb256(as<raw<char, 32>>(a), as<raw<char, 32>>(b));
        return c + vpmaddwd<C>(__builtin_ia32_pmaddubsw256(size, turned), broadcast<i16x<16>>(1));
    } else if constexpr (wider_than_register<C>) {
        return join(dot_balanced(low(a), low(b), low(c)), dot_balanced(high(a), high(b), high(c)));
    }
#endif
    return dot(a, b, c);
}

}  // namespace effcc
