"""Functions of vectors agree with the loops that they come from, in their text, types and meaning; who writes C++."""

from __future__ import annotations

import ast
import re
from pathlib import Path

import numpy as np
import pytest

import effcc.codegen.cpp as room
from effcc.codegen.cpp.outline import outline
from effcc.codegen.cpp.printer import print_called
from effcc.codegen.cpp.vectorize import vectorize
from effcc.ir.dtypes import f32, i64
from effcc.ir.expr import Expr
from effcc.ir.interpreter import run_loops, run_vectors
from effcc.ir.loops import LoopNest, Tile
from effcc.ir.parser import parse_vectors
from effcc.ir.printer import print_vectors
from effcc.ir.vectors import Barrier
from effcc.ir.verifier import verify_vectors
from effcc.target import generic
from tests.codegen.cpp.running import apply, at, axes, index, loop, names, number, param
from tests.codegen.cpp.test_random import random_arrays, random_nest

i, j = names("i j")
X = at("X", i, j, dtype=i64)


@pytest.mark.parametrize(("seed", "isa"), [(0, "avx512"), (1, "scalar"), (2, "avx2"), (3, "avx512")])
def test_vectors_compute_what_their_loops_do_whatever_the_team(seed: int, isa: str) -> None:
    nest = random_nest(seed)
    function = vectorize(nest, generic(isa))
    assert parse_vectors(print_vectors(function)) == function
    verify_vectors(function)
    arrays = random_arrays(seed)
    want = run_loops(nest, arrays)
    for team in (1, 3):
        got = {o.name: np.zeros(o.type.shape, o.type.dtype.numpy) for o in nest.outputs}
        run_vectors(function, {**arrays, **got}, {}, team)
        for name, array in got.items():
            np.testing.assert_allclose(array, want[name], rtol=1e-4, atol=1e-4, err_msg=f"{name} by {team} threads")


def phases() -> LoopNest:
    """A parallel loop, the first thread's own statement, and another loop that reads what it wrote."""
    row = axes(("j", 40, "lanes"))
    body = (
        loop("i", 30, 1, (Tile(row, "T", (i, j), "set", apply("mul", at("X", i, j), number(3.0))),), "parallel"),
        Tile(axes(("i", 30, "loop"), ("j", 40, "lanes")), "S", (j,), "add", at("T", i, j)),
        loop("i", 30, 1, (Tile(row, "O", (i, j), "set", apply("sub", at("T", i, j), at("S", j))),), "parallel"),
    )
    outputs = (param("T", f32, 30, 40), param("S", f32, 40), param("O", f32, 30, 40))
    return LoopNest("phases", (param("X", f32, 30, 40),), outputs, body)


def run_phases(function: object, team: int) -> np.ndarray:  # type: ignore[type-arg]
    x = np.random.default_rng(3).standard_normal((30, 40)).astype(np.float32)
    arrays = {"X": x, "T": np.zeros_like(x), "S": np.zeros(40, np.float32), "O": np.zeros_like(x)}
    run_vectors(function, arrays, {}, team)  # type: ignore[arg-type]
    return arrays["O"] - (3 * x - 3 * x.sum(0))


def test_threads_wait_where_one_needs_what_another_wrote_and_the_interpreter_sees_where_they_do_not() -> None:
    function = vectorize(phases(), generic("avx2"))
    assert np.abs(run_phases(function, 3)).max() < 1e-3
    hasty = parse_vectors(print_vectors(function).replace("  barrier\n", ""))
    assert not any(isinstance(line, Barrier) for line in hasty.lines)
    assert np.abs(run_phases(hasty, 3)).max() > 1


def test_frequent_transcendentals_are_found_among_the_nodes() -> None:
    body = (Tile(axes(("i", 4, "unroll"), ("j", 32, "lanes")), "O", (i, j), "set", apply("erf", at("X", i, j))),)
    nest = LoopNest("g", (param("X", f32, 4, 32),), (param("O", f32, 4, 32),), body)
    function = outline(vectorize(nest, generic("avx512")))
    assert sorted(map(str, function.called)) == ["('erf', f32x16)"]
    assert parse_vectors(print_vectors(function)) == function


def integers(function: str, divisor: Expr) -> LoopNest:
    """O = X / Y, or its rest, of vectors of integers."""
    body = (Tile(axes(("i", 4, "unroll"), ("j", 32, "lanes")), "O", (i, j), "set", apply(function, X, divisor)),)
    return LoopNest("g", tuple(param(n, i64, 4, 32) for n in "XY"), (param("O", i64, 4, 32),), body)


def test_frequent_divisions_of_vectors_are_calls() -> None:
    function = outline(vectorize(integers("floordiv", at("Y", i, j, dtype=i64)), generic("avx2")))
    ((name, type),) = function.called
    assert name == "floordiv"
    assert "return floor_divide(x, y);" in print_called((name, type))


@pytest.mark.parametrize(("function", "quick"), [("floordiv", "shr"), ("mod", "and")])
def test_vectors_are_divided_by_powers_of_two_without_a_division(function: str, quick: str) -> None:
    nest = integers(function, index(8))
    made = vectorize(nest, generic("avx2"))
    assert f"{quick}(" in print_vectors(made)
    assert f"{function}(" not in print_vectors(made)
    least = np.iinfo(np.int64).min
    x = np.resize(np.array([*range(-17, 17), least, least + 1, -(least + 1)]), (4, 32))
    arrays = {"X": x, "Y": np.ones_like(x), "O": np.zeros_like(x)}
    run_vectors(made, arrays, {}, 1)
    np.testing.assert_array_equal(arrays["O"], run_loops(nest, {"X": x, "Y": arrays["Y"]})["O"])


PRINTERS = {"printer", "expression_text", "spelling", "words", "sizes"}
PROGRAMS = {"program", "units", "standalone", "joins", "checks"}
"""The modules that lay out C++: vectors, and programs around them."""
_CPP = re.compile(r"[;{}]\s*$|\bconst |\(\{|&&|->\w|::|<\{|\bi64\(|#include|\bstatic\b")


def test_only_printers_write_cpp() -> None:
    """No string in a module that makes vectors is C++ text."""
    writers = set()
    for path in sorted(Path(next(iter(room.__path__))).glob("*.py")):
        tree = ast.parse(path.read_text(encoding="utf-8"))
        prose = {id(node.value) for node in ast.walk(tree) if isinstance(node, ast.Expr)}
        raised = {id(part) for node in ast.walk(tree) if isinstance(node, ast.Raise) for part in ast.walk(node)}
        texts = [n for n in ast.walk(tree) if isinstance(n, ast.Constant) and id(n) not in prose | raised]
        if any(isinstance(n.value, str) and _CPP.search(n.value) for n in texts):
            writers.add(path.stem)
    assert writers - PROGRAMS <= PRINTERS, f"{writers - PRINTERS - PROGRAMS} hold what looks like C++"
    assert {"printer", "expression_text"} <= writers
