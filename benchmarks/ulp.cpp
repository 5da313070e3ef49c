// How far effcc's float functions are from the truth, over all floats or every stride-th of them.
//
//   ulp FUNCTION ISA STRIDE THREADS DOMAIN   a line of JSON; DOMAIN is all, near (|x| <= 2^17) or far (the others)
//   ulp pow ISA SAMPLES THREADS all          the same on random pairs
//   ulp speed FUNCTION                       nanoseconds an element: each instruction set, then glibc's libmvec
//
// The reference is the C library's double function (its vector form where there is one, good to 4 units in the last
// place of a double, 1e-8 of a float's); the worst input is then looked at again in long double. The error is
// |computed - true| over the spacing of floats at the true value, an overflow counting as 2^128.

#include <cmath>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <ctime>

#include "effcc/threads.h"
#include "effcc/vec.h"
#include "ulp.h"

// Defined by ulp.py: F(isa) for each instruction set compiled in.
#ifndef ULP_ISAS
#error "ULP_ISAS names the instruction sets"
#endif

#define DECLARE(ISA)                                 \
    extern "C" const evaluator* evaluators_##ISA();  \
    extern "C" void evaluate_pow_##ISA(const float*, const float*, float*, long);
ULP_ISAS(DECLARE)
#undef DECLARE

namespace {

using wide_reference = void (*)(const double* x, double* y, long n);
using long_reference = long double (*)(long double);

#if defined(__GLIBC__) && defined(__AVX512F__)
#define ULP_LANES 8
#define ULP_VECTOR(NAME) _ZGVeN8v_##NAME
#define ULP_VECTOR_F(NAME) _ZGVeN16v_##NAME##f
#elif defined(__GLIBC__) && defined(__AVX2__)
#define ULP_LANES 4
#define ULP_VECTOR(NAME) _ZGVdN4v_##NAME
#define ULP_VECTOR_F(NAME) _ZGVdN8v_##NAME##f
#endif

double sigmoid(double x) { return 1 / (1 + std::exp(-x)); }
long double sigmoidl(long double x) { return 1 / (1 + expl(-x)); }
double rsqrt(double x) { return 1 / std::sqrt(x); }
long double rsqrtl(long double x) { return 1 / sqrtl(x); }

template <double (*F)(double)>
void lane_by_lane(const double* x, double* y, long n) {
    for (long i = 0; i < n; ++i) y[i] = F(x[i]);
}

#if defined(ULP_LANES)
typedef double doubles __attribute__((vector_size(8 * ULP_LANES)));
typedef float floats __attribute__((vector_size(8 * ULP_LANES)));

template <doubles (*F)(doubles)>
void by_vectors(const double* x, double* y, long n) {
    for (long i = 0; i < n; i += ULP_LANES) {
        doubles v;
        std::memcpy(&v, x + i, sizeof v);
        v = F(v);
        std::memcpy(y + i, &v, sizeof v);
    }
}

#define ULP_LIBMVEC(F) \
    F(exp) F(exp2) F(expm1) F(log) F(log2) F(log10) F(log1p) F(tanh) F(erf) F(erfc) F(sin) F(cos) F(tan) F(asin) F(acos) F(atan)
#define DECLARE(NAME) extern "C" doubles ULP_VECTOR(NAME)(doubles); extern "C" floats ULP_VECTOR_F(NAME)(floats);
ULP_LIBMVEC(DECLARE)
#undef DECLARE

doubles sigmoid_vector(doubles x) { return 1 / (1 + ULP_VECTOR(exp)(-x)); }
#define WIDE(NAME) by_vectors<ULP_VECTOR(NAME)>
#define WIDE_SIGMOID by_vectors<sigmoid_vector>
#else
#define WIDE(NAME) lane_by_lane<NAME>
#define WIDE_SIGMOID lane_by_lane<sigmoid>
#endif

struct function {
    const char* name;
    wide_reference wide;
    double (*exact)(double);
    long_reference longer;
    double low, high;  // where its speed is measured
    // Outside these bounds its value, as a float, is NaN, or what it is at the bound: the vector library is slow there.
    double first, last;
    bool nan_outside;
};

const function functions[] = {
    {"exp", WIDE(exp), exp, expl, -10, 10, -700, 700, false},
    {"exp2", WIDE(exp2), exp2, exp2l, -10, 10, -1000, 1000, false},
    {"expm1", WIDE(expm1), expm1, expm1l, -3, 3, -700, 700, false},
    {"log", WIDE(log), log, logl, 0.01, 100, 0, INFINITY, true},
    {"log2", WIDE(log2), log2, log2l, 0.01, 100, 0, INFINITY, true},
    {"log10", WIDE(log10), log10, log10l, 0.01, 100, 0, INFINITY, true},
    {"log1p", WIDE(log1p), log1p, log1pl, -0.9, 10, -1, INFINITY, true},
    {"tanh", WIDE(tanh), tanh, tanhl, -4, 4, -300, 300, false},
    {"sigmoid", WIDE_SIGMOID, sigmoid, sigmoidl, -8, 8, -700, 700, false},
    {"erf", WIDE(erf), erf, erfl, -4, 4, -20, 20, false},
    {"erfc", WIDE(erfc), erfc, erfcl, -4, 9, -20, 26, false},
    {"sin", WIDE(sin), sin, sinl, -10, 10, -0x1.fffffep127, 0x1.fffffep127, true},
    {"cos", WIDE(cos), cos, cosl, -10, 10, -0x1.fffffep127, 0x1.fffffep127, true},
    {"tan", WIDE(tan), tan, tanl, -10, 10, -0x1.fffffep127, 0x1.fffffep127, true},
    {"asin", WIDE(asin), asin, asinl, -1, 1, -1, 1, true},
    {"acos", WIDE(acos), acos, acosl, -1, 1, -1, 1, true},
    {"atan", WIDE(atan), atan, atanl, -4, 4, -1e30, 1e30, false},
    {"sqrt", lane_by_lane<sqrt>, sqrt, sqrtl, 0.01, 100, 0, INFINITY, true},
    {"rsqrt", lane_by_lane<rsqrt>, rsqrt, rsqrtl, 0.01, 100, 0, INFINITY, true},
};

struct worst {
    double error = 0;
    float at = 0, second = 0, got = 0;
    long wrong = 0;       // NaN, infinity or the sign of a zero not as the reference has it
    float wrong_at = 0;

