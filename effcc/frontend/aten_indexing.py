"""Importers of data-dependent reads and writes."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from effcc.frontend.importer import HALVES, Importer, NotNative, Operand, aten, imports
from effcc.ir.dims import product, same, same_shape
from effcc.ir.dtypes import DType, boolean, i32, i64
from effcc.ir.graph import Value
from effcc.ir.op import broadcast_shapes, normalize_axis
from effcc.ir.scalars import highest, lowest


@imports(aten.embedding.default)
def embedding(
    m: Importer, table: Value, index: Value, padding_idx: int = -1, scale_grad: bool = False, sparse: bool = False
) -> Value:
    return m.emit("embedding", table, index)


@imports(aten.index_select.default)
def index_select(m: Importer, x: Value, dim: int, index: Value) -> Value:
    if x.type.rank == 0 and index.type.shape == (1,):
        return m.reshape(index_select(m, m.reshape(x, (1,)), 0, index), ())
    if x.type.rank == 0 or index.type.rank != 1:
        raise NotNative("index_select on or with a 0-d tensor")
    return m.emit("index_select", x, index, axis=normalize_axis(dim, x.type.rank))


@imports(aten.gather.default)
def gather(m: Importer, x: Value, dim: int, index: Value, sparse_grad: bool = False) -> Value:
    if 0 in index.type.shape:  # of any rank and integer dtype
        return m.emit("full", shape=index.type.shape, value=0, dtype=x.type.dtype)
    if x.type.rank == 0 or index.type.rank == 0:
        found = m.emit("gather", _in_a_row(m, x), _in_a_row(m, index), axis=0)
        return m.reshape(found, index.type.shape)
    return m.emit("gather", x, index, axis=normalize_axis(dim, x.type.rank))


def _in_a_row(m: Importer, x: Value) -> Value:
    """A number as a tensor of one element; its index then is one as well."""
    if x.type.rank > 1:
        raise NotNative("a 0-d tensor beside one of several axes")
    return m.reshape(x, (1,)) if x.type.rank == 0 else x


def _index_tensors(m: Importer, indices: Sequence[Value | None]) -> tuple[tuple[int, ...], list[Value]]:
    """The indexed axes and their index tensors. Masks select a number of elements that only the data knows."""
    axes = tuple(axis for axis, index in enumerate(indices) if index is not None)
    tensors = [index for index in indices if index is not None]
    if not tensors:
        raise NotNative("indexing by nothing")
    for index in tensors:
        if index.type.dtype == boolean or index.type.dtype.bits == 8:
            raise NotNative("indexing by a mask")
    return axes, [index if index.type.dtype in (i64, i32) else m.cast(index, i64) for index in tensors]


@imports(aten.index.Tensor)
def index(m: Importer, x: Value, indices: Sequence[Value | None]) -> Value:
    axes, tensors = _index_tensors(m, indices)
    return m.emit("index", x, *tensors, axes=axes)


@imports(aten._unsafe_index.Tensor)
def unsafe_index(m: Importer, x: Value, indices: Sequence[Value | None]) -> Value:
    """Indices that a decomposition has computed: inside, or (of NaN coordinates, say) nobody's business."""
    axes, tensors = _index_tensors(m, indices)
    return m.emit("index", x, *tensors, axes=axes, checked=False)


@imports(aten._unsafe_index_put.default)
def unsafe_index_put(
    m: Importer, x: Value, indices: Sequence[Value | None], values: Value, accumulate: bool = False
) -> Value:
    return index_put(m, x, indices, values, accumulate, checked=False)


