// effcc/guarded.h: what generated code needs around its edges.
//
// Lanes that a mask leaves out are neither read nor written.
//
//   load_if<V>(mask, p, fill = 0)          consecutive elements, only where mask
//   load_mask_if<V>(mask, p)               the same for bools, as a mask
//   load_apart<V>(p, stride)               p[0], p[stride], ...; a stride of 2 or 4 takes as many loads, and shuffles;
//                                          one of -1 a load and a shuffle
//   load_apart_if<V>(mask, p, stride)      the same, only where mask
//   store_if(mask, p, v), store_mask_if(mask, p, m)
//   store_spread(p, stride, v, count)      the first count lanes to p[0], p[stride], ...: a short loop, as 16 stores a
//                                          vector, written out for every row of a register tile, compile slowly
//   store_rows(p, stride, a, b, c, d, count)   p[i * stride + 0 .. 3] = a[i], b[i], c[i], d[i] for the first count lanes i
//   store_rows(p, stride, a, b, count)     p[i * stride + 0 .. 1] = a[i], b[i], of bf16, which they are rounded to
//   store_rows(p, stride, {a, ...}, count)     the same for as many vectors as one has lanes
//   first_lanes<V>(count)                  a mask of the first count lanes; count may be anything
//   scatter_fold(mask, p, index, v, f)     p[index[lane]] = f(p[index[lane]], v[lane]) in lane order, only where mask
//   saturate(x)                            an i64 as an i32, cut to +-2^30: for comparing with lane numbers
//   round_to<S>(v)                         f32 lanes rounded to what bf16 or f16 can hold
//   integer_pow(a, b)                      a^b, wrapping around; b < 0 gives 0 but for a = 1 and a = -1
//   shift_left(a, b), shift_right(a, b)    counts at or beyond the width shift everything out
#pragma once

#include "effcc/memory.h"

