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
struct work { const memory* ranges; long n, next; digest* results; };

extern "C" void effcc_set_keys(const void* random) {
  __builtin_memcpy(&keys, random, sizeof keys);
  for (u64& point : keys.points) point >>= 4;
}

extern "C" void effcc_digest(const memory* ranges, long n, digest* results, int threads) {
  work all = {ranges, n, 0, results};
  parallel(threads, [](int, int, void* context) {
    work& all = *static_cast<work*>(context);
    for (long i; (i = __atomic_fetch_add(&all.next, 1, __ATOMIC_RELAXED)) < all.n;) {
      const void* bytes = reinterpret_cast<const void*>(all.ranges[i].address);
      all.results[i] = digest_of(bytes, static_cast<long>(all.ranges[i].bytes), keys);
    }
  }, &all);
}

extern "C" int effcc_open_written(int* files) { return open_written(files); }

extern "C" int effcc_register_written(int file, u64 address, u64 bytes) {
  return register_written(file, address, address + bytes);
}

extern "C" int effcc_own_pages(u64 address, u64 bytes) { return own_pages(address, address + bytes); }

// Whether anything was found: what, by range, as fetch_written says it.
extern "C" int effcc_fetch_written(int map, int pid, const memory* ranges, long n, int* found) {
  int any = 0;
  for (long i = 0; i < n; ++i) {
    found[i] = fetch_written(map, pid, ranges[i].address, ranges[i].address + ranges[i].bytes);
    any |= found[i] != 0;
  }
  return any;
}
"""

DIGEST_BYTES = 16
_KEY_BYTES = 2 * 4 * 512 + 64  # what digest.h's keys hold
_SERIAL_BYTES = 1 << 17  # that are digested sooner by one thread; more wakes others, whom the program needs next anyway


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
        results = ctypes.create_string_buffer(DIGEST_BYTES * len(self.pairs))
        threads = usable_threads(threads) if self.bytes > _SERIAL_BYTES else 1
        watch_library()["digest"](self.array, len(self.pairs), results, threads)
        return results.raw


@cache
def watch_library() -> dict[str, Any]:
    """The functions of SOURCE, by their names there without `effcc_`, with keys drawn for this process."""
    from effcc.runtime.cache import CompileCache
    from effcc.target import detect

    array, pointer, long, number, word = ctypes.c_void_p, ctypes.c_void_p, ctypes.c_long, ctypes.c_int, ctypes.c_uint64
    functions = {
        "set_keys": ((pointer,), None),
        "digest": ((array, long, pointer, number), None),
        "open_written": ((array,), number),
        "register_written": ((number, word, word), number),
        "own_pages": ((word, word), number),
        "fetch_written": ((number, number, array, long, array), number),
    }
    library = CompileCache.default().load(SOURCE, detect(), openmp=True)
    found = {name: library.function(f"effcc_{name}", *signature) for name, signature in functions.items()}
    found["set_keys"](os.urandom(_KEY_BYTES))
    return found
