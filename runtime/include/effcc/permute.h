// effcc/permute.h: lanes in another order, and tables of as many lanes as a register has.
//
//   permute<3, 0, ...>(v)      for every lane of the result, the lane of v that it is
//   lookup(table, index)       for every lane of index, that lane of table; of an index the low bits count
#pragma once

#include "effcc/types.h"

namespace effcc {

template <int... I, detail::Vector V>
EFFCC_INLINE vec<element<V>, sizeof...(I)> permute(V v) {
    if constexpr (sizeof...(I) == 1)
        return v[(I + ...)];
    else
        return __builtin_shufflevector(v, v, I...);
}

template <detail::Vector V, class X>
EFFCC_INLINE vec<element<V>, lanes<X>> lookup(V table, X index) {
#if !defined(__clang__)
    if constexpr (detail::Vector<X> && lanes<X> == lanes<V> && sizeof(element<X>) == sizeof(element<V>))
        return __builtin_shuffle(table, index);
#endif
    vec<element<V>, lanes<X>> r{};
    for (int i = 0; i < lanes<X>; ++i) set_lane(r, i, table[lane(index, i) & (lanes<V> - 1)]);
    return r;
}

}  // namespace effcc
