"""The compiled half of watching memory: digests of ranges, and the kernel's record of written pages."""

from __future__ import annotations

import ctypes
import os
from collections.abc import Sequence
from functools import cache
from typing import Any

from effcc.runtime.fork import usable_threads

SOURCE = """
// Digests of ranges of memory, each an address and a number of bytes, and what the kernel knows of writes to them.
#include "effcc/digest.h"
#include "effcc/threads.h"
#include "effcc/written.h"

using namespace effcc;

static digest_keys keys;

struct memory { u64 address, bytes; };
struct digests { const memory* ranges; long n, next; digest* results; };
struct scans { int map; const u64* own; const memory* ranges; long n, next; int* found; int any; };
struct work { digests compared; scans tracked; };

static long claim(long& next) { return __atomic_fetch_add(&next, 1, __ATOMIC_RELAXED); }

// Pieces lie apart, where the hardware fetches nothing ahead: the beginning of the piece that comes then is asked for.
static void compute(digests& work, int team) {
  for (long i; (i = claim(work.next)) < work.n;) {
    if (i + team < work.n) {
      const memory& ahead = work.ranges[i + team];
      for (u64 at = 0; at < ahead.bytes && at < 2048; at += 64)
        __builtin_prefetch(reinterpret_cast<const char*>(ahead.address) + at, 0, 2);
    }
    const void* bytes = reinterpret_cast<const void*>(work.ranges[i].address);
    work.results[i] = digest_of(bytes, static_cast<long>(work.ranges[i].bytes), keys);
  }
}

static void scan(scans& work) {
  for (long i; (i = claim(work.next)) < work.n;) {
    const u64 begin = work.ranges[i].address, end = begin + work.ranges[i].bytes;
    work.found[i] = fetch_written(work.map, work.own, begin, end);
    if (work.found[i]) __atomic_store_n(&work.any, 1, __ATOMIC_RELAXED);
  }
}

extern "C" void effcc_set_keys(const void* random) {
  __builtin_memcpy(&keys, random, sizeof keys);
  for (u64& point : keys.points) point >>= 4;
}

// The digests of some ranges, and of others whether anything was written: what, by range, as fetch_written says it.
// The caller begins with what the kernel knows, other threads, while they wake, with the digests.
extern "C" int effcc_look(const memory* compared, long n, digest* results, int map, const u64* own,
                          const memory* tracked, long m, int* found, int threads) {
  work all = {{compared, n, 0, results}, {map, own, tracked, m, 0, found, 0}};
  parallel(threads, [](int thread, int team, void* context) {
    work& all = *static_cast<work*>(context);
    if (thread == 0) scan(all.tracked);
    compute(all.compared, team);
    scan(all.tracked);
  }, &all);
  return all.tracked.any;
}

// What is looked at in one turn: n ranges with their digests, and m of pages.
struct turn {
  const memory* compared;
  const digest* expected;
  long n;
  const memory* tracked;
  long m;
  const u64* own;
  long map;
};

// Whether all digests are the expected ones, and no page was written.
extern "C" int effcc_unchanged(const turn* look) {
  for (long i = 0; i < look->n; i++) {
    const void* bytes = reinterpret_cast<const void*>(look->compared[i].address);
    const digest now = digest_of(bytes, static_cast<long>(look->compared[i].bytes), keys);
    if (now.lanes[0] != look->expected[i].lanes[0] || now.lanes[1] != look->expected[i].lanes[1]) return 0;
  }
  for (const memory* range = look->tracked; range != look->tracked + look->m; range++)
    if (!untouched(static_cast<int>(look->map), look->own, range->address, range->address + range->bytes)) return 0;
  return 1;
}

extern "C" int effcc_open_written(int* files, const u64** own) { return open_written(files, own); }

extern "C" int effcc_register_written(int file, u64 address, u64 bytes) {
  return register_written(file, address, address + bytes);
}

extern "C" int effcc_own_pages(u64 address, u64 bytes) { return own_pages(address, address + bytes); }
"""

DIGEST_BYTES = 16
_KEY_BYTES = 2 * 4 * 512 + 64  # what digest.h's keys hold
SERIAL_BYTES = 1 << 17  # that are digested sooner by one thread; more wakes others, whom the program needs next anyway


class Ranges:
    """Ranges of memory, each an address and a number of bytes, as native code takes them."""

    def __init__(self, pairs: Sequence[tuple[int, int]]) -> None:
        self.pairs = tuple(pairs)
        self.array = (ctypes.c_uint64 * (2 * len(self.pairs)))(*(n for pair in self.pairs for n in pair))
        self.bytes = sum(size for _, size in self.pairs)

    def __len__(self) -> int:
        return len(self.pairs)

    def digests(self, threads: int) -> bytes:
        """The digest of each range, one after the other."""
        if not self.pairs:
            return b""
        return look(self, threads)[0]


NO_RANGES = Ranges(())


def look(
    compared: Ranges, threads: int, tracked: Ranges = NO_RANGES, map: int = -1, own: int = 0
) -> tuple[bytes, list[int]]:
    """The digest of each range of `compared`, one after the other; and for each range of `tracked` what the record of
    written pages behind `map` says of it (`fetch_written`; own: the address that it gave), empty if nothing was
    written."""
    results = ctypes.create_string_buffer(DIGEST_BYTES * len(compared))
    found = (ctypes.c_int * len(tracked))()
    threads = usable_threads(threads) if compared.bytes > SERIAL_BYTES else 1
    ranges = (compared.array, len(compared), results, map, own, tracked.array, len(tracked), found, threads)
    return (results.raw, list(found)) if watch_library()["look"](*ranges) else (results.raw, [])


class Turn:
    """What is looked at in one turn of native code, microseconds where it is little: the ranges `compared`, whose
    digests are `expected`, and those whose pages a record tracks, with its file and its address `own`."""

    def __init__(
        self, compared: Ranges, expected: bytes, tracked: Ranges = NO_RANGES, file: int = -1, own: int = 0
    ) -> None:
        digests = (ctypes.c_uint64 * (len(expected) // 8)).from_buffer_copy(expected)
        self._held = (compared.array, digests, tracked.array)
        compared_at, expected_at, tracked_at = map(ctypes.addressof, self._held)
        words = (compared_at, expected_at, len(compared), tracked_at, len(tracked), own, file)
        self._table = (ctypes.c_int64 * len(words))(*words)
        self._place, self._unchanged = ctypes.addressof(self._table), watch_library()["unchanged"]

    def unchanged(self) -> bool:
        """Whether all bytes are what they were, and no page was written since somebody last protected it."""
        made: int = self._unchanged(self._place)
        return made == 1


@cache
def watch_library() -> dict[str, Any]:
    """The functions of SOURCE, by their names there without `effcc_`, with keys drawn for this process."""
    from effcc.runtime.cache import CompileCache
    from effcc.target import detect

    array, pointer, long, number, word = ctypes.c_void_p, ctypes.c_void_p, ctypes.c_long, ctypes.c_int, ctypes.c_uint64
    functions = {
        "set_keys": ((pointer,), None),
        "look": ((array, long, pointer, number, pointer, array, long, array, number), number),
        "unchanged": ((pointer,), number),
        "open_written": ((array, pointer), number),
        "register_written": ((number, word, word), number),
        "own_pages": ((word, word), number),
    }
    library = CompileCache.default().load(SOURCE, detect(), openmp=True)
    found = {name: library.function(f"effcc_{name}", *signature) for name, signature in functions.items()}
    found["set_keys"](os.urandom(_KEY_BYTES))
    return found
