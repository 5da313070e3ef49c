// effcc/vec.h: the vector half of the library in one include. Each part lists its functions at its top.
//
//   types.h     vec<T, N>, f32v, mask_of, select, broadcast, iota, any, all, low, high, join
//   arith.h     mul_add, fma, abs, sqrt, rsqrt, floor, ceil, trunc, round, maximum, minimum, clamp, sign
//   convert.h   convert<T>, to_mask, from_mask, bf16 and f16
//   memory.h    load, load_n, load_strided, gather, store, store_n, scatter, load_mask, store_mask
//   reduce.h    reduce_sum, reduce_prod, reduce_max, reduce_min
//
// Transcendental functions are in math.h, threads in threads.h. Flags these headers are written for:
//   -std=c++20 -O3 -fno-math-errno -ffp-contract=off -fwrapv, and -mprefer-vector-width=512 with AVX-512.
#pragma once

#include "effcc/arith.h"
#include "effcc/convert.h"
#include "effcc/memory.h"
#include "effcc/reduce.h"
#include "effcc/types.h"
