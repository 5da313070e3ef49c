// Measures a machine: fused multiply-adds in registers, alone and beside what makes numbers of codes, and reads that stream from L2, L3 and memory, on all cores at
// once. Compiled by effcc.runtime.measure with the flags that generated code gets.

#include <pthread.h>
#include <stdint.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <time.h>

#if defined(__aarch64__)
#define EFFCC_FLOAT_REGISTER "w"
#else
#define EFFCC_FLOAT_REGISTER "x"
#endif
#if defined(__AVX2__)
#define EFFCC_CODE_REGISTER "x"
#else
#define EFFCC_CODE_REGISTER "r"
#endif

namespace {

#if defined(__AVX512F__)
typedef float vector __attribute__((vector_size(64)));
typedef int integers __attribute__((vector_size(64)));
#elif defined(__AVX2__)
typedef float vector __attribute__((vector_size(32)));
typedef int integers __attribute__((vector_size(32)));
#else
typedef float vector;
typedef int integers;
#endif
constexpr int64_t lanes = sizeof(vector) / sizeof(float);
constexpr int chains = 12;  // independent sums: more than latency times throughput, fewer than AVX2's 16 registers

enum Kind { fma, decode, chain, read };

struct Job {
  Kind kind;
  const vector *data;
  int64_t vectors;
  int64_t repeats;
  double seconds;       // of the processor: cores are a thread's own, and what others take of them does not count
  double began, ended;  // on the wall's clock: caches and memory are shared, and reads count only where they overlap
  vector result;
  pthread_barrier_t *barrier;
};

double now(clockid_t clock) {
  timespec t;
  clock_gettime(clock, &t);
  return t.tv_sec + 1e-9 * t.tv_nsec;
}

// The sums are named one by one because an array of them would live in memory.
#define EFFCC_EACH(DO) DO(0) DO(1) DO(2) DO(3) DO(4) DO(5) DO(6) DO(7) DO(8) DO(9) DO(10) DO(11)
#define EFFCC_DECLARE(c) vector sum##c = {};
#define EFFCC_MULTIPLY_ADD(c) sum##c = sum##c * factor + addend;
#define EFFCC_READ(c) sum##c += data[i + c];
#define EFFCC_TOTAL(c) total += sum##c;
#define EFFCC_KEEP(c) asm volatile("" : "+" EFFCC_FLOAT_REGISTER(sum##c));  // no merging of sums, no closed form

vector multiply_add(int64_t repeats, vector factor, vector addend) {
  EFFCC_EACH(EFFCC_DECLARE)
  for (int64_t i = 0; i < repeats; ++i) {
    EFFCC_EACH(EFFCC_MULTIPLY_ADD)
    EFFCC_EACH(EFFCC_KEEP)
  }
  vector total = {};
  EFFCC_EACH(EFFCC_TOTAL)
  return total;
}

#if defined(__AVX2__)
#define EFFCC_CONVERT(i) __builtin_convertvector(i, vector)
#else
#define EFFCC_CONVERT(i) (vector)(i)
#endif
// A number of four bits of a code, times a factor: a shift, a mask, a conversion and a multiply-add. The code hides
// behind `asm`, so that nothing of it is known before.
#define EFFCC_DECODE(c) {                                         \
    integers code = codes;                                        \
    asm volatile("" : "+" EFFCC_CODE_REGISTER(code));             \
    sum##c += EFFCC_CONVERT((code >> (1 + c % 4)) & 15) * factor; \
  }
constexpr int decoded_instructions = 4;

vector multiply_codes(int64_t repeats, vector factor, integers codes) {
  EFFCC_EACH(EFFCC_DECLARE)
  for (int64_t i = 0; i < repeats; ++i) {
    EFFCC_EACH(EFFCC_DECODE)
    EFFCC_EACH(EFFCC_KEEP)
  }
  vector total = {};
  EFFCC_EACH(EFFCC_TOTAL)
  return total;
}

// A multiply-add in every turn, which waits for the one before.
vector multiply_add_in_turn(int64_t repeats, vector factor, vector addend) {
  EFFCC_DECLARE(0)
  for (int64_t i = 0; i < repeats; ++i) {
    for (int turn = 0; turn < chains; ++turn) {
      EFFCC_MULTIPLY_ADD(0)
      EFFCC_KEEP(0)
    }
  }
  return sum0;
}

vector sum_all(const vector *data, int64_t vectors, int64_t repeats) {
  EFFCC_EACH(EFFCC_DECLARE)
  for (int64_t r = 0; r < repeats; ++r) {
    asm volatile("" : : "r"(data) : "memory");  // every repeat reads again
    for (int64_t i = 0; i + chains <= vectors; i += chains) {
      EFFCC_EACH(EFFCC_READ)
    }
  }
  vector total = {};
  EFFCC_EACH(EFFCC_TOTAL)
  return total;
}

