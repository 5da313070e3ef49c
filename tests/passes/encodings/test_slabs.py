"""Compressed rows in another order hold the same weight, and are read so where that is predicted to be quicker."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from effcc.ir.encodings import Storage, storage
from effcc.ir.graph import Graph, GraphBuilder
from effcc.ir.interpreter import run_graph
from effcc.ir.parser import encoding_of, parse_graph
from effcc.passes.encodings import encode
from effcc.passes.encodings.slabs import other_orders, store_in_order
from effcc.passes.hoist import hoist
from effcc.passes.writer import Writer
from effcc.target import KIB, generic

TARGET = replace(generic("avx512"), cores=2, l1_bytes=1 * KIB)
"""Its L1 has room for 64 rows of four columns."""


def components_in_order(stored: Storage, wanted: Storage, arrays: list[np.ndarray]) -> list[np.ndarray]:
    """What the graph that reorders gives."""
    builder = GraphBuilder("order")
    parts = [builder.param(c.name, c.type, weight=True) for c in stored.components]
    builder.emit("decode", *parts, encoding=stored.encoding, dtype=stored.dtype, shape=stored.shape)
    graph = builder.build(tuple(parts))
    (node,) = graph.nodes
    writer = Writer(graph)
    outputs = store_in_order(writer, node, stored, wanted)
    made = Graph("order", graph.params, tuple(writer.nodes), outputs)
    return list(run_graph(made, arrays))


def example(scheme: str, shape: tuple[int, int], density: float, seed: int = 0) -> tuple[Storage, list[np.ndarray]]:
    random = np.random.default_rng(seed)
    dense = random.standard_normal(shape).astype(np.float32)
    dense[shape[0] // 2] = 0
    level = storage(encoding_of(scheme), shape).levels
    count = max(1, int(density * shape[0] * shape[1] / np.prod(level.block)))
    stored = storage(encoding_of(scheme), shape, count=count)
    return stored, stored.encode(dense)


SCHEMES = ("csr", "bcsr(2,1)", "csr . int8", 'bcsr(4,1) . fp8("e4m3")', "csr(slab=7)", "bcsr(2,2,slab=6)")


@pytest.mark.parametrize("scheme", SCHEMES)
@pytest.mark.parametrize("density", [0.15, 0.3, 1.0])
def test_a_weight_in_another_order_is_the_same_weight(scheme: str, density: float) -> None:
    stored, arrays = example(scheme, (16, 30), density)
    others = list(other_orders(stored, True, TARGET))
    assert others, "there are other orders"
    for wanted in others:
        moved = components_in_order(stored, wanted, arrays)
        np.testing.assert_array_equal(wanted.decode(moved), stored.decode(arrays))


def test_blocks_of_a_slab_stand_together_and_each_row_in_its_order() -> None:
    """As the same weight encoded in slabs has them, bit for bit; and back."""
    stored, arrays = example("csr", (16, 30), 0.3)
    wanted = next(iter(other_orders(stored, True, TARGET)))
    assert str(wanted.encoding) == "csr(slab=4)"
    moved = components_in_order(stored, wanted, arrays)
    for found, expected in zip(moved, wanted.encode(stored.decode(arrays)), strict=True):
        np.testing.assert_array_equal(found, expected)
    (whole,) = other_orders(wanted, False, TARGET)
    for found, expected in zip(components_in_order(wanted, whole, moved), arrays, strict=True):
        np.testing.assert_array_equal(found, expected)


def test_rows_that_list_columns_in_no_order_keep_it() -> None:
    """Files of others may: nothing is lost, and all blocks count as the first slab's."""
    stored, arrays = example("csr", (16, 30), 0.3)
    starts, columns, values = arrays
    columns[: starts[1]] = columns[: starts[1]][::-1]
    values[: starts[1]] = values[: starts[1]][::-1]
    wanted = next(iter(other_orders(stored, True, TARGET)))
    moved = components_in_order(stored, wanted, [starts, columns, values])
    np.testing.assert_array_equal(moved[1], columns)
    np.testing.assert_array_equal(moved[0][:17], starts)
    assert (moved[0][17:] == starts[-1]).all()


def test_damaged_starts_lead_nowhere_else() -> None:
    stored, arrays = example("csr", (16, 30), 0.3)
    starts = arrays[0].copy()
    starts[3:6] = (10**9, -5, 2**31 - 1)
    wanted = next(iter(other_orders(stored, True, TARGET)))
    begins, columns, _ = components_in_order(stored, wanted, [starts, *arrays[1:]])
    assert columns.min() >= 0 and columns.max() < 30
    assert begins.shape == wanted.components[0].type.shape


def test_scales_of_channels_are_not_taken_for_blocks() -> None:
    """Even where there are as many of them."""
    stored, arrays = example("csr . int8", (16, 30), 16 / 480)
    (wanted, *_) = other_orders(stored, True, TARGET)
    moved = components_in_order(stored, wanted, arrays)
    np.testing.assert_array_equal(moved[-1], arrays[-1])
    np.testing.assert_array_equal(wanted.decode(moved), stored.decode(arrays))


def test_values_that_are_packed_stay_as_they_are() -> None:
    stored, _ = example('csr . int4(per="channel")', (16, 30), 0.3)
    assert list(other_orders(stored, True, TARGET)) == []


def _linear(scheme: str, rows: int, slabs: int = 1) -> str:
    kept = 768 * 3072 // (5 if rows > 1 else 20)
    return f"""
    graph @g(%x: f32[{rows},3072], weight %s: i32[{slabs * 768 + 1}], weight %c: i32[{kept}], weight %v: f32[{kept}]) {{
      %w = decode %s, %c, %v {{encoding=<{scheme}>, dtype=f32, shape=[768,3072]}} : f32[768,3072]
      %y = linear %x, %w : f32[{rows},768]
      return %y
    }}
    """


@pytest.mark.parametrize(("scheme", "slabs", "rows", "wanted"), [
    ("csr", 1, 128, "csr(slab=128)"),
    ("csr(slab=16)", 192, 1, "csr"),
    ("csr", 1, 1, "csr"),
])  # fmt: skip
def test_many_rows_are_read_in_slabs_and_one_row_whole(scheme: str, slabs: int, rows: int, wanted: str) -> None:
    machine = replace(generic("avx512"), cores=2)
    split, (choice,) = encode(hoist(parse_graph(_linear(scheme, rows, slabs))), machine, once=True)
    decodes = [n for g in (split.main, split.prepare) if g is not None for n in g.nodes if n.op == "decode"]
    assert [str(n.attrs["encoding"]) for n in decodes] == [wanted]
    assert (split.prepare is not None) == (wanted != scheme or choice.decision == "decoded")
    if wanted != scheme:
        assert f"in the order of {wanted}" in choice.reason
        split, _ = encode(hoist(parse_graph(_linear(scheme, rows, slabs))), machine)
        (node,) = [n for g in (split.main, split.prepare) if g is not None for n in g.nodes if n.op == "decode"]
        assert str(node.attrs["encoding"]) == scheme, "where it would be done at every call, it is not"
