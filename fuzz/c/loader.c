/* The C loader of the package of `effcc.fuzz.packages.sample`, given files and arguments that harm.
 *
 * LLVMFuzzerTestOneInput is libFuzzer's entry (clang -fsanitize=fuzzer); without libFuzzer, `main` makes inputs from a
 * seed: loader GENUINE SCRATCH SEED TRIALS. The folder GENUINE holds the package; files are written in SCRATCH. A trial
 * aborts where a harmed file is opened, an error has no message, or a whole one does not compute what it should.
 */
#include <errno.h>
#include <math.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

/* Faults of the system, on purpose: the loader's calls go through these. */
static int allocations_left = -1, reads_left = -1, interrupted;

static void *faulty_alloc(size_t alignment, size_t bytes) {
    if (allocations_left == 0 || bytes > (size_t)1 << 30) return NULL;
    if (allocations_left > 0) --allocations_left;
    return aligned_alloc(alignment, bytes);
}
static ssize_t faulty_read(int file, void *to, size_t bytes) {
    if (reads_left == 0) {
        errno = EIO;
        return -1;
    }
    if (reads_left > 0) --reads_left;
    if (interrupted && reads_left % 2) {
        errno = EINTR;
        return -1;
    }
    return read(file, to, interrupted && bytes > 7 ? 7 : bytes);
}
#define aligned_alloc faulty_alloc
#define read faulty_read
#include "model.h"
#undef aligned_alloc
#undef read

enum { ROWS = 3, LIBRARY = 0, WEIGHTS = 1 };

static const char *genuine_folder, *scratch_folder;
static const char *const names[] = {"library.so", "weights.safetensors"};
static uint8_t *genuine[2];
static size_t genuine_bytes[2];
static float expected[ROWS * 16 + ROWS];

static void require(int holds, const char *what) {
    if (holds) return;
    fprintf(stderr, "loader: %s\n", what);
    abort();
}

static char *path_of(const char *folder, const char *name) {
    static char path[8192];
    snprintf(path, sizeof path, "%s/%s", folder, name);
    return path;
}

static void read_genuine(int which) {
    FILE *file = fopen(path_of(genuine_folder, names[which]), "rb");
    require(file && !fseek(file, 0, SEEK_END), "there is no genuine package");
    genuine_bytes[which] = (size_t)ftell(file);
    genuine[which] = malloc(genuine_bytes[which]);
    rewind(file);
    require(fread(genuine[which], 1, genuine_bytes[which], file) == genuine_bytes[which], "cannot read the package");
    fclose(file);
}

static void write_file(int which, const uint8_t *content, size_t bytes) {
    char *path = path_of(scratch_folder, names[which]);
    remove(path);
    FILE *file = fopen(path, "wb");
    require(file && fwrite(content, 1, bytes, file) == bytes && !fclose(file), "cannot write to the scratch folder");
}

static int call(model *loaded, float *results, int64_t rows, int threads) {
    static float x[64 * 8], h[64 * 16], sum[64];
    static int64_t label[64];
    for (int i = 0; i < 64 * 8; ++i) x[i] = 0.01f * (float)(i % 97) - 0.4f;
    for (int i = 0; i < 64; ++i) label[i] = i % 5;
    int code = model_run(loaded, x, label, h, sum, rows, threads);
    if (!code && results) {
        memcpy(results, h, ROWS * 16 * sizeof *h);
        memcpy(results + ROWS * 16, sum, ROWS * sizeof *sum);
    }
    return code;
}

static void prepare(const char *genuine_at, const char *scratch_at) {
    model loaded;
    genuine_folder = genuine_at;
    scratch_folder = scratch_at;
    read_genuine(LIBRARY);
    read_genuine(WEIGHTS);
    require(model_open(&loaded, genuine_folder) == 0, "the genuine package does not open");
    require(call(&loaded, expected, ROWS, 1) == 0, "the genuine package does not run");
    model_close(&loaded);
}

/* Arguments out of their ranges are refused; right ones still work afterwards. */
static void call_wrongly(model *loaded, uint8_t how) {
    static const int64_t rows[] = {0, 1, 65, -1, INT64_MIN, INT64_MAX, (int64_t)1 << 40};
    static const int threads[] = {0, -1, INT32_MIN};
    float x[8] = {0}, h[16], sum[1];
    int64_t label[1] = {0};
    require(call(loaded, NULL, rows[how % 7], 1) == EFFCC_ARGUMENT, "a size out of its range is taken");
    require(call(loaded, NULL, ROWS, threads[how % 3]) == EFFCC_ARGUMENT, "no thread is taken");
    require(model_run(loaded, how & 1 ? x : NULL, how & 2 ? label : NULL, how & 4 ? h : NULL,
                      (how & 7) == 7 ? NULL : sum, 2, 1) == EFFCC_ARGUMENT, "a null pointer is taken");
    require(loaded->error[0] != 0, "an error has no message");
    require(model_run(NULL, x, label, h, sum, 2, 1) == EFFCC_ARGUMENT, "no model is taken");
}

