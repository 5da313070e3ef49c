"""Kernels that share a matrix, along whose rows some sum and along whose columns others, become one."""

from __future__ import annotations

import re
from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from effcc.ir.dependences import both_ways
from effcc.ir.interpreter import run_program
from effcc.ir.parser import parse_program
from effcc.ir.program import Launch, Program
from effcc.ir.verifier import verify_program
from effcc.passes.both_ways import sum_both_ways
from effcc.target import generic

GRADIENTS = """
program @main(q, k, o) -> (x, y, z) {
  buffer q: f32[4,64,8] in input
  buffer k: f32[4,80,8] in input
  buffer o: f32[4,64,8] in input
  buffer p: f32[4,64,80] in arena
  buffer d: f32[4,64,80] in arena
  buffer r: f32[4,64] in arena
  buffer x: f32[4,64,8] in output
  buffer y: f32[4,80,8] in output
  buffer z: f32[4,80,8] in output
  kernel @points(x0: f32[4,64,8], x1: f32[4,80,8], x2: f32[4,64,8]) -> (exp: f32[4,64,80], sum: f32[4,80,8])
    over b=4, m=64, n=80, k=8, n0=8 {
    einsum[b,m,n] = sum(k: x0[b,m,k] * x1[b,n,k])
    exp[b,m,n] = exp(einsum[b,m,n] * 0.1)
    sum[b,n,n0] = sum(m: exp[b,m,n] * x2[b,m,n0])
  }
  kernel @rows(x0: f32[4,64,8]) -> (sum: f32[4,64]) over i=4, m=64, r=8 {
    sum[i,m] = sum(r: x0[i,m,r] * x0[i,m,r])
  }
  kernel @weigh(x0: f32[4,64,80], x1: f32[4,64], x2: f32[4,80,8]) -> (mul: f32[4,64,80], dot: f32[4,64,8])
    over i=4, j=64, n=80, f=8 {
    mul[i,j,n] = x0[i,j,n] * x1[i,j]
    dot[i,j,f] = sum(n: mul[i,j,n] * x2[i,n,f])
  }
  kernel @columns(x0: f32[4,64,80], x1: f32[4,64,8]) -> (dot: f32[4,80,8]) over b=4, m=80, n=8, k=64 {
    dot[b,m,n] = sum(k: x0[b,k,m] * x1[b,k,n])
  }
  main {
    launch @points(q, k, o) -> (p, z)
    launch @rows(o) -> (r)
    launch @weigh(p, r, k) -> (d, x)
    launch @columns(d, q) -> (y)
  }
}
"""


def joined(text: str, cores: int = 2) -> Program:
    """What comes of a program, which computes the same."""
    before = parse_program(text)
    after = sum_both_ways(before, replace(generic("avx512"), cores=cores))
    verify_program(after)
    random = np.random.default_rng(0)

    def arrays(program: Program) -> list[np.ndarray[Any, Any]]:
        shapes = [[int(n) for n in program.buffer(name).type.shape] for name in program.inputs]
        return [random.standard_normal(shape).astype(np.float32) for shape in shapes]

    given = arrays(before)
    for expected, found in zip(run_program(before, given), run_program(after, given), strict=True):
        np.testing.assert_allclose(found, expected, rtol=1e-5, atol=1e-5)
    return after


def launched(program: Program) -> list[str]:
    return [s.kernel for s in program.steps if isinstance(s, Launch)]


