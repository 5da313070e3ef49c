// effcc/types.h: what a vector of lanes is.
//
// Every function of this library is written once, for a type V that is either a scalar or a compiler vector
// (__attribute__((vector_size))); so a kernel's scalar remainder and its vector body compute the same numbers.
//
//   vec<T, N>              N lanes of T; vec<T, 1> is T itself.  N is a power of two
//   f32x<N> f64x<N> i8x<N> i16x<N> i32x<N> i64x<N> u8x<N>     shorthands; f32v ... u8v have EFFCC_LANES lanes
//   bf16, f16              storage types of 16 bits: loaded and stored as float, never computed with
//   element<V>, lanes<V>   the lane type and the number of lanes of V
//   mask_of<V>             what a comparison of two V gives: bool, or lanes that are 0 or -1, as wide as V's
//   with_element<V, T>     as many lanes as V, of T
//   lane(v, i), set_lane(v, i, x)
//   broadcast<V>(x)        x in every lane
//   iota<V>(first)         first, first + 1, ... : one value a lane
//   select(m, a, b)        a where m, else b
//   mask_not(m), mask_cast<V>(m), any(m), all(m)              m & n and m | n are the operators
//   bits(v), from_bits<V>(b)                                  a float's bits as an integer, and back
//   low(v), high(v), join(a, b)                               halves of a vector
//
// EFFCC_LANES is the number of float lanes of the widest register compiled for: 16 (AVX-512), 8 (AVX), else 4.
// A vector wider than the machine's registers is correct but compiles badly: where a kernel holds f64 or i64, use
// vectors of EFFCC_LANES / 2 lanes throughout.
//
// Compilers: GCC 12 or newer, clang 16 or newer. No standard header is included, on purpose: compile time counts.
#pragma once

#ifndef EFFCC_LANES
#if defined(__AVX512F__)
#define EFFCC_LANES 16
#elif defined(__AVX__)
#define EFFCC_LANES 8
#else
#define EFFCC_LANES 4
#endif
#endif

// All of this library is inlined into its caller: a vector never crosses a call, so its calling convention is moot.
#define EFFCC_INLINE static inline __attribute__((always_inline))

// A function that computes several chains of operations, one step of each in turn. GCC keeps the text's order on x86
// unless told otherwise; Clang needs not be told.
#if defined(__GNUC__) && !defined(__clang__)
#define EFFCC_INTERLEAVED __attribute__((noinline, optimize("schedule-insns")))
#else
#define EFFCC_INTERLEAVED __attribute__((noinline))
#endif
#if defined(__GNUC__) && !defined(__clang__)
#pragma GCC diagnostic ignored "-Wpsabi"
#elif defined(__clang__)
#pragma clang diagnostic ignored "-Wpsabi"
#endif

