"""Importers of views, copies, concatenation and padding."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import sympy
import torch

from effcc.frontend.importer import (
    HALVES,
    Importer,
    NotNative,
    Operand,
    aten,
    dtype_of,
    imports,
    resolve_shape,
    result_dtype,
)
from effcc.ir.dims import Dim, ceil_div, contiguous_strides, dim, product, same, same_shape
from effcc.ir.dtypes import DType, boolean
from effcc.ir.graph import Value
from effcc.ir.op import normalize_axis
from effcc.ir.scalars import SAME_BITS


@imports(aten.view.default, aten.reshape.default, aten._unsafe_view.default, aten.view_copy.default)
def view(m: Importer, x: Value, sizes: Any) -> Value:
    return m.reshape(x, resolve_shape(x, sizes))


@imports(aten.view.dtype)
def view_dtype(m: Importer, x: Value, dtype: Any) -> Value:
    """The bytes of `x` read as another dtype; where that is smaller or larger, the last axis is longer or shorter.

    The first of several elements has the lowest bits (little endian). Kernels hold half types as f32, where a signaling
    NaN becomes a quiet one, and of a bool that no comparison made only 0 and 1: those views are PyTorch's.
    """
    to = dtype_of(dtype)
    if to == x.type.dtype:
        return x
    if to in HALVES or x.type.dtype in HALVES:
        raise NotNative("a signaling NaN of a half type would become a quiet one")
    if to == boolean:
        raise NotNative("a truth value of a byte that is neither 0 nor 1")
    bits = m.emit("bits", x) if x.type.dtype.is_float else x
    stored = SAME_BITS.get(to, to) if to.is_float else to
    found = _resized(m, bits, stored)
    return m.emit("bits", found) if to.is_float else found


def _resized(m: Importer, x: Value, to: DType) -> Value:
    """Integers as integers of another size, of the same bytes."""
    few, many = sorted((x.type.dtype.bytes, to.bytes))
    times, step = many // few, 8 * few
    if times == 1:
        return m.cast(x, to)
    if to.bytes == few:
        wide = x.type.dtype
        shifts = m.emit("constant", value=tuple(range(0, step * times, step)), dtype=wide, shape=(times,))
        parts = m.emit("shr", m.reshape(x, (*x.type.shape, 1)), shifts)
        return m.reshape(m.cast(parts, to), (*x.type.shape[:-1], dim(x.type.shape[-1] * times)))
    last = x.type.rank - 1
    count = m.result_size(last)
    low = m.constant((1 << step) - 1, to)
    found: Value | None = None
    for k in range(times):
        part = m.emit("and", m.cast(m.slice(x, last, k, _end(k, count, times), times), to), low)
        part = m.emit("shl", part, m.constant(step * k, to)) if k else part
        found = part if found is None else m.emit("or", found, part)
    assert found is not None
    return found


@imports(
    aten.clone.default, aten.alias.default, aten.detach.default, aten.detach_copy.default, aten.contiguous.default,
    aten.lift_fresh_copy.default, aten.alias_copy.default,
)  # fmt: skip
def identity(m: Importer, x: Value, memory_format: Any = None) -> Value:
    return x


@imports(aten.permute.default, aten.permute_copy.default)
def permute(m: Importer, x: Value, dims: Any) -> Value:
    return m.transpose(x, [normalize_axis(d, x.type.rank) for d in dims])


@imports(aten.t.default, aten.t_copy.default)
def t(m: Importer, x: Value) -> Value:
    return m.transpose(x, range(x.type.rank)[::-1])


@imports(aten.transpose.int, aten.transpose_copy.int)
def transpose(m: Importer, x: Value, first: int, second: int) -> Value:
    perm = list(range(x.type.rank))
    if perm:
        a, b = normalize_axis(first, len(perm)), normalize_axis(second, len(perm))
        perm[a], perm[b] = perm[b], perm[a]
    return m.transpose(x, perm)


@imports(aten.expand.default, aten.expand_copy.default)
def expand(m: Importer, x: Value, sizes: Any, implicit: bool = False) -> Value:
    own = (1,) * (len(sizes) - x.type.rank) + x.type.shape
    return m.broadcast(x, tuple(o if s == -1 else dim(s) for s, o in zip(sizes, own, strict=True)))


@imports(torch.ops.prims.broadcast_in_dim.default)
def broadcast_in_dim(m: Importer, x: Value, sizes: Any, axes: Sequence[int]) -> Value:
    """y[i] = x[i[axes]]: axis k of `x` is axis axes[k] of the result, and `x` repeats along all others."""
    own: list[Dim] = [1] * len(sizes)
    for axis, size in zip(axes, x.type.shape, strict=True):
        own[axis] = size
    return m.broadcast(m.reshape(x, own), tuple(dim(s) for s in sizes))


@imports(aten.unsqueeze.default, aten.unsqueeze_copy.default)
def unsqueeze(m: Importer, x: Value, axis: int) -> Value:
    return m.unit(x, axis % (x.type.rank + 1))


@imports(aten.squeeze.dim, aten.squeeze.dims, aten.squeeze_copy.dim, aten.squeeze_copy.dims)
def squeeze(m: Importer, x: Value, dims: Any) -> Value:
    listed = (dims,) if isinstance(dims, int) else dims
    axes = {normalize_axis(d, x.type.rank) for d in listed}
    return m.reshape(x, [n for i, n in enumerate(x.type.shape) if not (i in axes and n == 1)])


@imports(aten.squeeze.default, aten.squeeze_copy.default)
def squeeze_all(m: Importer, x: Value) -> Value:
    return m.reshape(x, [n for n in x.type.shape if n != 1])


@imports(aten.slice.Tensor, aten.slice_copy.Tensor)
def slice_axis(m: Importer, x: Value, axis: int = 0, start: Any = None, end: Any = None, step: int = 1) -> Value:
    """The size of the result is as capture has found it, so that equal sizes look alike; if it holds for all sizes."""
    axis = normalize_axis(axis, x.type.rank)
    size = x.type.shape[axis]
    first = m.inside(dim(start or 0), size)
    if m.facts.for_all:
        count = m.result_size(axis)
    else:
        whole = end is None or (isinstance(end, int) and end >= 2**62)
        length = dim((size if whole else m.inside(dim(end), size)) - first)
        count = ceil_div(length if m.facts.not_negative(length) else dim(sympy.Max(length, 0)), step)
    if first == 0 and step == 1 and same(count, size):
        return x
    return m.slice(x, axis, first, _end(first, count, step), step)


def _end(start: Dim, count: Dim, step: int) -> Dim:
    """Where a slice ends that begins at `start` and has `count` elements."""
    return start if count == 0 else dim(start + (count - 1) * step + 1)


@imports(aten.narrow_copy.default)
def narrow_copy(m: Importer, x: Value, axis: int, start: Any, length: Any) -> Value:
    axis = normalize_axis(axis, x.type.rank)
    first = m.inside(dim(start), x.type.shape[axis])
    return m.slice(x, axis, first, dim(first + length))


@imports(aten.select.int, aten.select_copy.int)
def select(m: Importer, x: Value, axis: int, index: Any) -> Value:
    axis = normalize_axis(axis, x.type.rank)
    shape = x.type.shape
    start = m.inside(dim(index), shape[axis])
    piece = m.slice(x, axis, start, dim(start + 1))
    return m.reshape(piece, (*shape[:axis], *shape[axis + 1 :]))


@imports(aten.split_with_sizes.default, aten.split_with_sizes_copy.default)
def split_with_sizes(m: Importer, x: Value, sizes: Any, axis: int = 0) -> tuple[Value, ...]:
    axis = normalize_axis(axis, x.type.rank)
    pieces, start = [], dim(0)
    for n in sizes:
        pieces.append(m.slice(x, axis, start, dim(start + n)))
        start = dim(start + n)
    return tuple(pieces)


@imports(aten.split.Tensor, aten.split_copy.Tensor)
def split(m: Importer, x: Value, size: Any, axis: int = 0) -> tuple[Value, ...]:
    total = x.type.shape[normalize_axis(axis, x.type.rank)]
    if not isinstance(size, int) or not isinstance(total, int):
        raise NotNative("a split into a number of pieces that is not known")
    return split_with_sizes(m, x, [min(size, total - s) for s in range(0, max(total, 1), max(size, 1))], axis)


@imports(aten.unbind.int, aten.unbind_copy.int)
def unbind(m: Importer, x: Value, axis: int = 0) -> tuple[Value, ...]:
    count = x.type.shape[normalize_axis(axis, x.type.rank)]
    if not isinstance(count, int):
        raise NotNative("an unbind into a number of pieces that is not known")
    return tuple(select(m, x, axis, k) for k in range(count))


@imports(aten.cat.default)
def cat(m: Importer, tensors: Sequence[Value], axis: int = 0) -> Value:
    """Concatenation; 1-d tensors without elements are left out, as eager does."""
    dtype = result_dtype(tensors)
    kept = [x for x in tensors if x.type.shape != (0,)] or list(tensors[:1])
    if len(kept) == 1:
        return m.cast(kept[0], dtype)
    return m.emit("concat", *(m.cast(x, dtype) for x in kept), axis=normalize_axis(axis, kept[0].type.rank))


@imports(aten.stack.default)
def stack(m: Importer, tensors: Sequence[Value], axis: int = 0) -> Value:
    axis %= tensors[0].type.rank + 1
    return cat(m, [m.unit(x, axis) for x in tensors], axis)


@imports(aten.constant_pad_nd.default)
def constant_pad(m: Importer, x: Value, pad: Any, value: Any = 0) -> Value:
    """ATen lists paddings from the last axis, low and high in turn."""
    low, high = [dim(0)] * x.type.rank, [dim(0)] * x.type.rank
    for k in range(len(pad) // 2):
        low[-1 - k], high[-1 - k] = dim(pad[2 * k]), dim(pad[2 * k + 1])
    if all(p == 0 for p in (*low, *high)):
        return x
    return m.emit("pad", x, low=tuple(low), high=tuple(high), value=value)


@imports(aten.flip.default)
def flip(m: Importer, x: Value, dims: Any) -> Value:
    axes = tuple(sorted(normalize_axis(d, x.type.rank) for d in dims))
    return m.emit("flip", x, axes=axes) if axes and x.type.rank else x


@imports(aten.repeat.default)
def repeat(m: Importer, x: Value, repeats: Any) -> Value:
    lead = len(repeats) - x.type.rank
    x = m.reshape(x, (*(1,) * lead, *x.type.shape))
    if all(n == 1 for n in repeats):
        return x
    if all(n == 1 or size == 1 for n, size in zip(repeats, x.type.shape, strict=True)):
        return m.broadcast(x, [dim(n * size) for n, size in zip(repeats, x.type.shape, strict=True)])
    return m.emit("repeat", x, repeats=tuple(dim(n) for n in repeats))


@imports(aten.diagonal_scatter.default)
def diagonal_scatter(m: Importer, x: Value, source: Value, offset: int = 0, first: int = 0, second: int = 1) -> Value:
    """`x` with its diagonal replaced: `y[.., i, j] = source[.., k]` where i = k + max(-offset, 0), j = i + offset."""
    rank = x.type.rank
    rows, columns = normalize_axis(first, rank), normalize_axis(second, rank)
    order = [a for a in range(rank) if a not in (rows, columns)] + [rows, columns]
    matrix = m.transpose(x, order)
    *_, height, width = matrix.type.shape
    inside = m.emit("eq", m.emit("iota", size=width), m.unit(m.emit("iota", size=height, start=offset), 1))
    before = max(-offset, 0)
    after = dim(height - source.type.shape[-1] - before)
    low, high = [dim(0)] * (rank - 1), [dim(0)] * (rank - 1)
    low[-1], high[-1] = dim(before), after
    zero: Operand = False if x.type.dtype == boolean else 0
    spread = m.emit("pad", source, low=tuple(low), high=tuple(high), value=zero) if before or after != 0 else source
    found = m.emit("where", inside, m.unit(m.cast(spread, x.type.dtype), rank - 1), matrix)
    return m.transpose(found, [order.index(a) for a in range(rank)])


@imports(aten.diagonal.default, aten.diagonal_copy.default)
def diagonal(m: Importer, x: Value, offset: int = 0, first: int = 0, second: int = 1) -> Value:
    rank = x.type.rank
    return m.emit("diagonal", x, offset=offset, axis1=normalize_axis(first, rank), axis2=normalize_axis(second, rank))


@imports(aten.as_strided.default, aten.as_strided_copy.default)
def as_strided(m: Importer, x: Value, sizes: Any, strides: Any, offset: Any = None) -> Value:
    """Of a row-major tensor: `effcc.frontend.storage_order` has found the one that eager's memory holds."""
    if not x.type.is_contiguous:
        raise NotNative("as_strided of a tensor that is not row-major")
    sizes, strides = tuple(dim(n) for n in sizes), tuple(dim(s) for s in strides)
    if offset in (None, 0) and same_shape(strides, contiguous_strides(sizes)) and same(x.type.size, product(sizes)):
        return m.reshape(x, sizes)
    return m.emit("as_strided", x, shape=sizes, strides=strides, offset=dim(offset or 0))


