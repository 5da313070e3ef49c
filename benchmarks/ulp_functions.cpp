// The functions of effcc/math.h as loops over arrays, once per instruction set: benchmarks/ulp.py compiles this file with
// each set's flags and EFFCC_ISA naming it, and links them all with ulp.cpp.

#include "effcc/math.h"
#include "effcc/vec.h"
#include "ulp.h"

namespace {

using namespace effcc;

template <f32v (*F)(f32v)>
void over(const float* x, float* y, long n) {
    for (long i = 0; i < n; i += EFFCC_LANES) store(y + i, F(load<f32v>(x + i)));
}

#define EFFCC_LOOP(NAME) {#NAME, over<[](f32v v) { return effcc::NAME(v); }>},
const evaluator table[] = {ULP_FUNCTIONS(EFFCC_LOOP){nullptr, nullptr}};
#undef EFFCC_LOOP

}  // namespace

#define EFFCC_PASTE(A, B) A##B
#define EFFCC_NAMED(A, B) EFFCC_PASTE(A, B)

extern "C" const evaluator* EFFCC_NAMED(evaluators_, EFFCC_ISA)() { return table; }

// pow takes two arguments and is sampled, not enumerated.
extern "C" void EFFCC_NAMED(evaluate_pow_, EFFCC_ISA)(const float* a, const float* b, float* y, long n) {
    for (long i = 0; i < n; i += EFFCC_LANES) store(y + i, effcc::pow(load<f32v>(a + i), load<f32v>(b + i)));
}