@imports(aten.index_put.default)
def index_put(
    m: Importer, x: Value, indices: Sequence[Value | None], values: Value, accumulate: bool = False,
    unsafe: bool = False, checked: bool = True,
) -> Value:  # fmt: skip
    """Writes at index tensors, or under one mask that covers the leading axes of `x` with a single value."""
    masks = [i for i in indices if i is not None and i.type.dtype == boolean]
    if len(masks) == len(indices) == 1 and values.type.size == 1 and not (accumulate and x.type.dtype == boolean):
        mask = m.reshape(masks[0], (*masks[0].type.shape, *(1,) * (x.type.rank - masks[0].type.rank)))
        value = m.reshape(m.cast(values, x.type.dtype), ())
        return m.emit("where", mask, m.emit("add", x, value) if accumulate else value, x)
    if values.type.dtype != x.type.dtype:
        raise NotNative("eager refuses values of another dtype, but for one under a mask")
    axes, tensors = _index_tensors(m, indices)
    if accumulate and x.type.dtype == boolean:
        raise NotNative("accumulation into a bool tensor")
    combine = "add" if accumulate else "set"
    return m.emit("index_put", x, values, *tensors, axes=axes, combine=combine, checked=checked)


def _cut_to(m: Importer, source: Value, index: Value) -> Value:
    """The part of `source` that the index covers."""
    for axis, (n, size) in enumerate(zip(index.type.shape, source.type.shape, strict=True)):
        if n != size:
            source = m.slice(source, axis, 0, n)
    return source


def _scatter(m: Importer, x: Value, dim: int, index: Value, source: Operand, combine: str) -> Value:
    if 0 in index.type.shape:  # of any rank and integer dtype
        return x
    if x.type.rank == 0 or index.type.rank == 0:
        base, places = _in_a_row(m, x), _in_a_row(m, index)
        values = _in_a_row(m, source) if isinstance(source, Value) else source
        return m.reshape(_scatter(m, base, 0, places, values, combine), x.type.shape)
    if combine != "set" and x.type.dtype == boolean:
        raise NotNative("accumulation into a bool tensor")
    if not isinstance(source, Value):
        m.checked(source, x.type.dtype)
        source = m.broadcast(m.constant(source, x.type.dtype), index.type.shape)
    return _scatter_covered(m, x, normalize_axis(dim, x.type.rank), index, _cut_to(m, source, index), combine)


def _scatter_covered(m: Importer, x: Value, axis: int, index: Value, source: Value, combine: str) -> Value:
    """A scatter into the part of `x` that an index of run-time size covers; the rest of `x` stays beside it.

    That the index is no longer than `x` beside `axis` is a guard of the captured graph, which kernels do not know.
    """
    for other, (n, size) in enumerate(zip(index.type.shape, x.type.shape, strict=True)):
        if other != axis and n != size and not (isinstance(n, int) and isinstance(size, int)):
            part, rest = m.slice(x, other, 0, n), m.slice(x, other, n, size)
            return m.emit("concat", _scatter_covered(m, part, axis, index, source, combine), rest, axis=other)
    return m.emit("scatter", x, index, source, axis=axis, combine=combine)


@imports(aten.scatter.src, aten.scatter.value)
def scatter(m: Importer, x: Value, dim: int, index: Value, source: Operand) -> Value:
    return _scatter(m, x, dim, index, source, "set")


@imports(aten.scatter_add.default)
def scatter_add(m: Importer, x: Value, dim: int, index: Value, source: Value) -> Value:
    return _accumulated(m, x, lambda base, added: _scatter(m, base, dim, index, added, "add"), source)


def _accumulated(m: Importer, x: Value, scatter: Callable[[Value, Value], Value], source: Value) -> Value:
    """A scatter that combines what meets in one place, half types in f32."""
    dtype = x.type.dtype
    return m.cast(scatter(m.accurate(x, dtype), m.accurate(source, dtype)), dtype)


_REDUCTIONS = {"sum": "add", "prod": "mul", "amax": "max", "amin": "min"}


def _identity(combine: str, dtype: DType) -> bool | int | float:
    """What changes nothing that it is combined with."""
    if combine in ("max", "min"):
        return lowest(dtype) if combine == "max" else highest(dtype)
    return 0 if combine == "add" else 1


