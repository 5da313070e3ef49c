"""Structures in which kernels cross each other's way: all threads read what each wrote, memory is taken again, results
are read at two places, and sizes lie beside the thresholds of vectors, tiles and partial sums."""

from __future__ import annotations

from typing import Any

import numpy as np

from effcc.fuzz.sketch import Sketch, floats, number, size, structure, wide
from effcc.ir.dtypes import DType, i64
from effcc.ir.graph import Value
from effcc.ir.types import TensorType

_BESIDE = (15, 16, 17, 31, 32, 33, 63, 64, 65, 96, 97, 127, 128, 129, 255, 256, 257, 385)  # lanes, tiles, partial sums


@structure
def handed_around(s: Sketch) -> None:
    """Chains of w @ x: each product reads all of the one before, which the threads have written in parts."""
    if s.random.random() < 0.4:
        _meetings(s)
        return
    dtype = wide(s)
    columns = size(s, 1, 3, 8, 17, 24)
    ends = []
    for _ in range(s.random.choice((1, 2, 3))):
        rows = size(s, 3, 8, 20, 33)
        x = floats(s, rows, columns, dtype=dtype)
        for _ in range(s.random.randint(2, 4)):
            after = rows if s.random.random() < 0.5 else size(s, 2, 8, 20, 33)
            w = floats(s, after, rows, dtype=dtype, weight=s.random.random() < 0.7)
            x = s.emit("matmul", w, s.emit(s.random.choice(("tanh", "sigmoid")), x))
            rows = after
        ends.append(s.emit("sum", x, axes=(0,), keepdim=False))
    if len(ends) > 1:
        s.emit("concat", *ends, axis=0)


def _meetings(s: Sketch) -> None:
    """Steps that know nothing of each other, one with barriers of its own or of a single thread and one of all, before
    one that reads them both; then again with what that gives."""
    dtype, n, depth = wide(s), size(s, 8, 17, 33), size(s, 3, 8, 16)
    row, y = floats(s, n, dtype=dtype), floats(s, depth, n, dtype=dtype)
    for _ in range(s.random.randint(2, 3)):
        kind = s.random.choice(("segments", "segments", "scatter", "scan"))
        if kind == "segments":  # how much each has to do is data, which all threads read
            ends = np.sort(s.data.integers(0, n + 1, n - 1))
            offsets = s.given(np.concatenate([[0], ends, [n]]).astype(np.int64))
            column = s.emit("reshape", row, shape=(n, 1))
            alone = s.emit("reshape", s.emit("segment_reduce", column, offsets, reduce="sum"), shape=(n,))
        elif kind == "scatter":  # set to 0 by all threads, then added up
            zeros = s.emit("full", shape=(n,), value=0.0, dtype=dtype)
            at = s.fresh(TensorType(i64, (n,)), limits=(0, n - 1))
            alone = s.emit("index_put", zeros, row, at, axes=(0,), combine="add")
        else:
            alone = s.emit("cumsum", row, axis=0)
        alone = s.emit("tanh", alone)
        rows = size(s, 8, 20, 33)
        shared = s.emit("tanh", s.emit("matmul", floats(s, rows, depth, dtype=dtype, weight=True), y))
        y = s.emit("matmul", floats(s, depth, rows, dtype=dtype, weight=True), shared)
        y = s.emit("tanh", s.emit("mul", y, alone))
        row = s.emit("sum", y, axes=(0,), keepdim=False)


@structure
def pairwise(s: Sketch) -> None:
    """Distances of rows, or a product and its transpose: a result is read along two axes at once."""
    dtype = wide(s)
    n, d = size(s, 2, 3, 5, 8, 17, 33), size(s, 1, 3, 8, 16)
    x = floats(s, n, d, dtype=dtype)
    product = s.emit("einsum", x, x, spec="id,jd->ij")
    if s.random.random() < 0.5:
        squares = s.emit("sum", s.emit("mul", x, x), axes=(1,), keepdim=False)
        column, row = (s.emit("reshape", squares, shape=shape) for shape in ((n, 1), (1, n)))
        apart = s.emit("sub", s.emit("add", column, row), s.emit("mul", product, number(s, 2.0, dtype)))
        near = s.emit("exp", s.emit("neg", s.emit("relu", apart)))
    else:
        bounded = s.emit("tanh", product if s.random.random() < 0.5 else s.emit("matmul", product, product))
        scaled = s.emit("mul", bounded, floats(s, n, dtype=dtype))
        near = s.emit(s.random.choice(("add", "sub", "mul")), scaled, s.emit("transpose", scaled, perm=(1, 0)))
    if s.random.random() < 0.5:
        s.emit("softmax", near, axis=s.random.randint(0, 1))
    else:
        s.emit(s.random.choice(("sum", "max")), near, axes=(s.random.randint(0, 1),), keepdim=False)


