"""One-pass kernels, from text to machine code: masks of positions bound their loops, keys are turned for lanes."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from effcc.codegen.lower import lower
from effcc.ir.dtypes import f64
from effcc.ir.interpreter import run_kernel, run_loops
from effcc.ir.kernel import Kernel
from effcc.ir.parser import parse_kernel
from effcc.ir.printer import print_loops
from effcc.ir.verifier import verify_any
from effcc.ir.verifier.schedules import verify_schedule
from effcc.passes.columns import with_columns
from effcc.passes.fusion.online import make_online
from effcc.passes.fusion.polyhedra import guard_accesses
from effcc.passes.tiling import choose as choosing
from effcc.passes.tiling.choose import choose
from effcc.passes.tiling.merge import merge_axes
from effcc.passes.tiling.online import online_of
from effcc.runtime.cache import CompileCache
from effcc.target import Target, generic
from tests.codegen.cpp.running import run_nest

Arrays = dict[str, np.ndarray[Any, Any]]

SEES = {
    "up to its own": "where(n <= m, S[b,m,n], -inf)",
    "a window": "S[b,m,n] + where(n > sub(m, 5) and n <= m, 0.0, -inf)",
    "a window ahead": "where(n >= m + 3 and n < m + 20, S[b,m,n], -inf)",
    "up to a position": "S[b,m,n] + where(n <= I[] + m, 0.0, -inf)",
    "every third row more": "where(3 * n < m, S[b,m,n], -inf)",
    "what data say": "where(B[m,n] < 0.5, S[b,m,n], -inf)",
}


def attention(
    sees: str, heads: int, rows: int | str, keys: int | str, depth: int, width: int, strides: str = ""
) -> Kernel:
    """`strides`: of the queries if their rows lie side by side, as text in braces."""
    kernel = parse_kernel(f"""
        kernel @attention(Q: f32[{heads},{rows},{depth}]{strides}, K: f32[{heads},{keys},{depth}],
                          V: f32[{heads},{keys},{width}], I: i64[], B: f32[{rows},{keys}])
          -> (O: f32[{heads},{rows},{width}]) over b={heads}, m={rows}, n={keys}, k={depth}, f={width} {{
          S[b,m,n] = sum(k: Q[b,m,k] * K[b,n,k])
          W[b,m,n] = {sees}
          M[b,m] = max(n: W[b,m,n])
          P[b,m,n] = exp(W[b,m,n] - where(M[b,m] == -inf, 0.0, M[b,m]))
          D[b,m] = sum(n: P[b,m,n])
          A[b,m,n] = P[b,m,n] / where(D[b,m] == 0.0, 1.0, D[b,m])
          O[b,m,f] = sum(n: A[b,m,n] * V[b,n,f])
        }}""")
    kernel = make_online(kernel)
    assert any(s.reduction is not None and s.reduction.rescale is not None for s in kernel.statements)
    return with_columns(guard_accesses(merge_axes(kernel)))


def computed(kernel: Kernel, shape: tuple[int, ...], target: Target, cache: CompileCache, position: int = 2) -> str:
    """Compare machine code and interpreted loops with the kernel in f64; the loops' text."""
    heads, rows, keys, depth, width = shape
    random = np.random.default_rng(0)
    arrays: Arrays = {
        "Q": random.standard_normal((heads, rows, depth), np.float32),
        "K": random.standard_normal((heads, keys, depth), np.float32),
        "V": random.standard_normal((heads, keys, width), np.float32),
        "I": np.array(position),
        "B": random.random((rows, keys), np.float32),
    }
    verify_any(kernel)
    kernel, schedule = choose(kernel, target)
    verify_schedule(kernel, schedule)
    nest = lower(kernel, schedule)
    verify_any(nest)
    sizes = {name: n for name, n in (("rows", rows), ("keys", keys)) if name in nest.sizes}
    if kernel.params[0].type.layout[-1] != 1:
        arrays["Q"] = np.ascontiguousarray(arrays["Q"].swapaxes(1, 2)).swapaxes(1, 2)
    arrays = {p.name: arrays[p.name] for p in kernel.params}
    meant = run_kernel(kernel, arrays, sizes, dtype=f64)["O"]
    found = {"O": np.full(meant.shape, np.nan, np.float32)}
    run_nest(nest, {**arrays, **found}, target, cache, sizes, 2)
    for got in (found["O"], run_loops(nest, arrays, sizes)["O"]):
        np.testing.assert_allclose(got, meant, rtol=1e-4, atol=2e-5)
    return print_loops(nest)


def small_tiles(monkeypatch: pytest.MonkeyPatch, queries: int, keys: int = 8) -> None:
    def small(kernel: Kernel, target: Target, rank: int = 0) -> Any:
        rows, tiles = online_of(kernel, target, rank)
        return rows, replace(tiles, queries=queries, keys=keys)

    monkeypatch.setattr(choosing, "online_of", small)


@pytest.mark.parametrize("sees", list(SEES.values())[2:], ids=list(SEES)[2:])
def test_rows_see_what_their_mask_says(
    sees: str, target: Target, cache: CompileCache, monkeypatch: pytest.MonkeyPatch
) -> None:
    """In tiles that do not divide, of which some are seen by no row, some by all, and rows that see nothing at all."""
    small_tiles(monkeypatch, queries=6)
    loops = computed(attention(sees, 2, 27, 30, 8, 12), (2, 27, 30, 8, 12), target, cache)
    assert ("n_end" in loops or "n_first" in loops) == (sees != SEES["what data say"])


@pytest.mark.parametrize("shape", [(3, 2, 70, 16, 20), (2, 65, 130, 16, 8)], ids=str)
def test_any_sizes(shape: tuple[int, ...], target: Target, cache: CompileCache) -> None:
    computed(attention(SEES["a window"], *shape), shape, target, cache)


def test_sizes_known_at_run_time(target: Target, cache: CompileCache, monkeypatch: pytest.MonkeyPatch) -> None:
    """In small tiles: every border of a tile has code of its own, which is long for large ones."""
    small_tiles(monkeypatch, queries=6)
    shape = (2, 50, 90, 8, 16)
    computed(attention(SEES["up to its own"], 2, "rows", "keys", 8, 16), shape, target, cache)


def test_rows_that_lie_side_by_side_are_lanes_of_scores(
    target: Target, cache: CompileCache, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The queries of a cache's prefill: what all rows see is asked once, for the tile, and not lane by lane."""
    small_tiles(monkeypatch, queries=16)
    computed(attention(SEES["up to its own"], 2, 32, 32, 8, 8, "{256,1,32}"), (2, 32, 32, 8, 8), target, cache)


def test_what_all_rows_see_is_computed_without_a_condition() -> None:
    kernel, schedule = choose(attention(SEES["up to its own"], 2, 256, 256, 16, 16), generic("avx512"))
    loops = print_loops(lower(kernel, schedule))
    assert loops.count("where(true, ") == loops.count("where(n_") > 0


def test_sums_are_rescaled_by_what_is_computed_once_a_turn() -> None:
    kernel, schedule = choose(attention(SEES["up to its own"], 2, 256, 256, 16, 16), generic("avx512"))
    lines = print_loops(lower(kernel, schedule)).splitlines()
    assert any("O_sum_local_total_1[" in line and "* M_local_factor[" in line for line in lines)
    assert all("M_local_factor[" in line for line in lines if "exp(M_local_before" in line)
