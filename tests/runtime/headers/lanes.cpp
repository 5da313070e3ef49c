// What types.h, arith.h and reduce.h promise, for every vector width and for scalars.

#include <cmath>
#include <limits>

#include "check.h"
#include "effcc/vec.h"

using namespace effcc;

namespace {

const float infinity = INFINITY, no_number = NAN, denormal = 0x1p-149f;
const float values[] = {0.0f,     -0.0f,    1.0f,      -1.0f,     0.5f,      -0.5f,     1.5f,     2.5f,      -2.5f,
                        3.4f,     -3.6f,    8388607.5f, 8388608.0f, -8388607.5f, 16777217.0f, 1e30f,    -1e30f,    infinity,
                        -infinity, no_number, denormal,  -denormal, 0x1p-126f, 3.402823466e38f, 0.49999997f, -0.49999997f};
constexpr int count = sizeof values / sizeof values[0];

template <class V>
V fill(int first) {
    V v{};
    for (int i = 0; i < lanes<V>; ++i) set_lane(v, i, element<V>(values[(first + i) % count]));
    return opaque(v);
}

template <class V>
void rounding() {
    using T = element<V>;
    for (int first = 0; first < count; ++first) {
        V v = fill<V>(first);
        for (int i = 0; i < lanes<V>; ++i) {
            T x = lane(v, i);
            CHECK(same<T>(lane(effcc::floor(v), i), std::floor(x)));
            CHECK(same<T>(lane(effcc::ceil(v), i), std::ceil(x)));
            CHECK(same<T>(lane(effcc::trunc(v), i), std::trunc(x)));
            CHECK(same<T>(lane(effcc::round(v), i), std::nearbyint(x)));
            CHECK(same<T>(lane(effcc::abs(v), i), std::fabs(x)));
            CHECK(same<T>(lane(effcc::sqrt(v), i), std::sqrt(x)));
            CHECK(same<T>(lane(effcc::rsqrt(v), i), T(1) / std::sqrt(x)));
            CHECK(same<T>(lane(effcc::sign(v), i), T((x > 0) - (x < 0))));
            CHECK((lane(is_nan(v), i) != 0) == std::isnan(x));
            CHECK((lane(is_inf(v), i) != 0) == std::isinf(x));
            CHECK((lane(is_finite(v), i) != 0) == std::isfinite(x));
        }
    }
}

template <class V>
void pairs() {
    using T = element<V>;
    for (int first = 0; first < count; ++first)
        for (int second = 0; second < count; ++second) {
            V a = fill<V>(first), b = fill<V>(second), c = fill<V>(first + second);
            for (int i = 0; i < lanes<V>; ++i) {
                T x = lane(a, i), y = lane(b, i), z = lane(c, i);
                bool unordered = x != x || y != y;
                CHECK(unordered ? std::isnan(lane(maximum(a, b), i)) : lane(maximum(a, b), i) == std::fmax(x, y));
                CHECK(unordered ? std::isnan(lane(minimum(a, b), i)) : lane(minimum(a, b), i) == std::fmin(x, y));
                T big = std::fmax(x, y), small = std::fmin(x, y), got_big = lane(effcc::fmax(a, b), i);
                CHECK(std::isnan(big) ? std::isnan(got_big) : got_big == big);
                CHECK(std::isnan(small) ? std::isnan(lane(effcc::fmin(a, b), i)) : lane(effcc::fmin(a, b), i) == small);
                CHECK(std::signbit(lane(effcc::copysign(a, b), i)) == std::signbit(y));
                CHECK(same<T>(lane(effcc::fma(a, b, c), i), std::fma(x, y, z)));
                T fused = std::fma(x, y, z), twice = opaque<T>(x * y) + z;
                T got = lane(mul_add(a, b, c), i);
                CHECK(same(got, fused) || same(got, twice));
                got = lane(neg_mul_add(a, b, c), i);
                CHECK(same<T>(got, std::fma(x, -y, z)) || same<T>(got, z - opaque<T>(x * y)));
                CHECK(same<T>(lane(select(a < b, a, b), i), x < y ? x : y));
                CHECK(same<T>(lane(at_least(a, T(y)), i), x < y ? y : x));
            }
        }
}

template <class V>
void fused_is_fused() {
    using T = element<V>;
    T e = std::numeric_limits<T>::epsilon();
    V a = opaque(broadcast<V>(1 + e)), b = opaque(broadcast<V>(1 - e)), c = opaque(broadcast<V>(-1));
    CHECK(lane(effcc::fma(a, b, c), 0) == -e * e);
#if defined(__FMA__)
    CHECK(lane(mul_add(a, b, c), 0) == -e * e);
#endif
    CHECK(lane(a * b + c, 0) == 0);  // the flags keep the compiler from fusing on its own
}

template <class V>
void shapes() {
    constexpr int n = lanes<V>;
    using T = element<V>;
    static_assert(sizeof(V) == n * sizeof(T));
    V v = iota<V>(3);
    for (int i = 0; i < n; ++i) CHECK(lane(v, i) == T(3 + i));
    CHECK(any(v == broadcast<V>(T(2 + n))));
    CHECK(!any(v == broadcast<V>(T(3 + n))));
    CHECK(all(v < broadcast<V>(T(3 + n))));
    CHECK(!all(v < broadcast<V>(T(2 + n))));
    CHECK(all(mask_not(v == broadcast<V>(T(2)))));
    for (int i = 0; i < n; ++i) {  // a single lane anywhere is found
        V w = v;
        set_lane(w, i, T(100));
        CHECK(any(w == broadcast<V>(T(100))));
        CHECK(!all(w != broadcast<V>(T(100))));
        CHECK(first_lane_of(w == broadcast<V>(T(100))) == i);
    }
    if constexpr (n > 1) {
        for (int i = 0; i < n / 2; ++i) {
            CHECK(lane(low(v), i) == lane(v, i));
            CHECK(lane(high(v), i) == lane(v, i + n / 2));
        }
        CHECK(all(join(low(v), high(v)) == v));
    }
    CHECK(same<T>(lane(broadcast<V>(T(-0.0)), n - 1), T(-0.0)));
    T sum = 0, most = T(3 + n - 1);
    for (int i = 0; i < n; ++i) sum = T(sum + lane(v, i));
    CHECK(reduce_sum(v) == sum);
    CHECK(reduce_max(v) == most);
    CHECK(reduce_min(v) == T(3));
    CHECK(reduce_prod(broadcast<V>(T(1))) == T(1));
    CHECK(reduce_prod(select(v == broadcast<V>(T(3)), broadcast<V>(T(5)), broadcast<V>(T(1)))) == T(5));
}

template <int N>
void reductions() {
    using V = f32x<N>;
    // Always halves: the order, and so the bits, do not depend on the instruction set.
    float x[N];
    V v;
    for (int i = 0; i < N; ++i) x[i] = v[i] = float(1 + i % 7) * (i % 3 ? 1e-3f : 1e4f);
    for (int half = N / 2; half >= 1; half /= 2)
        for (int i = 0; i < half; ++i) x[i] = x[i] + x[i + half];
    CHECK(reduce_sum(opaque(v)) == x[0]);
    for (int i = 0; i < N; ++i) {
        V w = v;
        w[i] = no_number;
        CHECK(std::isnan(reduce_max(opaque(w))));
        CHECK(std::isnan(reduce_min(opaque(w))));
    }
}

template <class V>
void floating() {
    rounding<V>();
    pairs<V>();
    fused_is_fused<V>();
    shapes<V>();
}

}  // namespace

