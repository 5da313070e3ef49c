// effcc/tile.h: the registers of a matrix unit, and products of them.
//
//   tile<T, N>                          the N-th tile register: 16 rows of 64 bytes, of elements T
//   matrix_unit unit;                   sets the unit up for this thread, and leaves it free where the block ends
//   clear_tile(t)                       all 0
//   load_tile<Rows, Lanes>(t, p, n)     so many rows of so many elements, n elements apart; all else is 0
//   store_tile(p, n, t)                 16 rows of f32 or i32, n elements apart
//   dot(a, b, c)                        c[i][j] += the sum over k of a[i][k] * b[k / neighbours][neighbours * j + k % neighbours]
//
//     a       b       c      neighbours
//     i8      i8      i32    4            exact, modulo 2^32
//     u8      i8      i32    4            exact, modulo 2^32
//     bf16    bf16    f32    2            products at even and at odd places of a row are summed apart, then join c
//
// AMX (Sapphire Rapids and later): tileloadd, tdpbf16ps, tdpbssd, tdpbusd. It takes denormals as 0 and gives none.
// Everywhere else a tile is memory, and the same sums are loops, which keep denormals.
//
// A thread's configuration holds for all of a kernel. It is lost to whoever configures the unit next (oneDNN does), so each
// kernel sets it up again, in about 0.3 us. Linux must be asked once a process for the room to save such registers.
#pragma once

#include "effcc/dot.h"
#include "effcc/memory.h"

