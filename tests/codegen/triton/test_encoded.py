"""Encoded weights on GPUs: the decode expression of any encoding stands in the product's loop, as on the CPU."""

from __future__ import annotations

import pytest

from effcc.errors import UnsupportedError
from effcc.ir.dtypes import f64
from effcc.ir.interpreter import run_graph
from effcc.ir.parser import parse_graph
from effcc.runtime.triton_run import TritonInterpreter, run_triton
from tests.codegen.triton.running import compare, emitted
from tests.passes.fusion.test_encoded import COMPONENTS, fused, inputs, linear


@pytest.mark.parametrize("encoding", COMPONENTS)
def test_a_stored_weight_is_decoded_in_the_product(encoding: str, interpreter: TritonInterpreter) -> None:
    text = linear(encoding, rows=20, n=24, k=36, j=5)
    graph, arrays = parse_graph(text), inputs(text)
    if "csr" in encoding:
        with pytest.raises(UnsupportedError, match="ragged axis"):
            emitted(fused(text))
        return
    program, module = emitted(fused(text))
    by_name = {p.name: array for p, array in zip(graph.params, arrays, strict=True)}
    found = run_triton(program, module, [by_name[n] for n in program.inputs], interpreter.run)
    compare(found, run_graph(graph, arrays, None, f64), 2e-6)


def test_int8_and_scale_stay_apart_until_after_the_block_product() -> None:
    _, module = emitted(fused(linear("int8", rows=32, n=64, k=64)))
    dot = next(line for line in module.splitlines() if "tl.dot" in line)
    assert ".to(tl.float32)" in dot and "s_block" not in dot
