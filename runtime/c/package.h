/* What the headers of all packages share: reading their files, checking them, sizes without overflow. C99 and C++17. */
#ifndef EFFCC_PACKAGE_4
#define EFFCC_PACKAGE_4

#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#if !defined(__cplusplus) && __STDC_VERSION__ < 201112L
extern void *aligned_alloc(size_t alignment, size_t size); /* which C99 does not declare */
#endif

/* What functions return besides 0. */
enum {
    EFFCC_NO_MEMORY = -1,   /* memory is short */
    EFFCC_CANNOT_READ = -2, /* a file is missing, cannot be read, or is no regular file */
    EFFCC_DAMAGED = -3,     /* a file is not the one that this header was written with */
    EFFCC_CANNOT_LOAD = -4, /* the system's loader refuses the library */
    EFFCC_OTHER_CPU = -6,   /* the code needs what this CPU lacks, or what Linux does not let this process use */
    EFFCC_OUT_OF_RANGE = 1, /* an index that the inputs led to is outside of the tensor it is for */
    EFFCC_ZERO_DIVISOR = 2, /* an integer that the inputs led to is divided by zero */
    EFFCC_REFUSED = 3,      /* a value that the inputs led to is one that the model refuses */
    EFFCC_ARGUMENT = -5     /* a null pointer, a size out of its range, no thread */
};

#define EFFCC_LONGEST_ERROR 256

static inline int effcc_fail(char *error, int code, const char *what, const char *why) {
    snprintf(error, EFFCC_LONGEST_ERROR, "%.100s: %.140s", what, why);
    return code;
}

/* SHA-256 (FIPS 180-4). */

typedef struct {
    uint32_t state[8];
    uint64_t bytes;
    uint8_t block[64];
} effcc_sha256;

static inline uint32_t effcc_rotate(uint32_t x, int n) { return x >> n | x << (32 - n); }

static inline void effcc_sha256_block(uint32_t state[8], const uint8_t *p) {
    static const uint32_t k[64] = {
        0x428a2f98, 0x71374491, 0xb5c0fbcf, 0xe9b5dba5, 0x3956c25b, 0x59f111f1, 0x923f82a4, 0xab1c5ed5,
        0xd807aa98, 0x12835b01, 0x243185be, 0x550c7dc3, 0x72be5d74, 0x80deb1fe, 0x9bdc06a7, 0xc19bf174,
        0xe49b69c1, 0xefbe4786, 0x0fc19dc6, 0x240ca1cc, 0x2de92c6f, 0x4a7484aa, 0x5cb0a9dc, 0x76f988da,
        0x983e5152, 0xa831c66d, 0xb00327c8, 0xbf597fc7, 0xc6e00bf3, 0xd5a79147, 0x06ca6351, 0x14292967,
        0x27b70a85, 0x2e1b2138, 0x4d2c6dfc, 0x53380d13, 0x650a7354, 0x766a0abb, 0x81c2c92e, 0x92722c85,
        0xa2bfe8a1, 0xa81a664b, 0xc24b8b70, 0xc76c51a3, 0xd192e819, 0xd6990624, 0xf40e3585, 0x106aa070,
        0x19a4c116, 0x1e376c08, 0x2748774c, 0x34b0bcb5, 0x391c0cb3, 0x4ed8aa4a, 0x5b9cca4f, 0x682e6ff3,
        0x748f82ee, 0x78a5636f, 0x84c87814, 0x8cc70208, 0x90befffa, 0xa4506ceb, 0xbef9a3f7, 0xc67178f2};
    uint32_t w[64], v[8];
    for (int i = 0; i < 16; ++i)
        w[i] = (uint32_t)p[4 * i] << 24 | (uint32_t)p[4 * i + 1] << 16 | (uint32_t)p[4 * i + 2] << 8 | p[4 * i + 3];
    for (int i = 16; i < 64; ++i) {
        uint32_t a = w[i - 15], b = w[i - 2];
        w[i] = w[i - 16] + (effcc_rotate(a, 7) ^ effcc_rotate(a, 18) ^ a >> 3) + w[i - 7] +
               (effcc_rotate(b, 17) ^ effcc_rotate(b, 19) ^ b >> 10);
    }
    memcpy(v, state, sizeof v);
    for (int i = 0; i < 64; ++i) {
        uint32_t t = v[7] + (effcc_rotate(v[4], 6) ^ effcc_rotate(v[4], 11) ^ effcc_rotate(v[4], 25)) +
                     ((v[4] & v[5]) ^ (~v[4] & v[6])) + k[i] + w[i];
        uint32_t u = (effcc_rotate(v[0], 2) ^ effcc_rotate(v[0], 13) ^ effcc_rotate(v[0], 22)) +
                     ((v[0] & v[1]) ^ (v[0] & v[2]) ^ (v[1] & v[2]));
        memmove(v + 1, v, 7 * sizeof *v);
        v[4] += t;
        v[0] = t + u;
    }
    for (int i = 0; i < 8; ++i) state[i] += v[i];
}

