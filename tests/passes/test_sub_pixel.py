"""Transposed convolutions are plain ones whose results interleave."""

from __future__ import annotations

import copy
from typing import Any

import numpy as np
import pytest
import torch

from effcc.ir.graph import Graph
from effcc.ir.interpreter import run_graph
from effcc.ir.parser import parse_graph
from effcc.ir.verifier import verify_graph
from effcc.passes.sub_pixel import sub_pixels

Sizes = tuple[int, ...]


def transposed(x: Sizes, w: Sizes, bias: bool = False, **attrs: Any) -> Graph:
    spatial = len(x) - 2
    given = {"stride": (2,) * spatial, "padding": (0,) * spatial, "dilation": (1,) * spatial, "groups": 1, **attrs}
    further = given.get("output_padding", (0,) * spatial)
    sizes = [
        (n - 1) * s - 2 * p + d * (k - 1) + 1 + o
        for n, s, p, d, k, o in zip(
            x[2:], given["stride"], given["padding"], given["dilation"], w[2:], further, strict=True
        )
    ]
    said = ", ".join(f"{k}={list(v) if isinstance(v, tuple) else v}" for k, v in given.items())
    out = [x[0], w[1] * given["groups"], *sizes]
    params = f"%x: f64{list(x)}, weight %w: f64{list(w)}" + (f", weight %b: f64[{out[1]}]" if bias else "")
    operands = "%x, %w" + (", %b" if bias else "")
    body = f"%y = convolution {operands} {{transposed=true, {said}}} : f64{out}"
    return parse_graph(f"graph @main({params}) {{\n  {body}\n  return %y\n}}")


def is_strided(graph: Graph) -> bool:
    return any(node.op == "convolution" and max(node.attrs["stride"]) > 1 for node in graph.nodes)


@pytest.mark.parametrize(
    "graph",
    [
        transposed((2, 3, 5, 4), (3, 4, 4, 4), padding=(1, 1)),
        transposed((1, 3, 5, 4), (3, 2, 2, 2), bias=True),
        transposed((1, 2, 3, 4), (2, 3, 6, 2), stride=(3, 2), padding=(2, 1), output_padding=(1, 0), bias=True),
        transposed((1, 2, 7), (2, 3, 8), stride=(4,), padding=(2,)),
        transposed((1, 2, 3, 3, 3), (2, 2, 4, 2, 1), stride=(2, 2, 1), padding=(1, 0, 0), bias=True),
        transposed((1, 2, 4, 1), (2, 2, 4, 3), stride=(2, 1), padding=(3, 1)),
        transposed((1, 2, 4, 4), (2, 2, 3, 3), padding=(1, 1), output_padding=(1, 1)),
        transposed((2, 3, 5, 4), (3, 4, 3, 3), bias=True),
        transposed((1, 2, 3, 4), (2, 3, 7, 5), stride=(3, 2), padding=(2, 1), output_padding=(2, 1), bias=True),
        transposed((1, 2, 6), (2, 3, 5), stride=(4,), padding=(1,)),
        transposed((1, 2, 3, 3), (2, 2, 3, 4), stride=(2, 2), padding=(0, 3)),
    ],
)
def test_plain_convolutions_compute_the_same(graph: Graph) -> None:
    plain = sub_pixels(graph)
    verify_graph(plain)
    assert is_strided(graph) and not is_strided(plain)
    random = np.random.default_rng(0)
    arrays = [random.standard_normal(p.type.shape) for p in graph.params]
    (expected,), (found,) = (run_graph(g, arrays) for g in (graph, plain))
    np.testing.assert_allclose(found, expected, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize(
    "graph",
    [
        transposed((1, 2, 4, 4), (2, 1, 2, 2), groups=2),
        transposed((1, 2, 4, 4), (2, 2, 2, 2), dilation=(2, 2)),
        transposed((1, 2, 4, 4), (2, 2, 3, 3), stride=(1, 1)),
        transposed((1, 2, 4, 4), (2, 2, 2, 2), output_padding=(1, 1)),
        transposed((1, 2, 4, 4), (2, 2, 5, 5), stride=(3, 3)),  # nine places
        transposed((1, 2, 4, 4), (2, 2, 1, 1)),  # places without taps
    ],
)
def test_others_are_left_as_they_are(graph: Graph) -> None:
    assert sub_pixels(graph) is graph


def test_sizes_may_be_known_at_run_time_only() -> None:
    torch._dynamo.reset()
    model = torch.nn.ConvTranspose2d(3, 4, 3, 2, 1, 1).eval()
    compiled = torch.compile(model, backend="effcc", fullgraph=True, dynamic=True)
    with torch.no_grad():
        for size in ((5, 7), (4, 6), (9, 3)):
            image = torch.randn(2, 3, *size, generator=torch.Generator().manual_seed(0))
            torch.testing.assert_close(compiled(image), model(image), rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_a_half_type_is_rounded_once(dtype: torch.dtype) -> None:
    torch._dynamo.reset()
    torch.manual_seed(0)
    model = torch.nn.ConvTranspose2d(8, 4, 3, 2, 1, 1).eval().to(dtype)
    image = torch.randn(1, 8, 6, 5).to(dtype)
    with torch.no_grad():
        wide = copy.deepcopy(model).double()(image.double())
        found = torch.compile(model, backend="effcc", fullgraph=True)(image)
    differ = (found != wide.float().to(dtype)).float().mean()  # float32 sums may fall on the other side of a tie
    assert differ < 0.01
