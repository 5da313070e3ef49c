// effcc/digest.h: a 128-bit digest of any bytes, about as fast as memory is read.
//
//   digest digest_of(const void* bytes, long n, const digest_keys& keys)
//       equal for equal bytes; for other bytes of the same number, whatever they are, equal with a probability below
//       2^-62 (n up to 2^40) over the choice of random keys that the bytes do not depend on
//
// Each of two independent lanes hashes blocks of 2 KB with NH, the sum of (m[2i] + k[2i]) (m[2i+1] + k[2i+1]) over the
// 32-bit words m of a block, whose chance for two blocks to meet is 2^-32 (Black et al., "UMAC: fast and secure message
// authentication", 1999), and the sequence of these sums with a polynomial modulo 2^61 - 1 at a random point.
#pragma once

#include "effcc/types.h"

namespace effcc {

struct digest {
    u64 lanes[2];
};

struct digest_keys {
    static constexpr int words = 512;  // of a block
    alignas(64) unsigned nh[2][words];
    u64 points[2];  // below 2^61 - 1
};

namespace detail {

// As many 32-bit words as a register holds, and the products of its even words with its odd ones.
#if defined(__AVX512F__)
constexpr int digest_words = 16;
#elif defined(__AVX2__)
constexpr int digest_words = 8;
#else
constexpr int digest_words = 4;
#endif
typedef unsigned words32 __attribute__((vector_size(4 * digest_words)));
typedef u64 words64 __attribute__((vector_size(4 * digest_words)));

EFFCC_INLINE words64 even_by_odd(words32 w) {
    words64 even = (words64)w, odd = even >> 32;
#if defined(__clang__) || !defined(__SSE2__)
    return (even & 0xffffffffu) * odd;
#elif defined(__AVX512F__)  // GCC knows no 32-bit operands behind a mask and multiplies all 64 bits
    typedef int v16si __attribute__((vector_size(64)));
    typedef long long v8di __attribute__((vector_size(64)));
    return (words64)__builtin_ia32_pmuludq512_mask((v16si)even, (v16si)odd, v8di{}, (unsigned char)-1);
#elif defined(__AVX2__)
    typedef int v8si __attribute__((vector_size(32)));
    return (words64)__builtin_ia32_pmuludq256((v8si)even, (v8si)odd);
#else
    typedef int v4si __attribute__((vector_size(16)));
    return (words64)__builtin_ia32_pmuludq128((v4si)even, (v4si)odd);
#endif
}

EFFCC_INLINE u64 sum_of(words64 v) {
    u64 sum = 0;
    for (int i = 0; i < digest_words / 2; ++i) sum += v[i];
    return sum;
}

// Both lanes' NH of the first `words` words of a block, a multiple of 32.
static inline digest nh(const unsigned char* block, int words, const digest_keys& keys) {
    words64 sums[2][2] = {};
    for (int w = 0; w < words; w += 2 * digest_words)
        for (int half = 0; half < 2; ++half) {
            words32 m, k[2];
            int at = w + half * digest_words;
            __builtin_memcpy(&m, block + 4 * at, sizeof m);
            __builtin_memcpy(&k[0], &keys.nh[0][at], sizeof m);
            __builtin_memcpy(&k[1], &keys.nh[1][at], sizeof m);
            sums[0][half] += even_by_odd(m + k[0]);
            sums[1][half] += even_by_odd(m + k[1]);
        }
    return {{sum_of(sums[0][0] + sums[0][1]), sum_of(sums[1][0] + sums[1][1])}};
}

// (state * point + term) modulo 2^61 - 1, not fully reduced: below 2^62 if state is, and term below 2^32.
EFFCC_INLINE u64 next_power(u64 state, u64 point, u64 term) {
    constexpr u64 prime = (u64(1) << 61) - 1;
    unsigned __int128 product = (unsigned __int128)state * point + term;
    u64 folded = (u64)(product & prime) + (u64)(product >> 61);
    return (folded & prime) + (folded >> 61);
}

}  // namespace detail

static inline digest digest_of(const void* bytes, long n, const digest_keys& keys) {
    constexpr int block_bytes = 4 * digest_keys::words;
    constexpr u64 prime = (u64(1) << 61) - 1;
    const unsigned char* at = static_cast<const unsigned char*>(bytes);
    digest state = {{1, 1}};
    auto absorb = [&](digest sums) {
        for (int l = 0; l < 2; ++l) {
            state.lanes[l] = detail::next_power(state.lanes[l], keys.points[l], sums.lanes[l] >> 32);
            state.lanes[l] = detail::next_power(state.lanes[l], keys.points[l], sums.lanes[l] & 0xffffffffu);
        }
    };
    for (; n >= block_bytes; n -= block_bytes, at += block_bytes)
        absorb(detail::nh(at, digest_keys::words, keys));
    if (n > 0) {
        unsigned char last[block_bytes];
        int words = static_cast<int>((n + 127) / 128 * 32);
        __builtin_memset(last, 0, 4u * words);
        __builtin_memcpy(last, at, n);
        absorb(detail::nh(last, words, keys));
    }
    for (u64& lane : state.lanes) lane = lane >= prime ? lane - prime : lane;
    return state;
}

}  // namespace effcc
