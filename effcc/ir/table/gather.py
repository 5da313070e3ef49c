"""Accesses whose index is data: reads (embedding, gather, index) and writes (scatter, index_put).

An index outside its axis is an error, as in eager: a run-time check (`in_range`) sees it, and the call raises
OutOfRangeError at its end. Until then a kernel must not touch memory outside a buffer: a read outside gives NaN (0 for
integers and bools), a write outside is left out. References raise at once. `checked=false` is for indices that are
known to be inside, and raises nothing.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from effcc.ir.dims import Dim, same_shape, show
from effcc.ir.dtypes import boolean, from_numpy, i32, i64
from effcc.ir.expr import Axis, Expr, both, cast, compare, integer, where
from effcc.ir.form import FormBuilder, call, constant
from effcc.ir.kernel import Scatter
from effcc.ir.op import REQUIRED, Op, Types, broadcast_shapes, normalize_axis, require
from effcc.ir.scalars import require_in_range
from effcc.ir.table.products import inside, require_one_dtype
from effcc.ir.types import TensorType

COMBINES = {"set": None, "add": np.add, "mul": np.multiply, "max": np.maximum, "min": np.minimum}


def _require_index(index: TensorType) -> None:
    require(index.dtype in (i64, i32), f"an index must be i64 or i32, got {index.dtype.name}")


_WRAPPED = "index from either end"


def _in_range(b: FormBuilder, index: Expr, dimension: int) -> Expr:
    """Whether an index from memory is inside a dimension of operand 0: a run-time check, unless the op takes what is
    outside too."""
    size = b.operands[0].type.shape[dimension]
    if not b.attrs.get("checked", True):
        return both(*inside(index, size, below=True, above=True))
    return b.in_range(index, size, dimension, _WRAPPED if b.attrs.get("wraps", "axes" in b.attrs) else "index")


def _guarded(b: FormBuilder, index: Sequence[Expr], data: Sequence[int]) -> Expr:
    """The element of operand 0 at `index`, in which the positions `data` come from memory; NaN or 0 outside."""
    value = b.load(0, index)
    conditions = [_in_range(b, index[d], d) for d in data]
    if not conditions:
        return value
    return where(both(*conditions), value, constant(math.nan if value.dtype.is_float else 0, value))


def _written(b: FormBuilder, index: Expr, dimension: int) -> Expr:
    """Where a scatter writes along a dimension of operand 0: `index`, or nowhere where that is outside."""
    return where(_in_range(b, index, dimension), index, integer(-1))


def _wrapped(index: Expr, size: Dim) -> Expr:
    """`index`, counted from the end where it is negative."""
    index = cast(index, i64)
    return where(compare("lt", index, integer(0)), call("add", index, integer(size)), index)


# --- reads -----------------------------------------------------------------------------------------------------------


def _infer_embedding(operands: Types, attrs: Mapping[str, Any]) -> TensorType:
    table, index = operands
    _require_index(index)
    require(table.rank == 2, f"the table must be [rows, width], got rank {table.rank}")
    return TensorType(table.dtype, (*index.shape, table.shape[1]))


def _embedding(b: FormBuilder) -> None:
    index = b.axes(b.operands[1].type.shape)
    width = b.axis(b.operands[0].type.shape[1], "j")
    row = cast(b.load(1, index), i64)
    b.define((*index, width), _guarded(b, (row, width), [0]))


def _infer_index_select(operands: Types, attrs: Mapping[str, Any]) -> TensorType:
    x, index = operands
    _require_index(index)
    require(index.rank == 1, f"the index must have rank 1, got {index.rank}")
    axis = normalize_axis(attrs["axis"], x.rank)
    require(x.rank > 0, "needs a tensor of rank at least 1")
    return TensorType(x.dtype, (*x.shape[:axis], index.shape[0], *x.shape[axis + 1 :]))


def _index_select(b: FormBuilder) -> None:
    axes = b.axes(b.results[0].type.shape)
    axis = normalize_axis(b.attrs["axis"], len(axes))
    index: list[Expr] = list(axes)
    index[axis] = cast(b.load(1, (axes[axis],)), i64)
    b.define(axes, _guarded(b, index, [axis]))


def _infer_gather(operands: Types, attrs: Mapping[str, Any]) -> TensorType:
    x, index = operands
    _require_index(index)
    require(x.rank == index.rank, f"index and tensor must have one rank, got {index.rank} and {x.rank}")
    axis = normalize_axis(attrs["axis"], x.rank)
    for d, (own, size) in enumerate(zip(index.shape, x.shape, strict=True)):
        if d != axis and isinstance(own, int) and isinstance(size, int):
            require(own <= size, f"the index has {own} elements on axis {d}, the tensor {size}")
    return TensorType(x.dtype, index.shape)


def _gather(b: FormBuilder) -> None:
    axes = b.axes(b.results[0].type.shape)
    if not axes:
        b.define(axes, b.load(0, ()))
        return
    axis = normalize_axis(b.attrs["axis"], len(axes))
    index: list[Expr] = list(axes)
    index[axis] = cast(b.load(1, axes), i64)
    b.define(axes, _guarded(b, index, [axis]))


def _embedding_reference(table: Any, index: Any) -> Any:
    require_in_range(index, table.shape[0])
    return table[index]


def _index_select_reference(x: Any, index: Any, axis: int, checked: bool) -> Any:
    require_in_range(index, x.shape[axis])
    return np.take(x, index, axis)


def _gather_reference(x: Any, index: Any, axis: int) -> Any:
    if x.ndim == 0:
        return x
    axis %= x.ndim
    require_in_range(index, x.shape[axis])
    cut = tuple(slice(None) if d == axis else slice(0, n) for d, n in enumerate(index.shape))
    return np.take_along_axis(x[cut], index.astype(np.int64), axis)


# --- advanced indexing ---------------------------------------------------------------------------------------------


def _indexed_layout(rank: int, attrs: Mapping[str, Any]) -> tuple[list[int], int]:
    """The indexed axes, and how many of the axes left come before those of the index in the result."""
    axes = [normalize_axis(a, rank) for a in attrs["axes"]]
    require(axes == sorted(set(axes)), f"the indexed axes must be in order and distinct, got {axes}")
    adjacent = axes[-1] - axes[0] + 1 == len(axes)
    return axes, axes[0] if adjacent else 0


def _indexed_shape(x: TensorType, indices: Types, attrs: Mapping[str, Any]) -> tuple[Dim, ...]:
    axes, before = _indexed_layout(x.rank, attrs)
    require(len(axes) == len(indices), f"{len(axes)} axes for {len(indices)} index tensors")
    for index in indices:
        _require_index(index)
    kept = [d for i, d in enumerate(x.shape) if i not in axes]
    return (*kept[:before], *broadcast_shapes([i.shape for i in indices]), *kept[before:])


def _infer_index(operands: Types, attrs: Mapping[str, Any]) -> TensorType:
    x, *indices = operands
    return TensorType(x.dtype, _indexed_shape(x, tuple(indices), attrs))


def _indexed(b: FormBuilder, axes: Sequence[Axis], first: int) -> tuple[list[Expr], list[int]]:
    """Where the element at `axes` of an indexed tensor stands in operand 0, and which positions come from memory.

    The index tensors are the operands from `first` on. Each has a statement of its own, which counts negative positions
    from the end, unless the op does not wrap.
    """
    x = b.operands[0].type.shape
    indexed, before = _indexed_layout(len(x), b.attrs)
    width = len(axes) - (len(x) - len(indexed))
    inner = axes[before : before + width]
    kept = iter([*axes[:before], *axes[before + width :]])
    found: list[Expr] = []
    for d, size in enumerate(x):
        if d not in indexed:
            found.append(next(kept))
            continue
        operand = first + indexed.index(d)
        loaded = b.broadcast(operand, inner)
        used = [a for a in inner if a in loaded.index]
        wraps = b.attrs.get("wraps", True)
        found.append(b.temporary(used, _wrapped(loaded, size) if wraps else cast(loaded, i64)))
    return found, indexed


def _index(b: FormBuilder) -> None:
    axes = b.axes(b.results[0].type.shape)
    index, data = _indexed(b, axes, 1)
    b.define(axes, _guarded(b, index, data))


def _index_reference(x: Any, *indices: Any, axes: Any, wraps: bool, checked: bool) -> Any:
    kept = [n for axis, n in enumerate(x.shape) if axis not in axes]
    if 0 in kept and all(x.shape[axis] for axis in axes):  # of no elements none is read: eager asks for no position
        indices = tuple(np.zeros_like(i) for i in indices)
    return x[_index_key(x, indices, axes, wraps)]


def _index_key(x: Any, indices: Sequence[Any], axes: Sequence[int], wraps: bool = True) -> tuple[Any, ...]:
    key: list[Any] = [slice(None)] * x.ndim
    for axis, index in zip(axes, indices, strict=True):
        require_in_range(index, x.shape[axis], -x.shape[axis] if wraps else 0)
        key[axis] = index.astype(np.int64)
    return tuple(key)


# --- writes --------------------------------------------------------------------------------------------------------


def _require_combine(attrs: Mapping[str, Any], name: str) -> None:
    require(attrs[name] in COMBINES, f"{name} must be one of {', '.join(COMBINES)}, got {attrs[name]!r}")


def _infer_scatter(operands: Types, attrs: Mapping[str, Any]) -> TensorType:
    x, index, source = operands
    _require_index(index)
    _require_combine(attrs, "combine")
    normalize_axis(attrs["axis"], x.rank)
    require_one_dtype((x, source))
    require(x.dtype != boolean or attrs["combine"] == "set", "a bool tensor can only be set")
    require(x.rank == index.rank == source.rank, f"ranks must be equal, got {x.rank}, {index.rank} and {source.rank}")
    require(
        same_shape(index.shape, source.shape),
        f"index and source must have one shape, got {index} and {source}; slice the source",
    )
    return TensorType(x.dtype, x.shape)


def _copy_first(b: FormBuilder) -> None:
    """The statement that a scatter then writes into: the result is operand 0."""
    axes = b.axes(b.operands[0].type.shape, "c")
    b.define(axes, b.load(0, axes))


def _scatter(b: FormBuilder) -> None:
    _copy_first(b)
    axes = b.axes(b.operands[1].type.shape)
    index: list[Expr] = list(axes)
    if axes:
        axis = normalize_axis(b.attrs["axis"], len(axes))
        index[axis] = _written(b, cast(b.load(1, axes), i64), axis)
    b.define(axes, b.load(2, axes), scatter=Scatter(tuple(index), b.attrs["combine"]))


def _combine_at(result: Any, key: tuple[Any, ...], source: Any, combine: str) -> Any:
    """Write `source` at `key`, one element after the other; sums of floats are carried in f64."""
    ufunc = COMBINES[combine]
    if ufunc is None:
        result[key] = source
        return result
    if not from_numpy(result.dtype).is_float:
        ufunc.at(result, key, source)
        return result
    carried = result.astype(np.float64)
    ufunc.at(carried, key, np.asarray(source, np.float64))
    return carried.astype(result.dtype)


def _scatter_reference(x: Any, index: Any, source: Any, axis: int, combine: str) -> Any:
    if x.ndim == 0:
        return _combine_at(x.reshape(1).copy(), (np.zeros(1, np.int64),), source.reshape(1), combine).reshape(())
    axis %= x.ndim
    require_in_range(index, x.shape[axis])
    key = list(np.indices(index.shape))
    key[axis] = index.astype(np.int64)
    return _combine_at(x.copy(), tuple(key), source, combine)


def _infer_index_put(operands: Types, attrs: Mapping[str, Any]) -> TensorType:
    x, values, *indices = operands
    require_one_dtype((x, values))
    _require_combine(attrs, "combine")
    shape = _indexed_shape(x, tuple(indices), attrs)
    require(
        same_shape(broadcast_shapes([shape, values.shape]), shape),
        f"values {values} do not broadcast to the indexed shape [{','.join(map(show, shape))}]",
    )
    return TensorType(x.dtype, x.shape)


def _index_put(b: FormBuilder) -> None:
    _copy_first(b)
    x = b.operands[0].type
    shape = _indexed_shape(x, tuple(o.type for o in b.operands[2:]), b.attrs)
    axes = b.axes(shape)
    index, data = _indexed(b, axes, 2)
    target = [_written(b, e, d) if d in data else e for d, e in enumerate(index)]
    b.define(axes, b.broadcast(1, axes), scatter=Scatter(tuple(target), b.attrs["combine"]))


def _index_put_reference(
    x: Any, values: Any, *indices: Any, axes: Any, combine: str, wraps: bool, checked: bool
) -> Any:
    return _combine_at(x.copy(), _index_key(x, indices, axes, wraps), values, combine)


OPS: list[Op] = [
    Op("embedding", "gather", (2, 2), _infer_embedding, _embedding_reference,
       "row index[i...] of a table[rows, width]", form=_embedding),
    Op("index_select", "gather", (2, 2), _infer_index_select, _index_select_reference,
       "the positions index[n] of `axis`", {"axis": REQUIRED, "checked": True}, _index_select),
    Op("gather", "gather", (2, 2), _infer_gather, _gather_reference,
       "x[i, index[i, j], ...]: the index replaces the position on `axis`", {"axis": REQUIRED}, _gather),
    Op("index", "gather", (2, None), _infer_index, _index_reference,
       "advanced indexing: index tensors, broadcast together, replace `axes`; negative positions count from the end",
       {"axes": REQUIRED, "wraps": True, "checked": True}, _index),
    Op("scatter", "scatter", (3, 3), _infer_scatter, _scatter_reference,
       "the first operand, with the third's elements combined in at the positions that index gives on `axis`",
       {"axis": REQUIRED, "combine": "set"}, _scatter),
    Op("index_put", "scatter", (3, None), _infer_index_put, _index_put_reference,
       "x with values combined in where `index` would read; unless it `wraps`, negative positions are outside",
       {"axes": REQUIRED, "combine": "set", "wraps": True, "checked": True}, _index_put),
]  # fmt: skip