    void merge(const worst& o) {
        if (o.error > error) error = o.error, at = o.at, second = o.second, got = o.got;
        if (o.wrong && !wrong) wrong_at = o.wrong_at;
        wrong += o.wrong;
    }
};

float from_bits(uint32_t b) {
    float x;
    std::memcpy(&x, &b, sizeof x);
    return x;
}

constexpr long chunk = 4096;
constexpr int width = EFFCC_LANES / 2;
using reals = effcc::f64x<width>;

// Units of a float's last place at a true value, one over: 2^(23 - exponent), denormals having the least exponent's.
template <class V>
V units(V truth) {
    using effcc::bits, effcc::broadcast;
    using I = effcc::int_of<V>;
    I exponent = effcc::clamp((bits(truth) >> 52) & 0x7ff, broadcast<I>(1023 - 126), broadcast<I>(1023 + 127));
    return effcc::from_bits<V>((2 * 1023 + 23 - exponent) << 52);
}

// v, but 2^128 for whatever rounds to infinity or is it. NaN stays.
template <class V>
V capped(V v) {
    return effcc::copysign(effcc::minimum(effcc::abs(v), effcc::broadcast<V>(0x1p128)), v);
}

// Distance in units in the last place; NaN if either is.
template <class V>
V ulps(V got, V truth) {
    return effcc::abs(capped(got) - capped(truth)) * units(truth);
}

// Whether one is NaN and the other not, or one is zero and their signs differ.
template <class V>
auto special_differs(V got, V truth) {
    const V zero = effcc::broadcast<V>(0);
    auto zeros = (got == zero) | (truth == zero);
    auto signs = (effcc::bits(got) ^ effcc::bits(truth)) < 0;
    return ((got != got) != (truth != truth)) | (zeros & signs);
}

void compare(const float* x, const float* second, const float* y, const double* truth, long n, double (*exact)(double),
             worst& w) {
    reals top = {};
    auto odd = effcc::broadcast<reals>(0) != effcc::broadcast<reals>(0);
    for (long i = 0; i < n; i += width) {
        reals got = effcc::load<reals>(y + i), t = effcc::load<reals>(truth + i);
        top = effcc::fmax(ulps(got, t), top);
        odd |= special_differs(got, t);
    }
    if (!effcc::any(odd) && effcc::reduce_max(top) <= w.error) return;
    for (long i = 0; i < n; ++i) {
        double t = truth[i];
        // The vector library's own special values are not the measure, nor its last places where it decides.
        if (exact && (special_differs<double>(y[i], t) || ulps<double>(y[i], t) > w.error)) t = exact(x[i]);
        if (special_differs<double>(y[i], t)) {
            if (!w.wrong++) w.wrong_at = x[i];
        } else if (double e = ulps<double>(y[i], t); e > w.error) {
            w.error = e, w.at = x[i], w.got = y[i];
            if (second) w.second = second[i];
        }
    }
}

struct isa {
    const char* name;
    const evaluator* functions;
    void (*pow)(const float*, const float*, float*, long);
};

#define LIST(ISA) {#ISA, evaluators_##ISA(), evaluate_pow_##ISA},
isa isas[] = {ULP_ISAS(LIST)};
#undef LIST

struct sweep {
    const function* f;
    const isa* with;
    void (*run)(const float*, float*, long);
    long stride, samples;
    uint64_t patterns, first;  // how many bit patterns of each sign, and the lowest
    uint64_t next = 0;
    worst result = {};
    pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
};

// Bit patterns of the floats from 0 up to and beyond 2^17 = 0x1p17.
constexpr uint64_t near_patterns = 0x48000001, far_patterns = 0x80000000 - near_patterns;

// The at-th float of a domain, positive ones before negative ones.
float member(uint64_t at, uint64_t patterns, uint64_t first) {
    return from_bits(uint32_t(at < patterns ? first + at : 0x80000000 + first + (at - patterns)));
}

// Every float of the domain is visited, or every stride-th.
void sweep_region(int, int, void* context) {
    sweep& s = *static_cast<sweep*>(context);
    worst mine;
    alignas(64) float x[chunk], y[chunk];
    alignas(64) double wide[chunk], truth[chunk];
    const uint64_t total = (2 * s.patterns + s.stride - 1) / s.stride;
    for (;;) {
        uint64_t first = __atomic_fetch_add(&s.next, chunk, __ATOMIC_RELAXED);
        if (first >= total) break;
        for (long i = 0; i < chunk; ++i) {
            x[i] = member((first + i < total ? first + i : total - 1) * s.stride, s.patterns, s.first);
            wide[i] = x[i] >= s.f->first ? x[i] <= s.f->last ? x[i] : s.f->last : s.f->first;
        }
        s.f->wide(wide, truth, chunk);
        for (long i = 0; i < chunk; ++i)
            if (x[i] != x[i] || (s.f->nan_outside && wide[i] != x[i])) truth[i] = NAN;
        s.run(x, y, chunk);
        compare(x, nullptr, y, truth, chunk, s.f->exact, mine);
    }
    pthread_mutex_lock(&s.lock);
    s.result.merge(mine);
    pthread_mutex_unlock(&s.lock);
}

// Random pairs: half with any bits at all, half with a > 0 and a power that neither overflows nor vanishes.
void pow_region(int thread, int team, void* context) {
    sweep& s = *static_cast<sweep*>(context);
    worst mine;
    alignas(64) float a[chunk], b[chunk], y[chunk];
    alignas(64) double truth[chunk];
    uint64_t state = 0x9e3779b97f4a7c15u * uint64_t(thread + 1);
    auto random = [&] {
        state ^= state << 13, state ^= state >> 7, state ^= state << 17;
        return uint32_t(state >> 32);
    };
    for (long done = 0; done < s.samples / team; done += chunk) {
        for (long i = 0; i < chunk; ++i) {
            a[i] = from_bits(random());
            b[i] = from_bits(random());
            if (i % 2) {
                a[i] = std::fabs(a[i]);
                double most = 130 / std::fabs(std::log2(double(a[i])) + 1e-30);
                b[i] = float(most * (random() * 0x1p-31 - 1));
            }
            truth[i] = std::pow(double(a[i]), double(b[i]));
        }
        s.with->pow(a, b, y, chunk);
        compare(a, b, y, truth, chunk, nullptr, mine);
    }
    pthread_mutex_lock(&s.lock);
    s.result.merge(mine);
    pthread_mutex_unlock(&s.lock);
}

void print(const char* name, const char* isa_name, const worst& w, long double truth) {
    double again = double(fabsl((long double)capped(double(w.got)) - truth)) * units(double(truth));
    std::printf(
        "{\"function\": \"%s\", \"isa\": \"%s\", \"ulp\": %.4f, \"ulp_long_double\": %.4f, \"at\": \"%a\", \"second\": \"%a\", "
        "\"got\": \"%a\", \"truth\": \"%.17Lg\", \"wrong\": %ld, \"wrong_at\": \"%a\"}\n",
        name, isa_name, w.error, again, w.at, w.second, w.got, truth, w.wrong, w.wrong_at);
}

const evaluator* find(const evaluator* table, const char* name) {
    while (table->name && std::strcmp(table->name, name) != 0) ++table;
    return table->name ? table : nullptr;
}

double seconds() {
    timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return double(t.tv_sec) + 1e-9 * double(t.tv_nsec);
}

// The least time of many short runs over an array that stays in the first cache.
template <class Run>
double least_seconds(Run run) {
    double best = 1e9;
    for (int i = 0; i < 2000; ++i) {
        double start = seconds();
        run();
        double took = seconds() - start;
        if (took < best) best = took;
    }
    return best;
}

// Core cycles a nanosecond, from a chain of multiplications of three cycles each.
double clock_rate() {
    const int links = 100000;
    double took = least_seconds([] {
        long x = 1;
        for (int i = 0; i < links; ++i) __asm__ volatile("imul %0, %0" : "+r"(x));
    });
    return 3.0 * links / took * 1e-9;
}

int speed(const function& f) {
    const long n = 2048;
    alignas(64) static float x[n], y[n];
    for (long i = 0; i < n; ++i) x[i] = float(f.low + (f.high - f.low) * double(i * 7919 % n) / n);
    double rate = clock_rate();
    std::printf("{\"function\": \"%s\", \"cycles_per_ns\": %.3f", f.name, rate);
    for (const isa& i : isas) {
        const evaluator* e = find(i.functions, f.name);
        std::printf(", \"%s\": %.4f", i.name, least_seconds([&] { e->run(x, y, n); }) * 1e9 / n);
    }
#if defined(ULP_LANES)
    struct { const char* name; floats (*run)(floats); } table[] = {
#define ROW(NAME) {#NAME, ULP_VECTOR_F(NAME)},
        ULP_LIBMVEC(ROW)
#undef ROW
    };
    for (auto& row : table) {
        if (std::strcmp(row.name, f.name) != 0) continue;
        double took = least_seconds([&] {
            for (long i = 0; i < n; i += 2 * ULP_LANES) {
                floats v;
                std::memcpy(&v, x + i, sizeof v);
                v = row.run(v);
                std::memcpy(y + i, &v, sizeof v);
            }
        });
        std::printf(", \"libmvec\": %.4f", took * 1e9 / n);
    }
#endif
    std::printf("}\n");
    return 0;
}

}  // namespace

