// effcc/memory.h: lanes from memory and back, never a byte beyond what is named.
//
// V is the vector (or scalar) computed with, S the type in memory: V's own lane type, or another that is converted on
// the way: bf16, f16 (to f32), any arithmetic type (by convert), or bool (0 or 1; see load_mask for masks).
// Pointers need only their element's alignment. Strides count elements. `count` may be anything: it is cut to 0..lanes.
//
//   load<V>(p)                                 lanes<V> consecutive elements
//   load_n<V>(p, count, fill = 0)              the first count; the other lanes hold fill; p[count] is never touched
//   load_where<V>(holds, p)                    all of them, or none where holds is false: 0, and nothing is touched
//   load_strided<V>(p, stride)                 p[0], p[stride], ...
//   load_strided_n<V>(p, stride, count, fill = 0)
//   load_mask<V>(p), load_mask_n<V>(p, count)  bool elements as a mask as wide as V's lanes
//   gather<V>(p, index)                        p[index[lane]]; index: i32 or i64 lanes
//   gather_if<V>(mask, p, index, fill = 0)     reads only where mask
//   store(p, v), store_n(p, v, count), store_strided(p, stride, v), store_strided_n(p, stride, v, count)
//   store_mask(p, m), store_mask_n(p, m, count)
//   scatter(p, index, v), scatter_if(mask, p, index, v)        in lane order: the last lane wins
//   found(p)                                   p, looked up here: where a thread's own storage lies is a call, which
//                                              compilers make again in every loop, with all registers saved around it
//   forget_loads()                             what was loaded before is loaded again after it where it is used
#pragma once

#include "effcc/convert.h"

