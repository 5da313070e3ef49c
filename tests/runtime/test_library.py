"""Generated libraries load, and what is not one is refused."""

from __future__ import annotations

import ctypes
from pathlib import Path

import numpy as np
import pytest

from effcc.errors import ToolchainError
from effcc.runtime.cache import CompileCache
from effcc.runtime.library import Library
from effcc.target import detect

SCALE = """
#include <stdint.h>
extern "C" int effcc_run(void **buffers, const int64_t *sizes, void *arena, int threads, int64_t *fault) {
  const float *x = (const float *)buffers[0];
  float *y = (float *)buffers[1];
  for (int64_t i = 0; i < sizes[0]; ++i) y[i] = x[i] * threads;
  return 0;
}
"""


def test_the_entry_point_reads_and_writes_the_callers_buffers(cache: CompileCache) -> None:
    run = cache.load(SCALE, detect()).entry_point()
    x, y = np.arange(5, dtype=np.float32), np.zeros(5, dtype=np.float32)
    buffers = (ctypes.c_void_p * 2)(x.ctypes.data, y.ctypes.data)
    assert run(buffers, (ctypes.c_int64 * 1)(5), None, 3) == 0
    np.testing.assert_array_equal(y, 3 * x)


def test_a_function_that_is_not_there_is_an_error(cache: CompileCache) -> None:
    library = cache.load(SCALE, detect())
    with pytest.raises(ToolchainError, match="no function 'other'"):
        library.function("other")


def test_a_file_that_is_no_library_is_an_error(tmp_path: Path) -> None:
    (tmp_path / "a.so").write_text("not a library")
    with pytest.raises(ToolchainError, match="cannot load"):
        Library(tmp_path / "a.so")
