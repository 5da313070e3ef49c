"""Contractions as block products: rows, columns and depth of one `tl.dot`, and its operands as matrices."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from math import prod

from effcc.codegen.triton.values import Shape, Value
from effcc.ir.contraction import contraction_of_tile
from effcc.ir.dtypes import f32
from effcc.ir.expr import Axis, Expr
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
    found = contraction_of_tile(tile)
    if found is None or found.accumulator != f32 or found.batch or not found.is_block_product:
        return None
    extents = {a.name: a.extent for a in tile.axes}
    if min(prod(extents[a] for a in group) for group in (found.rows, found.columns, found.depth)) < SMALLEST:
        return None
    if tile.index[0] == Axis(found.columns[0]):
        found = found.turned
    left, right = found.left.unwidened, found.right.unwidened
    if left.dtype != right.dtype:
        left, right = found.left.value, found.right.value
    return Dot(left, right, found.rows, found.columns, found.depth)


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
