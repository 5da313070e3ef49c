// Every form of dot, for registers of every width, as functions that test_dot.py calls.

#include "effcc/dot.h"

namespace effcc {

template <class A, class B, class C, int K, int N>
void apply(const A* a, const B* b, C* c, [[maybe_unused]] bool special) {
    vec<A, N * K> x;
    vec<B, N * K> y;
    vec<C, N> z;
    __builtin_memcpy(&x, a, sizeof x);
    __builtin_memcpy(&y, b, sizeof y);
    __builtin_memcpy(&z, c, sizeof z);
    if constexpr (detail::same<A, u8>) z = special ? dot_small(x, y, z) : dot(x, y, z);
    else if constexpr (detail::same<A, i8>) z = special ? dot_balanced(x, y, z) : dot(x, y, z);
    else z = dot(x, y, z);
    __builtin_memcpy(c, &z, sizeof z);
}

#define FORM(NAME, A, B, C, K)                                                             \
    extern "C" void NAME(const A* a, const B* b, C* c, int lanes, bool special) {          \
        lanes == 32   ? apply<A, B, C, K, 32>(a, b, c, special)                            \
        : lanes == 16 ? apply<A, B, C, K, 16>(a, b, c, special)                            \
        : lanes == 8  ? apply<A, B, C, K, 8>(a, b, c, special)                               \
                      : apply<A, B, C, K, 4>(a, b, c, special);                              \
    }
FORM(i8_i8, i8, i8, i32, 4)
FORM(u8_i8, u8, i8, i32, 4)
FORM(i16_i16, i16, i16, i32, 2)
FORM(bf16_bf16, u16, u16, f32, 2)

}  // namespace effcc
