"""Every scheme that is declared, through the whole compiler: one program reads a weight in each, on any machine."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from effcc.compression.quantize import quantize
from effcc.driver import Options, compile_graph
from effcc.frontend.decode import to_tensor
from effcc.ir.dtypes import f32
from effcc.ir.encodings import storage
from effcc.ir.encodings.registry import DECLARATIONS
from effcc.ir.graph import Graph, GraphBuilder
from effcc.ir.interpreter import run_graph
from effcc.ir.parser import encoding_of
from effcc.ir.types import TensorType
from effcc.target import generic

VALUES = [d.samples[-1] for d in DECLARATIONS.values() if d.kind == "values"]
ROWS, COLUMNS, DEPTH = 3, 6, 37


def products(encodings: list[str]) -> tuple[Graph, list[Any]]:
    """A graph that multiplies its input by a weight in each of the encodings, and values for its parameters."""
    random = np.random.default_rng(5)
    builder = GraphBuilder("schemes")
    x = builder.param("x", TensorType(f32, (ROWS, DEPTH)), False)
    arrays = [random.standard_normal((ROWS, DEPTH)).astype(np.float32)]
    results = []
    for n, encoding in enumerate(encodings):
        made = storage(encoding_of(encoding), (COLUMNS, DEPTH))
        components = made.encode(random.standard_normal(made.shape).astype(np.float32))
        parts = [builder.param(f"w{n}_{c.name}", c.type, True) for c in made.components]
        arrays += components
        weight = builder.emit("decode", *parts, encoding=made.encoding, dtype=made.dtype, shape=made.shape)
        results.append(builder.emit("linear", x, weight))
    return builder.build(tuple(results)), arrays


@pytest.mark.parametrize("target", ["scalar", "avx2"])
def test_compiled_products_are_those_with_decoded_weights(target: str) -> None:
    graph, arrays = products(VALUES)
    expected = run_graph(graph, arrays)
    compiled = compile_graph(graph, Options(target=generic(target)))
    got = compiled(*(to_tensor(a) for a in arrays))
    for encoding, one, other in zip(VALUES, got, expected, strict=True):
        np.testing.assert_allclose(one.numpy(), other, rtol=2e-5, atol=2e-4, err_msg=encoding)


def test_outliers_share_blocks_where_columns_are_reordered() -> None:
    """A few large columns make every block's exponent large, unless they stand together."""
    torch.manual_seed(0)
    dense = torch.randn(16, 64)
    dense[:, ::4] *= 50
    errors = {}
    for scheme in ("bfp(group=16)", "reorder . bfp(group=16)"):
        layer = nn.Linear(64, 16, bias=False)
        layer.weight.data.copy_(dense)
        quantize(layer, scheme)
        small = [c for c in range(64) if c % 4]
        errors[scheme] = float((layer.weight - dense)[:, small].square().mean())
        assert layer.encoding == scheme
    assert errors["reorder . bfp(group=16)"] < 0.1 * errors["bfp(group=16)"]
    x = torch.randn(3, 64)
    torch._dynamo.reset()
    with torch.no_grad():
        torch.testing.assert_close(torch.compile(layer, backend="effcc")(x), layer(x), rtol=1e-4, atol=1e-3)