/* Harms one file; whether it is another one now. */
static int harm(int which, uint8_t how, const uint8_t *data, size_t size) {
    char *path = path_of(scratch_folder, names[which]);
    uint8_t *content = malloc(genuine_bytes[which] + size + 1);
    size_t bytes = genuine_bytes[which];
    memcpy(content, genuine[which], bytes);
    int made = 1;
    switch (how % 8) {
    case 0: /* some bytes are others */
        for (size_t i = 0; i + 4 < size; i += 5)
            content[(data[i] | data[i + 1] << 8 | data[i + 2] << 16 | (size_t)data[i + 3] << 24) % bytes] = data[i + 4];
        break;
    case 1: /* cut */
        bytes = size > 2 ? (data[0] | data[1] << 8 | (size_t)data[2] << 16) % bytes : 0;
        break;
    case 2: /* longer */
        memcpy(content + bytes, data, size);
        bytes += size;
        break;
    case 3: /* something else */
        memcpy(content, data, size);
        bytes = size;
        break;
    default:
        made = 0;
    }
    int differs = bytes != genuine_bytes[which] || memcmp(content, genuine[which], bytes) != 0;
    if (made) write_file(which, content, bytes);
    free(content);
    if (made) return differs;
    remove(path);
    switch (how % 8) {
    case 4: require(!mkfifo(path, 0600), "cannot make a FIFO"); break;
    case 5: require(!mkdir(path, 0700), "cannot make a folder"); break;
    case 6: require(!symlink(size && data[0] & 1 ? names[which] : "/dev/zero", path), "cannot make a link"); break;
    }
    return 1; /* case 7: missing */
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
    model loaded;
    if (!genuine[0]) prepare(getenv("EFFCC_GENUINE"), getenv("EFFCC_SCRATCH"));
    if (size < 3) return -1;
    uint8_t how = data[0], faults = data[1], count = data[2];
    write_file(LIBRARY, genuine[LIBRARY], genuine_bytes[LIBRARY]);
    write_file(WEIGHTS, genuine[WEIGHTS], genuine_bytes[WEIGHTS]);
    int which = how >> 7, differs = how & 64 ? 0 : harm(which, how, data + 3, size - 3);
    allocations_left = faults % 4 == 1 ? count % 8 : -1;
    reads_left = faults % 4 == 2 ? count : -1;
    interrupted = faults % 4 == 3;
    if (interrupted) reads_left = INT32_MAX;
    memset(&loaded, 0xA5, sizeof loaded);
    int code = model_open(&loaded, scratch_folder);
    require(!differs || code < 0, "a harmed file is opened");
    require(differs || !code || faults % 4 == 1 || faults % 4 == 2, "whole files are not opened");
    require(code <= 0 && code >= EFFCC_ARGUMENT, "an error of another kind");
    if (code) {
        require(loaded.error[0] != 0 && memchr(loaded.error, 0, sizeof loaded.error) != NULL, "an error has no message");
        require(loaded.library == NULL && loaded.arena == NULL, "a model that does not open holds something");
        require(call(&loaded, NULL, ROWS, 1) == EFFCC_ARGUMENT, "a model that did not open runs");
    } else {
        float results[ROWS * 16 + ROWS];
        code = call(&loaded, results, ROWS, 1 + faults % 2);
        require(code == 0 || (code == EFFCC_NO_MEMORY && allocations_left == 0), "a whole model does not run");
        if (!code) require(memcmp(results, expected, sizeof expected) == 0, "a whole model computes something else");
        call_wrongly(&loaded, how);
    }
    allocations_left = reads_left = -1;
    interrupted = 0;
    model_close(&loaded);
    model_close(&loaded);
    require(model_open(NULL, scratch_folder) == EFFCC_ARGUMENT && model_open(&loaded, NULL) == EFFCC_ARGUMENT,
            "a null pointer is taken");
    if (how & 64) {
        char *folder = malloc(6001);
        memset(folder, 'x', 6000);
        folder[6000] = 0;
        require(model_open(&loaded, folder) < 0 && model_open(&loaded, "/nowhere") < 0, "a folder that is none opens");
        free(folder);
    }
    for (int i = 0; i < 2; ++i) remove(path_of(scratch_folder, names[i]));
    return 0;
}

#ifndef EFFCC_LIBFUZZER
static uint64_t state;

static uint8_t random_byte(void) {
    state ^= state << 13;
    state ^= state >> 7;
    state ^= state << 17;
    return (uint8_t)(state >> 32);
}

int main(int argc, char **argv) {
    require(argc == 5, "usage: loader GENUINE SCRATCH SEED TRIALS");
    prepare(argv[1], argv[2]);
    uint8_t data[4096];
    for (long trial = 0; trial < atol(argv[4]); ++trial) {
        state = ((uint64_t)atol(argv[3]) << 32) + (uint64_t)trial + 0x9E3779B97F4A7C15u;
        for (int i = 0; i < 8; ++i) random_byte();
        size_t size = 3 + random_byte() % 64 * (random_byte() % 4 ? 1 : 64) % 4000;
        for (size_t i = 0; i < size; ++i) data[i] = random_byte();
        LLVMFuzzerTestOneInput(data, size);
    }
    printf("%s trials\n", argv[4]);
    return 0;
}
#endif