namespace effcc {

template <class T>
EFFCC_INLINE T* found(T* p) {
    __asm__("" : "+r"(p));
    return static_cast<T*>(__builtin_assume_aligned(p, 64));
}

EFFCC_INLINE void forget_loads() { __asm__ volatile("" : : : "memory"); }

namespace detail {

// How S lies in memory, and how that becomes the lanes of V and back.
template <class S>
struct stored {
    using raw = S;
    template <class V> EFFCC_INLINE V widen(with_element<V, S> r) { return convert<element<V>>(r); }
    template <class V> EFFCC_INLINE with_element<V, S> narrow(V v) { return convert<S>(v); }
};
template <>
struct stored<bf16> {
    using raw = u16;
    template <class V> EFFCC_INLINE V widen(with_element<V, u16> r) { return convert<element<V>>(widen_bf16(r)); }
    template <class V> EFFCC_INLINE with_element<V, u16> narrow(V v) { return narrow_bf16(convert<f32>(v)); }
};
template <>
struct stored<f16> {
    using raw = u16;
    template <class V> EFFCC_INLINE V widen(with_element<V, u16> r) { return convert<element<V>>(widen_f16(r)); }
    template <class V> EFFCC_INLINE with_element<V, u16> narrow(V v) { return narrow_f16(convert<f32>(v)); }
};
template <>
struct stored<bool> {
    using raw = u8;
    template <class V> EFFCC_INLINE V widen(with_element<V, u8> r) { return convert<element<V>>(r); }
    template <class V> EFFCC_INLINE with_element<V, u8> narrow(V v) { return from_mask<with_element<V, u8>>(to_mask(v)); }
};

template <class R, class S>
EFFCC_INLINE R load_raw(const S* p) {
    R r;
    __builtin_memcpy(&r, p, sizeof r);
    return r;
}

template <class R, class S>
EFFCC_INLINE void store_raw(S* p, R r) {
    __builtin_memcpy(p, &r, sizeof r);
}

EFFCC_INLINE u64 first_bits(i64 count) { return (u64(1) << count) - 1; }

// A pointer to whatever is wanted: GCC's and clang's masked moves want different ones.
struct any_pointer {
    const void* address;
    template <class T>
    operator T*() const {
        return static_cast<T*>(const_cast<void*>(address));
    }
};

// The masked moves of AVX-512 as a table: element bytes, register bytes, element type, suffix of the builtin's name.
#if defined(__AVX512F__)
#define EFFCC_MASKED_MOVES(MOVE) MOVE(4, 64, int, si512) MOVE(8, 64, long long, di512)
#if defined(__AVX512VL__)
#define EFFCC_MASKED_MOVES_VL(MOVE) \
    MOVE(4, 32, int, si256) MOVE(4, 16, int, si128) MOVE(8, 32, long long, di256) MOVE(8, 16, long long, di128)
#else
#define EFFCC_MASKED_MOVES_VL(MOVE)
#endif
#if defined(__AVX512VL__) && defined(__AVX512BW__)
#define EFFCC_MASKED_MOVES_BW(MOVE) \
    MOVE(1, 32, char, qi256) MOVE(1, 16, char, qi128) MOVE(2, 32, short, hi256) MOVE(2, 16, short, hi128)
#else
#define EFFCC_MASKED_MOVES_BW(MOVE)
#endif
#endif

// Lanes lo .. hi of r from memory, by one masked instruction where there is one. 0 < count < lanes.
template <class R, class S>
EFFCC_INLINE R load_raw_n(const S* p, i64 count, R fill) {
#if defined(__AVX512F__)
#define EFFCC_MOVE(ELEMENT, BYTES, TYPE, SUFFIX)                                                               \
    if constexpr (sizeof(element<R>) == ELEMENT && sizeof(R) == BYTES) {                                      \
        using words = vec<TYPE, BYTES / sizeof(TYPE)>;                                                        \
        return __builtin_bit_cast(R, __builtin_ia32_loaddqu##SUFFIX##_mask(                                   \
                                         any_pointer{p}, __builtin_bit_cast(words, fill), first_bits(count)));\
    }
    EFFCC_MASKED_MOVES(EFFCC_MOVE)
    EFFCC_MASKED_MOVES_VL(EFFCC_MOVE)
    EFFCC_MASKED_MOVES_BW(EFFCC_MOVE)
#undef EFFCC_MOVE
#elif defined(__AVX__)
    if constexpr (sizeof(R) == 32 && sizeof(element<R>) == 4) {
        i32x<8> m = iota<i32x<8>>(0) < static_cast<i32>(count);
        f32x<8> r = __builtin_ia32_maskloadps256(reinterpret_cast<const f32x<8>*>(p), m);
        return m ? __builtin_bit_cast(R, r) : fill;
    } else if constexpr (sizeof(R) == 32 && sizeof(element<R>) == 8) {
        using quads = long long __attribute__((vector_size(32)));
        i64x<4> m = iota<i64x<4>>(0) < count;
        f64x<4> r = __builtin_ia32_maskloadpd256(reinterpret_cast<const f64x<4>*>(p), __builtin_bit_cast(quads, m));
        return m ? __builtin_bit_cast(R, r) : fill;
    }
#endif
    for (int i = 0; i < lanes<R>; ++i)
        if (i < count) fill[i] = load_raw<element<R>>(p + i);
    return fill;
}

// All lanes of r from memory, or zeros: with AVX-512 by a masked instruction. With AVX2 a branch is quicker (AMD Zen 3,
// depthwise convolutions: 7x7 0.65 to 0.75 of the time, 3x3 0.75 to 0.97, one fused 5x5 1.16), whose mask has to be
// made of the condition; and a masked load takes 300 cycles for what it leaves out where no page is mapped there, as
// before a buffer's first row (7x7 of 14x14 pixels: 3.1 ms for 0.2).
template <class R, class S>
EFFCC_INLINE R load_raw_where(bool holds, const S* p) {
#if defined(__AVX512F__)
    if constexpr (sizeof(R) >= 16 && lanes<R> < 64) return load_raw_n(p, holds ? lanes<R> : 0, R{});
#endif
    return holds ? load_raw<R>(p) : R{};
}

template <class R, class S>
EFFCC_INLINE void store_raw_n(S* p, R r, i64 count) {
#if defined(__AVX512F__)
    // In a register first: g++ 12 would merge taking the low part of a register with its masked store, into a vextract
    // to memory, which faults for lanes that the mask leaves out.
    if constexpr (sizeof(R) == 16 || sizeof(R) == 32) __asm__("" : "+v"(r));
#define EFFCC_MOVE(ELEMENT, BYTES, TYPE, SUFFIX)                                                               \
    if constexpr (sizeof(element<R>) == ELEMENT && sizeof(R) == BYTES) {                                      \
        using words = vec<TYPE, BYTES / sizeof(TYPE)>;                                                        \
        __builtin_ia32_storedqu##SUFFIX##_mask(any_pointer{p}, __builtin_bit_cast(words, r), first_bits(count)); \
        return;                                                                                               \
    }
    EFFCC_MASKED_MOVES(EFFCC_MOVE)
    EFFCC_MASKED_MOVES_VL(EFFCC_MOVE)
    EFFCC_MASKED_MOVES_BW(EFFCC_MOVE)
#undef EFFCC_MOVE
#elif defined(__AVX__)
    if constexpr (sizeof(R) == 32 && sizeof(element<R>) == 4) {
        i32x<8> m = iota<i32x<8>>(0) < static_cast<i32>(count);
        __builtin_ia32_maskstoreps256(reinterpret_cast<f32x<8>*>(p), m, __builtin_bit_cast(f32x<8>, r));
        return;
    } else if constexpr (sizeof(R) == 32 && sizeof(element<R>) == 8) {
        using quads = long long __attribute__((vector_size(32)));
        i64x<4> m = iota<i64x<4>>(0) < count;
        __builtin_ia32_maskstorepd256(reinterpret_cast<f64x<4>*>(p), __builtin_bit_cast(quads, m),
                                      __builtin_bit_cast(f64x<4>, r));
        return;
    }
#endif
    for (int i = 0; i < lanes<R>; ++i)
        if (i < count) store_raw(p + i, element<R>(r[i]));
}

}  // namespace detail

