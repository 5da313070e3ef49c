// Register tiles of every form of dot, for benchmarks/dot.py: MR rows by NR vectors, over a depth that stays in L1.

#include "effcc/dot.h"

namespace effcc {

constexpr int N = EFFCC_LANES, MR = N == 16 ? 8 : 4, NR = 2;

template <int K, class F, class A, class B, class C>
EFFCC_INLINE void tile(F step, const A* a, const B* b, C* c, long depth, long times) {
    using V = vec<C, N>;
    V sum[MR][NR] = {};
    for (long turn = 0; turn < times * depth; ++turn) {
        const long k = turn & (depth - 1);
        for (int n = 0; n < NR; ++n) {
            vec<B, N * K> y;
            __builtin_memcpy(&y, b + (k * NR + n) * N * K, sizeof y);
            for (int m = 0; m < MR; ++m) {
                i32 group;
                __builtin_memcpy(&group, a + (k * MR + m) * K, sizeof group);
                vec<A, N * K> x = __builtin_bit_cast(decltype(x), broadcast<i32x<N>>(group));
                sum[m][n] = step(x, y, sum[m][n]);
            }
        }
    }
    __builtin_memcpy(c, sum, sizeof sum);
}

#define FORM(NAME, K, A, B, C, STEP)                                                            \
    extern "C" void NAME(const void* a, const void* b, void* c, long depth, long times) {       \
        tile<K>([](auto x, auto y, auto z) __attribute__((always_inline)) { return STEP; },     \
                static_cast<const A*>(a), static_cast<const B*>(b), static_cast<C*>(c), depth, times); \
    }
FORM(f32_f32, 1, f32, f32, f32, mul_add(x, y, z))
FORM(i8_i8, 4, i8, i8, i32, dot(x, y, z))
FORM(u8_i8, 4, u8, i8, i32, dot(x, y, z))
FORM(u8_i8_small, 4, u8, i8, i32, dot_small(x, y, z))
FORM(i16_i16, 2, i16, i16, i32, dot(x, y, z))
FORM(bf16_bf16, 2, u16, u16, f32, dot(x, y, z))

}  // namespace effcc
