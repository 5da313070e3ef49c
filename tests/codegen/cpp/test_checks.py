"""Run-time checks see a fault in every lane that counts, on every target, and in none that does not."""

from __future__ import annotations

import functools
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from effcc.codegen.cpp.program import entry_points, pointer_table, size_table
from effcc.codegen.cpp.vectorize import vectorize
from effcc.codegen.lower import lower
from effcc.errors import OutOfRangeError, ZeroDivisorError
from effcc.ir.dtypes import DTYPES
from effcc.ir.interpreter import run_graph, run_vectors
from effcc.ir.parser import parse_graph, parse_kernel
from effcc.ir.verifier.vectors import verify_vectors
from effcc.passes.tiling.choose import choose
from effcc.runtime.arrays import aligned, allocate, enter
from effcc.runtime.cache import CompileCache
from effcc.steps import State, run_steps
from effcc.target import Target, generic
from tests.codegen.cpp.running import load

ROWS, WIDTH = 7, 37  # two vectors of 16 lanes and a tail; more rows than threads
SIZE = f"i64[{ROWS},{WIDTH}]"
GRAPHS = {
    "gather in lanes": (f"%x: f32[{ROWS},{WIDTH}], %i: {SIZE}", "gather %x, %i {axis=1} : f32[7,37]", WIDTH),
    "gather of rows": (f"%x: f32[{ROWS},{WIDTH}], %i: {SIZE}", "gather %x, %i {axis=0} : f32[7,37]", ROWS),
    "rows": (f"%x: f32[{ROWS},{WIDTH}], %i: i32[37]", "embedding %x, %i : f32[37,37]", ROWS),
    "halves": (f"%x: bf16[{ROWS},{WIDTH}], %i: {SIZE}", "gather %x, %i {axis=1} : bf16[7,37]", WIDTH),
    "bools": (f"%x: bool[{ROWS},{WIDTH}], %i: {SIZE}", "gather %x, %i {axis=1} : bool[7,37]", WIDTH),
    "scatter in lanes": (
        f"%x: f32[{ROWS},{WIDTH}], %i: {SIZE}, %s: f32[{ROWS},{WIDTH}]",
        'scatter %x, %i, %s {axis=1, combine="add"} : f32[7,37]',
        WIDTH,
    ),
    "write of rows": (
        f"%x: f32[{ROWS},{WIDTH}], %i: i64[37], %s: f32[37,{WIDTH}]",
        'index_put %x, %s, %i {axes=[0], combine="add", wraps=false} : f32[7,37]',
        ROWS,
    ),
    "setting in lanes": (
        f"%x: f32[{ROWS},{WIDTH}], %i: i64[37], %s: f32[{ROWS},37]",
        'index_put %x, %s, %i {axes=[1], combine="set", wraps=false} : f32[7,37]',
        WIDTH,
    ),
}


@functools.cache
def built(text: str, target: Target, folder: Path) -> tuple[State, Any]:
    state = run_steps(State(graph=parse_graph(text)), target)
    assert state.program is not None
    (entry,) = entry_points(state.program)
    return state, load(CompileCache(folder), state.source, target).entry_point(entry.name)


def call(text: str, inputs: list[Any], target: Target, cache: CompileCache, threads: int = 3, **sizes: int) -> Any:
    """The graph's only result, computed by generated code."""
    state, entry = built(text, target, cache.folder)
    program, plan = state.program, state.plan
    assert program is not None and plan is not None
    arrays = dict(zip(program.inputs, inputs, strict=True))
    (output,) = program.outputs
    arrays[output] = allocate(program.buffer(output).type, sizes)
    table, names = pointer_table(program), size_table(program)
    enter(entry, table, arrays, names, sizes, aligned(1 << 16), threads)
    return arrays[output]


@pytest.mark.parametrize("name", GRAPHS)
def test_an_index_outside_is_seen_wherever_it_stands(name: str, target: Target, cache: CompileCache) -> None:
    params, op, size = GRAPHS[name]
    text = f"graph @g({params}) {{ %y = {op} return %y }}"
    graph, random = parse_graph(text), np.random.default_rng(0)
    inputs: list[Any] = []
    for p in graph.params:
        shape = tuple(int(n) for n in p.type.shape)
        values = random.permuted(np.tile(np.arange(shape[-1]), (*shape[:-1], 1)), axis=-1) % size
        inputs.append(values.astype(p.type.dtype.numpy) if p.name == "i" else (values % 2).astype(p.type.dtype.numpy))
    fine = call(text, inputs, target, cache)
    np.testing.assert_array_equal(fine, run_graph(graph, inputs)[0])
    flat = inputs[1].reshape(-1)
    least = np.iinfo(flat.dtype).min
    for place in (0, 15, 16, 31, 32, 36, flat.size - 1):
        for bad in (size, -1, int(least)):
            kept, flat[place] = int(flat[place]), bad
            for threads in (1, 3):
                with pytest.raises(OutOfRangeError, match=f"index {bad} is out of bounds .* with size {size}"):
                    call(text, inputs, target, cache, threads)
            flat[place] = kept
    np.testing.assert_array_equal(call(text, inputs, target, cache), fine)