template <class V, class S>
EFFCC_INLINE V load(const S* p) {
    using raw = with_element<V, typename detail::stored<S>::raw>;
    return detail::stored<S>::template widen<V>(detail::load_raw<raw>(p));
}

template <class V, class S>
EFFCC_INLINE V load_where(bool holds, const S* p) {
    using raw = with_element<V, typename detail::stored<S>::raw>;
    return detail::stored<S>::template widen<V>(detail::load_raw_where<raw>(holds, p));
}

template <class V, class S>
EFFCC_INLINE V load_n(const S* p, i64 count, element<V> fill = 0) {
    if (count >= lanes<V>) return load<V>(p);
    if (count <= 0) return broadcast<V>(fill);
    if constexpr (detail::Vector<V>) {
        V v = detail::stored<S>::template widen<V>(
            detail::load_raw_n(p, count, detail::stored<S>::template narrow<V>(broadcast<V>(fill))));
        if constexpr (detail::same<S, element<V>>) return v;
        // A fill that S cannot hold (-inf for integers, a fine fraction for bf16) is put in after widening.
        else return select(mask_cast<V>(iota<i32x<lanes<V>>>(0) < static_cast<i32>(count)), v, fill);
    }
    return broadcast<V>(fill);
}

template <class S, class V>
EFFCC_INLINE void store(S* p, V v) {
    detail::store_raw(p, detail::stored<S>::template narrow<V>(v));
}

template <class S, class V>
EFFCC_INLINE void store_n(S* p, V v, i64 count) {
    if (count >= lanes<V>) {
        store(p, v);
    } else if (count > 0) {
        if constexpr (detail::Vector<V>) detail::store_raw_n(p, detail::stored<S>::template narrow<V>(v), count);
    }
}

template <class V, class S>
EFFCC_INLINE V load_strided_n(const S* p, i64 stride, i64 count, element<V> fill = 0) {
    V v = broadcast<V>(fill);
    for (int i = 0; i < lanes<V>; ++i)
        if (i < count) set_lane(v, i, load<element<V>>(p + i * stride));
    return v;
}

template <class V, class S>
EFFCC_INLINE V load_strided(const S* p, i64 stride) {
    using raw = with_element<V, typename detail::stored<S>::raw>;
    raw r{};
    for (int i = 0; i < lanes<V>; ++i) set_lane(r, i, detail::load_raw<element<raw>>(p + i * stride));
    return detail::stored<S>::template widen<V>(r);
}

template <class S, class V>
EFFCC_INLINE void store_strided_n(S* p, i64 stride, V v, i64 count) {
    for (int i = 0; i < lanes<V>; ++i)
        if (i < count) store(p + i * stride, lane(v, i));
}

template <class S, class V>
EFFCC_INLINE void store_strided(S* p, i64 stride, V v) {
    store_strided_n(p, stride, v, lanes<V>);
}

template <class V>
EFFCC_INLINE mask_of<V> load_mask(const bool* p) {
    return mask_cast<V>(to_mask(load<with_element<V, u8>>(p)));
}

template <class V>
EFFCC_INLINE mask_of<V> load_mask_n(const bool* p, i64 count) {
    return mask_cast<V>(to_mask(load_n<with_element<V, u8>>(p, count)));
}

template <class M>
EFFCC_INLINE void store_mask(bool* p, M m) {
    store(p, from_mask<with_element<M, u8>>(m));
}

template <class M>
EFFCC_INLINE void store_mask_n(bool* p, M m, i64 count) {
    store_n(p, from_mask<with_element<M, u8>>(m), count);
}

template <class V, class S, class I>
EFFCC_INLINE V gather(const S* p, I index) {
    using raw = with_element<V, typename detail::stored<S>::raw>;
    raw r{};
    for (int i = 0; i < lanes<V>; ++i) set_lane(r, i, detail::load_raw<element<raw>>(p + lane(index, i)));
    return detail::stored<S>::template widen<V>(r);
}

template <class V, class M, class S, class I>
EFFCC_INLINE V gather_if(M mask, const S* p, I index, element<V> fill = 0) {
    if (all(mask)) return gather<V>(p, index);
    V v = broadcast<V>(fill);
    for (int i = 0; i < lanes<V>; ++i)
        if (lane(mask, i)) set_lane(v, i, load<element<V>>(p + lane(index, i)));
    return v;
}

template <class S, class I, class V>
EFFCC_INLINE void scatter(S* p, I index, V v) {
    for (int i = 0; i < lanes<V>; ++i) store(p + lane(index, i), lane(v, i));
}

template <class M, class S, class I, class V>
EFFCC_INLINE void scatter_if(M mask, S* p, I index, V v) {
    for (int i = 0; i < lanes<V>; ++i)
        if (lane(mask, i)) store(p + lane(index, i), lane(v, i));
}

}  // namespace effcc