def test_a_matrix_is_not_stored_where_all_that_reads_it_sums() -> None:
    after = joined(GRADIENTS)
    rows, whole = launched(after)
    assert rows == "rows"
    crossing = both_ways(after.kernels[whole])
    assert crossing is not None and (len(crossing.rows), len(after.kernels)) == (1, 2)
    assert {b.name for b in after.buffers if b.space == "arena"} == {"r"}
    assert len(after.kernels[whole].params) == 4  # k, which two kernels read, comes once


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ("-> (x, y, z)", "-> (x, y, z, d)"),  # the caller wants it
        ("@weigh(p, r, k)", "@weigh(p, s, k)"),  # what comes of its sums is read by its points
        ("x0[b,k,m] * x1[b,k,n]", "x0[b,k,79 - m] * x1[b,k,n]"),  # and at other points than its own
    ],
)
def test_otherwise_it_stays(old: str, new: str) -> None:
    text = GRADIENTS.replace(old, new)
    if "x, y, z, d" in new:
        text = text.replace("d: f32[4,64,80] in arena", "d: f32[4,64,80] in output")
    if ", s, " in new:
        late = "launch @points(q, k, o) -> (p, z)\n    launch @late(z) -> (s)"
        text = text.replace("launch @points(q, k, o) -> (p, z)", late)
        text = text.replace("buffer r:", "buffer s: f32[4,64] in arena\n  buffer r:")
        text = text.replace(
            "  main {",
            """  kernel @late(x0: f32[4,80,8]) -> (sum: f32[4,64]) over i=4, m=64, r=8 {
    sum[i,m] = sum(r: x0[i,m,r])
  }
  main {""",
        )
    assert text != GRADIENTS
    assert len(launched(joined(text))) >= 4


def test_what_puts_sums_together_comes_after_in_a_kernel_of_its_own() -> None:
    """As gradients of queries, keys and values that come of one product are put side by side."""
    beside = GRADIENTS
    for old, new in (
        ("-> (x, y, z)", "-> (x, y)"),
        ("z: f32[4,80,8] in output", "z: f32[4,80,8] in arena"),
        ("y: f32[4,80,8] in output", "y: f32[4,80,16] in output"),
        (
            "@columns(x0: f32[4,64,80], x1: f32[4,64,8]) -> (dot: f32[4,80,8]) over b=4, m=80, n=8, k=64",
            "@columns(x0: f32[4,64,80], x1: f32[4,64,8], x2: f32[4,80,8]) -> (cat: f32[4,80,16])"
            " over b=4, m=80, n=8, k=64, c=16",
        ),
        (
            "dot[b,m,n] = sum(k: x0[b,k,m] * x1[b,k,n])",
            "dot[b,m,n] = sum(k: x0[b,k,m] * x1[b,k,n])\n"
            "    cat[b,m,c] = where(c < 8, dot[b,m,c] * 0.5, x2[b,m,sub(c, 8)])",
        ),
        ("@columns(d, q)", "@columns(d, q, z)"),
    ):
        assert old in beside
        beside = beside.replace(old, new)
    after = joined(beside)
    _, whole, last = launched(after)
    assert both_ways(after.kernels[whole]) is not None and len(after.kernels[last].statements) == 1


def test_threads_have_enough_tasks() -> None:
    assert len(launched(joined(GRADIENTS, cores=3))) == 4
    assert len(launched(joined(GRADIENTS, cores=4))) == 2
    one = re.sub(r"(\[|=)4\b", r"\g<1>1", GRADIENTS)
    assert len(launched(joined(one, cores=1))) == 4


def test_what_reads_results_between_comes_after() -> None:
    twice = """
  kernel @twice(x0: f32[4,80,8]) -> (mul: f32[4,80,8]) over i=4, m=80, r=8 {
    mul[i,m,r] = x0[i,m,r] * 2.0
  }
  main {"""
    between = GRADIENTS
    for old, new in (
        ("-> (x, y, z)", "-> (x, y, w)"),
        ("z: f32[4,80,8] in output", "z: f32[4,80,8] in arena\n  buffer w: f32[4,80,8] in output"),
        ("launch @rows(o) -> (r)", "launch @twice(z) -> (w)\n    launch @rows(o) -> (r)"),
        ("\n  main {", twice),
    ):
        between = between.replace(old, new)
    assert launched(joined(between))[::2] == ["rows", "twice"]


def test_two_layers_share_the_kernel() -> None:
    again = GRADIENTS.replace("-> (x, y, z)", "-> (x, y, z, x1, y1, z1)")
    for name in ("p", "d", "x", "y", "z"):
        again = re.sub(rf"(  buffer {name}(: .*\n))", rf"\1  buffer {name}1\2", again)
    again = again.replace(
        "    launch @columns(d, q) -> (y)\n",
        """    launch @columns(d, q) -> (y)
    launch @points(q, k, o) -> (p1, z1)
    launch @weigh(p1, r, k) -> (d1, x1)
    launch @columns(d1, q) -> (y1)
""",
    )
    first, *whole = launched(joined(again))
    assert first == "rows" and len(whole) == 2 and len(set(whole)) == 1