@imports(aten.unfold.default)
def unfold(m: Importer, x: Value, axis: int, size: int, step: int) -> Value:
    """Windows of one axis, as a last axis: `y[.., i, .., k] = x[.., i * step + k, ..]`."""
    shape = x.type.shape
    if not all(isinstance(n, int) for n in shape):
        return _windows(m, x, normalize_axis(axis, x.type.rank), size, step)
    if x.type.rank == 0:
        return m.reshape(x, (size,))
    axis, strides = normalize_axis(axis, x.type.rank), list(contiguous_strides(shape))
    windows = [n if i != axis else (n - size) // step + 1 for i, n in enumerate(shape)]
    steps = [s if i != axis else s * step for i, s in enumerate(strides)]
    return m.emit("as_strided", x, shape=(*windows, size), strides=(*steps, strides[axis]), offset=0)


def _windows(m: Importer, x: Value, axis: int, size: int, step: int) -> Value:
    """`unfold` of a tensor of run-time sizes: the axis cut into windows where these lie side by side, else a gather."""
    if not isinstance(size, int) or not isinstance(step, int):
        raise NotNative("windows of unknown size")
    count, shape = m.result_size(axis), x.type.shape
    if size == step:
        whole = m.slice(x, axis, 0, dim(count * size))
        found = m.reshape(whole, (*shape[:axis], count, size, *shape[axis + 1 :]))
    else:
        first = m.unit(m.emit("iota", size=count, step=step), 1)
        places = m.emit("add", first, m.emit("iota", size=size))
        found = m.emit("index", x, places, axes=(axis,), wraps=False, checked=False)
    others = [a for a in range(x.type.rank + 1) if a != axis + 1]
    return m.transpose(found, (*others, axis + 1))


@imports(aten.slice_scatter.default)
def slice_scatter(
    m: Importer, x: Value, source: Value, axis: int = 0, start: Any = None, end: Any = None, step: int = 1
) -> Value:
    axis = normalize_axis(axis, x.type.rank)
    size, count = x.type.shape[axis], source.type.shape[axis]
    first = m.inside(dim(start or 0), size)
    whole = end is None or (isinstance(end, int) and end >= 2**62)
    last = _end(first, count, step) if count != 1 else size if whole else m.inside(dim(end), size)
    return m.emit("slice_scatter", x, m.cast(source, x.type.dtype), axis=axis, start=first, end=last, step=step)


@imports(aten.select_scatter.default)
def select_scatter(m: Importer, x: Value, source: Value, axis: int, index: Any) -> Value:
    axis = normalize_axis(axis, x.type.rank)
    start = m.inside(dim(index), x.type.shape[axis])
    piece = m.unit(m.cast(source, x.type.dtype), axis)
    return m.emit("slice_scatter", x, piece, axis=axis, start=start, end=dim(start + 1), step=1)


def triangle(m: Importer, x: Value, diagonal: int, lower: bool) -> Value:
    """`x` with zeros above (lower) or below the diagonal."""
    rows, columns = x.type.shape[-2:]
    row = m.unit(m.emit("iota", size=rows, start=diagonal), 1)
    column = m.emit("iota", size=columns)
    inside = m.emit("le" if lower else "ge", column, row)
    zero: Operand = False if x.type.dtype.kind == "bool" else 0
    return m.emit("where", inside, x, m.constant(zero, x.type.dtype))


@imports(aten.tril.default)
def tril(m: Importer, x: Value, diagonal: int = 0) -> Value:
    return triangle(m, x, diagonal, lower=True)


@imports(aten.triu.default)
def triu(m: Importer, x: Value, diagonal: int = 0) -> Value:
    return triangle(m, x, diagonal, lower=False)
