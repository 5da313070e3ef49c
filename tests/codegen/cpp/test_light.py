"""Products of bytes with light weights: eight of them are summed in i16, at the very bound of what it holds."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from effcc.codegen.cpp.vectorize import vectorize
from effcc.codegen.lower import lower
from effcc.ir.contraction import contraction
from effcc.ir.interpreter import run_vectors
from effcc.ir.parser import parse_kernel
from effcc.passes.tiling.choose import choose
from effcc.passes.tiling.dots import packed_product, vector_depth
from effcc.runtime.cache import CompileCache
from effcc.target import Target, generic
from tests.codegen.cpp.running import run_nest

ROWS, COLUMNS = 23, 37
BYTES = np.array([64, 0, 60, -64, 4, -64, 0, 0], np.int8)
"""Of either sign they add up to 128."""


@pytest.mark.parametrize("depth", [54, 7])
def test_sums_are_exact_at_the_bound(depth: int, target: Target, cache: CompileCache) -> None:
    text = f"""
        kernel @light(X: u8[{ROWS},{depth}], W: l8[{COLUMNS},{depth}]) -> (O: i32[{ROWS},{COLUMNS}])
          over m={ROWS}, n={COLUMNS}, k={depth} {{
          O[m,n] = sum<i32>(k: cast<i32>(X[m,k]) * cast<i32>(W[n,k]))
        }}
    """
    kernel = replace(parse_kernel(text), weights=frozenset({"W"}))
    machine = generic("avx2") if target.isa == "scalar" else target  # whose schedules scalars follow, too
    reading, schedule = choose(kernel, machine)
    nest, (pack,) = lower(reading, schedule), schedule.packs
    random = np.random.default_rng(depth)
    x = random.choice([0, 255], (ROWS, depth)).astype(np.uint8)
    x[0] = 255
    sets = np.stack([random.permutation(BYTES) for _ in range(COLUMNS * (depth // 16 + 1) * 2)])
    w = sets.reshape(COLUMNS, -1, 2, 4, 2).transpose(0, 1, 3, 2, 4).reshape(COLUMNS, -1)[:, :depth]
    panels = np.zeros((-(-COLUMNS // pack.width) * pack.width, -(-depth // 4) * 4), np.int8)
    panels[:COLUMNS, :depth] = w
    given: dict[str, Any] = {
        "X": x,
        "W": np.ascontiguousarray(panels.reshape(-1, pack.width, panels.shape[1] // 4, 4).transpose(0, 2, 1, 3)),
    }
    want = x.astype(np.int64) @ w.T.astype(np.int64)
    for run in ("interpreted", "compiled"):
        y = np.full((ROWS, COLUMNS), -1, np.int32)
        if run == "interpreted":
            run_vectors(vectorize(nest, machine), {**given, "O": y.reshape(-1)}, team=2)
        else:
            run_nest(nest, {**given, "O": y}, target, cache, quick=target.isa == "scalar")
        np.testing.assert_array_equal(y, want)


@pytest.mark.parametrize(("shape", "index", "depth"), [("9,32", "y + k,c", 16), ("7,3,32", "y,k,c", 4)])
def test_only_taps_of_windows_are_summed_beside_the_axis_of_the_sets(shape: str, index: str, depth: int) -> None:
    """Parts of what was one axis are no taps: sets do not lie along them."""
    text = f"""
        kernel @light(X: u8[{shape}], W: l8[8,32,3]) -> (O: i32[7,8]) over y=7, n=8, c=32, k=3 {{
          O[y,n] = sum<i32>(c, k: cast<i32>(X[{index}]) * cast<i32>(W[n,c,k]))
        }}
    """
    kernel = replace(parse_kernel(text), weights=frozenset({"W"}))
    product = contraction(kernel.statements[0], kernel.weights)
    assert product is not None
    packed = packed_product(kernel, product, generic("avx2"))
    assert packed is not None and packed.depth == "c"
    assert vector_depth(packed, 32, generic("avx2")) == depth
    assert vector_depth(packed, 32, generic("avx512_vnni")) == 4