namespace effcc {

using i8 = __INT8_TYPE__;
using i16 = __INT16_TYPE__;
using i32 = __INT32_TYPE__;
using i64 = __INT64_TYPE__;
using u8 = __UINT8_TYPE__;
using u7 = u8;  // whose values are at most 127: see dot.h
using i7 = i8;  // whose values are from -64 to 63, likewise
using l8 = i8;  // of which sums of eight fit i16, likewise
using b8 = i8;  // whose values are from -127 to 127, likewise
using u16 = __UINT16_TYPE__;
using u32 = __UINT32_TYPE__;
using u64 = __UINT64_TYPE__;
using f32 = float;
using f64 = double;

struct bf16 { u16 bits; };
struct f16 { u16 bits; };

namespace detail {

template <class T, int N>
struct vector_of {
    static_assert(N > 1 && (N & (N - 1)) == 0, "a vector has a power of two lanes");
    typedef T type __attribute__((vector_size(N * sizeof(T))));
};
template <class T>
struct vector_of<T, 1> {
    using type = T;
};

template <class A, class B>
inline constexpr bool same = false;
template <class A>
inline constexpr bool same<A, A> = true;

template <class T>
struct plain {
    using type = T;
};
template <class T>
struct plain<T&> {
    using type = T;
};
template <class T>
struct plain<const T&> {
    using type = T;
};

template <class V>
concept Vector = requires(const V& v) { v[0]; };

template <class V>
struct shape {
    using element = V;
    static constexpr int lanes = 1;
};
template <Vector V>
struct shape<V> {
    using element = typename plain<decltype(static_cast<const V*>(nullptr)[0][0])>::type;
    static constexpr int lanes = sizeof(V) / sizeof(element);
};

template <int Bytes>
struct signed_int;
template <> struct signed_int<1> { using type = i8; };
template <> struct signed_int<2> { using type = i16; };
template <> struct signed_int<4> { using type = i32; };
template <> struct signed_int<8> { using type = i64; };

// A pack 0, 1, ..., N - 1, without <utility>.
template <int... I>
struct indices {};
#if defined(__clang__)
template <class, int... I>
struct indices_of {
    using type = indices<I...>;
};
template <int N>
using index_pack = typename __make_integer_seq<indices_of, int, N>::type;
#else
template <int N>
using index_pack = indices<__integer_pack(N)...>;
#endif

}  // namespace detail

template <class T, int N>
using vec = typename detail::vector_of<T, N>::type;
template <class V>
using element = typename detail::shape<V>::element;
template <class V>
inline constexpr int lanes = detail::shape<V>::lanes;
template <class V, class T>
using with_element = vec<T, lanes<V>>;
template <class V>
using mask_of = decltype(static_cast<const V*>(nullptr)[0] < static_cast<const V*>(nullptr)[0]);
template <class V>
using int_of = with_element<V, typename detail::signed_int<sizeof(element<V>)>::type>;

template <int N> using f32x = vec<f32, N>;
template <int N> using f64x = vec<f64, N>;
template <int N> using i8x = vec<i8, N>;
template <int N> using i16x = vec<i16, N>;
template <int N> using i32x = vec<i32, N>;
template <int N> using i64x = vec<i64, N>;
template <int N> using u8x = vec<u8, N>;
template <int N> using u7x = u8x<N>;
template <int N> using i7x = i8x<N>;
template <int N> using l8x = i8x<N>;
template <int N> using b8x = i8x<N>;
template <int N> using u16x = vec<u16, N>;
using f32v = f32x<EFFCC_LANES>;
using f64v = f64x<EFFCC_LANES>;
using i8v = i8x<EFFCC_LANES>;
using i16v = i16x<EFFCC_LANES>;
using i32v = i32x<EFFCC_LANES>;
using i64v = i64x<EFFCC_LANES>;
using u8v = u8x<EFFCC_LANES>;

template <class V>
EFFCC_INLINE element<V> lane(V v, int i) {
    if constexpr (detail::Vector<V>)
        return v[i];
    else
        return v;
}

template <class V>
EFFCC_INLINE void set_lane(V& v, int i, element<V> x) {
    if constexpr (detail::Vector<V>)
        v[i] = x;
    else
        v = x;
}

template <class V>
EFFCC_INLINE V broadcast(element<V> x) {
    if constexpr (detail::Vector<V>)
        return x - V{};  // x - 0 is x, also for -0 and NaN
    else
        return x;
}

template <class V>
EFFCC_INLINE V iota(element<V> first) {
    V v = broadcast<V>(first);
    if constexpr (detail::Vector<V>) {
        V steps;
        for (int i = 0; i < lanes<V>; ++i) steps[i] = static_cast<element<V>>(i);
        v += steps;
    }
    return v;
}

template <class V>
EFFCC_INLINE int_of<V> bits(V v) {
    return __builtin_bit_cast(int_of<V>, v);
}

template <class V>
EFFCC_INLINE V from_bits(int_of<V> b) {
    return __builtin_bit_cast(V, b);
}

// Integers' bits as floats of as many bytes.
template <class I>
EFFCC_INLINE auto float_of_bits(I b) {
    if constexpr (sizeof(element<I>) == 4)
        return __builtin_bit_cast(with_element<I, f32>, b);
    else
        return __builtin_bit_cast(with_element<I, f64>, b);
}

namespace detail {

template <int Bytes>
struct unsigned_int;
template <> struct unsigned_int<1> { using type = u8; };
template <> struct unsigned_int<2> { using type = u16; };
template <> struct unsigned_int<4> { using type = u32; };
template <> struct unsigned_int<8> { using type = u64; };

// Integers for arithmetic that wraps around: of signed ones an overflow is undefined.
template <class I>
EFFCC_INLINE auto wrapping(I v) {
    return __builtin_bit_cast(with_element<I, typename unsigned_int<sizeof(element<I>)>::type>, v);
}

}  // namespace detail

template <detail::Vector V>
EFFCC_INLINE vec<element<V>, lanes<V> / 2> low(V v) {
    if constexpr (lanes<V> == 2)
        return v[0];
    else
        return [&]<int... I>(detail::indices<I...>) __attribute__((always_inline)) {
            return __builtin_shufflevector(v, v, I...);
        }(detail::index_pack<lanes<V> / 2>{});
}

template <detail::Vector V>
EFFCC_INLINE vec<element<V>, lanes<V> / 2> high(V v) {
    if constexpr (lanes<V> == 2)
        return v[1];
    else
        return [&]<int... I>(detail::indices<I...>) __attribute__((always_inline)) {
            return __builtin_shufflevector(v, v, (I + lanes<V> / 2)...);
        }(detail::index_pack<lanes<V> / 2>{});
}

template <class H>
EFFCC_INLINE vec<element<H>, 2 * lanes<H>> join(H a, H b) {
    if constexpr (detail::Vector<H>)
        return [&]<int... I>(detail::indices<I...>) __attribute__((always_inline)) {
            return __builtin_shufflevector(a, b, I...);
        }(detail::index_pack<2 * lanes<H>>{});
    else
        return vec<H, 2>{a, b};
}

// b may be given as a scalar, and so may a: select(m, v, 0.0f).
template <class M, class V>
EFFCC_INLINE V select(M m, V a, V b) {
    return m ? a : b;
}
template <class M, detail::Vector V>
EFFCC_INLINE V select(M m, V a, element<V> b) {
    return m ? a : broadcast<V>(b);
}
template <class M, detail::Vector V>
EFFCC_INLINE V select(M m, element<V> a, V b) {
    return m ? broadcast<V>(a) : b;
}

template <class M>
EFFCC_INLINE M mask_not(M m) {
    if constexpr (detail::Vector<M>)
        return ~m;
    else
        return !m;
}

// The mask m, made as wide as V's lanes: a comparison of f32 lanes decides a select of i64 lanes.
template <class V, class M>
EFFCC_INLINE mask_of<V> mask_cast(M m) {
    if constexpr (detail::Vector<M>)
        return __builtin_convertvector(m, mask_of<V>);
    else
        return m;
}

template <class M>
EFFCC_INLINE bool any(M m) {
    if constexpr (!detail::Vector<M>) {
        return m;
    } else if constexpr (sizeof(M) <= 8) {
        return __builtin_bit_cast(typename detail::signed_int<sizeof(M)>::type, m) != 0;
    } else {
#if defined(__AVX512F__)
        if constexpr (sizeof(M) == 64)
            return __builtin_ia32_cmpd512_mask(__builtin_bit_cast(i32x<16>, m), i32x<16>{}, 4, -1) != 0;
#endif
#if defined(__AVX__)
        using quad = long long __attribute__((vector_size(32)));
        if constexpr (sizeof(M) == 32)
            return !__builtin_ia32_ptestz256(__builtin_bit_cast(quad, m), __builtin_bit_cast(quad, m));
#endif
#if defined(__SSE2__)
        using bytes = char __attribute__((vector_size(16)));
        if constexpr (sizeof(M) == 16) return __builtin_ia32_pmovmskb128(__builtin_bit_cast(bytes, m)) != 0;
#endif
        if constexpr (sizeof(M) > 16) {
            return any(low(m) | high(m));
        } else {
            i64x<2> words = __builtin_bit_cast(i64x<2>, m);
            return (words[0] | words[1]) != 0;
        }
    }
}

template <class M>
EFFCC_INLINE bool all(M m) {
    return !any(mask_not(m));
}

}  // namespace effcc
