"""Products that are summed a group of the depth at a time, in registers of their own, and scaled into others."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from effcc.codegen.cpp.vectorize import vectorize
from effcc.codegen.lower import lower
from effcc.ir.interpreter import run_vectors
from effcc.ir.kernel import Kernel
from effcc.ir.parser import parse_kernel
from effcc.passes.tiling.choose import choose
from effcc.runtime.cache import CompileCache
from effcc.target import Target, generic
from tests.codegen.cpp.running import run_nest

KERNEL = """
    kernel @grouped(X: u8[7,3,12], W: i7[3,37,12], S: f32[3,37]) -> ({outputs}O: f32[7,37]) over m=7, n=37, g=3, j=12 {{
      P[m,n,g] = sum<i32>(j: cast<i32>(X[m,g,j]) * cast<i32>(W[g,n,j]))
      O[m,n] = sum(g: cast<f32>(P[m,n,g]) * S[g,n])
    }}
"""


def grouped(outputs: str = "") -> Kernel:
    return replace(parse_kernel(KERNEL.format(outputs=outputs)), weights=frozenset({"W", "S"}))


@pytest.mark.parametrize("machine", ["avx512_vnni", "avx2"])
def test_rests_of_rows_and_lanes_are_summed_too(machine: str, target: Target, cache: CompileCache) -> None:
    kernel, random = grouped(), np.random.default_rng(1)
    reading, schedule = choose(kernel, generic(machine))
    nest = lower(reading, schedule)
    x = random.integers(0, 256, (7, 3, 12), np.uint8)
    w = random.integers(-64, 64, (3, 37, 12), np.int8)
    s = random.standard_normal((3, 37)).astype(np.float32)
    want = np.einsum("mgn,gn->mn", np.einsum("mgj,gnj->mgn", x.astype(np.int64), w.astype(np.int64)), s.astype(float))
    given: dict[str, Any] = {"X": x}
    for wanted, array in zip(schedule.packs, (w, s), strict=True):
        whole = np.zeros((3, -(-37 // wanted.width) * wanted.width, *array.shape[2:]), array.dtype)
        whole[:, :37] = array
        panels = whole.reshape(3, -1, wanted.width, *((3, 4) if array.ndim == 3 else ()))
        order = (1, 0, 3, 2, 4) if array.ndim == 3 else (1, 0, 2)
        given[wanted.buffer] = np.ascontiguousarray(panels.transpose(order))
    for run in ("interpreted", "compiled"):
        y = np.full((7, 37), np.nan, np.float32)
        if run == "interpreted":
            run_vectors(vectorize(nest, generic(machine)), {**given, "O": y.reshape(-1)}, team=2)
        else:
            run_nest(nest, {**given, "O": y}, target, cache, threads=2)
        np.testing.assert_allclose(y, want, rtol=0, atol=1e-6 * np.abs(want).max())


def test_sums_of_groups_that_others_read_are_no_part_of_it() -> None:
    _, schedule = choose(grouped("P: i32[7,37,3], "), generic("avx512_vnni"))
    assert not any("groups" in note for note in schedule.notes)


MEAN = """
    kernel @pooled(X: b8[32,49]{1,32}, W: i8[40,32]) -> (O: f32[40]) over n=40, m=49, k=32 {
      P[n,m] = sum<i32>(k: cast<i32>(X[k,m]) * cast<i32>(W[n,k]))
      O[n] = sum(m: cast<f32>(P[n,m]))
    }
"""


def test_products_whose_rows_are_added_up_are_summed_by_packed_lanes() -> None:
    kernel = replace(parse_kernel(MEAN), weights=frozenset({"W"}))
    reading, schedule = choose(kernel, generic("avx2"))
    assert "P: packed lanes" in schedule.notes[0] and "groups" not in schedule.notes[0]
    random = np.random.default_rng(2)
    x, w = (random.integers(-127, 128, shape, np.int8) for shape in ((49, 32), (40, 32)))
    (pack,) = schedule.packs
    panels = w.reshape(-1, pack.width, 8, 4).transpose(0, 2, 1, 3)
    y = np.empty(40, np.float32)
    given = {"X": x.reshape(-1), pack.buffer: np.ascontiguousarray(panels), "O": y}
    run_vectors(vectorize(lower(reading, schedule), generic("avx2")), given)
    np.testing.assert_array_equal(y, (w.astype(np.int64) @ x.T.astype(np.int64)).sum(1))