int main(int count, char** arguments) {
    if (count == 3 && std::strcmp(arguments[1], "speed") == 0) {
        for (const function& f : functions)
            if (std::strcmp(f.name, arguments[2]) == 0) return speed(f);
        std::fprintf(stderr, "no function %s\n", arguments[2]);
        return 2;
    }
    if (count != 6) {
        std::fprintf(stderr, "ulp FUNCTION ISA STRIDE THREADS all|near|far | ulp pow ISA SAMPLES THREADS all | "
                             "ulp speed FUNCTION\n");
        return 2;
    }
    const char* name = arguments[1];
    static sweep s;
    for (const isa& i : isas)
        if (std::strcmp(i.name, arguments[2]) == 0) s.with = &i;
    const long amount = std::atol(arguments[3]);
    const int threads = std::atoi(arguments[4]);
    if (s.with && std::strcmp(name, "pow") == 0) {
        s.samples = amount;
        effcc::parallel(threads, pow_region, &s);
        print(name, s.with->name, s.result, powl(s.result.at, s.result.second));
        return 0;
    }
    for (const function& f : functions) {
        if (!s.with || std::strcmp(f.name, name) != 0) continue;
        s.f = &f;
        s.stride = amount;
        bool is_near = std::strcmp(arguments[5], "near") == 0, is_far = std::strcmp(arguments[5], "far") == 0;
        s.patterns = is_near ? near_patterns : is_far ? far_patterns : 0x80000000;
        s.first = is_far ? near_patterns : 0;
        s.run = find(s.with->functions, name)->run;
        effcc::parallel(threads, sweep_region, &s);
        print(name, s.with->name, s.result, f.longer(s.result.at));
        return 0;
    }
    std::fprintf(stderr, "no function %s, or no instruction set %s\n", name, arguments[2]);
    return 2;
}
