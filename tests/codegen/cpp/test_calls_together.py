"""Calls of one function are brought together where nothing between them is in the way, and are one call."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from effcc.codegen.cpp.calls_together import AT_ONCE, bring_together, calls_at_once, grouped
from effcc.codegen.cpp.printer import print_function
from effcc.ir.dtypes import f32
from effcc.ir.expr import Axis
from effcc.ir.loops import LoopNest, Tile
from effcc.ir.parser import parse_vectors
from effcc.ir.printer import print_vectors
from effcc.ir.vectors import Function
from effcc.runtime.cache import CompileCache
from effcc.target import Target
from tests.codegen.cpp.running import apply, at, axes, param, run_nest, source_of

LOAD = "let x{n}: f32x8 = load<f32x8>(X[{at}])"
CALL = "let y{n}: f32x8 = erf(x{n})"
STORE = "do store(O[{at}], y{n})"


def function(*lines: str, called: str = "erf(f32x8)") -> Function:
    return parse_vectors(f"vectors @f(X: f32, O: f32;) calls {called} {{ {' '.join(lines)} }}")


def one_after_the_other(count: int, between: str = "") -> Function:
    lines = (line.format(n=n, at=8 * n) for n in range(count) for line in (LOAD, CALL, STORE, between))
    return function(*lines)


def sizes(made: Function) -> list[int]:
    """How many vectors each call is for, in order."""
    groups = grouped(made.body, made.called)
    return [len(group) for group in groups if any(getattr(x, "name", "").startswith("y") for x in group)]


@pytest.mark.parametrize(("count", "calls"), [(1, [1]), (2, [2]), (AT_ONCE, [AT_ONCE]), (AT_ONCE + 2, [AT_ONCE, 2])])
def test_calls_that_follow_each_other_are_one_for_as_many_vectors_as_fit(count: int, calls: list[int]) -> None:
    made = bring_together(one_after_the_other(count))
    assert sizes(made) == calls
    assert {n for _, _, n in calls_at_once(made)} == {n for n in calls if n > 1}


def test_all_lines_stay_and_each_after_what_it_needs() -> None:
    before = one_after_the_other(5)
    after = bring_together(before)
    assert sorted(map(str, after.body)) == sorted(map(str, before.body))
    parse_vectors(print_vectors(after))  # a name that is read before it is defined is refused


@pytest.mark.parametrize("between", [
    "do store(X[{at}], y{n})",  # may be what the next one loads
    "do check<0>(bool(true), [0], [0])",  # what follows may not be read
    "loop i{n} in [0]..[2] step 1 {{ do store(O[i{n}], f32(0.0)) }}",
    "barrier",
])  # fmt: skip
def test_nothing_moves_past_what_may_change_it(between: str) -> None:
    assert sizes(bring_together(one_after_the_other(3, between))) == [1, 1, 1]


def test_registers_that_change_stay_before_what_reads_them_then() -> None:
    lines = ["registers f32x8 r", LOAD.format(n=0, at=0), CALL.format(n=0), "set r = y0", "let x1: f32x8 = add(r, r)"]
    assert sizes(bring_together(function(*lines, CALL.format(n=1)))) == [1, 1]


def test_a_call_of_what_another_gives_is_one_of_its_own() -> None:
    chain = function(LOAD.format(n=0, at=0), CALL.format(n=0), "let y1: f32x8 = erf(y0)", STORE.format(n=1, at=0))
    assert sizes(bring_together(chain)) == [1, 1]


def test_functions_that_differ_stay_apart() -> None:
    lines = [LOAD.format(n=0, at=0), CALL.format(n=0), "let y1: f32x8 = tanh(x0)"]
    made = bring_together(function(*lines, called="erf(f32x8), tanh(f32x8)"))
    assert sizes(made) == [1, 1]


def test_a_call_for_several_vectors_is_printed_as_one() -> None:
    text = print_function(bring_together(one_after_the_other(2))).text
    assert "f32x<8> y0, y1;" in text
    assert "call_erf(y0, y1, x0, x1);" in text


@pytest.mark.parametrize("name", ["erf", "tanh"])
def test_calls_for_several_vectors_compute_what_each_alone_does(name: str, target: Target, cache: CompileCache) -> None:
    rows, columns = Axis("i"), Axis("j")
    tile = Tile(
        axes(("i", 5, "unroll"), ("j", 32, "lanes")), "O", (rows, columns), "set", apply(name, at("X", rows, columns))
    )
    nest = LoopNest("g", (param("X", f32, 5, 32),), (param("O", f32, 5, 32),), (tile,))
    assert ("EFFCC_INTERLEAVED" in source_of(nest, target)) == (target.vector_bytes > 4)
    x = torch.linspace(-5, 5, 160).reshape(5, 32)
    x[0, :3] = torch.tensor([torch.nan, torch.inf, -torch.inf])
    arrays = {"X": x.numpy(), "O": np.zeros((5, 32), np.float32)}
    run_nest(nest, arrays, target, cache)
    computed, wanted = torch.from_numpy(arrays["O"]), getattr(torch, name)(x)
    torch.testing.assert_close(computed, wanted, rtol=5e-7, atol=0, equal_nan=True)