@structure
def recurrent_layer(s: Sketch) -> None:
    """An LSTM, a GRU or a plain recurrence, whose every step reads all of the state before, and a product behind it."""
    dtype = wide(s)
    steps, batch, width, hidden = size(s, 1, 2, 3, 5), size(s, 1, 2, 5), size(s, 1, 3, 8), size(s, 3, 8, 17, 33)
    cell, states, gates = s.random.choice((("lstm", 2, 4), ("gru", 1, 3), ("rnn", 1, 1)))
    x = floats(s, steps, batch, width, dtype=dtype)
    given = [floats(s, batch, hidden, dtype=dtype) for _ in range(states)]
    shapes = ((gates * hidden, width), (gates * hidden, hidden), (gates * hidden,), (gates * hidden,))
    weights = [floats(s, *shape, dtype=dtype, weight=True) for shape in shapes]
    y = s.emit(cell, x, *given, *weights, reverse=s.random.random() < 0.4)
    if s.random.random() < 0.5:
        s.emit("linear", y, floats(s, size(s, 1, 5, 16), hidden, dtype=dtype, weight=True))


@structure
def beside_thresholds(s: Sketch) -> None:
    """Reductions and pointwise ops over sizes beside those at which vectors, tiles and partial sums end."""
    dtype = wide(s)
    long, short = s.random.choice(_BESIDE), size(s, 1, 2, 3, 7, 17)
    first = s.random.random() < 0.4
    x = floats(s, *((long, short) if first else (short, long)), dtype=dtype)
    axis = 0 if first else 1
    if s.random.random() < 0.3:
        x = s.emit("transpose", x, perm=(1, 0))
        axis = 1 - axis
    y = s.emit("mul", x, floats(s, int(x.type.shape[1]), dtype=dtype))
    kind = s.random.choice(("sum", "mean", "max", "argmax", "cumsum", "product", "softmax", "any"))
    if kind == "cumsum":
        s.emit("cumsum", y, axis=axis)
    elif kind == "product":
        w = floats(s, int(y.type.shape[1]), size(s, 1, 3, 16, 17), dtype=dtype, weight=s.random.random() < 0.5)
        s.emit("relu", s.emit("matmul", y, w))
    elif kind == "softmax":
        s.emit("softmax", y, axis=axis)
    elif kind == "any":
        s.emit("any", s.emit("gt", y, number(s, 1.0, dtype)), axes=(axis,), keepdim=False)
    else:
        s.emit(kind, y, axes=(axis,), keepdim=False)


@structure
def shifted(s: Sketch) -> None:
    """Elements beside their neighbours: padding and cuts at either end, rolls, windows one step apart."""
    dtype = wide(s)
    rows, n = size(s, 1, 3, 8), size(s, 3, 8, 17, 33)
    x = floats(s, rows, n, dtype=dtype)
    kind = s.random.choice(("pad", "roll", "before", "window", "columns"))
    if kind == "pad":
        by = s.random.randint(1, 3)
        low, high = s.random.choice(((by, -by), (-by, by), (by, 0), (0, by)))
        y = s.emit("pad", x, low=(0, low), high=(0, high), value=s.random.choice((0.0, 1.0)))
        y = s.emit("add", y, x) if low + high == 0 else s.emit("tanh", y)
    elif kind in ("roll", "before"):
        at = s.random.randint(1, n - 1)
        kept = s.emit("slice", x, axis=1, start=0, end=n - at, step=1)
        new = s.emit("slice", x, axis=1, start=n - at, end=n, step=1)
        if kind == "before":
            new = s.emit("full", shape=(rows, at), value=0.5, dtype=dtype)
        y = s.emit("sub", s.emit("concat", new, kept, axis=1), x)
    elif kind == "window":
        parts = [s.emit("slice", x, axis=1, start=k, end=n - 2 + k, step=1) for k in range(3)]
        y = s.emit("maximum", s.emit("add", parts[0], parts[1]), parts[2])
    else:
        y = s.emit("pad", x, low=(1, 0), high=(1, 0), value=0.0)
        y = s.emit("matmul", y, floats(s, n, size(s, 1, 5, 16), dtype=dtype, weight=True))
    s.emit(s.random.choice(("exp", "neg", "relu")), s.emit("tanh", y))


@structure
def gathered_rows(s: Sketch) -> None:
    """Rows picked by index and added up again into few places, with a product between."""
    dtype = wide(s)
    places, width, count = size(s, 2, 3, 8, 17), size(s, 1, 3, 8, 17, 33), size(s, 3, 8, 17, 33)
    table = floats(s, places, width, dtype=dtype, weight=s.random.random() < 0.5)
    at = s.fresh(TensorType(i64, (count,)), limits=(0, places - 1))
    rows = s.emit("index_select", table, at, axis=0)
    if s.random.random() < 0.5:
        rows = s.emit("tanh", s.emit("matmul", rows, floats(s, width, width, dtype=dtype, weight=True)))
    into = s.emit("full", shape=(places, width), value=0.0, dtype=dtype)
    if s.random.random() < 0.5:
        summed = s.emit("index_put", into, rows, at, axes=(0,), combine="add")
    else:
        spread = s.emit("broadcast", s.emit("reshape", at, shape=(count, 1)), shape=(count, width))
        summed = s.emit("scatter", into, spread, rows, axis=0, combine=s.random.choice(("add", "max", "min")))
    s.emit(s.random.choice(("add", "mul")), summed, table)


