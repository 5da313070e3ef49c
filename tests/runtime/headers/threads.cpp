// What threads.h and worker.h promise, for both ways of getting threads. Arguments: the name of one check, and a number of
// threads.

#include "effcc/threads.h"
#include "effcc/worker.h"

#include <sys/wait.h>

#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <initializer_list>

#include "check.h"

using namespace effcc;

namespace {

constexpr int most = 64;

struct board {
    barrier between;
    long slot[most] = {};
    int team[most] = {};
    int calls = 0;
    long rounds = 0;
    bool sleepy = false;
};

void mark(int thread, int team, void* context) {
    board& b = *static_cast<board*>(context);
    b.slot[thread]++;
    b.team[thread] = team;
    __atomic_add_fetch(&b.calls, 1, __ATOMIC_RELAXED);
}

// Every thread writes its slot, and after the barrier sees what everyone wrote.
void write_and_read(int thread, int team, void* context) {
    board& b = *static_cast<board*>(context);
    for (long round = 1; round <= b.rounds; ++round) {
        if (b.sleepy && (round + thread) % 7 == 0) usleep(300);
        b.slot[thread] = round * 100 + thread;
        b.between.wait(thread, team);
        for (int other = 0; other < team; ++other) CHECK(b.slot[other] == round * 100 + other);
        b.between.wait(thread, team);
    }
}

void check_region(int threads) {
    for (int asked = 1; asked <= threads; ++asked) {
        board b;
        for (int i = 0; i < 200; ++i) {
            b.calls = 0;
            parallel(asked, mark, &b);
            CHECK(b.calls >= 1 && b.calls <= asked && b.calls == b.team[0]);
        }
        CHECK(b.slot[0] == 200);
        for (int t = 1; t < b.team[0]; ++t) CHECK(b.slot[t] == 200 && b.team[t] == b.team[0]);
    }
}

void check_full_team(int threads) {
    board b;
    parallel(threads, mark, &b);
    CHECK(b.team[0] == threads && b.calls == threads);
}

void check_barrier(int threads) {
    board quick, slow;
    quick.rounds = threads > 2 ? 300 : 20000;
    slow.rounds = 100;
    slow.sleepy = true;
    parallel(threads, write_and_read, &quick);
    parallel(threads, write_and_read, &slow);
    board again;  // one barrier serves several regions of one team
    again.rounds = 3;
    for (int i = 0; i < 50; ++i) parallel(threads, write_and_read, &again);
}

void nest(int, int team, void* context) {
    board inner;
    inner.rounds = 5;
    parallel(2, write_and_read, &inner);
    __atomic_add_fetch(static_cast<int*>(context), team, __ATOMIC_RELAXED);
}

void check_nested(int threads) {
    int calls = 0;
    parallel(threads, nest, &calls);
    CHECK(calls >= 1);
}

void* call_often(void* argument) {
    for (int i = 0; i < 300; ++i) {
        board b;
        b.rounds = 3;
        parallel(*static_cast<int*>(argument), write_and_read, &b);
        b.calls = 0;
        parallel(*static_cast<int*>(argument), mark, &b);
        CHECK(b.calls == b.team[0]);
    }
    return nullptr;
}

void check_two_callers(int threads) {
    pthread_t callers[3];
    for (pthread_t& c : callers) pthread_create(&c, nullptr, call_often, &threads);
    for (pthread_t& c : callers) pthread_join(c, nullptr);
}

// The child runs regions of its own, and so does its child; the parent goes on afterwards.
void check_fork(int threads) {
    board b;
    parallel(threads, mark, &b);
    pid_t child = fork();
    if (child == 0) {
        alarm(20);  // a region that waits for threads which did not survive the fork would wait for ever
        check_barrier(threads);
#if !defined(EFFCC_OPENMP)
        check_full_team(threads);
#endif
        pid_t grandchild = fork();
        if (grandchild == 0) {
            check_region(threads);
            std::exit(failures());
        }
        int status = 1;
        waitpid(grandchild, &status, 0);
        std::exit(failures() || status != 0);
    }
    int status = 1;
    waitpid(child, &status, 0);
    CHECK(status == 0);
    check_barrier(threads);
}

void same_thread(int, int, void* context) { CHECK(pthread_equal(pthread_self(), *static_cast<pthread_t*>(context))); }

void check_inline(int) {
    pthread_t self = pthread_self();
    parallel(1, same_thread, &self);
    parallel(0, same_thread, &self);
}

void check_share(int) {
    for (long n = 0; n < 70; ++n)
        for (int team = 1; team <= 20; ++team)
            for (long grain : {1L, 4L, 16L}) {
                long reached = 0, most_seen = 0, least_seen = n + 1;
                for (int thread = 0; thread < team; ++thread) {
                    range r = grain == 1 ? share(n, thread, team) : share(n, thread, team, grain);
                    CHECK(r.begin == reached && r.end >= r.begin);
                    CHECK(r.begin % grain == 0 || r.begin == n);
                    reached = r.end;
                    if (r.end - r.begin > most_seen) most_seen = r.end - r.begin;
                    if (r.end - r.begin < least_seen) least_seen = r.end - r.begin;
                }
                CHECK(reached == n);
                CHECK(most_seen - least_seen <= (grain == 1 ? 1 : 2 * grain - 1));
            }
}

// Loops of several lengths one after another, not all with a meeting between them: who did which iteration how often.
struct ledger {
    static constexpr long longest = 100;
    static constexpr int loops = 40;
    crew all;
    int done[loops][longest] = {}, by[loops][longest] = {};
    int team = 0;
    int late = -1;  // this thread comes when the others have long begun
    static long length(int loop) { return (loop * 37) % (longest + 1); }
};

void claim_all(int thread, int team, void* context) {
    ledger& l = *static_cast<ledger*>(context);
    worker me(l.all, thread, team);
    if (thread == 0) l.team = team;
    if (thread == l.late) usleep(20000);
    for (int loop = 0; loop < ledger::loops; ++loop) {
        for (claims work = me.claim(ledger::length(loop)); range piece = work.next();)
            for (long i = piece.begin; i < piece.end; ++i) {
                __atomic_add_fetch(&l.done[loop][i], 1, __ATOMIC_RELAXED);
                l.by[loop][i] = thread;
            }
        if (loop % 3 == 2) me.meet();
    }
}

void check_claims(int threads) {
    for (int round = 0; round < 200; ++round) {
        ledger l;
        parallel(threads, claim_all, &l);
        for (int loop = 0; loop < ledger::loops; ++loop)
            for (long i = 0; i < ledger::longest; ++i) CHECK(l.done[loop][i] == (i < ledger::length(loop)));
    }
}

// What a thread that is held up has not begun, the others do; alone, everyone would find its own part.
void check_late(int threads) {
    ledger l;
    l.late = 0;
    parallel(threads, claim_all, &l);
    if (l.team == 1 || l.team > crew::most) return;
    for (int loop = 0; loop < 3; ++loop)
        for (long i = 0; i < ledger::length(loop); ++i) CHECK(l.by[loop][i] != 0);
}

// Rounds of work in which one thread is absent until the others have done all of them, or sleeps while it holds a piece.
struct absence {
    static constexpr int rounds = 50, width = 64;
    crew all;
    long cells[2][width] = {};
    int absent = -1, holding = -1;  // who
    int done = 0;
    bool missed = false;  // whether the absent thread was waited for
};

// Each round adds neighbours of the round before: a piece that is missed, done twice or too early shows in the sum.
void work_in_rounds(int thread, int team, void* context) {
    absence& a = *static_cast<absence*>(context);
    worker me(a.all, thread, team);
    if (thread == a.absent && team > 1 && team <= crew::most) {
        int waited = 0;
        while (__atomic_load_n(&a.done, __ATOMIC_RELAXED) < absence::rounds && ++waited < 20000) usleep(500);
        a.missed = waited == 20000;
    }
    for (int round = 0; round < absence::rounds; ++round) {
        const long* from = a.cells[round % 2];
        long* to = a.cells[1 - round % 2];
        for (claims work = me.claim(absence::width); range piece = work.next();) {
            if (thread == a.holding && round == 10) usleep(1000);
            for (long i = piece.begin; i < piece.end; ++i)
                to[i] = (from[i] + from[(i + 1) % absence::width] + i) % 1000003;
        }
        me.meet_begun();
        if (thread != a.absent) __atomic_store_n(&a.done, round + 1, __ATOMIC_RELAXED);
    }
}

void expect_rounds(const absence& a) {
    long cells[2][absence::width] = {};
    for (int round = 0; round < absence::rounds; ++round)
        for (int i = 0; i < absence::width; ++i)
            cells[1 - round % 2][i] =
                (cells[round % 2][i] + cells[round % 2][(i + 1) % absence::width] + i) % 1000003;
    for (int i = 0; i < absence::width; ++i)
        CHECK(a.cells[absence::rounds % 2][i] == cells[absence::rounds % 2][i]);
}

// Nobody waits for a thread that took nothing; for one that holds a piece, all do.
void check_absent(int threads) {
    for (int thread = 0; thread < threads; thread += threads > 3 ? 7 : 1) {
        absence late, slow;
        late.absent = thread;
        parallel(threads, work_in_rounds, &late);
        expect_rounds(late);
        CHECK(!late.missed);
        slow.holding = thread;
        parallel(threads, work_in_rounds, &slow);
        expect_rounds(slow);
    }
    for (int i = 0; i < (threads > 3 ? 5 : 200); ++i) {
        absence none;
        parallel(threads, work_in_rounds, &none);
        expect_rounds(none);
    }
}

}  // namespace

int main(int, char** arguments) {
    struct {
        const char* name;
        void (*check)(int);
    } checks[] = {{"region", check_region}, {"full_team", check_full_team}, {"barrier", check_barrier},
                  {"nested", check_nested}, {"two_callers", check_two_callers}, {"fork", check_fork},
                  {"inline", check_inline}, {"share", check_share}, {"claims", check_claims},
                  {"late", check_late}, {"absent", check_absent}};
    for (auto& c : checks)
        if (std::strcmp(c.name, arguments[1]) == 0) {
            c.check(std::atoi(arguments[2]));
            return failures();
        }
    std::printf("no check %s\n", arguments[1]);
    return 2;
}