static inline void effcc_sha256_begin(effcc_sha256 *sum) {
    static const uint32_t start[8] = {0x6a09e667, 0xbb67ae85, 0x3c6ef372, 0xa54ff53a,
                                      0x510e527f, 0x9b05688c, 0x1f83d9ab, 0x5be0cd19};
    memcpy(sum->state, start, sizeof start);
    sum->bytes = 0;
}

static inline void effcc_sha256_add(effcc_sha256 *sum, const uint8_t *content, size_t bytes) {
    while (bytes) {
        size_t held = (size_t)(sum->bytes % 64), n = 64 - held < bytes ? 64 - held : bytes;
        memcpy(sum->block + held, content, n);
        sum->bytes += n;
        content += n;
        bytes -= n;
        if (sum->bytes % 64 == 0) effcc_sha256_block(sum->state, sum->block);
    }
}

/* Whether the digest is this one, as lowercase digits. */
static inline int effcc_sha256_is(effcc_sha256 *sum, const char *expected) {
    static const uint8_t padding[64] = {0x80};
    uint64_t bits = sum->bytes * 8;
    uint8_t length[8];
    char found[65];
    for (int i = 0; i < 8; ++i) length[i] = (uint8_t)(bits >> (56 - 8 * i));
    effcc_sha256_add(sum, padding, (size_t)(64 - (sum->bytes + 8) % 64));
    effcc_sha256_add(sum, length, 8);
    for (int i = 0; i < 8; ++i) snprintf(found + 8 * i, 9, "%08x", (unsigned)sum->state[i]);
    return strcmp(found, expected) == 0;
}

/* Files. */

/* Reads so many bytes; 0, or an error. */
static inline int effcc_read(int file, uint8_t *to, int64_t bytes) {
    while (bytes > 0) {
        ssize_t got = read(file, to, bytes < (1 << 30) ? (size_t)bytes : (size_t)1 << 30);
        if (got < 0 && errno == EINTR) continue;
        if (got <= 0) return EFFCC_CANNOT_READ;
        to += got;
        bytes -= got;
    }
    return 0;
}

/* Opens a file of the folder that has so many bytes with this digest; its descriptor, or an error. Never waits. */
static inline int effcc_open_checked(const char *folder, const char *name, int64_t bytes, const char *digest,
                                     char *path, size_t longest, char *error) {
    struct stat found;
    effcc_sha256 sum;
    uint8_t chunk[16384];
    int length = snprintf(path, longest, "%s/%s", folder, name);
    if (length < 0 || (size_t)length >= longest) return effcc_fail(error, EFFCC_ARGUMENT, name, "its path is too long");
    int file = open(path, O_RDONLY | O_NONBLOCK);
    if (file < 0) return effcc_fail(error, EFFCC_CANNOT_READ, name, strerror(errno));
    int code = 0;
    if (fstat(file, &found) || !S_ISREG(found.st_mode)) {
        code = effcc_fail(error, EFFCC_CANNOT_READ, name, "it is no regular file");
    } else if (found.st_size != bytes) {
        code = effcc_fail(error, EFFCC_DAMAGED, name, "its size is not the one that this header was written with");
    } else {
        effcc_sha256_begin(&sum);
        for (int64_t at = 0; !code && at < bytes; at += (int64_t)sizeof chunk) {
            int64_t n = bytes - at < (int64_t)sizeof chunk ? bytes - at : (int64_t)sizeof chunk;
            code = effcc_read(file, chunk, n);
            if (!code) effcc_sha256_add(&sum, chunk, (size_t)n);
        }
        if (code) {
            effcc_fail(error, code, name, "it cannot be read to its end");
        } else if (!effcc_sha256_is(&sum, digest)) {
            code = effcc_fail(error, EFFCC_DAMAGED, name, "its SHA-256 is not the one that this header was written with");
        }
    }
    if (!code) return file;
    close(file);
    return code;
}

