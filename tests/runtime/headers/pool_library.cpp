// A library with a pool of its own, loaded and unloaded by pool_host.cpp.

#include "effcc/threads.h"

extern "C" __attribute__((visibility("default"))) int sum_of_threads(int threads) {
    int sum = 0;
    effcc::parallel(
        threads, [](int thread, int, void* context) { __atomic_add_fetch(static_cast<int*>(context), thread + 1, __ATOMIC_RELAXED); },
        &sum);
    return sum;
}
