// effcc/math.h: the transcendental half of the library in one include.
//
// Every function takes a float, a double, or a vector of either, and gives the same type.
//
//   exp_log.h   exp, exp2, expm1, log, log2, log10, log1p, tanh, sigmoid
//   erf.h       erf, erfc
//   trig.h      sin, cos, tan, asin, acos, atan, atan2(y, x)
//   pow.h       pow(a, b), fmod(a, b), remainder(a, b), floor_divide(a, b), sinh, cosh, asinh, acosh, atanh, lgamma
//   arith.h     sqrt, rsqrt, floor, ceil, trunc, round, abs, sign, maximum, minimum, clamp
//
// A kernel that needs only exp includes exp_log.h: what is not included is not compiled.
#pragma once

#include "effcc/erf.h"
#include "effcc/exp_log.h"
#include "effcc/pow.h"
#include "effcc/trig.h"
