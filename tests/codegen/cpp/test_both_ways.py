"""Kernels that sum a matrix both ways, from text to machine code: in tiles, of which masks leave some out."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from effcc.codegen.lower import lower
from effcc.ir.dependences import Crossing, both_ways
from effcc.ir.dtypes import f64
from effcc.ir.interpreter import run_kernel, run_loops
from effcc.ir.kernel import Kernel, Param
from effcc.ir.masks import mask_of
from effcc.ir.parser import parse_kernel, parse_schedule
from effcc.ir.printer import print_loops
from effcc.ir.verifier import verify_any
from effcc.ir.verifier.schedules import verify_schedule
from effcc.passes.columns import with_columns
from effcc.passes.fusion.polyhedra import guard_accesses
from effcc.passes.tiling import choose as choosing
from effcc.passes.tiling.both_ways import tiles_both_ways
from effcc.passes.tiling.choose import choose
from effcc.passes.tiling.merge import merge_axes
from effcc.runtime.cache import CompileCache
from effcc.target import Target, generic
from tests.codegen.cpp.running import run_nest

SEES = {
    "all": "S[b,g,m,n]",
    "up to its own": "where(n <= m, S[b,g,m,n], -inf)",
    "a window": "S[b,g,m,n] + where(n > sub(m, 5) and n <= m, 0.0, -inf)",
    "what data say": "where(B[m,n] < 0.5, S[b,g,m,n], -inf)",
}


def gradients(sees: str, groups: int, rows: int, keys: int, depth: int, more: str = "", shape: str = "") -> Kernel:
    """Of attention of two heads of keys, which `groups` heads of queries share."""
    return parse_kernel(f"""
        kernel @gradients(Q: f32[2,{groups},{rows},{depth}], K: f32[2,{keys},{depth}], V: f32[2,{keys},{depth}],
                          O: f32[2,{groups},{rows},{depth}], L: f32[2,{groups},{rows}], R: f32[2,{groups},{rows}],
                          B: f32[{rows},{keys}])
          -> (X: f32[2,{groups},{rows},{depth}], Y: f32[2,{keys},{depth}], Z: f32[2,{keys},{depth}]{shape})
          over b=2, g={groups}, m={rows}, n={keys}, k={depth}, d={depth}, e={depth}, f={depth} {{
          S[b,g,m,n] = sum(k: Q[b,g,m,k] * K[b,n,k])
          P[b,g,m,n] = exp({sees} - L[b,g,m])
          Z[b,n,f] = sum(g, m: P[b,g,m,n] * O[b,g,m,f])
          D[b,g,m,n] = sum(d: O[b,g,m,d] * V[b,n,d])
          I[b,g,m,n] = P[b,g,m,n] * (D[b,g,m,n] - R[b,g,m])
          A[b,g,m,e] = sum(n: I[b,g,m,n] * K[b,n,e])
          X[b,g,m,e] = A[b,g,m,e] * 0.5
          C[b,n,f] = sum(g, m: I[b,g,m,n] * Q[b,g,m,f])
          Y[b,n,f] = C[b,n,f] * 0.5
          {more}
        }}""")


def small_tiles(monkeypatch: pytest.MonkeyPatch, queries: int, keys: int) -> None:
    def small(kernel: Kernel, target: Target, rank: int = 0) -> Any:
        return replace(tiles_both_ways(kernel, target, rank), queries=queries, keys=keys)

    monkeypatch.setattr(choosing, "tiles_both_ways", small)


def sizes(p: Param) -> list[int]:
    return [int(n) for n in p.type.shape]


def arrays_of(kernel: Kernel) -> dict[str, np.ndarray[Any, Any]]:
    random = np.random.default_rng(0)
    return {p.name: random.random(sizes(p), np.float32) for p in kernel.params}


def computed(kernel: Kernel, target: Target, cache: CompileCache) -> str:
    """Compare machine code and interpreted loops with the kernel in f64; the loops' text."""
    arrays = arrays_of(kernel)
    meant = run_kernel(kernel, arrays, dtype=f64)
    kernel = with_columns(guard_accesses(merge_axes(kernel)))
    verify_any(kernel)
    kernel, schedule = choose(kernel, target)
    verify_schedule(kernel, schedule)
    nest = lower(kernel, schedule)
    verify_any(nest)
    given = {p.name: arrays[p.name].reshape(sizes(p)) for p in kernel.params}
    found = {p.name: np.full(sizes(p), np.nan, np.float32) for p in kernel.outputs}
    run_nest(nest, {**given, **found}, target, cache, {}, 2)
    for got in (found, run_loops(nest, given)):
        for name, value in meant.items():
            np.testing.assert_allclose(got[name].reshape(value.shape), value, rtol=1e-4, atol=2e-5)
    return print_loops(nest)


