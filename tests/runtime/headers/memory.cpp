// What memory.h and convert.h promise: the right lanes, and not a byte beyond. Every access ends or begins at a page
// that may not be touched, so that one byte too many is a crash.

#include <sys/mman.h>
#include <unistd.h>

#include <cmath>
#include <initializer_list>
#include <limits>

#include "check.h"
#include "effcc/guarded.h"
#include "effcc/vec.h"

using namespace effcc;

namespace {

// One page between two that may not be touched.
struct guarded_page {
    long size = sysconf(_SC_PAGESIZE);
    char* all = static_cast<char*>(mmap(nullptr, 3 * size, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0));
    char* page = all + size;
    guarded_page() {
        if (mprotect(page, size, PROT_READ | PROT_WRITE) != 0) std::abort();
    }
    template <class T> T* first() { return reinterpret_cast<T*>(page); }
    template <class T> T* last(long n) { return reinterpret_cast<T*>(page + size) - n; }
} guarded;

template <class S> S encode(int i) { return S(i); }
template <> bf16 encode<bf16>(int i) { return {narrow_bf16(float(i))}; }
template <> f16 encode<f16>(int i) { return {narrow_f16(float(i))}; }
template <> bool encode<bool>(int i) { return i % 2; }
template <class S> int decode(S s) { return int(s); }
template <> int decode(bf16 s) { return int(widen_bf16(s.bits)); }
template <> int decode(f16 s) { return int(widen_f16(s.bits)); }

template <class V, class S>
void tails() {
    constexpr int n = lanes<V>;
    using T = element<V>;
    auto value = [](int i) { return decode(encode<S>(i + 1)); };
    for (int k = -1; k <= n + 1; ++k) {
        int kept = k < 0 ? 0 : k > n ? n : k;
        for (S* p : {guarded.last<S>(kept), guarded.first<S>()}) {
            for (int i = 0; i < kept; ++i) p[i] = encode<S>(i + 1);
            V v = load_n<V>(p, opaque(k)), w = load_n<V>(p, opaque(k), T(77));
            for (int i = 0; i < n; ++i) {
                CHECK(lane(v, i) == T(i < kept ? value(i) : 0));
                CHECK(lane(w, i) == T(i < kept ? value(i) : 77));
            }
            std::memset(static_cast<void*>(p), 0x5a, kept * sizeof(S));
            store_n(p, v, opaque(k));
            for (int i = 0; i < kept; ++i) CHECK(decode(p[i]) == value(i));
        }
        // What lies behind a tail stays as it was.
        char* bytes = guarded.first<char>();
        std::memset(bytes, 0x5a, 2 * sizeof(V) * sizeof(S));
        V v = broadcast<V>(T(1));
        store_n(reinterpret_cast<S*>(bytes), v, opaque(k));
        for (unsigned i = kept * sizeof(S); i < 2 * sizeof(V) * sizeof(S); ++i) CHECK(bytes[i] == 0x5a);
    }
    for (long stride : {1L, 3L}) {
        S* p = guarded.last<S>((n - 1) * stride + 1);
        for (int i = 0; i < n; ++i) p[i * stride] = encode<S>(i + 1);
        V v = load_strided<V>(p, opaque(stride));
        for (int i = 0; i < n; ++i) CHECK(lane(v, i) == T(value(i)));
        V w = load_strided_n<V>(p, stride, n / 2, T(7));
        for (int i = 0; i < n; ++i) CHECK(lane(w, i) == T(i < n / 2 ? value(i) : 7));
        store_strided(p, opaque(stride), broadcast<V>(T(1)));
        for (int i = 0; i < n; ++i) CHECK(decode(p[i * stride]) == 1);
        store_strided_n(p, stride, broadcast<V>(T(0)), n / 2);
        for (int i = 0; i < n; ++i) CHECK(decode(p[i * stride]) == (i < n / 2 ? 0 : 1));
    }
}

template <class V, class I>
void indexed() {
    constexpr int n = lanes<V>;
    using T = element<V>;
    T* p = guarded.last<T>(n);
    for (int i = 0; i < n; ++i) p[i] = T(i);
    I index{};
    for (int i = 0; i < n; ++i) set_lane(index, i, n - 1 - i);
    V v = gather<V>(p, index);
    for (int i = 0; i < n; ++i) CHECK(lane(v, i) == T(n - 1 - i));
    set_lane(index, 0, 1 << 20);  // out of bounds, but masked
    auto inside = index < broadcast<I>(n);
    V w = gather_if<V>(inside, p, index, T(9));
    for (int i = 0; i < n; ++i) CHECK(lane(w, i) == T(i == 0 ? 9 : n - 1 - i));
    scatter_if(inside, p, index, broadcast<V>(T(5)));
    for (int i = 0; i < n; ++i) CHECK(p[i] == T(i == n - 1 ? i : 5));
    set_lane(index, 0, 0);
    scatter(p, index, iota<V>(0));  // lanes 0 and n - 1 write p[0]: the last wins
    CHECK(p[0] == T(n - 1));
}

template <class V>
void masks() {
    constexpr int n = lanes<V>;
    for (int k = 0; k <= n; ++k) {
        bool* p = guarded.last<bool>(k);
        for (int i = 0; i < k; ++i) p[i] = i % 3 == 0;
        auto m = load_mask_n<V>(p, opaque(k));
        for (int i = 0; i < n; ++i) CHECK((lane(m, i) != 0) == (i < k && i % 3 == 0));
        store_mask_n(p, mask_not(m), opaque(k));
        for (int i = 0; i < k; ++i) CHECK(p[i] == (i % 3 != 0));
    }
    bool* p = guarded.last<bool>(n);
    for (int i = 0; i < n; ++i) p[i] = i % 2;
    auto m = load_mask<V>(p);
    store_mask(guarded.first<bool>(), m);
    CHECK(std::memcmp(p, guarded.first<bool>(), n) == 0);
}

// Narrowing against arithmetic in double: the nearest, ties to even, over every float with few enough bits to matter.
template <class V>
void small_floats() {
    for (u32 b = 0; b < 0xffffu; ++b) {
        V half_lanes{};
        for (int i = 0; i < lanes<V>; ++i) set_lane(half_lanes, i, widen_f16(u16(b + i)));
        auto back = narrow_f16(opaque(half_lanes));
        auto wide = widen_f16(opaque(back));
        for (int i = 0; i < lanes<V>; ++i) {
            u16 h = u16(b + i);
            bool is_nan_pattern = (h & 0x7fff) > 0x7c00;
            CHECK(is_nan_pattern ? (lane(back, i) & 0x7e00) == 0x7e00 && (lane(back, i) ^ h) >> 15 == 0 : lane(back, i) == h);
            double truth = (h >> 10 & 31) == 0 ? std::ldexp(h & 1023, -24) : std::ldexp(1024 + (h & 1023), (h >> 10 & 31) - 25);
            if ((h & 0x7c00) != 0x7c00) CHECK(lane(wide, i) == float(h >> 15 ? -truth : truth));
        }
    }
    u32 state = 1;
    for (int k = 0; k < 200000; ++k) {
        state = state * 1664525u + 1013904223u;
        u32 b = k % 4 ? state : (state & 0x8fffffffu) | 0x30000000u;  // often near the range of f16
        if (k % 8 == 0) b &= 0xfffff000u | (k % 16 ? 0x1000u : 0);      // often a tie
        float x = __builtin_bit_cast(float, b);
        V v = broadcast<V>(x);
        u16 brain = lane(narrow_bf16(opaque(v)), 0), half = lane(narrow_f16(opaque(v)), 0);
        if (x != x) {
            CHECK((brain & 0x7fc0) == 0x7fc0 && brain >> 15 == b >> 31);
            CHECK((half & 0x7e00) == 0x7e00 && half >> 15 == b >> 31);
            continue;
        }
        u32 down = b & 0xffff0000u;
        u32 rest = b & 0xffff;
        u32 up = rest > 0x8000 || (rest == 0x8000 && (down >> 16 & 1)) ? down + 0x10000 : down;
        CHECK(brain == up >> 16);
        double size = std::fabs(double(x));
        int exponent = size < 0x1p-14 ? -14 : std::ilogb(size);
        double step = std::ldexp(1, exponent - 10), nearest = std::nearbyint(size / step) * step;
        float expected = float(nearest >= 65536 ? INFINITY : nearest);
        CHECK(std::fabs(widen_f16(half)) == expected && half >> 15 == b >> 31);
    }
}

// Rows of four neighbours, a stride apart: of the last row nothing beyond its fourth element may be touched.
template <class V>
void rows() {
    constexpr int n = lanes<V>, stride = 7;
    V v[4];
    for (int c = 0; c < 4; ++c)
        for (int i = 0; i < n; ++i) set_lane(v[c], i, float(10 * i + c));
    for (int k = 0; k <= n; ++k) {
        const int size = k == 0 ? 0 : (k - 1) * stride + 4;
        f32* p = guarded.last<f32>(size);
        for (int i = 0; i < size; ++i) p[i] = -1;
        store_rows(p, stride, v[0], v[1], v[2], v[3], opaque(k));
        for (int i = 0; i < size; ++i) CHECK(p[i] == (i % stride < 4 ? float(10 * (i / stride) + i % stride) : -1));
    }
}

// Pairs of bf16: whole vectors, and the first lanes up to a guard.
template <class V>
void stored_pairs() {
    const V a = opaque(iota<V>(1)), b = opaque(iota<V>(101));
    for (int k = 0; k <= lanes<V>; ++k)
        for (int stride : {2, 5}) {
            const int size = k == 0 ? 0 : (k - 1) * stride + 2;
            bf16* p = guarded.last<bf16>(size);
            for (int i = 0; i < size; ++i) p[i].bits = 7;
            store_rows(p, stride, a, b, opaque(k));
            for (int i = 0; i < size; ++i)
                CHECK(i % stride < 2 ? load<f32>(p + i) == float(i / stride + 1 + 100 * (i % stride)) : p[i].bits == 7);
        }
}

// What was narrowed on the way to a tail: the compiler may not merge both into one store that faults.
template <class W, class N>
void narrowed_tails() {
    constexpr int n = lanes<N>;
    for (int k = 0; k <= n; ++k) {
        element<N>* p = guarded.last<element<N>>(k);
        W wide = opaque(iota<W>(1));
        store_n(p, convert<element<N>>(wide * opaque(broadcast<W>(element<W>(2)))), opaque(k));
        for (int i = 0; i < k; ++i) CHECK(p[i] == element<N>(2 * (i + 1)));
    }
    if constexpr (n > 2) {
        constexpr int k = n - 1;
        element<N>* p = guarded.last<element<N>>(k);
        store_n(p, convert<element<N>>(opaque(iota<W>(1)) * opaque(broadcast<W>(element<W>(2)))), k);
        for (int i = 0; i < k; ++i) CHECK(p[i] == element<N>(2 * (i + 1)));
    }
}

}  // namespace

