// effcc/copy.h: tensors copied into parts of another, for concatenations of many.
//
//   copy_box(to, from, box<R>{{sizes}, {strides of to}, {strides of from}}, turn, me)
//       R nested loops, the last the innermost; strides count elements. A small box is copied by one thread of the team,
//       the one whose turn it is, a larger one by all.
#pragma once

#include "effcc/types.h"
#include "effcc/worker.h"

namespace effcc {

template <int R>
struct box {
    i64 size[R], to[R], from[R];
};

// Not inlined: a program may hold thousands of calls.
template <class T, int R>
__attribute__((noinline)) void copy_box(T* to, const T* from, const box<R>& b, int turn, const worker& me) {
    const int thread = me.thread, team = me.team;
    constexpr i64 small = 4096;  // elements that are copied before other threads would have begun
    i64 rows = 1, columns = b.size[R - 1];
    for (int d = 0; d < R - 1; ++d) rows *= b.size[d];
    range own_rows{0, rows}, own_columns{0, columns};
    if (rows * columns <= small) {
        if (turn % team != thread) return;
    } else if (rows >= team) {
        own_rows = share(rows, thread, team);
    } else {
        own_columns = share(columns, thread, team, 64);
    }
    const i64 to_step = b.to[R - 1], from_step = b.from[R - 1];
    for (i64 row = own_rows.begin; row < own_rows.end; ++row) {
        T* out = to;
        const T* in = from;
        i64 rest = row;
        for (int d = R - 2; d >= 0; --d) {
            const i64 place = rest % b.size[d];
            rest /= b.size[d];
            out += place * b.to[d];
            in += place * b.from[d];
        }
        if (to_step == 1 && from_step == 1)
            __builtin_memcpy(out + own_columns.begin, in + own_columns.begin,
                             static_cast<unsigned long>(own_columns.end - own_columns.begin) * sizeof(T));
        else
            for (i64 c = own_columns.begin; c < own_columns.end; ++c) out[c * to_step] = in[c * from_step];
    }
}

}  // namespace effcc
