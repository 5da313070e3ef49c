"""Axes that views had merged are taken apart: where an index reads `k // 32` and `k % 32`, k becomes two axes.

Every access is then affine again: lanes, packing and layouts see strides where they would see divisions. Not for a
statement of few points (the sums of a group's channels, at `o - o % 8 + c`): longer ones would lose a long axis.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import replace

from effcc.ir.dims import Dim, elements
from effcc.ir.division import fold_division
from effcc.ir.dtypes import i64
from effcc.ir.expr import (
    Axis,
    Call,
    Const,
    Expr,
    Load,
    Reduce,
    add,
    floor_div,
    modulo,
    multiply,
    transform,
    walk,
)  # fmt: skip
from effcc.ir.kernel import Kernel, Param, Scatter, Statement
from effcc.ir.types import TensorType
from effcc.passes.fusion.cascade import Cascade, Defined

FEW = 64
"""A statement with so many times fewer points than another one of its kernel reads at divided places as they are."""
LIMIT = 8
"""So many cuts of one kernel at most: each takes apart one merged dimension, and tensors have few."""


def split_axes(kernel: Kernel) -> Kernel:
    """The kernel with every axis that is divided by a constant split there, until none is left."""
    for _ in range(LIMIT):
        found = _divided(kernel)
        if found is None:
            return kernel
        kernel = _split(kernel, *found)
    return kernel


def _divided(kernel: Kernel) -> tuple[str, int] | None:
    """An axis with a known extent, and a constant that divides it and that some index divides it by."""
    extents = kernel.extents
    scattered = {
        s.target for s in kernel.statements if s.scatter is not None
    }  # their stores name dimensions as they are
    whole = {a for s in kernel.statements if s.target in scattered for a in s.axes}
    divisors: dict[str, set[int]] = {}
    least = max((_points(kernel, s) for s in kernel.statements), default=0) / FEW
    for e in (e for s in kernel.statements if _points(kernel, s) >= least for e in walk(s.value)):
        match e:
            case Call("floordiv" | "mod", (Axis(name=name), Const(value=c))):
                divisors.setdefault(name, set()).add(int(c))
    for axis, found in divisors.items():
        extent = extents.get(axis)
        c = min(found)
        solid = {*kernel.scans, *kernel.spans, *whole}
        if isinstance(extent, int) and 1 < c < extent and extent % c == 0 and axis not in solid:
            return axis, c
    return None


def _points(kernel: Kernel, s: Statement) -> int:
    axes = (*s.axes, *(s.reduction.axes if s.reduction is not None else ()))
    return elements(tuple(kernel.extents[a] for a in axes))


def _split(kernel: Kernel, axis: str, c: int) -> Kernel:
    extent = kernel.extents[axis]
    assert isinstance(extent, int)
    outer, inner = f"{axis}_o", f"{axis}_i"
    while outer in kernel.extents or inner in kernel.extents:
        outer, inner = outer + "o", inner + "i"
    axes = tuple(
        part for a, e in kernel.axes for part in (((outer, extent // c), (inner, c)) if a == axis else ((a, e),))
    )
    bounds = {a: e for a, e in axes if isinstance(e, int)}
    merged = add(multiply(Axis(outer), Const(c, i64)), Axis(inner))
    places: dict[str, tuple[int, ...]] = {}
    for s in kernel.statements:
        if axis in s.axes and s.scatter is None:
            places[s.target] = tuple(p for p, a in enumerate(s.axes) if a == axis)

    def rewrite(e: Expr) -> Expr:
        match e:
            case Reduce() if axis in e.axes:
                return replace(e, axes=_expand(e.axes, axis, (outer, inner)))
            case Load() if e.buffer in places:
                index = []
                for p, i in enumerate(e.index):
                    cut = p in places[e.buffer]
                    index += _cut_index(i, c, bounds.get) if cut else [i]
                return replace(e, index=tuple(index))
        return fold_division(e, bounds.get)

    def whole(e: Expr) -> Expr:
        return transform(substitute_free(e, axis, merged), rewrite)

    statements = []
    for s in kernel.statements:
        scatter = s.scatter and Scatter(tuple(whole(i) for i in s.scatter.index), s.scatter.combine)
        statements.append(Statement(s.target, _expand(s.axes, axis, (outer, inner)), whole(s.value), scatter))
    outputs = tuple(_split_param(p, places.get(p.name, ()), extent // c, c) for p in kernel.outputs)
    return replace(kernel, axes=axes, statements=tuple(statements), outputs=outputs)


def split_groups(cascade: Cascade) -> tuple[Cascade, dict[str, tuple[tuple[int, int], ...]]]:
    """The cascade with kept axes split where a statement reads an earlier result at the axis divided by a constant.

    A group norm reads its means at `channel // 4`; as two axes, group and member, the group is shared with the means,
    and the norm is one kernel. Readers see the result with the dimension cut in two: for each target, the second value
    gives the cuts in order, as (dimension, size of the inner part).
    """
    items = list(cascade.items)
    extents = dict(cascade.extents)
    cuts: dict[str, tuple[tuple[int, int], ...]] = {}
    defined: set[str] = set()
    times = Counter(x.target for x in items if isinstance(x, Defined))
    readers: dict[str, dict[int, None]] = {}
    for number, reader in enumerate(items):
        if isinstance(reader, Defined):
            for load in reader.statement.reads:
                readers.setdefault(load.buffer, {})[number] = None
    for position, given in enumerate(items):
        if not isinstance(given, Defined):
            continue
        item = given
        again = times[item.target] > 1
        while not again and (found := _group(item, defined, extents)) is not None:
            axis, c = found
            place, size = item.statement.axes.index(axis), extents[axis]
            if item.statement.axes.count(axis) != 1 or not isinstance(size, int):
                break
            outer, inner = f"{axis}g", f"{axis}m"
            extents.update({outer: size // c, inner: c})
            items[position] = _split_item(item, axis, outer, inner, c, extents)
            cuts[item.target] = (*cuts.get(item.target, ()), (place, c))
            for number in readers.get(item.target, ()):
                reader = items[number]
                assert isinstance(reader, Defined)
                items[number] = _reindex(reader, item.target, place, c, extents)
            split = items[position]
            assert isinstance(split, Defined)
            item = split
        defined.add(item.target)
    return replace(cascade, items=items, extents=extents), cuts


def split_type(type: TensorType, cuts: tuple[tuple[int, int], ...]) -> TensorType:
    """A type seen with dimensions cut in two, one cut after the other: the same memory."""
    param = Param("", type)
    for position, inner in cuts:
        size = param.type.shape[position]
        assert isinstance(size, int)
        param = _split_param(param, (position,), size // inner, inner)
    return param.type


Groups = tuple[TensorType, tuple[tuple[int, int], ...]]
"""A type without cuts, and the cuts by which other kernels see it, in order, as (dimension, size of the inner part)."""


def join_groups(kernel: Kernel, whole: Mapping[str, Groups]) -> Kernel:
    """The kernel with some parameters seen whole again, where they are read: `x[c // 8, c % 8]` is `x[c]`.

    Only the kernel that holds the group's means has to see groups; others choose lanes and layouts along all channels.
    whole: by parameter.
    """

    def one(e: Expr) -> Expr:
        if not isinstance(e, Load) or e.buffer not in whole:
            return e
        index = list(e.index)
        for position, c in reversed(whole[e.buffer][1]):
            index[position : position + 2] = [_joined(index[position], index[position + 1], c)]
        return replace(e, index=tuple(index))

    def joined(s: Statement) -> Statement:
        scatter = s.scatter and Scatter(tuple(transform(i, one) for i in s.scatter.index), s.scatter.combine)
        return replace(s, value=transform(s.value, one), scatter=scatter)

    params = tuple(replace(p, type=whole[p.name][0]) if p.name in whole else p for p in kernel.params)
    return replace(kernel, params=params, statements=tuple(map(joined, kernel.statements)))


def _joined(outer: Expr, inner: Expr, c: int) -> Expr:
    match outer, inner:
        case Call("floordiv", (x, Const(value=p))), Call("mod", (y, Const(value=q))) if x == y and p == q == c:
            return x
    return add(multiply(outer, Const(c, i64)), inner)


def _group(item: Defined, defined: set[str], extents: Mapping[str, Dim]) -> tuple[str, int] | None:
    """A kept axis, and the constant by which the index of an earlier result divides it."""
    for load in item.statement.reads:
        for index in load.index:
            match index:
                case Call("floordiv", (Axis(name=name), Const(value=c))) if load.buffer in defined:
                    size = extents.get(name)
                    plain = name in item.statement.axes and name not in item.scans and item.statement.scatter is None
                    if plain and isinstance(size, int) and 1 < c < size and size % int(c) == 0:
                        return name, int(c)
    return None


def _split_item(item: Defined, axis: str, outer: str, inner: str, c: int, extents: Mapping[str, Dim]) -> Defined:
    bound = _known(extents)
    merged = add(multiply(Axis(outer), Const(c, i64)), Axis(inner))
    s = item.statement
    value = transform(substitute_free(s.value, axis, merged), lambda e: fold_division(e, bound))
    return replace(item, statement=Statement(s.target, _expand(s.axes, axis, (outer, inner)), value, s.scatter))


def _reindex(item: Defined, target: str, position: int, c: int, extents: Mapping[str, Dim]) -> Defined:
    """The reader with loads of `target` seen with one dimension cut in two."""
    bound = _known(extents)

    def one(e: Expr) -> Expr:
        if not isinstance(e, Load) or e.buffer != target:
            return e
        parts = _cut_index(e.index[position], c, bound)
        return replace(e, index=(*e.index[:position], *parts, *e.index[position + 1 :]))

    s = item.statement
    scatter = s.scatter and Scatter(tuple(transform(i, one) for i in s.scatter.index), s.scatter.combine)
    return replace(item, statement=replace(s, value=transform(s.value, one), scatter=scatter))


def substitute_free(e: Expr, axis: str, value: Expr) -> Expr:
    """`e` with an axis replaced everywhere, also where a reduction inside it binds the axis (and will be rebound)."""
    return transform(e, lambda node: value if isinstance(node, Axis) and node.name == axis else node)


def _known(extents: Mapping[str, Dim]) -> Callable[[str], int | None]:
    """An axis's extent, where it is known."""

    def extent(axis: str) -> int | None:
        found = extents.get(axis)
        return found if isinstance(found, int) else None

    return extent


def _cut_index(index: Expr, c: int, bound: Callable[[str], int | None]) -> list[Expr]:
    """The places in the outer and in the inner part of a dimension that is cut into parts of `c`."""
    divisor = Const(c, i64)
    return [fold_division(part, bound) for part in (floor_div(index, divisor), modulo(index, divisor))]


def _expand(axes: tuple[str, ...], axis: str, parts: tuple[str, str]) -> tuple[str, ...]:
    return tuple(x for a in axes for x in (parts if a == axis else (a,)))


def _split_param(p: Param, positions: tuple[int, ...], outer: int, inner: int) -> Param:
    """The parameter seen with the dimensions at `positions` cut in two: the same memory."""
    if not positions:
        return p
    shape: list[Dim] = []
    strides: list[Dim] = []
    for position, (size, step) in enumerate(zip(p.type.shape, p.type.layout, strict=True)):
        if position in positions:
            shape += [outer, inner]
            strides += [step * inner, step]
        else:
            shape.append(size)
            strides.append(step)
    packed = None if p.type.strides is None else tuple(strides)
    return Param(p.name, TensorType(p.type.dtype, tuple(shape), packed))