@imports(aten.scatter_reduce.two)
def scatter_reduce(
    m: Importer, x: Value, dim: int, index: Value, source: Value, reduction: str, include_self: bool = True
) -> Value:
    if reduction == "mean":
        return _scattered_mean(m, x, dim, index, source, include_self)
    combine = _REDUCTIONS[reduction]
    if not include_self:
        x = _scatter(m, x, dim, index, _identity(combine, x.type.dtype), "set")
    return _accumulated(m, x, lambda base, added: _scatter(m, base, dim, index, added, combine), source)


def _scattered_mean(m: Importer, x: Value, dim: int, index: Value, source: Value, include_self: bool) -> Value:
    """The mean of what meets in one place: the sum divided by how many they are."""
    dtype = x.type.dtype
    if not dtype.is_float or dtype in HALVES:
        raise NotNative(f"scatter_reduce with mean, of {dtype.name}")
    begin = x if include_self else _scatter(m, x, dim, index, 0, "set")
    total = _scatter(m, begin, dim, index, source, "add")
    none = m.broadcast(m.constant(1 if include_self else 0, dtype), x.type.shape)
    ones = m.broadcast(m.constant(1, dtype), index.type.shape)
    count = _scatter(m, none, dim, index, ones, "add")
    return m.emit("div", total, count if include_self else m.emit("maximum", count, m.constant(1, dtype)))


@imports(aten.scatter.reduce, aten.scatter.value_reduce)
def scatter_with(m: Importer, x: Value, dim: int, index: Value, source: Operand, reduce: str) -> Value:
    """`scatter_reduce` by its older name, which rounds half types after each step."""
    if x.type.dtype in HALVES:
        raise NotNative("eager rounds each step of it to a half type")
    return _scatter(m, x, dim, index, source, {"add": "add", "multiply": "mul"}[reduce])


@imports(aten.index_add.default)
def index_add(m: Importer, x: Value, dim: int, index: Value, source: Value, alpha: Any = 1) -> Value:
    if x.type.rank == 0 or index.type.rank != 1 or x.type.dtype == boolean:
        raise NotNative("index_add of this form")
    axis = normalize_axis(dim, x.type.rank)
    wanted = (*x.type.shape[:axis], index.type.shape[0], *x.type.shape[axis + 1 :])
    if source.type.dtype != x.type.dtype or not same_shape(source.type.shape, wanted):
        raise NotNative("index_add of a source that does not surely fit, which eager refuses")
    added = source if alpha == 1 else m.elementwise("mul", source, alpha)
    if x.type.rank == 1:  # which eager adds one by one, rounding each sum
        return _put(m, x, axis, index, added, "add")
    return _accumulated(m, x, lambda base, added: _put(m, base, axis, index, added, "add"), added)


def _put(
    m: Importer, x: Value, axis: int, index: Value, source: Value, combine: str = "set", wraps: bool = False
) -> Value:
    """Slices of `source`, or its only element, written along one axis of `x`."""
    return m.emit("index_put", x, source, index, axes=(axis,), combine=combine, wraps=wraps)


@imports(aten.index_reduce.default)
def index_reduce(
    m: Importer, x: Value, dim: int, index: Value, source: Value, reduce: str, include_self: bool = True
) -> Value:
    """Slices of `source` combined with those of `x`; not products of half types, which eager rounds step by step."""
    combine, dtype = _REDUCTIONS.get(reduce), x.type.dtype
    if combine is None or x.type.rank == 0 or index.type.rank != 1 or (combine == "mul" and dtype in HALVES):
        raise NotNative(f"index_reduce with {reduce} of this form")
    axis = normalize_axis(dim, x.type.rank)
    wanted = (*x.type.shape[:axis], index.type.shape[0], *x.type.shape[axis + 1 :])
    if dtype == boolean or source.type.dtype != dtype or not same_shape(source.type.shape, wanted):
        raise NotNative("index_reduce of a source that does not surely fit, which eager refuses")
    if not include_self:
        x = _put(m, x, axis, index, m.constant(_identity(combine, dtype), dtype))
    return _put(m, x, axis, index, source, combine)