void *work(void *argument) {
  Job &job = *(Job *)argument;
  const float one = 0.999f;
  vector factor = {}, addend = {};
  factor += one;
  addend += 1e-3f;
  integers codes = {};
  codes += 77;
  asm volatile("" : "+" EFFCC_FLOAT_REGISTER(factor), "+" EFFCC_FLOAT_REGISTER(addend));
  pthread_barrier_wait(job.barrier);
  job.began = now(CLOCK_MONOTONIC);
  const double start = now(CLOCK_THREAD_CPUTIME_ID);
  if (job.kind == fma)
    job.result = multiply_add(job.repeats, factor, addend);
  else if (job.kind == decode)
    job.result = multiply_codes(job.repeats, factor, codes);
  else if (job.kind == chain)
    job.result = multiply_add_in_turn(job.repeats, factor, addend);
  else
    job.result = sum_all(job.data, job.vectors, job.repeats);
  job.seconds = now(CLOCK_THREAD_CPUTIME_ID) - start;
  job.ended = now(CLOCK_MONOTONIC);
  return nullptr;
}

// Runs one job a thread, all at once; returns their mean time, of reads the time from the first begin to the last end,
// or -1 if one could not be started. Two threads that a busy machine runs one after the other have the memory to
// themselves in turn: by their own clocks they would read at twice its rate.
double run_together(Job *jobs, int threads) {
  pthread_t handles[threads];
  pthread_barrier_t barrier;
  pthread_barrier_init(&barrier, nullptr, threads);
  for (int t = 0; t < threads; ++t) {
    jobs[t].barrier = &barrier;
    if (pthread_create(&handles[t], nullptr, work, &jobs[t])) return -1;
  }
  double seconds = 0;
  for (int t = 0; t < threads; ++t) {
    pthread_join(handles[t], nullptr);
    seconds += jobs[t].seconds / threads;
  }
  pthread_barrier_destroy(&barrier);
  if (jobs[0].kind != read) return seconds;
  double began = jobs[0].began, ended = jobs[0].ended;
  for (int t = 1; t < threads; ++t) {
    if (jobs[t].began < began) began = jobs[t].began;
    if (jobs[t].ended > ended) ended = jobs[t].ended;
  }
  return ended - began;
}

// The best of several rounds, each about `round_seconds` long: disturbances can only make a round slower.
double best_rate(Job *jobs, int threads, double units_per_repeat, double round_seconds, int rounds) {
  for (int t = 0; t < threads; ++t) jobs[t].repeats = 1;
  double seconds = run_together(jobs, threads);
  while (seconds >= 0 && seconds < round_seconds / 8) {
    for (int t = 0; t < threads; ++t) jobs[t].repeats *= 4;
    seconds = run_together(jobs, threads);
  }
  double best = 0;
  for (int round = 0; round < rounds && seconds >= 0; ++round) {
    seconds = run_together(jobs, threads);
    const double rate = units_per_repeat * jobs[0].repeats / seconds;
    if (seconds > 0 && rate > best) best = rate;
  }
  return best;
}

}  // namespace

// `bytes` holds three sizes a thread: one that fits L2, one that fits L3 only, one that fits neither. `rates` receives
// FLOP/s, vector instructions/s, chained multiply-adds/s and the three bandwidths in bytes/s, over all threads together. Returns 0, or 1 if memory or threads ran out.
extern "C" int effcc_probe(int threads, const int64_t *bytes, double *rates) {
  Job *jobs = (Job *)aligned_alloc(64, (sizeof(Job) * threads + 63) / 64 * 64);
  if (!jobs) return 1;
  for (int t = 0; t < threads; ++t) jobs[t].kind = fma;
  rates[0] = best_rate(jobs, threads, 2.0 * chains * lanes * threads, 0.03, 4);
  for (int t = 0; t < threads; ++t) jobs[t].kind = decode;
  rates[1] = best_rate(jobs, threads, (double)decoded_instructions * chains * threads, 0.03, 4);
  for (int t = 0; t < threads; ++t) jobs[t].kind = chain;
  rates[2] = best_rate(jobs, threads, (double)chains * threads, 0.03, 4);

  const int64_t each = (bytes[2] + 4095) / 4096 * 4096;
  void *memory = mmap(nullptr, each * threads, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
  if (memory == MAP_FAILED) return 1;
#ifdef MADV_HUGEPAGE
  madvise(memory, each * threads, MADV_HUGEPAGE);
#endif
  for (int64_t page = 0; page < each * threads; page += 4096) ((char *)memory)[page] = 1;
  for (int level = 0; level < 3; ++level) {
    for (int t = 0; t < threads; ++t) {
      jobs[t].kind = read;
      jobs[t].data = (const vector *)((char *)memory + t * each);
      jobs[t].vectors = bytes[level] / (int64_t)sizeof(vector) / chains * chains;
    }
    rates[3 + level] = best_rate(jobs, threads, (double)jobs[0].vectors * (int64_t)sizeof(vector) * threads, 0.03, 8);
  }
  munmap(memory, each * threads);
  free(jobs);
  for (int rate = 0; rate < 6; ++rate)
    if (!(rates[rate] > 0)) return 1;
  return 0;
}
