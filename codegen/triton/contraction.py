"""Sums of products as block products: the axes of a tile sorted into rows, columns and depth of one `tl.dot`."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from math import prod

from effcc.codegen.triton.values import Shape, Value
from effcc.ir.dtypes import bf16, f16, f32
from effcc.ir.expr import Axis, Call, Expr, walk
from effcc.ir.loops import Tile

SMALLEST = 16
"""The least extent of each side of a block product."""


@dataclass(frozen=True)
class Dot:
    """`result[rows..., columns...] += sum over depth of left * right`, each a scalar expression."""

    left: Expr
    right: Expr
    rows: tuple[str, ...]
    columns: tuple[str, ...]
    depth: tuple[str, ...]


def as_dot(tile: Tile) -> Dot | None:
    """The block product that a tile statement is; None where it has to be a broadcast product and a sum."""
    value = tile.value
    if tile.combine != "add" or not isinstance(value, Call) or value.function != "mul" or value.dtype != f32:
        return None
    extents = {a.name: a.extent for a in tile.axes}
    kept = [i.name for i in tile.index if isinstance(i, Axis)]
    depth = tuple(a for a in extents if a not in kept)
    left, right = (_without_widening(o) for o in value.operands)
    if left.dtype != right.dtype:
        left, right = value.operands
    if kept and kept[0] in _axes(right, extents):
        left, right = right, left
    in_left, in_right = _axes(left, extents), _axes(right, extents)
    if in_left & in_right != set(depth):
        return None
    rows, columns = (tuple(a for a in kept if a in side) for side in (in_left, in_right))
    smallest = min(prod(extents[a] for a in group) for group in (rows, columns, depth))
    if len(rows) + len(columns) != len(kept) or smallest < SMALLEST:
        return None
    return Dot(left, right, rows, columns, depth)


def matrix(shape: Shape, value: Value, first: Sequence[str], second: Sequence[str]) -> Value:
    """A block as a matrix with the axes of `first` along its rows and those of `second` along its columns."""
    value = shape.fill(value, (*first, *second))
    if len(first) == len(second) == 1:
        return value
    sizes = ", ".join(str(prod(shape.extents[a] for a in group)) for group in (first, second))
    return Value(f"tl.reshape({value.text}, ({sizes}))", value.axes, value.dtype)


def result_block(shape: Shape, text: str, dot: Dot, kept: Sequence[str]) -> str:
    """A block product's matrix as a block over the `kept` axes in their order."""
    axes = (*dot.rows, *dot.columns)
    if len(axes) > 2:
        text = f"tl.reshape({text}, {shape.sizes(axes)})"
    return shape.permute(Value(text, axes, f32), kept).text


def _without_widening(e: Expr) -> Expr:
    """An operand before it was widened from a half type: products of half types are exact in f32, which sums them."""
    match e:
        case Call("cast", (operand,)) if operand.dtype in (f16, bf16) and e.dtype == f32:
            return operand
    return e


def _axes(e: Expr, known: Sequence[str] | dict[str, int]) -> set[str]:
    return {n.name for n in walk(e) if isinstance(n, Axis) and n.name in known}
