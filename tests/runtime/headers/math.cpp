// What math.h promises beyond the error bounds: special values as the C library has them, scalars and vectors of every
// width giving the same bits, doubles being the C library's.

#include "effcc/math.h"

#include <cmath>
#include <initializer_list>

#include "check.h"
#include "effcc/vec.h"

using namespace effcc;

namespace {

const float specials[] = {0.0f,   -0.0f,   INFINITY, -INFINITY, NAN,     -NAN,     0x1p-149f, -0x1p-149f, 0x1.fffffcp-127f,
                          -0x1.fffffcp-127f, 0x1p-126f, -0x1p-126f, 0x1.fffffep127f, -0x1.fffffep127f, 1.0f, -1.0f,
                          0.5f,   -0.5f,   2.0f,     -2.0f,     88.72283f, 88.72284f, -103.97f, -104.0f,   -87.4f,  128.0f,
                          -126.5f, -149.0f, -150.0f, -151.0f,   16777216.0f, -16777216.0f, 1e10f, -1e10f,  0.99999994f,
                          1.0000001f, -0.99999994f, -1.0000001f, 9.0f, -9.0f, 10.05f, 10.06f, 3.9f, 4.1f, 131072.0f, 131080.0f};
constexpr int count = sizeof specials / sizeof specials[0];

// Both NaN, both the same infinity, both zero with the same sign, or both ordinary and of one sign.
bool same_kind(float a, float b) {
    if (a != a || b != b) return a != a && b != b;
    return std::isinf(a) == std::isinf(b) && (a == 0) == (b == 0) && std::signbit(a) == std::signbit(b);
}

template <int N, class F>
void vector_like_scalar(const char* name, F f) {
    using V = f32x<N>;
    u32 state = 12345;
    for (int round = 0; round < 2000; ++round) {
        V v{};
        for (int i = 0; i < N; ++i) {
            state = state * 1664525u + 1013904223u;
            bool special = round * N + i < count;
            float ordinary = (float(state >> 8) * 0x1p-24f - 0.5f) * (round % 2 ? 4.0f : 200.0f);
            v[i] = special ? specials[round * N + i] : round % 3 ? ordinary : __builtin_bit_cast(float, state);
        }
        V y = f(opaque(v));
        for (int i = 0; i < N; ++i) {
            float scalar = f(opaque(float(v[i])));
            if (same(float(y[i]), scalar) || ++failed > 30) continue;
            std::printf("%s(%a): lane of %d gives %a, scalar %a\n", name, double(v[i]), N, double(y[i]), double(scalar));
        }
    }
}

template <class F>
void check(const char* name, F f, float (*reference)(float), double (*reference64)(double)) {
    vector_like_scalar<4>(name, f);
    vector_like_scalar<8>(name, f);
    vector_like_scalar<16>(name, f);
    for (float x : specials) {
        float got = f(opaque(x)), expected = reference(x);
        // The last float before an overflow or an underflow may fall to either side by one unit.
        bool edge = (std::isinf(got) != std::isinf(expected) && std::fabs(std::fmin(got, expected)) > 0x1.fffffap127f) ||
                    (std::fabs(got) <= 0x1p-149f && std::fabs(expected) <= 0x1p-149f);
        if (!same_kind(got, expected) && !edge && ++failed < 30)
            std::printf("%s(%a) = %a, the C library has %a\n", name, double(x), double(got), double(expected));
        f64x<2> wide = f(opaque(f64x<2>{double(x), 0.3}));
        CHECK(same<double>(wide[0], reference64(double(x))));
        CHECK(same<double>(f(double(x)), reference64(double(x))));
    }
}

#define F1(NAME) check(#NAME, [](auto v) { return effcc::NAME(v); }, ::NAME##f, ::NAME)

float sigmoid32(float x) { return float(1 / (1 + std::exp(-double(x)))); }
double sigmoid64(double x) { return 1 / (1 + std::exp(-x)); }

float erf_plus_one32(float x) { return x < -5 ? 0 : float(std::erfc(-double(x))); }
double erf_plus_one64(double x) { return std::erf(x) + 1; }

// Errors of 1 + erf are at most 2^-23 of its square root, and of itself where that is more than 1; it ends at -5.
void one_more_than_erf() {
    for (float x = -6; x < 6; x += 0x1p-12f) {
        double expected = std::erfc(-double(x)), error = std::fabs(effcc::erf_plus_one(opaque(x)) - expected);
        double most = x < -5 ? 0x1p-39 : 0x1p-23 * std::fmax(std::sqrt(expected), expected);
        if (error > most && ++failed < 30)
            std::printf("erf_plus_one(%a): off by %g from %g\n", double(x), error, expected);
    }
}

template <class V>
void pairs() {
    for (float a : specials)
        for (float b : specials) {
            V x = broadcast<V>(element<V>(a)), y = broadcast<V>(element<V>(b));
            using T = element<V>;
            CHECK(same<T>(lane(effcc::pow(x, y), 0), std::pow(T(a), T(b))));
            CHECK(same<T>(lane(effcc::fmod(x, y), 0), std::fmod(T(a), T(b))));
            CHECK(same<T>(lane(effcc::atan2(x, y), 0), std::atan2(T(a), T(b))));
        }
}

template <class V>
void integers() {
    using T = element<V>;
    for (int a = -7; a <= 7; ++a)
        for (int b = -3; b <= 3; ++b) {
            if (T(-1) > T(0) && (a < 0 || b < 0)) continue;
            V x = broadcast<V>(T(a)), y = broadcast<V>(T(b));
            int down = b == 0 ? 0 : int(std::floor(double(a) / b));
            CHECK(lane(floor_divide(x, y), 0) == T(down));
            CHECK(lane(effcc::remainder(x, y), 0) == T(b == 0 ? 0 : a - down * b));
        }
    if constexpr (T(-1) < T(0)) {
        T lowest = T(u64(1) << (8 * sizeof(T) - 1));
        CHECK(lane(floor_divide(broadcast<V>(lowest), broadcast<V>(T(-1))), 0) == lowest);
    } else {
        CHECK(lane(floor_divide(broadcast<V>(T(200)), broadcast<V>(T(255))), 0) == T(0));
    }
}

}  // namespace

