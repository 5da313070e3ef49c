"""Graphs held to more than an error bound: exact ones to the bit, a function to units in the last place."""

from __future__ import annotations

import importlib.util
from dataclasses import replace
from random import Random

import numpy as np
import pytest

from effcc.fuzz.exact import exactness
from effcc.fuzz.expected import difference, expect
from effcc.fuzz.functions import ULPS, functions_of, ulp_errors
from effcc.fuzz.generate import OF_THEIR_OWN, SWEPT, Case, case_of, generate
from effcc.fuzz.oracles import _mlir, eager_results, examine, team_of
from effcc.fuzz.sketch import STRUCTURES
from effcc.ir.dtypes import bf16
from effcc.ir.parser import parse_graph
from effcc.passes import memory
from effcc.steps import State, run_steps
from effcc.target import Target


def _seeds(kind: str, count: int) -> list[int]:
    kinds = [k for k, _ in OF_THEIR_OWN]
    low = dict(zip(kinds, (0.0, *(up_to for _, up_to in OF_THEIR_OWN)), strict=False))[kind]
    shares = ((seed, Random(seed ^ 0x57E95).random()) for seed in range(10_000))
    found = [seed for seed, share in shares if low <= share < dict(OF_THEIR_OWN)[kind]]
    return [seed for seed in found if seed % 10 not in SWEPT][:count]


@pytest.mark.parametrize("seed", [*_seeds("exact", 8), 5, 6, 16, 25, 26])  # and sweeps
def test_exact_graphs_are_exact_in_eager_too(seed: int) -> None:
    case = generate(seed)
    expected = expect(case, trials=0)
    assert expected.exact and exactness(case.graph)
    eager = eager_results(case, expected)
    for number, result in enumerate(eager or ()):
        assert difference(result, None, expected, number, is_eager=True) == ""


def test_one_wrong_bit_of_a_cast_is_seen_where_an_error_bound_would_not() -> None:
    graph = parse_graph("graph @g(%x: f32[3]) {\n  %y = cast %x {dtype=bf16} : bf16[3]\n  return %y\n}")
    case = Case(graph, (np.array([1.0, 1 + 2.0**-8, 3.0], np.float32),))
    expected = expect(case)
    right = expected.results[0].own
    away = right.copy()
    away[1] = 1 + 2.0**-7  # the tie, rounded away from zero
    assert difference(right, None, expected, 0) == ""
    assert "1 of 3 elements differ" in difference(away, None, expected, 0)
    assert difference(away, None, replace(expected, exact=""), 0) == ""


def test_a_function_is_held_to_its_ulps_where_it_is_small() -> None:
    x = np.linspace(-103, 5, 200, dtype=np.float32)
    true = np.exp(x.astype(np.float64))
    assert (ulp_errors("exp", true, true.astype(np.float32)) <= 0).all()
    flushed = np.where(x < -87, 0, true).astype(np.float32)
    assert (ulp_errors("exp", true, flushed) > 0).any()
    found = functions_of(generate(_seeds("functions", 1)[0]).graph)
    assert len(found) >= 8 and set(found) - {""} <= ULPS.keys()


def test_a_function_of_halves_is_rounded_once() -> None:
    graph = parse_graph("graph @g(%x: bf16[3]) {\n  %y = exp %x : bf16[3]\n  return %y\n}")
    expected = expect(Case(graph, (np.array([0.5, -80.0, 3.0]).astype(bf16.numpy),)))
    right = expected.results[0].wide.astype(bf16.numpy)
    off = right.copy()
    off[1] = right[1] * 1.02  # the next one but one
    assert difference(right, None, expected, 0, by_elements=True) == ""
    assert "beyond its ulps" in difference(off, None, expected, 0, by_elements=True)


def test_a_hundred_graphs_have_every_function_and_every_step_of_every_dtype() -> None:
    graphs = [generate(seed).graph for seed in range(100) if seed % 10 in SWEPT]
    seen = {(n.op, n.operands[0].type.dtype.name) for g in graphs for n in g.nodes}
    assert {op for op, _ in seen} >= {*ULPS}
    integers = ("i64", "i32", "i16", "i8", "u8")
    for name in (*integers, "f32", "f64", "bf16", "f16"):
        assert seen >= {(op, name) for op in ("cast", "eq", "max", "min")}, name
    assert seen >= {(op, n) for op in ("shl", "shr", "pow", "floordiv", "sum") for n in integers}


def test_a_structure_is_run_by_other_teams_each_time_it_comes() -> None:
    cycle = 2 * len(STRUCTURES)
    for seed in range(cycle):
        assert len({team_of(seed + cycle * n) for n in range(4)}) >= 3


def test_scratch_memory_that_begins_within_a_line_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    case = generate(0)
    assert examine(case, Target.parse("avx2")).failure is None
    monkeypatch.setattr(memory, "ALIGNMENT", 1)
    found = examine(case, Target.parse("avx2")).failure
    assert found is not None and found.kind == "wrong layout" and "expected a multiple of 64" in found.message


def test_a_layer_over_no_steps_is_one_that_eager_refuses() -> None:
    graph = parse_graph("""graph @g(%x: f32[0,2,3], %h: f32[2,4], %w: f32[4,3], %v: f32[4,4], %b: f32[4], %c: f32[4]) {
      %y, %n = rnn %x, %h, %w, %v, %b, %c {reverse=false} : f32[0,2,4], f32[2,4]
      return %y, %n
    }""")
    case = case_of(graph)
    assert eager_results(case, expect(case)) is None


def test_what_mlir_spells_of_a_graph_is_judged_without_the_rest() -> None:
    graph = parse_graph("""graph @g(%x: i64[3], %y: i64[3]) {
      %p = pow %x, %y : i64[3]
      %l = shl %x, %y : i64[3]
      return %p, %l
    }""")
    case = Case(graph, (np.array([1, 2, 3]), np.array([1, 64, 2])))
    expected = expect(case)
    assert _mlir(case, expected, None) is None
    wrong = replace(expected.results[1], own=expected.results[1].own + 1)
    found = _mlir(case, replace(expected, results=(expected.results[0], wrong)), None)
    assert found is None or "3 of 3 elements differ" in found.message
    assert found is not None or importlib.util.find_spec("torch_mlir") is None


def test_what_sums_segments_to_one_element_is_clustered() -> None:
    graph = parse_graph("""graph @g(%x: f32[2,1], %i: i64[2]) {
      %s = segment_reduce %x, %i {reduce="sum"} : f32[1,1]
      %t = tanh %s : f32[1,1]
      return %t
    }""")
    assert run_steps(State(graph=graph), Target.parse("avx2"), until="cluster").program is not None