@pytest.mark.parametrize(
    ("sees", "groups", "rows", "keys"),
    [("all", 3, 20, 18), ("up to its own", 1, 14, 26), ("a window", 2, 15, 20), ("what data say", 1, 9, 14)],
    ids=str,
)
def test_tiles_add_up(
    sees: str, groups: int, rows: int, keys: int,
    target: Target, cache: CompileCache, monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    """In tiles that do not divide, of which some are seen by no row; of the columns, too: their sums are 0."""
    small_tiles(monkeypatch, queries=6, keys=8)
    loops = computed(gradients(SEES[sees], groups, rows, keys, 8), target, cache)
    assert ("n_end" in loops) == (sees in ("up to its own", "a window"))


def test_large_tiles(cache: CompileCache) -> None:
    computed(gradients(SEES["up to its own"], 1, 130, 140, 20), generic("avx2"), cache)


def test_a_matrix_that_is_kept_or_reads_its_sums_is_not_summed_both_ways() -> None:
    assert both_ways(gradients(SEES["all"], 3, 20, 30, 8)) == Crossing(("g", "m"), "n")
    kept = ", W: f32[2,3,20,30]"
    assert both_ways(gradients(SEES["all"], 3, 20, 30, 8, "W[b,g,m,n] = I[b,g,m,n] * 2.0", kept)) is None
    last = ", W: f32[2,30,8]"
    again = "T[b,g,m,n] = I[b,g,m,n] * X[b,g,m,0]\nW[b,n,f] = sum(g, m: T[b,g,m,n] * Q[b,g,m,f])"
    assert both_ways(gradients(SEES["all"], 3, 20, 30, 8, again, last)) is None
    elsewhere = "W[b,n,f] = sum(g, m: I[b,g,m,29 - n] * Q[b,g,m,f])"
    assert both_ways(gradients(SEES["all"], 3, 20, 30, 8, elsewhere, last)) is None


def test_a_sum_that_needs_all_points_leaves_no_mask() -> None:
    seen = gradients(SEES["up to its own"], 1, 20, 30, 8)
    assert mask_of(seen) is not None
    scores = "W[b,n,f] = sum(g, m: S[b,g,m,n] * Q[b,g,m,f])"
    assert mask_of(gradients(SEES["up to its own"], 1, 20, 30, 8, scores, ", W: f32[2,30,8]")) is None


def test_columns_that_no_row_sees_are_written_whatever_the_schedule(target: Target, cache: CompileCache) -> None:
    """Columns outside: their sums begin and end inside of the loop over them, of which no tile may be passed over."""
    kernel = parse_kernel("""
        kernel @sums(Q: f32[2,9,4], K: f32[2,20,4]) -> (X: f32[2,9,4], Z: f32[2,20,4])
          over b=2, m=9, n=20, k=4, e=4, f=4 {
          S[b,m,n] = sum(k: Q[b,m,k] * K[b,n,k])
          P[b,m,n] = exp(where(n <= m, S[b,m,n], -inf) - 1.0)
          X[b,m,e] = sum(n: P[b,m,n] * K[b,n,e])
          Z[b,n,f] = sum(m: P[b,m,n] * Q[b,m,f])
        }""")
    assert mask_of(kernel) is not None
    schedule = parse_schedule("""schedule @sums {
      parallel b by 1 {
        hold X in local {
          for n by 5 {
            hold Z in local {
              for m by 3 {
                hold S, P in local {
                  for m by 1, n by 1 {
                    hold S in registers {
                      for k by 1 { do S }
                    }
                    do P
                  }
                  for m by 1, e by 4 lanes {
                    hold X in registers {
                      for n by 1 { do X }
                    }
                  }
                  for n by 1, f by 4 lanes {
                    hold Z in registers {
                      for m by 1 { do Z }
                    }
                  }
                }
              }
            }
          }
        }
      }
    }""").check(kernel)
    arrays = arrays_of(kernel)
    meant = run_kernel(kernel, arrays, dtype=f64)
    nest = lower(kernel, schedule)
    found = {p.name: np.full(meant[p.name].shape, np.nan, np.float32) for p in kernel.outputs}
    run_nest(nest, {**arrays, **found}, target, cache, {}, 2)
    for name, value in meant.items():
        np.testing.assert_allclose(found[name], value, rtol=1e-4, atol=2e-5)
