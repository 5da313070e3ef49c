"""Footprints: how many elements of a buffer one tile touches.

For an affine access, dimension d of the buffer is indexed by `sum over axes a of c[d, a] * a`, and a tile of `t[a]`
points along each axis touches a box of

    product over d of (sum over a of |c[d, a]| * (t[a] - 1) + 1)

elements. The box is exact when the indices of each dimension leave no gaps and dimensions share no axis; otherwise (a
strided convolution, a diagonal) it is the bounding box, which is what a cache or a packed buffer has to hold anyway.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from math import prod

from effcc.passes.tiling.constraints import Expr, ExprLike, Number, expr


@dataclass(frozen=True)
class Access:
    """An affine access: for each dimension of the buffer, the coefficient of every axis that its index depends on.

    Constant offsets move the box and do not change its size, so they are not kept.

    >>> rows = Access(({"oh": 2, "kh": 1}, {"c": 1}))      # X[2 * oh + kh, c]
    >>> footprint(rows, {"oh": 4, "kh": 3, "c": 16})
    144
    """

    dims: tuple[Mapping[str, int], ...]

    @property
    def axes(self) -> frozenset[str]:
        """Every axis that the access depends on."""
        return frozenset(a for dim in self.dims for a, c in dim.items() if c)


def footprint(access: Access, tile: Mapping[str, int]) -> int:
    """How many elements a tile touches; axes that `tile` does not name have one point."""
    return prod(_extent(dim, tile) for dim in access.dims)


def footprint_expr(access: Access, tile: Mapping[str, ExprLike]) -> Expr:
    """The same closed form over expressions, for constraints such as `4 * footprint <= l2_bytes`."""
    result: Expr = Number(1)
    for dim in access.dims:
        extent: Expr = Number(1)
        for axis, coefficient in dim.items():
            if coefficient and axis in tile:
                extent = extent + abs(coefficient) * (expr(tile[axis]) - 1)
        if extent != Number(1):
            result = extent if result == Number(1) else result * extent
    return result


def is_contiguous(access: Access, axis: str) -> bool:
    """Whether neighbours along an axis are neighbours in a row-major buffer: coefficient 1, in the last dimension
    only.
    """
    *outer, last = access.dims or ({},)
    return abs(last.get(axis, 0)) == 1 and not any(dim.get(axis, 0) for dim in outer)


def _extent(dim: Mapping[str, int], tile: Mapping[str, int]) -> int:
    return sum(abs(c) * (tile.get(axis, 1) - 1) for axis, c in dim.items()) + 1
