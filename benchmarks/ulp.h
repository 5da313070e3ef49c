// What ulp.cpp and ulp_functions.cpp agree on.
#pragma once

// Every float function whose error is measured.
#define ULP_FUNCTIONS(F)                                                                        \
    F(exp) F(exp2) F(expm1) F(log) F(log2) F(log10) F(log1p) F(tanh) F(sigmoid) F(erf) F(erfc)  \
    F(sin) F(cos) F(tan) F(asin) F(acos) F(atan) F(sqrt) F(rsqrt)

struct evaluator {
    const char* name;
    void (*run)(const float* x, float* y, long n);  // n is a multiple of 16
};
