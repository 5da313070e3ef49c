// effcc/erf.h: the error function and its complement; a gelu is 0.5 * x * (1 + erf(x * sqrt(1/2))).
//
//   erf, erfc
//
// float: |x| < 15/16: x + x P(x^2);  beyond: 1 - exp(x Q(x)), where x Q(x) = log(erfc(x)), up to |x| = 4, where it is 1.
// double, and erfc for now: the C library, lane by lane.
#pragma once

#include "effcc/exp_log.h"

namespace effcc {

template <class V>
EFFCC_INLINE V erf(V x) {
    if constexpr (detail::is_f64<V>) {
        return detail::call_lanes(__builtin_erf, x);
    } else {
        V a = abs(x), z = a * a;
        V p = detail::polynomial(z, 0.128379166f, -0.376126289f, 0.112836257f, -0.026855737f, 0.00519243814f,
                                 -0.000805038435f, 8.00027919e-05f);
        V near = mul_add(a, p, a);
        V four = broadcast<V>(4), c = four < a ? four : a;
        V q = detail::polynomial(c, -1.12846529f, -0.636096776f, -0.104160748f, 0.021233853f, -0.00177948875f,
                                 -0.000525459822f, 0.000221047085f, -3.48155008e-05f, 2.17299112e-06f);
        V far = broadcast<V>(1) - detail::exp_normal(c * q);
        return copysign(select(a < broadcast<V>(0.9375f), near, far), x);
    }
}

template <class V>
EFFCC_INLINE V erfc(V x) {
    if constexpr (detail::is_f64<V>)
        return detail::call_lanes(__builtin_erfc, x);
    else
        return detail::call_lanes(__builtin_erfcf, x);
}

}  // namespace effcc
