"""What the compiler is given of a case computes what the case computes."""

from __future__ import annotations

import numpy as np
import pytest

from effcc.fuzz.generate import generate
from effcc.fuzz.sketch import STRUCTURES
from effcc.fuzz.variation import Variation, varied, with_symbols
from effcc.ir.interpreter import run_graph
from effcc.ir.parser import parse_graph
from effcc.ir.printer import print_graph
from effcc.ir.verifier import verify_graph
from tests.fuzz.equal import assert_equal_values

MERGED = """graph @g(%x: f32[3,5], weight %w: f32[2]) {
  %r = reshape %x {shape=[15]} : f32[15]
  %e = exp %r : f32[15]
  return %e
}"""


def test_a_size_becomes_a_symbol_where_it_is_one_and_in_what_follows_from_it() -> None:
    found = with_symbols(parse_graph(MERGED), (5,))
    assert found is not None
    verify_graph(found)
    assert "%e = exp %r : f32[3*s0]" in print_graph(found)


def test_a_weight_keeps_its_sizes() -> None:
    assert with_symbols(parse_graph(MERGED.replace("f32[2]", "f32[5]")), (5,)) is None


def test_a_constant_becomes_a_number_computed_from_the_size() -> None:
    text = MERGED.replace(
        "  %e =", "  %c = constant {value=0.5, dtype=f32} : f32[]\n  %m = mul %r, %c : f32[15]\n  %e ="
    )
    graph = parse_graph(text.replace("exp %r", "exp %m"))
    found = with_symbols(graph, (5,))
    assert found is not None
    assert "value=fadd(real(s0),-4.5)" in print_graph(found)
    x, w = np.arange(15, dtype=np.float32).reshape(3, 5), np.ones(2, np.float32)
    np.testing.assert_array_equal(run_graph(found, [x, w])[0], run_graph(graph, [x, w])[0])


def test_layouts_change_strides_only() -> None:
    graph = varied(parse_graph(MERGED), Variation(layouts=(("x", "transposed"), ("e", "gaps"))))
    text = print_graph(graph)
    assert "%x: f32[3,5]{1,3}" in text and "%e = exp %r : f32[15]{5}" in text


@pytest.mark.parametrize("seed", range(0, 2 * len(STRUCTURES), 2))
def test_a_variation_computes_the_same(seed: int) -> None:
    case = generate(seed)
    verify_graph(case.compiled)
    for got, expected in zip(run_graph(case.compiled, case.inputs), run_graph(case.graph, case.inputs), strict=True):
        assert_equal_values(got, expected)
