"""Scalar expressions over boxes of points, with NumPy: each axis is one array dimension.

A value is an array with one dimension for each open axis, of size 1 where it does not depend on that axis. A branch of
`where` is evaluated for all points with out-of-range loads clipped, but a clipped load at a point that the branch is
chosen for is an error. Reductions accumulate in the dtype they carry.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from effcc.errors import InputError, IRTypeError
from effcc.ir import dtypes
from effcc.ir.dims import evaluate as evaluate_size
from effcc.ir.dims import evaluate_number
from effcc.ir.dtypes import DType
from effcc.ir.expr import Axis, Call, Const, Expr, Load, Reduce, Size, children
from effcc.ir.kernel import Statement
from effcc.ir.scalars import (
    CHECKS,
    FUNCTIONS,
    REDUCTIONS,
    function,
    require_divisor,
    require_in_range,
    require_true,
)

Array = Any
BUDGET = 1 << 22
"""How many points are evaluated at once; larger boxes are cut."""


@dataclass(frozen=True)
class Evaluator:
    """What an expression is evaluated in.

    `buffers` by name; `ranges`: the points that each axis covers (a loop variable covers one); `sizes`: the values of
    the size symbols; `wide`: the dtype that takes the place of every floating dtype (None: each its own);
    `definitions`: the statements that defined the intermediates, which online reductions evaluate tile by tile.
    """

    buffers: Mapping[str, Array]
    ranges: Mapping[str, range]
    sizes: Mapping[str, int]
    wide: DType | None = None
    definitions: Mapping[str, Statement] | None = None

    def numpy(self, dtype: DType) -> Any:
        """The NumPy dtype that stands for `dtype` here."""
        return self.wide.numpy if self.wide is not None and dtype.is_float else dtype.numpy

    def cast(self, value: Array, dtype: DType) -> Array:
        return np.asarray(value).astype(self.numpy(dtype), copy=False)

    def at(self, **ranges: range) -> Evaluator:
        """The same with other points for some axes."""
        return replace(self, ranges={**self.ranges, **ranges})

    def __call__(self, e: Expr, dims: Sequence[str], mask: Array | None = None) -> Array:
        """The values of `e`, one array dimension for each of `dims`; `mask` marks the points that matter."""
        match e:
            case Const(value, dtype):
                return np.full((1,) * len(dims), value, self.numpy(dtype))
            case Size(value, dtype):
                return np.full((1,) * len(dims), evaluate_number(value, self.sizes), self.numpy(dtype))
            case Axis(name):
                return self._axis(name, dims)
            case Load():
                return self._load(e, dims, mask)
            case Reduce():
                return self._reduce(e, dims, mask)
            case Call(function="where"):
                return self._where(e, dims, mask)
            case Call(function="cast", operands=(operand,)):
                return self.cast(self(operand, dims, mask), e.dtype)
            case Call(function="bits", operands=(operand,)):  # of the numbers as they are, however wide they are here
                given = self(operand, dims, mask).astype(operand.dtype.numpy)
                return self.cast(function("bits").reference(given), e.dtype)
            case Call(function=name) if name in CHECKS:
                return self._check(e, dims, mask)
        return self.cast(function(e.function).reference(*(self(o, dims, mask) for o in e.operands)), e.dtype)

    def _axis(self, name: str, dims: Sequence[str]) -> Array:
        points = self.ranges[name]
        shape = [1] * len(dims)
        if name in dims:
            shape[dims.index(name)] = len(points)
        return np.arange(points.start, points.start + math.prod(shape), dtype=np.int64).reshape(shape)

    def _where(self, e: Call, dims: Sequence[str], mask: Array | None) -> Array:
        condition = self(e.operands[0], dims, mask)
        if condition.all():
            return self(e.operands[1], dims, mask)
        if not condition.any():
            return self(e.operands[2], dims, mask)
        chosen, other = (condition, ~condition) if mask is None else (mask & condition, mask & ~condition)
        return np.where(condition, self(e.operands[1], dims, chosen), self(e.operands[2], dims, other))

    def _check(self, e: Call, dims: Sequence[str], mask: Array | None) -> Array:
        """A check of the points that matter; at the others it gives what a kernel goes on with."""
        *operands, _ = (self(o, dims, mask) for o in e.operands)
        shape = np.broadcast_shapes(*(o.shape for o in operands), () if mask is None else mask.shape)
        matter = np.broadcast_to(True if mask is None else mask, shape)
        if e.function == "divisor":
            divisor = np.broadcast_to(operands[0], shape)
            require_divisor(divisor[matter])
            return np.where(divisor == 0, np.ones_like(divisor), divisor)
        if e.function == "holds":
            condition = np.broadcast_to(operands[0], shape)
            require_true(condition[matter])
            return condition
        index, size = (np.broadcast_to(o, shape) for o in operands)
        require_in_range(index[matter], size[matter])
        return np.asarray((index >= 0) & (index < size))

    def _load(self, e: Load, dims: Sequence[str], mask: Array | None) -> Array:
        buffer = self.buffers[e.written]
        sliced = self.slice(e, dims)
        if sliced is not None:
            return self.cast(sliced, e.dtype)
        index = [np.asarray(self(i, dims, mask), np.int64) for i in e.index]
        clipped = []
        for position, (i, size) in enumerate(zip(index, buffer.shape, strict=True)):
            outside = (i < 0) | (i >= size)
            wrong = outside if mask is None else outside & mask
            if wrong.any():
                bad = int(np.broadcast_to(i, wrong.shape)[wrong][0])
                raise InputError(f"load of {e.buffer!r}: index {bad} in dimension {position}, whose size is {size}")
            clipped.append(np.clip(i, 0, size - 1) if outside.any() else i)
        if 0 in buffer.shape:
            return np.zeros((1,) * len(dims), self.numpy(e.dtype))
        return self.cast(buffer[tuple(clipped)], e.dtype)

    def slice(self, e: Load, dims: Sequence[str]) -> Array | None:
        """The load as a transposed slice, where its index is distinct axes (or points) inside the buffer; else None."""
        key: list[slice | int] = []
        order: list[int] = []
        for i, size in zip(e.index, self.buffers[e.written].shape, strict=True):
            if isinstance(i, Const) and 0 <= i.value < size:
                key.append(int(i.value))
                continue
            axis, shift = _shifted(i)
            if axis is None:
                return None
            points = self.ranges[axis.name]
            start, stop = points.start + shift, points.stop + shift
            if start < 0 or stop > size or axis.name in [dims[d] for d in order]:
                return None
            if axis.name in dims:
                key.append(slice(start, stop))
                order.append(dims.index(axis.name))
            else:
                key.append(start)
        view = self.buffers[e.written][tuple(key)]
        view = np.transpose(view, sorted(range(len(order)), key=order.__getitem__))
        shape = [1] * len(dims)
        for d in order:
            shape[d] = len(self.ranges[dims[d]])
        return view.reshape(shape)

    def _reduce(self, e: Reduce, dims: Sequence[str], mask: Array | None) -> Array:
        if e.rescale is not None:
            from effcc.ir.interpreter.online import reduce_online

            return reduce_online(self, e, dims, mask)
        if e.spans:
            return self._reduce_spans(e, dims, mask)
        if mask is None and (product := self._contract(e, dims)) is not None:
            return product
        points = math.prod(len(self.ranges[a]) for a in (*dims, *e.axes))
        longest = max(e.axes, key=lambda a: len(self.ranges[a]), default=None)
        if points > BUDGET and longest is not None and len(self.ranges[longest]) > 1:
            low, high = halves(self.ranges[longest])
            combine = FUNCTIONS[REDUCTIONS[e.operator].combine].reference
            parts = (self.at(**{longest: r})._reduce(e, dims, mask) for r in (low, high))
            return self.cast(combine(*parts), e.dtype)
        return self._reduce_box(e, dims, mask)

    def _reduce_spans(self, e: Reduce, dims: Sequence[str], mask: Array | None) -> Array:
        """A reduction over ragged axes: over the points from the first start to the last stop, masked outside of each
        point's own span, whose ends may be read at points of the other axes.
        """
        ranges: dict[str, range] = {}
        inside: Array = np.asarray(True)
        ragged = {span.axis for span in e.spans}
        others = tuple(a for a in e.axes if a not in ragged)
        outer = [len(self.ranges[a]) for a in others]
        for span in e.spans:
            whole = self.ranges[span.axis]
            known = None if mask is None else expand(mask, outer)
            start, stop = (np.asarray(self(end, (*dims, *others), known)) for end in (span.start, span.stop))
            first = min(max(int(start.min(initial=whole.stop)), whole.start), whole.stop)
            points = range(first, min(max(int(stop.max(initial=first)), first), whole.stop))
            ranges[span.axis] = points
            inner = [len(points) if a == span.axis else 1 for a in e.axes]
            at = np.arange(points.start, points.stop).reshape([1] * len(dims) + inner)
            gaps = tuple(len(dims) + i for i, a in enumerate(e.axes) if a in ragged)
            inside = inside & (np.expand_dims(start, gaps) <= at) & (at < np.expand_dims(stop, gaps))
        local = self.at(**ranges)
        extents = tuple(len(local.ranges[a]) for a in e.axes)
        operator = REDUCTIONS[e.operator]
        identity = operator.identity(e.dtype)
        if 0 in extents:
            return np.full((1,) * len(dims), identity, self.numpy(e.dtype))
        masked = inside if mask is None else inside & expand(mask, extents)
        value = self.cast(local(e.body, (*dims, *e.axes), masked), e.dtype)
        body: Array = np.where(inside, value, self.cast(identity, e.dtype))
        body = np.broadcast_to(body, body.shape[: len(dims)] + extents)
        return self.cast(operator.reference(body, axis=tuple(range(len(dims), body.ndim))), e.dtype)

    def _reduce_box(self, e: Reduce, dims: Sequence[str], mask: Array | None) -> Array:
        extents = tuple(len(self.ranges[a]) for a in e.axes)
        inner_mask = None if mask is None else expand(mask, extents)
        operator = REDUCTIONS[e.operator]
        if 0 in extents:
            return np.full((1,) * len(dims), operator.identity(e.dtype), self.numpy(e.dtype))
        body = self.cast(self(e.body, (*dims, *e.axes), inner_mask), e.dtype)
        body = np.broadcast_to(body, body.shape[: len(dims)] + extents)
        axes = tuple(range(len(dims), len(dims) + len(extents)))
        return self.cast(operator.reference(body, axis=axes), e.dtype)

    def _contract(self, e: Reduce, dims: Sequence[str]) -> Array | None:
        """A sum over a product of two slices as one einsum, which does not build the box; None where it is not one."""
        factors = contraction(e)
        if factors is None or 0 in (len(self.ranges[a]) for a in e.axes):
            return None
        inner = (*dims, *e.axes)
        wanted = self.numpy(e.dtype)
        slices = [s for f in factors if self.numpy(f.dtype) == wanted and (s := self.slice(f, inner)) is not None]
        if len(slices) < len(factors):
            return None
        if any(all(s.shape[inner.index(a)] == 1 < len(self.ranges[a]) for s in slices) for a in e.axes):
            return None
        operands: list[Any] = []
        for s in slices:
            kept = [d for d, size in enumerate(s.shape) if size > 1]
            operands += [s.astype(wanted, copy=False).reshape([s.shape[d] for d in kept]), kept]
        result = sorted({d for kept in operands[1::2] for d in kept if d < len(dims)})
        value = np.asarray(np.einsum(*operands, result, optimize=True))
        return value.reshape([len(self.ranges[dims[d]]) if d in result else 1 for d in range(len(dims))])


def _shifted(index: Expr) -> tuple[Axis | None, int]:
    """The axis and the constant of an index `axis` or `axis + constant`; (None, 0) for any other."""
    match index:
        case Axis():
            return index, 0
        case Call("add", (Axis() as axis, Const(shift))):
            return axis, int(shift)
    return None, 0


def contraction(e: Reduce) -> tuple[Load, Load] | None:
    """The two loads of `sum(k: A[...] * B[...])` whose indices are plain axes; None if `e` is something else."""
    match e:
        case Reduce("sum", _, Call("mul", (Load() as a, Load() as b)), dtype, None, ()):
            plain = all(isinstance(i, Axis | Const) for i in (*a.index, *b.index))
            return (a, b) if plain and dtype in (dtypes.f32, dtypes.f64) else None
    return None


def expand(value: Array, inner: Sequence[int]) -> Array:
    """An array with a dimension of size 1 for each of `inner` after its own."""
    return value.reshape(value.shape + (1,) * len(inner))


def halves(points: range) -> tuple[range, range]:
    """A range cut in the middle."""
    middle = points.start + len(points) // 2
    return range(points.start, middle), range(middle, points.stop)


def box_points(e: Expr, ranges: Mapping[str, range], outer: int) -> int:
    """The most points that evaluating `e` over `outer` points opens at once (contractions open none of their own)."""
    inside = outer
    if isinstance(e, Reduce) and contraction(e) is None:
        inside *= math.prod(len(ranges[a]) for a in e.axes)
    return max([inside, *(box_points(c, ranges, inside) for c in children(e))])


def pieces(axes: Sequence[str], value: Expr, ranges: Mapping[str, range]) -> Iterator[dict[str, range]]:
    """The box of `axes` cut, along its longest axis first, so that no piece evaluates more than BUDGET points."""
    box = {a: ranges[a] for a in axes}
    points = math.prod(len(r) for r in box.values())
    if points == 0:
        return
    longest = max(box, key=lambda a: len(box[a]), default=None)
    if longest is None or len(box[longest]) < 2 or box_points(value, ranges, points) <= BUDGET:
        yield box
        return
    for part in halves(box[longest]):
        yield from pieces(axes, value, {**ranges, longest: part})


def bind_sizes(
    shapes: Mapping[str, tuple[Sequence[Any], Sequence[int]]], sizes: Mapping[str, int] | None
) -> dict[str, int]:
    """The values of the size symbols, read off name -> (declared shape, actual shape); raises InputError on misfits."""
    bound: dict[str, int] = dict(sizes or {})
    for name, (declared, actual) in shapes.items():
        if len(declared) != len(actual):
            raise InputError(f"{name!r}: expected {len(declared)} dimensions, got {len(actual)}: {tuple(actual)}")
        for size, value in zip(declared, actual, strict=True):
            if not isinstance(size, int) and size.is_Symbol:
                bound.setdefault(size.name, value)
    for name, (declared, actual) in shapes.items():
        for position, (size, value) in enumerate(zip(declared, actual, strict=True)):
            unbound = [] if isinstance(size, int) else [s.name for s in size.free_symbols if s.name not in bound]
            if unbound:
                raise IRTypeError(f"the size {unbound[0]!r} is in no shape alone; give its value in `sizes`")
            expected = evaluate_size(size, bound)
            if expected != value:
                raise InputError(f"{name!r}: expected size {expected} in dimension {position} ({size}), got {value}")
    return bound