int main() {
    narrowed_tails<i64x<4>, i32x<4>>();
    narrowed_tails<i64x<8>, i32x<8>>();
    narrowed_tails<f64x<4>, f32x<4>>();
    narrowed_tails<i32x<16>, i16x<16>>();
    narrowed_tails<i32x<16>, i8x<16>>();
    rows<f32x<4>>();
    rows<f32x<8>>();
    rows<f32x<16>>();
    stored_pairs<f32x<4>>();
    stored_pairs<f32x<8>>();
    stored_pairs<f32x<16>>();
    tails<float, float>();
    tails<f32x<4>, float>();
    tails<f32x<8>, float>();
    tails<f32x<16>, float>();
    tails<f32x<32>, float>();
    tails<f64x<2>, double>();
    tails<f64x<4>, double>();
    tails<f64x<8>, double>();
    tails<i32x<8>, i32>();
    tails<i64x<4>, i64>();
    tails<i64x<8>, i64>();
    tails<i16x<16>, i16>();
    tails<i16x<8>, i16>();
    tails<u8x<16>, u8>();
    tails<i8x<32>, i8>();
    tails<f32v, bf16>();
    tails<f32v, f16>();
    tails<f32v, u8>();
    tails<f32v, i8>();
    tails<f32v, i16>();
    tails<f32v, i32>();
    tails<f32v, i64>();
    tails<f32v, double>();
    tails<f32v, bool>();
    tails<f32x<8>, bf16>();
    tails<f32x<4>, f16>();
    tails<f64x<4>, float>();
    tails<f64x<4>, bf16>();
    tails<i64x<4>, bool>();
    tails<float, bf16>();
    tails<float, f16>();
    indexed<f32v, i32v>();
    indexed<f64x<4>, i64x<4>>();
    indexed<f32x<8>, i64x<8>>();
    indexed<i8x<16>, i32x<16>>();
    indexed<float, i64>();
    masks<f32v>();
    masks<f64x<4>>();
    masks<i8x<16>>();
    masks<float>();
    small_floats<float>();
    small_floats<f32x<4>>();
    small_floats<f32x<8>>();
    small_floats<f32x<16>>();
    return failures();
}
