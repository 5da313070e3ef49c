"""Ops that move elements and compute nothing: each result element is one operand element, or a constant.

Sizes and offsets may be symbolic. A form indexes every dimension that stays itself by its own axis: reshape takes
floors and remainders only inside a group of dimensions that are really split or merged.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import sympy

from effcc.ir.dims import Dim, ceil_div, contiguous_strides, dim, product, same, show
from effcc.ir.dtypes import DType
from effcc.ir.expr import Axis, Expr, Load, add, both, compare, floor_div, integer, modulo, multiply, where
from effcc.ir.form import FormBuilder, constant
from effcc.ir.op import REQUIRED, Op, Types, broadcast_shapes, normalize_axis, require
from effcc.ir.types import TensorType


def _list(sizes: Sequence[Dim]) -> str:
    return f"[{','.join(show(s) for s in sizes)}]"


# --- reshape -------------------------------------------------------------------------------------------------------


def _infer_reshape(operands: Types, attrs: Mapping[str, Any]) -> TensorType:
    (x,) = operands
    shape = tuple(dim(size) for size in attrs["shape"])
    require(
        same(product(x.shape), product(shape)),
        f"{_list(x.shape)} has {show(product(x.shape))} elements, {_list(shape)} has {show(product(shape))}",
    )
    return TensorType(x.dtype, shape)


def factor_groups(source: Sequence[Dim], target: Sequence[Dim]) -> list[tuple[list[int], list[int]]]:
    """The finest split of two shapes of equal size into runs of equal size, as positions; sizes of 1 are left out.

    >>> factor_groups((2, 6, 5), (12, 1, 5))
    [([0, 1], [0]), ([2], [2])]
    """
    left = [i for i, size in enumerate(source) if size != 1]
    right = [j for j, size in enumerate(target) if size != 1]
    groups: list[tuple[list[int], list[int]]] = []
    while left and right:
        p, q = _shortest_match([source[i] for i in left], [target[j] for j in right])
        groups.append((left[:p], right[:q]))
        left, right = left[p:], right[q:]
    if left or right:
        groups.append((left, right))
    return groups


def _shortest_match(left: Sequence[Dim], right: Sequence[Dim]) -> tuple[int, int]:
    for total in range(2, len(left) + len(right) + 1):
        for p in range(max(1, total - len(right)), min(len(left), total - 1) + 1):
            if same(product(left[:p]), product(right[: total - p])):
                return p, total - p
    return len(left), len(right)


def flatten(index: Sequence[Expr], sizes: Sequence[Dim]) -> Expr:
    """The row-major position of `index` in a box of `sizes`."""
    position: Expr = integer(0)
    for i, stride in zip(index, contiguous_strides(tuple(sizes)), strict=True):
        position = add(multiply(i, integer(stride)), position) if position == integer(0) else add(
            position, multiply(i, integer(stride))
        )  # fmt: skip
    return position


def unflatten(position: Expr, sizes: Sequence[Dim]) -> list[Expr]:
    """The index in a box of `sizes` whose row-major position is `position`, which must lie in the box."""
    strides = contiguous_strides(tuple(sizes))
    index = [floor_div(position, integer(stride)) for stride in strides]
    return [index[0], *(modulo(i, integer(size)) for i, size in zip(index[1:], sizes[1:], strict=True))]


def reshaped_index(axes: Sequence[Expr], target: Sequence[Dim], source: Sequence[Dim]) -> list[Expr]:
    """Where the element at `axes` of a tensor reshaped to `target` stands in the tensor of shape `source`."""
    index: list[Expr] = [integer(0)] * len(source)
    for left, right in factor_groups(source, target):
        if not left:
            continue
        position = flatten([axes[j] for j in right], [target[j] for j in right])
        for i, part in zip(left, unflatten(position, [source[i] for i in left]), strict=True):
            index[i] = part
    return index


def _reshape(b: FormBuilder) -> None:
    shape = b.results[0].type.shape
    axes = b.axes(shape)
    b.define(axes, b.load(0, reshaped_index(axes, shape, b.operands[0].type.shape)))


# --- transpose, broadcast, slice, flip, diagonal, as_strided ---------------------------------------------------------


def _infer_transpose(operands: Types, attrs: Mapping[str, Any]) -> TensorType:
    (x,) = operands
    perm = attrs["perm"]
    require(sorted(perm) == list(range(x.rank)), f"perm must order the axes 0..{x.rank - 1}, got {_list(perm)}")
    return TensorType(x.dtype, tuple(x.shape[p] for p in perm))


def _transpose(b: FormBuilder) -> None:
    axes = b.axes(b.results[0].type.shape)
    perm = b.attrs["perm"]
    b.define(axes, b.load(0, [axes[perm.index(i)] for i in range(len(perm))]))


def _infer_broadcast(operands: Types, attrs: Mapping[str, Any]) -> TensorType:
    (x,) = operands
    shape = tuple(dim(size) for size in attrs["shape"])
    require(x.rank <= len(shape), f"{_list(x.shape)} has more axes than {_list(shape)}")
    for own, size in zip(reversed(x.shape), reversed(shape), strict=False):
        require(own == 1 or same(own, size), f"{_list(x.shape)} does not broadcast to {_list(shape)}")
    return TensorType(x.dtype, shape)


def _broadcast(b: FormBuilder) -> None:
    axes = b.axes(b.results[0].type.shape)
    b.define(axes, b.broadcast(0, axes))


def slice_bounds(size: Dim, start: Dim, end: Dim | None, step: int) -> tuple[Dim, Dim]:
    """`start` and the number of elements of `[start:end:step]` on an axis of `size`; end None: to the axis' end.

    Integer bounds count from the end where negative and are clamped, as in Python; symbolic ones must lie inside.
    """
    end = size if end is None else end
    start, end = _bound(size, start), _bound(size, end)
    length = dim(end - start)
    if isinstance(length, int):
        return start, ceil_div(max(length, 0), step)
    return start, ceil_div(length, step)


def _bound(size: Dim, bound: Dim) -> Dim:
    if isinstance(bound, int):
        if bound < 0:
            bound = dim(size + bound)
            if isinstance(bound, int):
                return max(bound, 0)
            return bound
        if isinstance(size, int):
            return min(bound, size)
        return size if bound >= 2**62 else bound
    return dim(bound)


def _infer_slice(operands: Types, attrs: Mapping[str, Any]) -> TensorType:
    (x,) = operands
    axis = normalize_axis(attrs["axis"], x.rank)
    require(x.rank > 0, "needs a tensor of rank at least 1")
    require(attrs["step"] > 0, f"step must be positive, got {attrs['step']}")
    _, length = slice_bounds(x.shape[axis], attrs["start"], attrs["end"], attrs["step"])
    return TensorType(x.dtype, (*x.shape[:axis], length, *x.shape[axis + 1 :]))


def _slice(b: FormBuilder) -> None:
    x = b.operands[0].type
    axis = normalize_axis(b.attrs["axis"], x.rank)
    start, _ = slice_bounds(x.shape[axis], b.attrs["start"], b.attrs["end"], b.attrs["step"])
    axes = b.axes(b.results[0].type.shape)
    index: list[Expr] = list(axes)
    index[axis] = add(multiply(axes[axis], integer(b.attrs["step"])), integer(start))
    b.define(axes, b.load(0, index))


def _slice_reference(x: Any, axis: int, start: int, end: int | None, step: int) -> Any:
    cut = [slice(None)] * x.ndim
    cut[axis] = slice(start, end, step)
    return x[tuple(cut)]


def _infer_flip(operands: Types, attrs: Mapping[str, Any]) -> TensorType:
    (x,) = operands
    axes = [normalize_axis(a, x.rank) for a in attrs["axes"]]
    require(len(set(axes)) == len(axes), f"an axis occurs twice in {_list(attrs['axes'])}")
    return TensorType(x.dtype, x.shape)


def _flip(b: FormBuilder) -> None:
    shape = b.operands[0].type.shape
    axes = b.axes(shape)
    flipped = {normalize_axis(a, len(shape)) for a in b.attrs["axes"]}
    index = [
        add(multiply(a, integer(-1)), integer(dim(shape[i] - 1))) if i in flipped else a for i, a in enumerate(axes)
    ]
    b.define(axes, b.load(0, index))


def _diagonal_start(attrs: Mapping[str, Any]) -> tuple[int, int]:
    """The row and column where the diagonal begins."""
    return max(-attrs["offset"], 0), max(attrs["offset"], 0)


def _infer_diagonal(operands: Types, attrs: Mapping[str, Any]) -> TensorType:
    (x,) = operands
    first, second = (normalize_axis(attrs[name], x.rank) for name in ("axis1", "axis2"))
    require(first != second, "the two axes must differ")
    row, column = _diagonal_start(attrs)
    height, width = dim(x.shape[first] - row), dim(x.shape[second] - column)
    if isinstance(height, int) and isinstance(width, int):
        length: Dim = max(min(height, width), 0)
    else:
        length = height if same(height, width) else sympy.Min(height, width)
    return TensorType(x.dtype, (*(d for i, d in enumerate(x.shape) if i not in (first, second)), length))


def _diagonal(b: FormBuilder) -> None:
    rank = len(b.operands[0].type.shape)
    first, second = (normalize_axis(b.attrs[name], rank) for name in ("axis1", "axis2"))
    *others, along = axes = b.axes(b.results[0].type.shape)
    row, column = _diagonal_start(b.attrs)
    fixed = {first: add(along, integer(row)), second: add(along, integer(column))}
    remaining = iter(others)
    b.define(axes, b.load(0, [fixed[i] if i in fixed else next(remaining) for i in range(rank)]))


def _infer_as_strided(operands: Types, attrs: Mapping[str, Any]) -> TensorType:
    (x,) = operands
    shape, strides = attrs["shape"], attrs["strides"]
    require(len(shape) == len(strides), f"{len(shape)} sizes but {len(strides)} strides")
    furthest = dim(attrs["offset"] + sum((n - 1) * s for n, s in zip(shape, strides, strict=True)))
    size = x.size
    if isinstance(furthest, int) and isinstance(size, int):
        require(product(shape) == 0 or furthest < size, f"reaches element {furthest} of a tensor of {size} elements")
    return TensorType(x.dtype, tuple(dim(n) for n in shape))


def _as_strided(b: FormBuilder) -> None:
    source = b.operands[0].type.shape
    axes = b.axes(b.results[0].type.shape)
    position = integer(b.attrs["offset"])
    for axis, stride in zip(axes, b.attrs["strides"], strict=True):
        position = add(multiply(axis, integer(stride)), position)
    index: list[Expr] = [integer(0)] * len(source)
    wide = [i for i, size in enumerate(source) if size != 1]
    if wide:
        for i, part in zip(wide, unflatten(position, [source[i] for i in wide]), strict=True):
            index[i] = part
    b.define(axes, b.load(0, index))


def _as_strided_reference(x: Any, shape: Any, strides: Any, offset: int) -> Any:
    flat = np.ascontiguousarray(x).reshape(-1)
    positions = np.asarray(offset, np.int64)
    for size, stride in zip(shape, strides, strict=True):
        positions = positions[..., None] + np.arange(size) * stride
    return flat[positions]


# --- pad, concat, repeat ---------------------------------------------------------------------------------------------


def _infer_pad(operands: Types, attrs: Mapping[str, Any]) -> TensorType:
    (x,) = operands
    low, high = attrs["low"], attrs["high"]
    require(len(low) == len(high) == x.rank, f"needs {x.rank} paddings on each side, got {len(low)} and {len(high)}")
    shape = tuple(dim(a + size + z) for a, size, z in zip(low, x.shape, high, strict=True))
    fits = all(not isinstance(d, int) or d >= 0 for d in shape)
    require(fits, f"negative padding makes a size negative: {_list(shape)}")
    for a, size, z in zip(low, x.shape, high, strict=True):
        if all(isinstance(n, int) for n in (a, size, z)):
            require(max(-a, 0) + max(-z, 0) <= size, f"negative padding ({a}, {z}) cuts more than the {size} there are")
    return TensorType(x.dtype, shape)


def _pad(b: FormBuilder) -> None:
    """`where(inside, x[i - low], value)`; sides that are cut, or left alone, need no condition."""
    axes = b.axes(b.results[0].type.shape)
    index, conditions = [], []
    sides = zip(axes, b.operands[0].type.shape, b.attrs["low"], b.attrs["high"], strict=True)
    for axis, size, low, high in sides:
        if _may_be_positive(low):
            conditions.append(compare("ge", axis, integer(low)))
        if _may_be_positive(high):
            conditions.append(compare("lt", axis, integer(dim(low + size))))
        index.append(add(axis, integer(dim(-low))))
    value: Expr = b.load(0, index)
    if conditions:
        value = where(both(*conditions), value, constant(b.attrs["value"], value))
    b.define(axes, value)


def _may_be_positive(padding: Dim) -> bool:
    return not isinstance(padding, int) or padding > 0


def _pad_reference(x: Any, low: Any, high: Any, value: Any) -> Any:
    cut = x[tuple(slice(max(-a, 0), n - max(-z, 0)) for a, z, n in zip(low, high, x.shape, strict=True))]
    widths = [(max(a, 0), max(z, 0)) for a, z in zip(low, high, strict=True)]
    padded = np.full([n + a + z for n, (a, z) in zip(cut.shape, widths, strict=True)], value).astype(x.dtype)
    padded[tuple(slice(a, a + n) for n, (a, _) in zip(cut.shape, widths, strict=True))] = cut
    return padded


def _infer_concat(operands: Types, attrs: Mapping[str, Any]) -> TensorType:
    first = operands[0]
    axis = normalize_axis(attrs["axis"], first.rank)
    require(first.rank > 0, "needs tensors of rank at least 1")
    total: Dim = 0
    for x in operands:
        require(x.dtype == first.dtype, f"operands must have one dtype, got {first.dtype.name} and {x.dtype.name}")
        require(x.rank == first.rank, f"operands must have one rank, got {first.rank} and {x.rank}")
        for i, (a, z) in enumerate(zip(first.shape, x.shape, strict=True)):
            require(i == axis or same(a, z), f"sizes of axis {i} differ: {show(a)} and {show(z)}")
        total = dim(total + x.shape[axis])
    return TensorType(first.dtype, (*first.shape[:axis], total, *first.shape[axis + 1 :]))


MOST_PIECES = 16
"""So many operands are told apart in one statement: every point of it asks in turn which one it lies in, so a
concatenation of thousands is one of concatenations (each a pass over memory, but few of them)."""


def _concat(b: FormBuilder) -> None:
    """`where(i < end_0, x_0[i], where(i < end_1, x_1[i - end_0], ...))` on the concatenated axis."""
    axes = b.axes(b.results[0].type.shape)
    axis = normalize_axis(b.attrs["axis"], len(axes))
    names = [(p.name, p.type.shape[axis]) for p in b.operands if p.type.shape[axis] != 0]
    names = names or [(b.operands[0].name, 0)]
    dtype = b.operands[0].type.dtype
    while len(names) > 2 * MOST_PIECES:
        groups = [names[n : n + MOST_PIECES] for n in range(0, len(names), MOST_PIECES)]
        names = [_joined(b, group, axes, axis, dtype) for group in groups]
    b.define(axes, _pieces(names, axes, axis, dtype))


def _joined(
    b: FormBuilder, pieces: Sequence[tuple[str, Dim]], axes: Sequence[Axis], axis: int, dtype: DType
) -> tuple[str, Dim]:
    """A temporary that holds some of the pieces: its name, and its size on the concatenated axis."""
    total = dim(sum(size for _, size in pieces))
    own = b.axes([total if n == axis else b.extents[a.name] for n, a in enumerate(axes)])
    return b.temporary(own, _pieces(pieces, own, axis, dtype)).buffer, total


def _pieces(pieces: Sequence[tuple[str, Dim]], axes: Sequence[Axis], axis: int, dtype: DType) -> Expr:
    """What stands at `axes` where tensors with these names and sizes follow each other."""
    found: list[tuple[Dim, Expr]] = []
    start: Dim = 0
    for name, size in pieces:
        index: list[Expr] = list(axes)
        index[axis] = add(axes[axis], integer(dim(-start)))
        start = dim(start + size)
        found.append((start, Load(name, tuple(index), dtype)))
    value = found[-1][1]
    for end, piece in reversed(found[:-1]):
        value = where(compare("lt", axes[axis], integer(end)), piece, value)
    return value


def _infer_repeat(operands: Types, attrs: Mapping[str, Any]) -> TensorType:
    (x,) = operands
    repeats = attrs["repeats"]
    require(len(repeats) >= x.rank, f"needs at least {x.rank} repeats, got {len(repeats)}")
    shape = (1,) * (len(repeats) - x.rank) + x.shape
    return TensorType(x.dtype, tuple(dim(n * size) for n, size in zip(repeats, shape, strict=True)))


def _repeat(b: FormBuilder) -> None:
    shape = b.operands[0].type.shape
    axes = b.axes(b.results[0].type.shape)
    own = axes[len(axes) - len(shape) :]
    repeats = b.attrs["repeats"][len(axes) - len(shape) :]
    b.define(axes, b.load(0, [_wrapped(a, n, size) for a, n, size in zip(own, repeats, shape, strict=True)]))


def _wrapped(axis: Axis, repeats: Dim, size: Dim) -> Expr:
    if size == 1:
        return integer(0)
    return axis if repeats == 1 else modulo(axis, integer(size))


# --- writing into a slice --------------------------------------------------------------------------------------------


def _infer_slice_scatter(operands: Types, attrs: Mapping[str, Any]) -> TensorType:
    x, source = operands
    require(x.dtype == source.dtype, f"operands must have one dtype, got {x.dtype.name} and {source.dtype.name}")
    expected = _infer_slice((x,), attrs)
    require(
        source.rank == x.rank and broadcast_shapes([expected.shape, source.shape]) == expected.shape,
        f"the slice is {_list(expected.shape)}, the source is {_list(source.shape)}",
    )
    return TensorType(x.dtype, x.shape)


def _slice_scatter(b: FormBuilder) -> None:
    """`where(start <= i < end and (i - start) % step == 0, source[(i - start) / step], x[i])`."""
    x, source = b.operands[0].type, b.operands[1].type
    axis, step = normalize_axis(b.attrs["axis"], x.rank), b.attrs["step"]
    start, length = slice_bounds(x.shape[axis], b.attrs["start"], b.attrs["end"], step)
    axes = b.axes(x.shape)
    offset = add(axes[axis], integer(dim(-start)))
    conditions = [] if start == 0 else [compare("ge", axes[axis], integer(start))]
    end = dim(start + length * step)
    if not same(end, x.shape[axis]):
        conditions.append(compare("lt", axes[axis], integer(end)))
    if step > 1:
        conditions.append(compare("eq", modulo(offset, integer(step)), integer(0)))
    index: list[Expr] = [integer(0) if n == 1 else a for a, n in zip(axes, source.shape, strict=True)]
    if source.shape[axis] != 1:
        index[axis] = floor_div(offset, integer(step))
    new = b.load(1, index)
    b.define(axes, where(both(*conditions), new, b.load(0, axes)) if conditions else new)


def _slice_scatter_reference(x: Any, source: Any, axis: int, start: int, end: int | None, step: int) -> Any:
    result = x.copy()
    cut = [slice(None)] * x.ndim
    cut[axis] = slice(start, end, step)
    result[tuple(cut)] = source
    return result


_SLICE = {"axis": REQUIRED, "start": 0, "end": None, "step": 1}

OPS: list[Op] = [
    Op("reshape", "view", (1, 1), _infer_reshape, lambda x, shape: x.reshape(shape),
       "the same elements in row-major order, in another shape", {"shape": REQUIRED}, _reshape, strided=True),
    Op("transpose", "view", (1, 1), _infer_transpose, lambda x, perm: np.transpose(x, perm),
       "axes in the order `perm`", {"perm": REQUIRED}, _transpose, strided=True),
    Op("broadcast", "view", (1, 1), _infer_broadcast, lambda x, shape: np.broadcast_to(x, shape),
       "repeated along new leading axes and axes of size 1", {"shape": REQUIRED}, _broadcast, strided=True),
    Op("slice", "view", (1, 1), _infer_slice, _slice_reference, "elements start:end:step of one axis",
       _SLICE, _slice, strided=True),
    Op("flip", "view", (1, 1), _infer_flip, lambda x, axes: np.flip(x, axes), "`axes` reversed",
       {"axes": REQUIRED}, _flip, strided=True),
    Op("diagonal", "view", (1, 1), _infer_diagonal,
       lambda x, offset, axis1, axis2: np.diagonal(x, offset, axis1, axis2),
       "the diagonal of two axes, as a last axis", {"offset": 0, "axis1": 0, "axis2": 1}, _diagonal, strided=True),
    Op("as_strided", "view", (1, 1), _infer_as_strided, _as_strided_reference,
       "element i... is element offset + sum(i * stride) of the row-major operand",
       {"shape": REQUIRED, "strides": REQUIRED, "offset": 0}, _as_strided, strided=True),
    Op("pad", "view", (1, 1), _infer_pad, _pad_reference,
       "`value` around the operand, `low` and `high` elements per axis; negative padding cuts",
       {"low": REQUIRED, "high": REQUIRED, "value": 0}, _pad),
    Op("concat", "view", (1, None), _infer_concat, lambda *xs, axis: np.concatenate(xs, axis),
       "operands one after the other along `axis`", {"axis": REQUIRED}, _concat),
    Op("repeat", "view", (1, 1), _infer_repeat, lambda x, repeats: np.tile(x, repeats),
       "the whole tensor `repeats` times along each axis", {"repeats": REQUIRED}, _repeat),
    Op("slice_scatter", "view", (2, 2), _infer_slice_scatter, _slice_scatter_reference,
       "the first operand with its slice start:end:step replaced by the second", _SLICE, _slice_scatter),
]  # fmt: skip