namespace effcc {

template <class V>
EFFCC_INLINE mask_of<V> first_lanes(i64 count) {
    if constexpr (detail::Vector<V>) {
        using I = int_of<V>;
        const i64 most = lanes<V>;
        return iota<I>(0) < broadcast<I>(element<I>(count < 0 ? 0 : count < most ? count : most));
    } else {
        return count > 0;
    }
}

template <class V, class M, class S>
EFFCC_INLINE V load_if(M mask, const S* p, element<V> fill = 0) {
    if (all(mask)) return load<V>(p);
#if defined(__AVX512F__)
    if constexpr (detail::same<V, f32x<16>> && detail::same<S, f32>)
        return __builtin_ia32_loadups512_mask(
            p, broadcast<V>(fill), __builtin_ia32_cmpd512_mask(mask_cast<V>(mask), i32x<16>{}, 4, -1));
#endif
#if defined(__AVX2__)
    if constexpr (detail::same<V, f32x<8>> && detail::same<S, f32>) {
        using floats = float __attribute__((vector_size(32)));
        auto wide = mask_cast<V>(mask);
        V read = __builtin_ia32_maskloadps256(reinterpret_cast<const floats*>(p), __builtin_bit_cast(i32x<8>, wide));
        return select(wide, read, broadcast<V>(fill));
    }
#endif
    V v = broadcast<V>(fill);
    for (int i = 0; i < lanes<V>; ++i)
        if (lane(mask, i)) set_lane(v, i, load<element<V>>(p + i));
    return v;
}

namespace detail {

template <Vector V>
EFFCC_INLINE V reversed(V v) {
    return [&]<int... I>(indices<I...>) __attribute__((always_inline)) {
        return __builtin_shufflevector(v, v, (lanes<V> - 1 - I)...);
    }(index_pack<lanes<V>>{});
}

}  // namespace detail

template <class V, class S>
EFFCC_INLINE V load_apart(const S* p, i64 stride) {
    if constexpr (detail::Vector<V>)
        if (__builtin_constant_p(stride) && stride == -1) return detail::reversed(load<V>(p - (lanes<V> - 1)));
    if constexpr (detail::Vector<V> && detail::same<S, element<V>>) {
        if (__builtin_constant_p(stride) && stride == 4 && lanes<V> >= 8) {
            // Of every four vectors the first lanes of fours; the last vector begins three elements early.
            V a = load<V>(p), b = load<V>(p + lanes<V>), c = load<V>(p + 2 * lanes<V>), d = load<V>(p + 3 * lanes<V> - 3);
            return [&]<int... I>(detail::indices<I...>) __attribute__((always_inline)) {
                constexpr int n = lanes<V>, quarter = n / 4;
                V low = __builtin_shufflevector(a, b, (4 * (I % (n / 2)))...);
                V high = __builtin_shufflevector(c, d, ((I % (n / 2)) < quarter ? 4 * (I % (n / 2)) : 4 * (I % (n / 2)) + 3)...);
                return __builtin_shufflevector(low, high, (I < n / 2 ? I : n / 2 + I)...);
            }(detail::index_pack<lanes<V>>{});
        }
        if (__builtin_constant_p(stride) && stride == 2) {
            // The second half begins an element early, so that nothing is read beyond the last lane's.
            V first = load<V>(p), second = load<V>(p + lanes<V> - 1);
            return [&]<int... I>(detail::indices<I...>) __attribute__((always_inline)) {
                return __builtin_shufflevector(first, second, (I < lanes<V> / 2 ? 2 * I : 2 * I + 1)...);
            }(detail::index_pack<lanes<V>>{});
        }
    }
    return load_strided<V>(p, stride);
}

template <class V, class M, class S>
EFFCC_INLINE V load_apart_if(M mask, const S* p, i64 stride) {
    if (all(mask)) return load_apart<V>(p, stride);
    V v = broadcast<V>(0);
    if (!any(mask)) return v;
    if constexpr (detail::Vector<V> && detail::Vector<M>)
        if (__builtin_constant_p(stride) && stride == -1)
            return detail::reversed(load_if<V>(detail::reversed(mask), p - (lanes<V> - 1)));
#pragma GCC unroll 1
    for (int i = 0; i < lanes<V>; ++i)
        if (lane(mask, i)) set_lane(v, i, load<element<V>>(p + i * stride));
    return v;
}

template <class V, class M>
EFFCC_INLINE mask_of<V> load_mask_if(M mask, const bool* p) {
    return mask_cast<V>(to_mask(load_if<with_element<V, u8>>(mask, reinterpret_cast<const u8*>(p))));
}

template <class M, class S, class V>
EFFCC_INLINE void store_if(M mask, S* p, V v) {
    if (all(mask)) return store(p, v);
    for (int i = 0; i < lanes<V>; ++i)
        if (lane(mask, i)) store(p + i, lane(v, i));
}

template <class S, class V>
EFFCC_INLINE void store_spread(S* p, i64 stride, V v, i64 count = lanes<V>) {
    using raw = with_element<V, typename detail::stored<S>::raw>;
    element<raw> x[lanes<V>];
    raw r = detail::stored<S>::template narrow<V>(v);
    __builtin_memcpy(x, &r, sizeof r);
    const int n = count < lanes<V> ? int(count) : lanes<V>;
#pragma GCC unroll 1
    for (int i = 0; i < n; ++i) detail::store_raw(p + i * stride, x[i]);
}

namespace detail {

// Of every four lanes, the First-th and its next: alternating between a and b, or a's pair before b's.
template <int First, bool Alternate, class V>
EFFCC_INLINE V pairs(V a, V b) {
    return [&]<int... I>(indices<I...>) __attribute__((always_inline)) {
        constexpr int n = lanes<V>;
        return __builtin_shufflevector(
            a, b, (Alternate ? I / 4 * 4 + First + I % 4 / 2 + I % 2 * n : I / 4 * 4 + First + I % 2 + I % 4 / 2 * n)...);
    }(index_pack<lanes<V>>{});
}

// Every fourth row, from four neighbouring lanes of each: rows of v are stored 4 * stride apart.
template <class V>
EFFCC_INLINE void store_fourths(f32* p, i64 step, V v, i64 count) {
    if constexpr (lanes<V> == 4) {
        if (count > 0) store(p, v);
    } else {
        store_fourths(p, step, low(v), count);
        store_fourths(p + lanes<V> / 8 * step, step, high(v), count - lanes<V> / 2);
    }
}

}  // namespace detail

template <class V>
EFFCC_INLINE void store_rows(f32* p, i64 stride, V a, V b, V c, V d, i64 count = lanes<V>) {
    const V ab = detail::pairs<0, true>(a, b), ab2 = detail::pairs<2, true>(a, b);
    const V cd = detail::pairs<0, true>(c, d), cd2 = detail::pairs<2, true>(c, d);
    const i64 step = 4 * stride;
    detail::store_fourths(p, step, detail::pairs<0, false>(ab, cd), count);
    detail::store_fourths(p + stride, step, detail::pairs<2, false>(ab, cd), count - 1);
    detail::store_fourths(p + 2 * stride, step, detail::pairs<0, false>(ab2, cd2), count - 2);
    detail::store_fourths(p + 3 * stride, step, detail::pairs<2, false>(ab2, cd2), count - 3);
}

template <class V>
EFFCC_INLINE void store_rows(bf16* p, i64 stride, V a, V b, i64 count = lanes<V>) {
    using U = with_element<V, u32>;
    const U pairs = detail::cast<u32>(narrow_bf16(a)) | detail::cast<u32>(narrow_bf16(b)) << 16;
    if (count >= lanes<V> && stride == 2) return store(reinterpret_cast<u32*>(p), pairs);
    for (i64 i = 0; i < lanes<V> && i < count; ++i) store(reinterpret_cast<u32*>(p + i * stride), lane(pairs, i));
}

namespace detail {

// Halves, quarters or eighths of four lanes: First and First + Step of a, then of b.
template <int First, int Step, class V>
EFFCC_INLINE V fours(V a, V b) {
    return [&]<int... I>(indices<I...>) __attribute__((always_inline)) {
        constexpr int n = lanes<V>;
        return __builtin_shufflevector(a, b, (4 * (First + I / 4 * Step % (n / 8 * Step)) + I % 4 + I / (n / 2) * n)...);
    }(index_pack<lanes<V>>{});
}

// Rows i, 4 + i, 8 + i, ...: row 4 * q + i is the q-th four lanes of every v.
template <class V>
EFFCC_INLINE void store_every_fourth(f32* p, i64 step, const V (&v)[2], i64 count) {
    if (count > 0) store(p, fours<0, 1>(v[0], v[1]));
    if (count > 4) store(p + step, fours<1, 1>(v[0], v[1]));
}

template <class V>
EFFCC_INLINE void store_every_fourth(f32* p, i64 step, const V (&v)[4], i64 count) {
    const V a = fours<0, 1>(v[0], v[1]), b = fours<0, 1>(v[2], v[3]);
    const V c = fours<2, 1>(v[0], v[1]), d = fours<2, 1>(v[2], v[3]);
    if (count > 0) store(p, fours<0, 2>(a, b));
    if (count > 4) store(p + step, fours<1, 2>(a, b));
    if (count > 8) store(p + 2 * step, fours<0, 2>(c, d));
    if (count > 12) store(p + 3 * step, fours<1, 2>(c, d));
}

}  // namespace detail

template <class V, int N>
EFFCC_INLINE void store_rows(f32* p, i64 stride, const V (&rows)[N], i64 count = lanes<V>) {
    static_assert(N == lanes<V> && (N == 8 || N == 16));
    V fours[4][N / 4];
    [&]<int... G>(detail::indices<G...>) __attribute__((always_inline)) {
        const auto turn = [&](int g, V a, V b, V c, V d) __attribute__((always_inline)) {
            const V ab = detail::pairs<0, true>(a, b), ab2 = detail::pairs<2, true>(a, b);
            const V cd = detail::pairs<0, true>(c, d), cd2 = detail::pairs<2, true>(c, d);
            fours[0][g] = detail::pairs<0, false>(ab, cd), fours[1][g] = detail::pairs<2, false>(ab, cd);
            fours[2][g] = detail::pairs<0, false>(ab2, cd2), fours[3][g] = detail::pairs<2, false>(ab2, cd2);
        };
        (turn(G, rows[4 * G], rows[4 * G + 1], rows[4 * G + 2], rows[4 * G + 3]), ...);
    }(detail::index_pack<N / 4>{});
    [&]<int... I>(detail::indices<I...>) __attribute__((always_inline)) {
        (detail::store_every_fourth(p + I * stride, 4 * stride, fours[I], count - I), ...);
    }(detail::index_pack<4>{});
}

template <class W, class M>
EFFCC_INLINE void store_mask_if(W mask, bool* p, M m) {
    store_if(mask, reinterpret_cast<u8*>(p), from_mask<with_element<M, u8>>(m));
}

template <class M, class S, class I, class V, class F>
EFFCC_INLINE void scatter_fold(M mask, S* p, I index, V v, F f) {
    for (int i = 0; i < lanes<V>; ++i)
        if (lane(mask, i)) store(p + lane(index, i), f(load<element<V>>(p + lane(index, i)), lane(v, i)));
}

EFFCC_INLINE i32 saturate(i64 x) {
    const i64 most = 1 << 30;
    return static_cast<i32>(x < -most ? -most : x > most ? most : x);
}

template <class S, class V>
EFFCC_INLINE V round_to(V v) {
    return detail::stored<S>::template widen<V>(detail::stored<S>::template narrow<V>(v));
}

template <class V>
EFFCC_INLINE V integer_pow(V a, V b) {
    return detail::each_lane(
        [](element<V> x, element<V> n) {
            if (n < 0) return element<V>(x == 1 ? 1 : x == element<V>(-1) ? (n & 1 ? -1 : 1) : 0);
            u64 r = 1, power = static_cast<u64>(x);
            for (; n > 0; n >>= 1, power *= power)
                if (n & 1) r *= power;
            return static_cast<element<V>>(r);
        },
        a, b);
}

template <class V>
EFFCC_INLINE V shift_left(V a, V b) {
    const V most = broadcast<V>(8 * int(sizeof(element<V>)) - 1);
    const auto inside = (b >= broadcast<V>(0)) & (b <= most);
    return select(inside, V(a << select(inside, b, most)), broadcast<V>(0));
}

template <class V>
EFFCC_INLINE V shift_right(V a, V b) {
    const V most = broadcast<V>(8 * int(sizeof(element<V>)) - 1);
    const auto inside = (b >= broadcast<V>(0)) & (b <= most);
    const V shifted = V(a >> select(inside, b, most));
    if constexpr (element<V>(-1) < 0)
        return shifted;  // the sign is shifted in
    else
        return select(inside, shifted, broadcast<V>(0));
}

}  // namespace effcc
