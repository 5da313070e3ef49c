// Elementwise functions as a library, for test_torch_semantics.py: each as NAME(inputs..., output, count).

#include "effcc/math.h"
#include "effcc/vec.h"

using namespace effcc;

template <class V, class S, class D, class F>
static void map(const S* x, D* y, long n, F f) {
    for (long i = 0; i < n; i += lanes<V>) store_n(y + i, f(load_n<V>(x + i, n - i)), n - i);
}

template <class V, class T, class F>
static void map2(const T* a, const T* b, T* y, long n, F f) {
    for (long i = 0; i < n; i += lanes<V>) store_n(y + i, f(load_n<V>(a + i, n - i), load_n<V>(b + i, n - i, T(1))), n - i);
}

#define EXPORT extern "C" __attribute__((visibility("default")))

#define CONVERT(FROM_NAME, FROM, TO_NAME, TO)                                                          \
    EXPORT void FROM_NAME##_to_##TO_NAME(const FROM* x, TO* y, long n) {                               \
        using V = vec<FROM, EFFCC_LANES / 2>;                                                          \
        map<V>(x, y, n, [](V v) { return convert<TO>(v); });                                           \
    }
#define CONVERT_ALL(NAME, FROM)                                                                        \
    CONVERT(NAME, FROM, uint8, u8) CONVERT(NAME, FROM, int8, i8) CONVERT(NAME, FROM, int16, i16)       \
    CONVERT(NAME, FROM, int32, i32) CONVERT(NAME, FROM, int64, i64) CONVERT(NAME, FROM, float32, float) \
    CONVERT(NAME, FROM, float64, double)
CONVERT_ALL(float32, float)
CONVERT_ALL(float64, double)
CONVERT_ALL(int64, i64)
CONVERT_ALL(int32, i32)
CONVERT_ALL(int16, i16)
CONVERT_ALL(int8, i8)
CONVERT_ALL(uint8, u8)

#define SMALL_FLOAT(NAME, T)                                                                                        \
    EXPORT void float32_to_##NAME(const float* x, T* y, long n) { map<f32v>(x, y, n, [](f32v v) { return v; }); }   \
    EXPORT void NAME##_to_float32(const T* x, float* y, long n) { map<f32v>(x, y, n, [](f32v v) { return v; }); }
SMALL_FLOAT(bfloat16, bf16)
SMALL_FLOAT(float16, f16)
EXPORT void float32_to_bool(const float* x, bool* y, long n) { map<f32v>(x, y, n, [](f32v v) { return v; }); }
EXPORT void bool_to_float32(const bool* x, float* y, long n) { map<f32v>(x, y, n, [](f32v v) { return v; }); }

#define BINARY(NAME, TYPE_NAME, T)                                                             \
    EXPORT void NAME##_##TYPE_NAME(const T* a, const T* b, T* y, long n) {                     \
        using V = vec<T, EFFCC_LANES / 2>;                                                     \
        map2<V>(a, b, y, n, [](V p, V q) { return effcc::NAME(p, q); });                       \
    }
#define BINARY_ALL(NAME) BINARY(NAME, float32, float) BINARY(NAME, float64, double) BINARY(NAME, int32, i32) BINARY(NAME, int64, i64)
BINARY_ALL(remainder)
BINARY_ALL(floor_divide)
BINARY_ALL(fmod)
BINARY_ALL(maximum)
BINARY_ALL(minimum)
BINARY(fmax, float32, float)
BINARY(fmin, float32, float)
BINARY(pow, float32, float)
BINARY(copysign, float32, float)

#define UNARY(NAME)                                                                                                     \
    EXPORT void NAME##_float32(const float* x, float* y, long n) { map<f32v>(x, y, n, [](f32v v) { return effcc::NAME(v); }); }
UNARY(sign) UNARY(round) UNARY(floor) UNARY(ceil) UNARY(trunc) UNARY(abs) UNARY(sqrt) UNARY(rsqrt)
UNARY(exp) UNARY(tanh) UNARY(sigmoid) UNARY(erf) UNARY(log1p) UNARY(sin)
