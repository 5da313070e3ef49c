"""Packing: a constant operand stored anew, so that the lanes of a vector are neighbours and loads follow the loops."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from effcc.ir.dims import Dim, ceil_div, symbols
from effcc.ir.dtypes import i64
from effcc.ir.expr import (
    Axis,
    Const,
    Expr,
    Load,
    add,
    compare,
    floor_div,
    integer,
    modulo,
    multiply,
    substitute_axes,
    transform,
    walk,
    where,
)  # fmt: skip
from effcc.ir.form import constant
from effcc.ir.kernel import Kernel, Param, Statement
from effcc.ir.schedule import Pack
from effcc.ir.types import TensorType
from effcc.passes.fusion.polyhedra import guard_accesses


def pack_along(load: Load, axis: str, width: int, order: Sequence[str], group: int = 1) -> Pack:
    """How a load's buffer is packed along `axis`; `order` gives all axes, outermost first, the last in groups."""
    inside = {e.name for i in load.index for e in walk(i) if isinstance(e, Axis)}
    return Pack(load.buffer, axis, width, tuple(a for a in order if a != axis and a in inside), group)


def pack(kernel: Kernel, wanted: Pack) -> tuple[Kernel, Kernel]:
    """The kernel reading an operand packed, and the kernel that packs it, from `source` to `packed`.

    The packed array has a place for every point of the axes, so an index that reads an element twice stores it twice,
    and one that lies outside, where a condition keeps the kernel from reading, stores 0.
    """
    load = next(x for s in kernel.statements for x in s.reads if x.buffer == wanted.buffer)
    axis, width, inner = wanted.axis, wanted.width, wanted.order
    extents = kernel.extents
    old = next(p for p in kernel.params if p.name == load.buffer)
    cuts = {axis: width, **({inner[-1]: wanted.group} if wanted.group > 1 else {})}
    panels: dict[str, Dim] = {a: ceil_div(extents[a], cuts[a]) if a in cuts else extents[a] for a in (axis, *inner)}
    shape: tuple[Dim, ...] = (*panels.values(), *cuts.values())
    new = Param(old.name, TensorType(old.type.dtype, shape))
    numbers = {a: Const(n, i64) for a, n in cuts.items()}
    outside = (floor_div(Axis(a), numbers[a]) if a in cuts else Axis(a) for a in panels)
    index = (*outside, *(modulo(Axis(a), number) for a, number in numbers.items()))

    def redirect(e: Expr) -> Expr:
        return Load(old.name, index, e.dtype) if e == load else e

    statements = tuple(replace(s, value=transform(s.value, redirect)) for s in kernel.statements)
    params = tuple(new if p is old else p for p in kernel.params)
    outer = {a: f"{a}_panel" if a in cuts else a for a in panels}
    lanes = {axis: f"{axis}_lane", **{a: f"{a}_place" for a in cuts if a != axis}}
    points = {a: add(multiply(Axis(outer[a]), n), Axis(lanes[a])) for a, n in numbers.items()}
    source: Expr = substitute_axes(Load("source", load.index, load.dtype), points)
    for a, point in points.items():
        if panels[a] * cuts[a] != extents[a]:
            source = where(compare("lt", point, integer(extents[a])), source, constant(0, source))
    packing = Kernel(
        name="pack",
        params=(Param("source", old.type),),
        outputs=(Param("packed", new.type),),
        axes=(*((outer[a], n) for a, n in panels.items()), *((lanes[a], n) for a, n in cuts.items())),
        statements=(Statement("packed", (*outer.values(), *lanes.values()), source),),
        weights=frozenset({"source"}),
    )
    return replace(kernel, params=params, statements=statements), guard_accesses(packing)


def packable(kernel: Kernel, load: Load, axis: str) -> bool:
    """Whether the buffer can be stored anew: read at one index only, which depends on no data, nor on sizes that only
    calls know where it has none of these itself, so that it is packed once for all calls.
    """
    if any(other.buffer == load.buffer and other != load for s in kernel.statements for other in s.reads):
        return False
    if any(isinstance(e, Load) for i in load.index for e in walk(i)):
        return False
    axes = (e.name for i in load.index for e in walk(i) if isinstance(e, Axis))
    of_calls = any(p.name == load.buffer and symbols(p.type.shape) for p in kernel.params)
    return of_calls or all(isinstance(kernel.extents[a], int) for a in axes)
