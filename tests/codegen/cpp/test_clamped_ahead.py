"""Columns of stored blocks are brought inside their rows by vectors, before the loop that reads them."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from effcc.driver import Options, compile_graph
from effcc.ir.parser import parse_graph
from effcc.target import Target

WILD = (-(1 << 31), -7, -1, 256, 1000, (1 << 31) - 1)


@pytest.mark.parametrize("blocks", [24, 32])
@pytest.mark.parametrize("values", ["", ". int8"])
def test_columns_of_one_row_are_brought_inside_ahead_whatever_they_are(blocks: int, values: str) -> None:
    codes, scale = ("i8", ", weight %s: f32[32]") if values else ("f32", "")
    names = "%c, %v, %s" if values else "%c, %v"
    graph = parse_graph(f"""
    graph @g(%x: f32[1,256], weight %c: i32[8,{blocks}], weight %v: {codes}[8,{blocks},4]{scale}) {{
      %w = decode {names} {{encoding=<block(4,1){values}>, dtype=f32, shape=[32,256]}} : f32[32,256]
      %y = linear %x, %w : f32[1,32]
      return %y
    }}
    """)
    made = compile_graph(graph, Options(target=Target.detect()))
    assert made.state.encodings[0].decision == "stored" and made.state.prepare is None
    assert "_ahead[" in str(made.state.source)
    rng = np.random.default_rng(0)
    columns = rng.integers(0, 256, (8, blocks), np.int32)
    columns[:, ::5] = rng.choice(WILD, columns[:, ::5].shape)
    stored = rng.integers(-9, 9, (8, blocks, 4)).astype(np.int8 if values else np.float32)
    scales = rng.standard_normal(32).astype(np.float32) if values else np.ones(32, np.float32)
    x = rng.standard_normal((1, 256)).astype(np.float32)
    arrays = [x, columns, stored, *([scales] if values else [])]
    (y,) = made(*map(torch.from_numpy, arrays))
    read = x[0, np.clip(columns, 0, 255)].astype(np.float64)
    expected = np.einsum("nj,njr->nr", read, stored.astype(np.float64)).reshape(32) * scales
    np.testing.assert_allclose(y.numpy()[0], expected, rtol=1e-4, atol=1e-4)