/* The CPU. */

/* Whether a line of words apart by spaces has this one of n characters. */
static inline int effcc_has_word(const char *line, const char *word, size_t n) {
    for (const char *at = line; (at = strstr(at, word)) != NULL; at += n)
        if ((at == line || at[-1] == ' ') && (at[n] == ' ' || at[n] == '\0')) return 1;
    return 0;
}

/* The flags of the first CPU in one line, as /proc/cpuinfo tells them; 0, or an error where it does not. */
static inline int effcc_cpu_flags(char *flags, size_t longest) {
    FILE *told = fopen("/proc/cpuinfo", "r");
    int found = 0;
    while (told && !found && fgets(flags, (int)longest, told)) {
        char *colon = strchr(flags, ':');
        flags[strcspn(flags, "\n")] = '\0';
        found = colon && (strncmp(flags, "flags", 5) == 0 || strncmp(flags, "Features", 8) == 0);
        if (found) memmove(flags, colon + 1, strlen(colon + 1) + 1);
    }
    if (told) fclose(told);
    return found ? 0 : EFFCC_OTHER_CPU;
}

/* Asks Linux for the registers of the matrix unit, for all threads of this process; 0 where it gives them. */
static inline long effcc_ask_for_tiles(void) {
#if defined(__x86_64__) && defined(__linux__)
    long refused;
    __asm__ volatile("syscall" : "=a"(refused) : "a"(158L), "D"(0x1023L), "S"(18L) : "rcx", "r11", "memory");
    return refused; /* of arch_prctl(ARCH_REQ_XCOMP_PERM, XTILEDATA) */
#else
    return -1;
#endif
}

/* Makes sure that code which needs these features (names of Linux's, a space after each) can run here. */
static inline int effcc_require_cpu(const char *features, char *error) {
    char flags[8192], name[64];
    if (!*features) return 0;
    if (effcc_cpu_flags(flags, sizeof flags))
        return effcc_fail(error, EFFCC_OTHER_CPU, "/proc/cpuinfo", "it does not tell which features this CPU has");
    while (*features) {
        size_t n = strcspn(features, " ");
        snprintf(name, sizeof name, "%.*s", (int)n, features);
        if (!effcc_has_word(flags, name, strlen(name)))
            return effcc_fail(error, EFFCC_OTHER_CPU, name, "this CPU lacks the feature, which the code is compiled for");
        if (strcmp(name, "amx_tile") == 0 && effcc_ask_for_tiles())
            return effcc_fail(error, EFFCC_OTHER_CPU, name, "Linux does not let this process use the matrix unit");
        features += features[n] ? n + 1 : n;
    }
    return 0;
}

/* Sizes: what is beyond 2^62, or divides by zero, sets `*wrong`. */

static inline int64_t effcc_bounded(int64_t value, int *wrong) {
    if (value >= (int64_t)1 << 62 || value <= -((int64_t)1 << 62)) {
        *wrong = 1;
        return 0;
    }
    return value;
}
static inline int64_t effcc_add(int64_t a, int64_t b, int *wrong) { return effcc_bounded(a + b, wrong); }
static inline int64_t effcc_mul(int64_t a, int64_t b, int *wrong) {
    int64_t product;
    if (__builtin_mul_overflow(a, b, &product)) {
        *wrong = 1;
        return 0;
    }
    return effcc_bounded(product, wrong);
}
static inline int64_t effcc_floordiv(int64_t a, int64_t b, int *wrong) {
    if (b == 0) {
        *wrong = 1;
        return 0;
    }
    return a / b - (a % b != 0 && (a < 0) != (b < 0));
}
static inline int64_t effcc_mod(int64_t a, int64_t b, int *wrong) {
    return b == 0 ? effcc_floordiv(a, b, wrong) : a - b * effcc_floordiv(a, b, wrong);
}
static inline int64_t effcc_max(int64_t a, int64_t b, int *wrong) {
    (void)wrong;
    return a > b ? a : b;
}
static inline int64_t effcc_min(int64_t a, int64_t b, int *wrong) {
    (void)wrong;
    return a < b ? a : b;
}

#endif