@structure
def segments(s: Sketch) -> None:
    """Rows of a table, weighted or not, added up by segments: bags, rows of a sparse matrix, groups, sequences."""
    dtype, width = wide(s), size(s)
    lengths = s.data.integers(0, size(s, 1, 3, 20), size(s, 1, 2, 5, 17))
    count = int(lengths.sum())
    offsets = np.concatenate([np.zeros(1, np.int64), np.cumsum(lengths)])
    rows = floats(s, count + size(s, 0, 0, 3), width, dtype=dtype)
    if s.random.random() < 0.6:
        rows = s.emit("index_select", rows, s.fresh(TensorType(i64, (count,)), limits=(0, max(count - 1, 0))), axis=0)
    if s.random.random() < 0.6:
        weights = floats(s, count, dtype=dtype, weight=True)
        rows = s.emit(
            "mul",
            s.emit("slice", rows, axis=0, start=0, end=count, step=1),
            s.emit("reshape", weights, shape=(count, 1)),
        )
    if s.random.random() < 0.2:
        rows = s.emit("sum", rows, axes=(1,), keepdim=False)
    at = s.given(offsets.astype(np.int32 if s.random.random() < 0.3 else np.int64))
    found = s.emit("tanh", s.emit("segment_reduce", rows, at, reduce=s.random.choice(("sum", "sum", "max", "min"))))
    if s.random.random() < 0.5:
        _groups(s, lengths, found.type.dtype)


def _groups(s: Sketch, lengths: Any, dtype: DType) -> None:
    """Rows of each group, times a matrix of the group; what belongs to none stays 0."""
    before, after, width = size(s, 0, 0, 2), size(s, 0, 0, 3), size(s, 1, 5, 17, 33)
    offsets = before + np.concatenate([np.zeros(1, np.int64), np.cumsum(lengths)])
    rows = floats(s, int(offsets[-1]) + after, width, dtype=dtype)
    matrices = floats(s, len(lengths), width, size(s, 1, 4, 16, 33), dtype=dtype, weight=s.random.random() < 0.6)
    if s.random.random() < 0.4:
        matrices = s.emit("transpose", matrices, perm=(0, 2, 1))
        rows = floats(s, int(offsets[-1]) + after, int(matrices.type.shape[1]), dtype=dtype)
    at = s.given(offsets.astype(np.int32 if s.random.random() < 0.5 else np.int64))
    s.emit("tanh", s.emit("grouped_matmul", rows, matrices, at))


@structure
def nothing(s: Sketch) -> None:
    """Tensors without elements, among others: sums over nothing, parts that are empty, rows of none."""
    dtype = wide(s)
    m, n = size(s, 1, 3, 8), size(s, 1, 4, 17)
    x = floats(s, m, n, dtype=dtype)
    empty: Value = s.emit("slice", x, axis=1, start=n, end=n, step=1)
    kind = s.random.choice(("product", "sum", "concat", "rows", "pointwise", "select"))
    if kind == "product":
        s.emit("add", x, s.emit("matmul", empty, floats(s, 0, n, dtype=dtype, weight=s.random.random() < 0.5)))
    elif kind == "sum":
        s.emit("mul", s.emit("sum", empty, axes=(1,), keepdim=True), x)
    elif kind == "concat":
        s.emit("tanh", s.emit("concat", empty, x, empty, axis=1))
    elif kind == "rows":
        none = s.emit("slice", x, axis=0, start=0, end=0, step=1)
        s.emit("concat", s.emit("linear", none, floats(s, 3, n, dtype=dtype, weight=True)), axis=0)
    elif kind == "select":
        s.emit("exp", s.emit("tanh", s.emit("index_select", x, s.given(_no_positions()), axis=0)))
    else:
        s.emit("softmax", s.emit("mul", empty, empty), axis=0)
        s.emit("neg", x)


@structure
def many_joined(s: Sketch) -> None:
    """A concatenation of dozens of tensors, empty ones among them, some read elsewhere too or computed on the way."""
    dtype, axis = wide(s), s.random.randint(0, 1)
    other = size(s, 1, 2, 5, 17)
    sources = [floats(s, *((n, other) if axis == 0 else (other, n)), dtype=dtype) for n in (0, 1, size(s, 2, 3, 4))]
    changed = [s.emit("tanh", x) for x in sources]
    parts = [s.random.choice((*sources, *changed)) for _ in range(s.random.choice((31, 33, 40, 70)))]
    joined = s.emit("concat", *parts, axis=axis)
    if s.random.random() < 0.5:
        s.emit("sum", joined, axes=(s.random.randint(0, 1),), keepdim=False)
    if s.random.random() < 0.5:
        s.emit("mul", joined, joined)


def _no_positions() -> Any:
    return np.zeros(0, np.int64)
