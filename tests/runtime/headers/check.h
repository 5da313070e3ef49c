// CHECK(condition): prints the place and goes on; main returns failures().
#pragma once

#include <cstdio>
#include <cstdlib>
#include <cstring>

inline int failed = 0;

#define CHECK(...)                                                                        \
    do {                                                                                  \
        if (!(__VA_ARGS__) && ++failed < 30)                                              \
            std::printf("%s:%d: %s\n", __FILE__, __LINE__, #__VA_ARGS__);                 \
    } while (0)

inline int failures() { return failed ? 1 : 0; }

// The same bits, or both NaN.
template <class T>
bool same(T a, T b) {
    return std::memcmp(&a, &b, sizeof a) == 0 || (a != a && b != b);
}

// A value the compiler cannot see through.
template <class T>
T opaque(T v) {
    __asm__ volatile("" : "+m"(v));
    return v;
}
