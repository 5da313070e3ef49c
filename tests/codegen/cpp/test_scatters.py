"""Scatters: threads and lanes share the axes along which their points are apart, and results stay the same."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from effcc.codegen.lower import lower
from effcc.ir.dependences import shared_axes
from effcc.ir.interpreter import run_kernel
from effcc.ir.parser import parse_kernel
from effcc.ir.schedule import PARALLEL, Loop, nodes
from effcc.ir.verifier import verify_any
from effcc.ir.verifier.schedules import verify_schedule
from effcc.passes.tiling.choose import choose
from effcc.runtime.cache import CompileCache
from effcc.target import Target, generic
from tests.codegen.cpp.running import run_nest

ROWS = """
    kernel @rows(X: f32[{rows},{width}], I: i64[{count}], S: f32[{count},{width}]) -> (Y: f32[{rows},{width}])
      over r={rows}, c={width}, i={count} {{
      Y[r,c] = X[r,c]
      Y[I[i],c] {combine}= S[i,c] for i, c
    }}
"""


@pytest.mark.parametrize("combine", ["add", "set", "max"])
@pytest.mark.parametrize("width", [1, 16, 37, 200])
def test_rows_that_meet_keep_their_order(target: Target, cache: CompileCache, width: int, combine: str) -> None:
    random = np.random.default_rng(width)
    kernel = parse_kernel(ROWS.format(rows=9, width=width, count=300, combine=combine))
    kernel, schedule = choose(kernel, target)
    verify_schedule(kernel, schedule)
    nest = lower(kernel, schedule)
    verify_any(nest)
    arrays: dict[str, Any] = {
        "X": random.standard_normal((9, width)).astype(np.float32),
        "I": random.integers(-1, 9, 300),  # -1: nowhere
        "S": random.standard_normal((300, width)).astype(np.float32),
    }
    meant = run_kernel(kernel, arrays)["Y"]
    found = []
    for threads in (1, 2, 3):
        found.append(np.full_like(meant, np.nan))
        run_nest(nest, {**arrays, "Y": found[-1]}, target, cache, threads=threads)
        np.testing.assert_allclose(found[-1], meant, rtol=1e-5, atol=1e-5)
    assert all((f == found[0]).all() for f in found)


def test_threads_share_what_is_apart() -> None:
    kernel = parse_kernel(ROWS.format(rows=900, width=768, count=4000, combine="add"))
    _, schedule = choose(kernel, generic("avx512"))
    (parallel,) = (n for _, n in nodes(schedule.body) if isinstance(n, Loop) and n.kind == PARALLEL)
    assert parallel.axis == "c" and parallel.step <= 768 // 2
    lanes = [n.axis for _, n in nodes(schedule.body) if isinstance(n, Loop) and n.together == "lanes"]
    assert lanes == ["c", "c"]


@pytest.mark.parametrize(
    ("statement", "apart"),
    [
        ("Y[I[i],c] add= S[i,c] for i, c", ("c",)),
        ("Y[I[i],I[i]] add= S[i,c] for i, c", ()),
        ("Y[I[i],c + 0 * i] add= S[i,c] for i, c", ()),
        ("Y[c,I[i]] add= S[i,c] for i, c", ()),  # the rows that were written with c in the other place
    ],
)
def test_only_an_index_by_itself_is_apart(statement: str, apart: tuple[str, ...]) -> None:
    head = "kernel @k(X: f32[8,8], I: i64[5], S: f32[5,8]) -> (Y: f32[8,8]) over r=8, c=8, i=5 { Y[r,c] = X[r,c] "
    assert shared_axes(parse_kernel(head + statement + " }")) == apart