@pytest.mark.parametrize("dtype", ["i64", "i8"])
def test_a_divisor_of_0_is_seen_wherever_it_stands(dtype: str, target: Target, cache: CompileCache) -> None:
    text = f"graph @g(%x: {dtype}[s0], %d: {dtype}[s0]) {{ %y = mod %x, %d : {dtype}[s0] return %y }}"
    kind = DTYPES[dtype].numpy
    for n in (1, 15, 16, 17, 37):
        x, d = np.arange(-3, n - 3).astype(kind), (np.arange(n) % 5 + 1).astype(kind)
        np.testing.assert_array_equal(call(text, [x, d], target, cache, s0=n), np.mod(x, d))
        for place in {0, n // 2, n - 1}:
            wrong = d.copy()
            wrong[place] = 0
            with pytest.raises(ZeroDivisorError):
                call(text, [x, wrong], target, cache, s0=n)


def test_padding_around_a_division_divides_nothing(target: Target, cache: CompileCache) -> None:
    text = """graph @g(%x: i64[21], %d: i64[21]) {
      %q = floordiv %x, %d : i64[21]
      %y = pad %q {low=[3], high=[4], value=0} : i64[28]
      return %y
    }"""
    x, d = np.arange(21) - 4, np.arange(21) + 1
    np.testing.assert_array_equal(call(text, [x, d], target, cache), np.pad(x // d, (3, 4)))


def test_of_several_faults_the_first_in_the_model_is_told(target: Target, cache: CompileCache) -> None:
    text = """graph @g(%x: f32[5,4], %i: i64[3], %j: i64[3]) {
      %a = embedding %x, %i : f32[3,4]
      %b = index_select %x, %j {axis=0} : f32[3,4]
      %y = add %b, %a : f32[3,4]
      return %y
    }"""
    x, fine, wrong = np.ones((5, 4), np.float32), np.array([0, 1, 2]), np.array([0, 1, 9])
    for i, j, op in ((wrong, wrong, "embedding"), (fine, wrong, "index_select"), (wrong, fine, "embedding")):
        with pytest.raises(OutOfRangeError, match=f"^{op}"):
            call(text, [x, i, j], target, cache)


def test_an_index_that_the_model_keeps_inside_is_not_checked() -> None:
    text = """graph @g(%x: f32[5,4], %i: i64[3]) {
      %least = constant {value=0, dtype=i64, shape=[]} : i64[]
      %most = constant {value=4, dtype=i64, shape=[]} : i64[]
      %a = maximum %i, %least : i64[3]
      %b = minimum %a, %most : i64[3]
      %y = embedding %x, %b : f32[3,4]
      return %y
    }"""
    state = run_steps(State(graph=parse_graph(text)), Target.parse("avx2"))
    assert "note(" not in str(state.source) and "effcc_describe" not in str(state.source)
    unbounded = text.replace("%y = embedding %x, %b", "%y = embedding %x, %a")
    assert "effcc_describe" in str(run_steps(State(graph=parse_graph(unbounded)), Target.parse("avx2")).source)


BEYOND = """
    kernel @rows(X: i64[3,17]) -> (O: bool[s,17]{1,s}) over i=3, j=17, m=s, n=17 {
      T[i,j] = cast<bool>(X[i,j])
      O[m,n] = where(in_range(where(m < 0, m + 3, m), 3, 0), T[where(m < 0, m + 3, m),n], false)
    }
"""


@pytest.mark.parametrize("machine", ["avx512", "avx2", "scalar"])
def test_vectors_that_surely_fail_note_their_first_lane(machine: str) -> None:
    reading, schedule = choose(parse_kernel(BEYOND), generic(machine))
    function = vectorize(lower(reading, schedule), generic(machine))
    verify_vectors(function)
    x, o = np.arange(51).reshape(3, 17) % 2, np.zeros(17 * 21, np.bool_)
    failed = run_vectors(function, {"X": x.reshape(-1), "O": o}, {"s": 21}, team=1)
    assert min(failed) == (0, 3, 3)
    assert np.array_equal(o.reshape(17, 21)[:, :3].T, x != 0)
