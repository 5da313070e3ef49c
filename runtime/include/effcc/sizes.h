#ifndef EFFCC_SIZES_H
#define EFFCC_SIZES_H
// Functions of sizes beyond sums, products and floors, as Python computes them (effcc.ir.size_functions): C, so that
// the header of a package can hold them too.

#include <stdint.h>
#ifdef __cplusplus  // generated code compiles without the standard headers, which take longer than it does
extern "C" double strtod(const char *, char **) noexcept;
#else
#include <stdlib.h>
#endif

static inline int64_t size_trunc(double x) { return (int64_t)x; }
static inline int64_t size_lower(double x) { return (int64_t)__builtin_floor(x); }
static inline int64_t size_upper(double x) { return (int64_t)__builtin_ceil(x); }
static inline int64_t size_nearest(double x) { return (int64_t)__builtin_nearbyint(x); }

static inline int64_t size_power(int64_t base, int64_t exponent) {
    uint64_t result = 1, factor = (uint64_t)base;
    for (; exponent > 0; exponent >>= 1) {
        if (exponent & 1) result *= factor;
        factor *= factor;
    }
    return (int64_t)result;
}
static inline int64_t size_bitand(int64_t a, int64_t b) { return a & b; }
static inline int64_t size_bitor(int64_t a, int64_t b) { return a | b; }
static inline int64_t size_bitxor(int64_t a, int64_t b) { return a ^ b; }
static inline int64_t size_choose(int64_t c, int64_t a, int64_t b) { return c ? a : b; }
static inline int64_t size_lt(int64_t a, int64_t b) { return a < b; }
static inline int64_t size_le(int64_t a, int64_t b) { return a <= b; }
static inline int64_t size_eq(int64_t a, int64_t b) { return a == b; }
static inline int64_t size_flt(double a, double b) { return a < b; }
static inline int64_t size_fle(double a, double b) { return a <= b; }
static inline int64_t size_feq(double a, double b) { return a == b; }

static inline double size_real(int64_t n) { return (double)n; }
static inline double size_ratio(int64_t a, int64_t b) { return (double)a / (double)b; }
static inline double size_fadd(double a, double b) { return a + b; }
static inline double size_fmul(double a, double b) { return a * b; }
static inline double size_fdiv(double a, double b) { return a / b; }
static inline double size_fpow(double a, double b) { return __builtin_pow(a, b); }
static inline double size_fmax(double a, double b) { return b > a ? b : a; }
static inline double size_fmin(double a, double b) { return b < a ? b : a; }
static inline double size_fabs(double a) { return __builtin_fabs(a); }
static inline double size_ftrunc(double a) { return __builtin_trunc(a); }
static inline double size_fchoose(int64_t c, double a, double b) { return c ? a : b; }
static inline double size_fmod(double a, double b) {
    double rest = __builtin_fmod(a, b);
    if (rest == 0) return __builtin_copysign(0.0, b);
    return (rest < 0) != (b < 0) ? rest + b : rest;
}
// Decimal digits are rounded as they are printed: half-way cases, which doubles seldom are, to even.
static inline double size_fround(double a, int64_t digits) {
    char text[400];
    if (!(__builtin_fabs(a) < 1e300) || digits > 50) return a;
    if (digits >= 0) {
        __builtin_snprintf(text, sizeof text, "%.*f", (int)digits, a);
        return strtod(text, 0);
    }
    if (digits < -300) return __builtin_copysign(0.0, a);
    double step = __builtin_pow(10.0, (double)-digits), down = __builtin_floor(a / step);
    double rest = __builtin_fma(-down, step, a);  // exact where the step is
    double up = rest * 2 > step || (rest * 2 == step && __builtin_fmod(down, 2.0) != 0) ? down + 1 : down;
    return up * step;
}
static inline double size_sqrt(double a) { return __builtin_sqrt(a); }
static inline double size_cos(double a) { return __builtin_cos(a); }
static inline double size_cosh(double a) { return __builtin_cosh(a); }
static inline double size_sin(double a) { return __builtin_sin(a); }
static inline double size_sinh(double a) { return __builtin_sinh(a); }
static inline double size_tan(double a) { return __builtin_tan(a); }
static inline double size_tanh(double a) { return __builtin_tanh(a); }
static inline double size_asin(double a) { return __builtin_asin(a); }
static inline double size_acos(double a) { return __builtin_acos(a); }
static inline double size_atan(double a) { return __builtin_atan(a); }
static inline double size_exp(double a) { return __builtin_exp(a); }
static inline double size_log(double a) { return __builtin_log(a); }
static inline double size_asinh(double a) { return __builtin_asinh(a); }
static inline double size_log2(double a) { return __builtin_log2(a); }

#endif