@imports(aten.put.default)
def put(m: Importer, x: Value, index: Value, source: Value, accumulate: bool = False) -> Value:
    """Elements written where an index of all elements, row by row, says; negative ones count from the end."""
    if source.type.dtype != x.type.dtype or not same(product(source.type.shape), product(index.type.shape)):
        raise NotNative("put of a source that does not surely fit, which eager refuses")
    if accumulate and (x.type.dtype == boolean or x.type.dtype in HALVES):
        raise NotNative(f"accumulation into {x.type.dtype.name}")
    places, values = (m.reshape(v, (product(v.type.shape),)) for v in (index, source))
    flat = m.reshape(x, (product(x.type.shape),))
    written = _put(m, flat, 0, places, values, "add" if accumulate else "set", wraps=True)
    return m.reshape(written, x.type.shape)


@imports(aten.index_copy.default)
def index_copy(m: Importer, x: Value, dim: int, index: Value, source: Value) -> Value:
    if x.type.rank == 0 or index.type.rank != 1:
        raise NotNative("index_copy of this form")
    axis = normalize_axis(dim, x.type.rank)
    wanted = (*x.type.shape[:axis], index.type.shape[0], *x.type.shape[axis + 1 :])
    if source.type.dtype != x.type.dtype or not same_shape(source.type.shape, wanted):
        raise NotNative("index_copy of a source that does not surely fit, which eager refuses")
    return _put(m, x, axis, index, source)


@imports(aten.index_fill.int_Scalar, aten.index_fill.int_Tensor)
def index_fill(m: Importer, x: Value, dim: int, index: Value, value: Operand) -> Value:
    """Unlike the others along one axis, it counts negative positions from the end."""
    index = m.reshape(index, (1,)) if index.type.rank == 0 else index
    if x.type.rank == 0 or index.type.rank != 1 or index.type.dtype not in (i64, i32):
        raise NotNative("index_fill of this form")
    filled = m.operand(value, x.type.dtype)
    return _put(m, x, normalize_axis(dim, x.type.rank), index, m.reshape(filled, ()), wraps=True)


@imports(aten.max_unpool2d.default, aten.max_unpool3d.default)
def max_unpool(
    m: Importer, x: Value, index: Value, size: Sequence[Any], stride: Sequence[int] = (), padding: Sequence[int] = ()
) -> Value:
    """Each element at its place among the trailing dimensions, which the index counts as one; 0 elsewhere."""
    lead = x.type.shape[: x.type.rank - len(size)]
    places = product(size)
    zeros = m.emit("full", shape=(*lead, places), value=0, dtype=x.type.dtype)
    flat = (*lead, product(x.type.shape[len(lead) :]))
    found = m.emit("scatter", zeros, m.reshape(index, flat), m.reshape(x, flat), axis=len(lead), combine="set")
    return m.reshape(found, (*lead, *size))


@imports(aten.embedding_dense_backward.default)
def embedding_dense_backward(
    m: Importer, grad: Value, index: Value, rows: Any, padding_idx: int, scale_by_frequency: bool
) -> Value:
    """Rows of the gradient added up where their index says, without those of the padding."""
    if scale_by_frequency:
        raise NotNative("an embedding gradient scaled by frequency")
    if padding_idx >= 0:
        kept = m.emit("ne", index, m.constant(padding_idx, index.type.dtype))
        shape = broadcast_shapes([(*index.type.shape, 1), grad.type.shape])
        grad = m.emit("where", m.broadcast(m.unit(kept, index.type.rank), shape), grad, m.constant(0, grad.type.dtype))
    start = m.emit("full", shape=(rows, grad.type.shape[-1]), value=0, dtype=grad.type.dtype)
    return m.emit("index_put", start, grad, index, axes=(0,), combine="add", wraps=False)
