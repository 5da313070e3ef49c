"""Graphs spelled as torch calls compute in eager what the op table says."""

from __future__ import annotations

import numpy as np
import pytest

from effcc.fuzz.eager import run_eager
from effcc.fuzz.torch_text import torch_function
from effcc.ir.graph import GraphBuilder
from effcc.ir.interpreter import run_graph
from effcc.ir.parser import parse_graph
from tests.ir.op_samples import Sample, all_samples
from tests.ir.test_ops import assert_close, reference
from tests.ir.test_ops_against_torch import _refused


@pytest.mark.parametrize("op", sorted({s.op for s in all_samples()}))
def test_an_op_spelled_in_torch_computes_its_reference(op: str) -> None:
    for sample in [s for s in all_samples() if s.op == op and not _refused(s)]:
        _check(sample)


def _check(sample: Sample) -> None:
    builder = GraphBuilder("one")
    values = [builder.param(f"x{n}", t) for n, t in enumerate(sample.types)]
    graph = builder.build(builder.node(sample.op, *values, **sample.attrs).results)
    arrays = sample.arrays()
    for got, expected in zip(run_eager(graph, arrays), reference(sample, arrays), strict=True):
        assert_close(got, np.asarray(expected))


def test_names_that_python_has_taken_are_changed() -> None:
    graph = parse_graph("graph @g(%lambda: f32[3], %torch: f32[3]) { %y = add %lambda, %torch : f32[3] return %y }")
    assert torch_function(graph) == (
        "def model(v_lambda, v_torch):\n    y = torch.add(v_lambda, v_torch)\n    return y,\n"
    )
    (result,) = run_eager(graph, [np.ones(3, np.float32), np.ones(3, np.float32)])
    assert result.tolist() == [2, 2, 2]


@pytest.mark.parametrize("bias", ["", ", %b"])
def test_a_convolution_over_no_channels_has_all_its_results(bias: str) -> None:
    graph = parse_graph(f"""graph @g(%x: f32[1,0,4], %w: f32[2,0,3], %b: f32[2]) {{
      %y = convolution %x, %w{bias} {{stride=[1], padding=[0], dilation=[1], groups=1, transposed=false}} : f32[1,2,2]
      return %y
    }}""")
    inputs = [np.ones((1, 0, 4), np.float32), np.ones((2, 0, 3), np.float32), np.array([3, 4], np.float32)]
    (result,) = run_eager(graph, inputs)
    assert result.tolist() == ([[[3, 3], [4, 4]]] if bias else [[[0, 0], [0, 0]]])


CONTROL = """
    graph @main(%c: bool[], %t: f32[4,3], %x: f32[3], %n: i64[]) {
      %a = cond %c, %x graph @then(%x: f32[3]) {
        %y = exp %x : f32[3]
        return %y
      } graph @else(%x: f32[3]) { return %x } : f32[3]
      %i, %b = while %n, %a {carried=2} graph @test(%n: i64[], %x: f32[3]) {
        %least = full {shape=[], value=-2, dtype=i64} : i64[]
        %more = gt %n, %least : bool[]
        return %more
      } graph @body(%n: i64[], %x: f32[3]) {
        %one = full {shape=[], value=1, dtype=i64} : i64[]
        %m = sub %n, %one : i64[]
        %y = sin %x : f32[3]
        return %m, %y
      } : i64[], f32[3]
      %s, %rows = scan %b, %t {carried=1, scanned=1, length=4, reverse=true} graph @step(%h: f32[3], %t: f32[3]) {
        %next = add %h, %t : f32[3]
        %row = mul %h, %t : f32[3]
        return %next, %row
      } : f32[3], f32[4,3]
      return %b, %s, %rows
    }
"""


@pytest.mark.parametrize("holds", [True, False])
def test_control_flow_is_pythons(holds: bool) -> None:
    graph = parse_graph(CONTROL)
    data = np.random.default_rng(0)
    inputs = [np.asarray(holds), *(data.standard_normal(s).astype(np.float32) for s in ((4, 3), (3,))), np.asarray(1)]
    for found, wanted in zip(run_eager(graph, inputs), run_graph(graph, inputs), strict=True):
        np.testing.assert_allclose(found, wanted, rtol=1e-5)
