// effcc/barrier.h of the fuzzer: the interface of runtime/include/effcc/barrier.h, for threads that take turns (threads.h).
#pragma once

#define EFFCC_FIXED_SHARES
#define EFFCC_PREEMPT()

#include <pthread.h>

namespace effcc {

using region = void (*)(int thread, int team, void* context);

namespace detail {

struct turns {
    pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
    pthread_cond_t moved = PTHREAD_COND_INITIALIZER;
    long turn = 0;
    int team = 1;
    bool backwards = false;
    region fn = nullptr;
    void* context = nullptr;

    void await(int thread) {
        int place = backwards ? team - 1 - thread : thread;
        pthread_mutex_lock(&lock);
        while (turn % team != place) pthread_cond_wait(&moved, &lock);
        pthread_mutex_unlock(&lock);
    }

    void pass() {
        pthread_mutex_lock(&lock);
        ++turn;
        pthread_cond_broadcast(&moved);
        pthread_mutex_unlock(&lock);
    }
};

__attribute__((visibility("hidden"))) inline turns* current = nullptr;

}  // namespace detail

class barrier {
  public:
    static constexpr int small = 16;

    void begin(int) {}

    void wait(int thread, int team) {
        if (team <= 1) return;
        detail::turns* all = detail::current;
        all->pass();
        all->await(thread);
    }

    void wait_for_begun(int thread, int team) { wait(thread, team); }
};

}  // namespace effcc