namespace effcc {

#if defined(__AMX_TILE__) && defined(__AMX_BF16__) && defined(__AMX_INT8__)
#define EFFCC_AMX 1
#else
#define EFFCC_AMX 0
#endif

inline constexpr int tile_rows = 16, tile_row_bytes = 64;
template <class T> inline constexpr int tile_lanes = tile_row_bytes / int(sizeof(T));

template <class T, int N>
struct tile {
    static_assert(N >= 0 && N < 8, "there are eight tile registers");
#if !EFFCC_AMX
    alignas(64) T rows[tile_rows][tile_lanes<T>];
#endif
};

#if EFFCC_AMX

namespace detail {

template <class T>
constexpr auto zero_bits() {
    if constexpr (sizeof(T) == 1) return u8{};
    else if constexpr (sizeof(T) == 2) return u16{};
    else return u32{};
}
template <class T> using bits_of = decltype(zero_bits<T>());

struct tile_configuration {
    u8 palette = 1, start = 0, reserved[14] = {};
    u16 bytes[16] = {64, 64, 64, 64, 64, 64, 64, 64};
    u8 rows[16] = {16, 16, 16, 16, 16, 16, 16, 16};
};
alignas(64) static const tile_configuration all_tiles;

// arch_prctl(ARCH_REQ_XCOMP_PERM, XFEATURE_XTILEDATA): again does no harm.
static inline void ask_for_tiles() {
    static bool asked;
    if (__atomic_load_n(&asked, __ATOMIC_RELAXED)) return;
    i64 result = 158;
    __asm__ volatile("syscall" : "+a"(result) : "D"(i64(0x1023)), "S"(i64(18)) : "rcx", "r11", "memory");
    __atomic_store_n(&asked, true, __ATOMIC_RELAXED);
}

}  // namespace detail

struct matrix_unit {
    matrix_unit() {
        detail::ask_for_tiles();
        __asm__ volatile("ldtilecfg %0" : : "m"(detail::all_tiles));
    }
    ~matrix_unit() { __asm__ volatile("tilerelease"); }
    matrix_unit(const matrix_unit&) = delete;
};

template <class T, int N>
EFFCC_INLINE void clear_tile(tile<T, N>&) {
    __asm__ volatile("tilezero %%tmm%c0" : : "i"(N));
}

template <int Rows, int Lanes, class T, int N>
EFFCC_INLINE void load_tile(tile<T, N>&, const T* p, i64 apart) {
    constexpr int all = tile_lanes<T>;
    if constexpr (Rows == tile_rows && Lanes == all) {
        __asm__ volatile("tileloadd (%0,%1,1), %%tmm%c2" : : "r"(p), "r"(apart * i64(sizeof(T))), "i"(N) : "memory");
    } else {
        using words = vec<detail::bits_of<T>, all>;
        alignas(64) u8 part[tile_rows][tile_row_bytes];
        for (int i = 0; i < tile_rows; ++i) {
            words row{};
            if (i < Rows) row = Lanes == all ? detail::load_raw<words>(p + i * apart) : detail::load_raw_n(p + i * apart, Lanes, words{});
            detail::store_raw(part[i], row);
        }
        __asm__ volatile("tileloadd (%0,%1,1), %%tmm%c2" : : "r"(part), "r"(i64(tile_row_bytes)), "i"(N) : "memory");
    }
}

template <class T, int N>
EFFCC_INLINE void store_tile(T* p, i64 apart, const tile<T, N>&) {
    __asm__ volatile("tilestored %%tmm%c2, (%0,%1,1)" : : "r"(p), "r"(apart * i64(sizeof(T))), "i"(N) : "memory");
}

#define EFFCC_TILE_DOT(A, B, C, INSTRUCTION)                                                                       \
    template <int I, int J, int K>                                                                                 \
    EFFCC_INLINE void dot(const tile<A, I>&, const tile<B, J>&, tile<C, K>&) {                                     \
        __asm__ volatile(INSTRUCTION " %%tmm%c0, %%tmm%c1, %%tmm%c2" : : "i"(J), "i"(I), "i"(K));                  \
    }
EFFCC_TILE_DOT(bf16, bf16, f32, "tdpbf16ps")
EFFCC_TILE_DOT(i8, i8, i32, "tdpbssd")
EFFCC_TILE_DOT(u8, i8, i32, "tdpbusd")
#undef EFFCC_TILE_DOT

#else

struct matrix_unit {
    matrix_unit() {}
};

template <class T, int N>
EFFCC_INLINE void clear_tile(tile<T, N>& t) {
    t = {};
}

template <int Rows, int Lanes, class T, int N>
EFFCC_INLINE void load_tile(tile<T, N>& t, const T* p, i64 apart) {
    t = {};
    for (int i = 0; i < Rows; ++i)
        for (int j = 0; j < Lanes; ++j) t.rows[i][j] = p[i * apart + j];
}

template <class T, int N>
EFFCC_INLINE void store_tile(T* p, i64 apart, const tile<T, N>& t) {
    for (int i = 0; i < tile_rows; ++i)
        for (int j = 0; j < tile_lanes<T>; ++j) p[i * apart + j] = t.rows[i][j];
}

template <class A, class B, class C, int I, int J, int K>
static void dot(const tile<A, I>& a, const tile<B, J>& b, tile<C, K>& c) {
    constexpr int side = tile_lanes<C>, neighbours = tile_lanes<B> / side;
    const auto number = [](auto x) {
        if constexpr (detail::same<A, bf16>) return from_bits<f32>(u32(x.bits) << 16);
        else return u32(i32(x));
    };
    for (int i = 0; i < tile_rows; ++i)
        for (int j = 0; j < side; ++j) {
            decltype(number(a.rows[0][0])) sums[neighbours] = {};
            for (int k = 0; k < tile_rows; ++k)
                for (int n = 0; n < neighbours; ++n) {
                    const auto x = number(a.rows[i][neighbours * k + n]), y = number(b.rows[k][neighbours * j + n]);
                    if constexpr (detail::same<C, f32>) sums[n] = __builtin_fmaf(x, y, sums[n]);
                    else sums[n] += x * y;
                }
            for (int n = 1; n < neighbours; ++n) sums[0] += sums[n];
            c.rows[i][j] = C(sums[0] + decltype(sums[0] + 0)(c.rows[i][j]));
        }
}

#endif

}  // namespace effcc
