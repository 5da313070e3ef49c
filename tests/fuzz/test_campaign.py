"""Campaigns: the same seed gives the same graphs, failures come out small, and as files that say what went wrong."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from typer.testing import CliRunner

from effcc import steps
from effcc.cli import app
from effcc.fuzz import campaign
from effcc.fuzz.expected import difference, expect
from effcc.fuzz.generate import Case, case_of, generate
from effcc.fuzz.oracles import Failure, in_child
from effcc.fuzz.reduce import reduce
from effcc.fuzz.repro import write_failure
from effcc.ir.graph import Graph, Node
from effcc.ir.interpreter import run_graph
from effcc.ir.parser import parse_graph
from effcc.ir.printer import print_graph
from effcc.ir.verifier import verify_graph
from effcc.passes.rules.engine import Rewritten, Trace


@pytest.mark.parametrize("seed", range(12))
def test_a_seed_gives_one_graph_which_verifies_and_runs(seed: int) -> None:
    case, again = generate(seed), generate(seed)
    verify_graph(case.graph)
    assert print_graph(case.graph) == print_graph(again.graph)
    for a, b in zip(case.inputs, again.inputs, strict=True):
        np.testing.assert_array_equal(a.view(np.uint8) if a.ndim else a, b.view(np.uint8) if b.ndim else b)
    assert len(run_graph(case.graph, case.inputs)) == len(case.graph.results)


def _fails_with_exp(case: Case) -> Failure | None:
    wrong = any(n.op == "exp" for n in case.graph.nodes)
    return Failure(case, "fuse", "wrong result", "an exp is there") if wrong else None


def test_a_failure_is_reduced_to_what_it_needs() -> None:
    graph = parse_graph("""graph @g(%x: f32[4,6], weight %w: f32[5,6]) {
      %t = tanh %x : f32[4,6]
      %l = linear %t, %w : f32[4,5]
      %e = exp %l : f32[4,5]
      %s = sum %e {axes=[1], keepdim=false} : f32[4]
      return %s, %l
    }""")
    failure = _fails_with_exp(case_of(graph))
    assert failure is not None
    small = reduce(failure, _fails_with_exp).case.graph
    assert [n.op for n in small.nodes] == ["exp"]
    assert small.params[0].type.size == 1 and not small.weights


def test_a_failure_is_written_as_a_graph_and_as_a_script_that_runs(tmp_path: Path) -> None:
    case = generate(3)
    ir, script = write_failure(Failure(case, "fuse", "wrong result", "result 0: differs"), tmp_path)
    assert print_graph(parse_graph(ir.read_text())) == print_graph(case.graph)
    names: dict[str, object] = {"__name__": "repro"}
    exec(compile(script.read_text(), script.name, "exec"), names)
    model, inputs = names["model"], names["inputs"]
    assert callable(model) and isinstance(inputs, tuple)
    for tensor, array in zip(inputs, case.inputs, strict=True):
        assert list(tensor.shape) == list(array.shape)
    assert len(model(*inputs)) == len(case.graph.results)


def test_what_hangs_on_a_discontinuity_is_not_compared() -> None:
    graph = parse_graph("graph @g(%x: f32[3]) { %f = floor %x : f32[3] %c = cast %f {dtype=i64} : i64[3] return %c }")
    expected = expect(Case(graph, (np.array([0.99999994, 2.5, 3.0], np.float32),)))
    assert not difference(np.array([1, 2, 3]), None, expected, 0)  # it may as well have been 1.0
    assert "expected 2, got 3" in difference(np.array([0, 3, 3]), None, expected, 0)


def test_a_crash_in_a_child_is_told() -> None:
    def crash() -> list[object]:
        import os

        os.abort()

    assert in_child(crash) == "crashed with signal 6"
    assert in_child(lambda: [1]) == [1]


def test_the_command_reports_a_planted_bug_and_exits_with_1(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    common = ("sigmoid", "tanh", "gelu", "exp", "sin", "cos", "erf", "neg", "abs", "sqrt", "log1p", "expm1")

    def broken(graph: Graph, fast_math: bool, trace: Trace | None) -> Rewritten:
        def change(node: Node) -> Node:
            return replace(node, op="cosh") if node.op in common and node.result.type.dtype.is_float else node

        simple = simplify(graph, fast_math, trace)
        return replace(simple, graph=simple.graph.with_nodes(tuple(change(n) for n in simple.graph.nodes)))

    simplify = steps.simplify_counted
    monkeypatch.setattr(steps, "simplify_counted", broken)
    monkeypatch.setattr(campaign, "reduce", lambda failure, check, seconds: failure)
    result = CliRunner().invoke(app, ["fuzz", "--minutes", "0", "--seed", "5", "--output", str(tmp_path), "--json"])
    assert result.exit_code == 1, result.output
    report = json.loads(result.stdout)
    assert report["by_step"]["simplify"] >= 1
    assert any(name.endswith(".ir") for name in report["files"])
    assert all(Path(name).is_file() for name in report["files"])