int main() {
    floating<float>();
    floating<double>();
    floating<f32x<4>>();
    floating<f32x<8>>();
    floating<f32x<16>>();
    floating<f32x<32>>();
    floating<f64x<2>>();
    floating<f64x<4>>();
    floating<f64x<8>>();
    floating<f64x<16>>();
    shapes<i32x<4>>();
    shapes<i32x<8>>();
    shapes<i32x<16>>();
    shapes<i64x<2>>();
    shapes<i64x<8>>();
    shapes<i16x<16>>();
    shapes<i8x<4>>();
    shapes<i8x<16>>();
    shapes<u8x<16>>();
    shapes<u8x<8>>();
    shapes<i64>();
    reductions<4>();
    reductions<8>();
    reductions<16>();
    CHECK(all(maximum(iota<i32x<8>>(0), broadcast<i32x<8>>(3)) >= broadcast<i32x<8>>(3)));
    CHECK(effcc::abs(i32(-2147483647 - 1)) == -2147483647 - 1);  // wraps, as in torch
    CHECK(all(effcc::abs(broadcast<i8x<16>>(i8(-128))) == broadcast<i8x<16>>(i8(-128))));
    CHECK(effcc::abs(i32(-5)) == 5 && effcc::sign(i64(-5)) == -1);
    CHECK(all(clamp(iota<i32x<8>>(0), broadcast<i32x<8>>(2), broadcast<i32x<8>>(5)) <= broadcast<i32x<8>>(5)));
    CHECK(std::isnan(clamp(no_number, 0.0f, 1.0f)) && std::isnan(clamp(0.5f, no_number, 1.0f)) && std::isnan(clamp(0.5f, 0.0f, no_number)));
    auto wide = mask_cast<i64x<8>>(iota<i32x<8>>(0) < broadcast<i32x<8>>(3));
    for (int i = 0; i < 8; ++i) CHECK(wide[i] == (i < 3 ? -1 : 0));
    return failures();
}