int main() {
    F1(exp);
    F1(exp2);
    F1(expm1);
    F1(log);
    F1(log2);
    F1(log10);
    F1(log1p);
    F1(tanh);
    F1(erf);
    F1(erfc);
    F1(sin);
    F1(cos);
    F1(tan);
    F1(asin);
    F1(acos);
    F1(atan);
    F1(sinh);
    F1(cosh);
    F1(asinh);
    F1(acosh);
    F1(atanh);
    F1(lgamma);
    check("sigmoid", [](auto v) { return effcc::sigmoid(v); }, sigmoid32, sigmoid64);
    check("erf_plus_one", [](auto v) { return effcc::erf_plus_one(v); }, erf_plus_one32, erf_plus_one64);
    one_more_than_erf();
    pairs<float>();
    pairs<f32x<8>>();
    pairs<f64x<2>>();
    integers<i32>();
    integers<i32x<8>>();
    integers<i64x<2>>();
    integers<i8x<16>>();
    integers<u8x<16>>();
    CHECK(effcc::exp(-INFINITY) == 0 && effcc::exp(1e5f) == INFINITY && effcc::exp(-100.0f) == 0x1.a8cp-145f);
    CHECK(effcc::sigmoid(-100.0f) == 0x1.a8cp-145f && effcc::sigmoid(200.0f) == 1);
    CHECK(effcc::sin(1e30f) == std::sin(1e30f) && effcc::cos(0x1.fffffep127f) == std::cos(0x1.fffffep127f));
    return failures();
}
