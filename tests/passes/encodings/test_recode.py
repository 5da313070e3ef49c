"""A weight in other codes is the same weight, bit for bit, and few rows read it so where that is predicted to pay."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch

from effcc.driver import Options, compile_graph
from effcc.ir.encodings import Storage, storage
from effcc.ir.graph import Graph, GraphBuilder
from effcc.ir.interpreter import run_graph
from effcc.ir.parser import encoding_of, parse_graph
from effcc.passes.encodings import encode, spell_out_encodings
from effcc.passes.encodings.recode import recodings, store_recoded
from effcc.passes.hoist import hoist
from effcc.passes.writer import Writer
from effcc.target import generic

TARGET = replace(generic("avx512"), cores=1)


def recoding(stored: Storage, wanted: Storage) -> Graph:
    """The graph that stores a weight anew."""
    builder = GraphBuilder("recode")
    parts = [builder.param(c.name, c.type, weight=True) for c in stored.components]
    builder.emit("decode", *parts, encoding=stored.encoding, dtype=stored.dtype, shape=stored.shape)
    graph = builder.build(tuple(parts))
    writer = Writer(graph)
    outputs = store_recoded(writer, graph.nodes[0], stored, wanted)
    return Graph("recode", graph.params, tuple(writer.nodes), outputs)


def example(scheme: str, shape: tuple[int, int] = (8, 24)) -> tuple[Storage, list[np.ndarray]]:
    stored = storage(encoding_of(scheme), shape, count=5 if "block" in scheme else 0)
    dense = np.random.default_rng(0).standard_normal(shape).astype(np.float32)
    dense[3], dense[5] = 0, dense[5] * np.float32(2.0**-20)
    return stored, stored.encode(dense)


@pytest.mark.parametrize(("scheme", "others"), [
    ("int6", ['int8(per="channel")']),
    ('int3(per="tensor")', ['int8(per="channel")']),
    ("int5(group=7)", ["int8(group=7)"]),
    ('int4(group=8,zero=true,scale="f16")', ["int8(group=8)"]),
    ('int4(group=8,scale="u6",super=16)', ["int8(group=8)"]),
    ("bfp(group=8)", ["bf16"]),
    ('fp8("e4m3")', ['f16(per="channel")']),
    ('fp8("e5m2")', ['f16(per="channel")']),
    ("fp6", ['f16(per="channel")']),
    ("block(4,1) . f16", ["f16"]),
    ("block(4,1) . int6", ['int8(per="channel")', 'block(4,1) . int8(per="channel")']),
    ("block(2,2) . int8", ['int8(per="channel")']),
    ("nm(2,4) . fp4", ['f16(per="channel")', 'nm(2,4) . f16(per="channel")']),
    ("block(4,1) . nf4(group=4)", ["block(4,1)"]),
    ("block(4,1) . int4(group=4)", ["block(4,1)"]),
    ("block(4,1) . bfp(group=4)", ["bf16", "block(4,1) . bf16", "block(4,1)"]),
    ("ternary", ['int8(per="channel")']),
    # Whole bytes already, no other numbers that are exact, or no rows of known lengths.
    ("int8", []), ("int8(group=8)", []), ("nf4(group=8)", []), ("f16", []), ("block(4,1)", []),
    ("int4(group=8,minimum=true)", []), ('fp8(group=8,scale="f16")', []), ("csr . int8", []),
    ("int6 + outliers(2)", []),
])  # fmt: skip
def test_a_weight_in_other_codes_is_the_same_weight(scheme: str, others: list[str]) -> None:
    stored, arrays = example(scheme)
    found = list(recodings(stored))
    assert [str(w.encoding) for w in found] == others
    for wanted in found:
        moved = list(run_graph(recoding(stored, wanted), arrays))
        assert [(a.dtype, a.shape) for a in moved] == [(c.type.dtype.numpy, c.type.shape) for c in wanted.components]
        np.testing.assert_array_equal(wanted.decode(moved), stored.decode(arrays))


def linear(scheme: str, rows: int, size: int) -> Graph:
    return spell_out_encodings(parse_graph(f"""
        graph @g(%x: f32[{rows},{size}], weight %w: f32[{size},{size}] = {scheme}) {{
          %y = linear %x, %w : f32[{rows},{size}]
          return %y
        }}
    """))  # fmt: skip


@pytest.mark.parametrize(("scheme", "rows", "once", "told"), [
    ("int6", 1, True, 'copied to int8(per="channel")'),
    ('fp8("e4m3")', 4, True, 'copied to f16(per="channel")'),
    ("int6", 64, True, ""),  # decodes a panel once for all its rows
    ("int6", 1, False, ""),  # a copy at every call is no gain
    ("int2", 1, True, ""),  # reads few bytes, quickly
])  # fmt: skip
def test_few_rows_read_whole_bytes_where_that_is_predicted_to_be_quicker(
    scheme: str, rows: int, once: bool, told: str
) -> None:
    split, (choice,) = encode(hoist(linear(scheme, rows, 768)), TARGET, once=once)
    assert told in choice.reason and ("copied" in choice.reason) == bool(told)
    if told:
        assert choice.decision == "stored" and split.prepare is not None
        (decode,) = (n for n in split.main.nodes if n.op == "decode")
        assert str(decode.attrs["encoding"]) == told.removeprefix("copied to ")


def test_a_program_follows_its_weights_through_their_copy() -> None:
    """Compiled: the product is that of the weight as stored, also after its codes were changed in place."""
    stored, arrays = example("int6", (512, 512))
    run = compile_graph(linear("int6", 1, 512), Options())
    assert "copied" in run.state.encodings[0].reason
    x = torch.randn(1, 512)
    parts = [torch.from_numpy(a) for a in arrays]
    for _ in range(2):
        (y,) = run(x, *parts)
        expected = x.double() @ torch.from_numpy(stored.decode([p.numpy() for p in parts])).double().T
        assert torch.allclose(y.double(), expected, atol=1e-5)
        parts[0].bitwise_xor_(0x35)
