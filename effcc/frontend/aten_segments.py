"""Importers of reductions over segments: `segment_reduce`, and bags of an embedding."""

from __future__ import annotations

from typing import Any

from effcc.frontend.importer import Importer, NotNative, aten, dtype_of, imports
from effcc.ir.dims import dim
from effcc.ir.dtypes import i64
from effcc.ir.graph import Value
from effcc.ir.op import normalize_axis

_SUM, _MEAN, _MAX = range(3)


def offsets_of(m: Importer, lengths: Value) -> Value:
    """Where segments of these lengths begin, and where the last one ends."""
    zero = m.emit("full", shape=(1,), value=0, dtype=i64)
    return m.emit("concat", zero, m.emit("cumsum", m.cast(lengths, i64), axis=0), axis=0)


def segment_lengths(m: Importer, offsets: Value) -> Value:
    """How many points each segment has."""
    count = offsets.type.shape[0]
    return m.cast(m.emit("sub", m.slice(offsets, 0, 1, count), m.slice(offsets, 0, 0, dim(count - 1))), i64)


def _per_segment(m: Importer, value: Value, rank: int) -> Value:
    """A value for each segment, to stand beside `rank` dimensions of which segments are the first."""
    return m.reshape(value, (value.type.shape[0], *(1,) * (rank - 1)))


@imports(aten.segment_reduce.default)
def segment_reduce(
    m: Importer, data: Value, reduce: str, lengths: Value | None = None, indices: Value | None = None,
    offsets: Value | None = None, axis: int = 0, unsafe: bool = False, initial: Any = None,
) -> Value:  # fmt: skip
    if indices is not None or initial is not None or (offsets is None) == (lengths is None):
        raise NotNative("segment_reduce of this form")
    given = lengths if offsets is None else offsets
    assert given is not None
    if given.type.rank != 1 or normalize_axis(axis, data.type.rank) != 0:
        raise NotNative("segments of an inner axis")
    if offsets is None:
        offsets = offsets_of(m, given)
        if not unsafe:
            count = m.constant(data.type.shape[0], i64)
            whole = m.emit("eq", m.slice(offsets, 0, dim(offsets.type.shape[0] - 1), None), count)
            offsets = m.emit(
                "require",
                offsets,
                whole,
                message="Expected all rows of lengths along axis to sum to data.size(lengths.dim()-1)",
            )
    if reduce != "mean":
        return m.emit("segment_reduce", data, offsets, reduce=reduce)
    wide = m.accurate(data, data.type.dtype)
    counts = m.cast(segment_lengths(m, offsets), wide.type.dtype)
    total = m.emit("segment_reduce", wide, offsets, reduce="sum")
    return m.cast(m.emit("div", total, _per_segment(m, counts, data.type.rank)), data.type.dtype)


@imports(aten._grouped_mm.default)
def grouped_mm(
    m: Importer, x: Value, w: Value, offs: Value | None = None, bias: Value | None = None, out_dtype: Any = None
) -> Value:
    """Groups of rows, each times a matrix of its own; `offs` says where groups end."""
    if bias is not None or (out_dtype is not None and dtype_of(out_dtype) != x.type.dtype):
        raise NotNative("a grouped product with a bias or another result type")
    if offs is None:
        return m.emit("matmul", x, w)
    if (x.type.rank, w.type.rank) != (2, 3):
        raise NotNative("a grouped product that sums over groups of rows, or has groups of columns")
    return grouped(m, x, w, offs)


@imports("transformers.grouped_mm_fallback.default")
def grouped(m: Importer, x: Value, w: Value, offs: Value) -> Value:
    """What transformers' experts call where PyTorch describes no such product (of f32) to capture."""
    zero = m.emit("full", shape=(1,), value=0, dtype=offs.type.dtype)
    return m.emit("grouped_matmul", x, w, m.emit("concat", zero, offs, axis=0))


@imports(aten._embedding_bag_forward_only.default, aten._embedding_bag.default)
def embedding_bag(
    m: Importer, table: Value, index: Value, offsets: Value, scale_grad_by_freq: bool = False, mode: int = _SUM,
    sparse: bool = False, weights: Value | None = None, include_last_offset: bool = False, padding_idx: int = -1,
) -> tuple[Value | None, ...]:  # fmt: skip
    """Rows of a table, each bag's as one. What it gives beside the bags is for gradients."""
    if m.results_read - {0}:
        raise NotNative("gradients of bags read what it gives beside them")
    if mode == _MAX:
        raise NotNative("eager's maximum of a bag depends on where in it a NaN stands")
    end = m.emit("full", shape=(1,), value=index.type.shape[0], dtype=offsets.type.dtype)
    first = m.slice(offsets, 0, 0, dim(offsets.type.shape[0] - 1)) if include_last_offset else offsets
    whole = m.emit("concat", first, end, axis=0)
    offsets = offsets if include_last_offset else whole
    starts = m.emit("eq", m.slice(offsets, 0, 0, 1), m.constant(0, offsets.type.dtype))
    offsets = m.emit(
        "require", offsets, starts, message="offsets[0] has to be 0: the first bag begins at the first index"
    )
    dtype = table.type.dtype
    rows = m.accurate(m.emit("embedding", table, index), dtype)
    if weights is not None:
        rows = m.emit("mul", rows, m.unit(m.accurate(weights, dtype), 1))
    padded = None
    if padding_idx >= 0:
        padded = m.emit("eq", index, m.constant(padding_idx, index.type.dtype))
        rows = m.emit("where", m.broadcast(m.unit(padded, 1), rows.type.shape), m.constant(0, rows.type.dtype), rows)
    bags = m.emit("segment_reduce", rows, offsets, reduce="sum")
    if mode == _MEAN:
        counted = segment_lengths(m, whole)  # eager counts the last bag to the end, wherever the last offset is
        if padded is not None:
            counted = m.emit("sub", counted, m.emit("segment_reduce", m.cast(padded, i64), offsets, reduce="sum"))
        counted = m.emit("maximum", counted, m.constant(1, i64))
        bags = m.emit("div", bags, _per_segment(m, m.cast(counted, bags.type.dtype), 2))
    return m.cast(bags, dtype), None, None, None
