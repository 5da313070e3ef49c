"""Ragged axes: reductions over segments (rows of a compressed matrix, bags, sequences), products of groups of rows."""

from __future__ import annotations

from collections.abc import Mapping
from itertools import pairwise
from typing import Any

import numpy as np

from effcc.ir.dims import dim, same, show
from effcc.ir.dtypes import boolean, from_numpy, i32, i64
from effcc.ir.expr import Axis, Expr, Span, add, both, cast, integer, where
from effcc.ir.form import FormBuilder, call, constant
from effcc.ir.kernel import Scatter, index_in_span
from effcc.ir.op import REQUIRED, Op, Types, require
from effcc.ir.scalars import REDUCTIONS, require_in_range, require_true
from effcc.ir.table.products import require_one_dtype, sum_of_products, wide
from effcc.ir.types import TensorType

OPERATORS = ("sum", "prod", "max", "min")


def _infer_segment_reduce(operands: Types, attrs: Mapping[str, Any]) -> TensorType:
    data, offsets = operands
    require(offsets.dtype in (i64, i32), f"offsets must be i64 or i32, got {offsets.dtype.name}")
    require(offsets.rank == 1, f"offsets must have rank 1, got {offsets.rank}")
    require(data.rank > 0, "needs a tensor of rank at least 1")
    require(data.dtype != boolean, "a bool tensor has no segments to reduce")
    known = [n for n in offsets.shape if isinstance(n, int)]
    require(all(n > 0 for n in known), "offsets are one more than segments, so at least one")
    require(attrs["reduce"] in OPERATORS, f"reduce must be one of {', '.join(OPERATORS)}, got {attrs['reduce']!r}")
    return TensorType(data.dtype, (dim(offsets.shape[0] - 1), *data.shape[1:]))


def _offset(b: FormBuilder, operand: int, position: Expr, *more: Expr) -> Expr:
    """An offset that is checked to lie within operand 0, or at its end."""
    found = cast(b.load(operand, (position,)), i64)
    size = dim(b.operands[0].type.shape[0] + 1)
    return where(both(b.in_range(found, size, 0), *more), found, integer(0))


def _span(b: FormBuilder, operand: int, point: Axis, segment: Axis) -> Span:
    """The points of a segment, whose offsets are checked to go up."""
    after = add(segment, integer(1))
    start, stop = (cast(b.load(operand, (i,)), i64) for i in (segment, after))
    up = b.holds(call("le", start, stop))
    return Span(point.name, _offset(b, operand, segment), _offset(b, operand, after, up))


def _segment_reduce(b: FormBuilder) -> None:
    data = b.operands[0].type
    segment = b.axis(b.results[0].type.shape[0])
    rest = b.axes(data.shape[1:], "d")
    point = b.axis(data.shape[0], "j")
    span = _span(b, 1, point, segment)
    body = b.load(0, (point, *rest))
    b.define((segment, *rest), b.reduce(b.attrs["reduce"], (point,), body, spans=(span,)))


def _segment_reduce_reference(data: Any, offsets: Any, reduce: str) -> Any:
    require_in_range(offsets, data.shape[0] + 1)
    require_true(offsets[:-1] <= offsets[1:])
    operator, dtype = REDUCTIONS[reduce], from_numpy(data.dtype)
    wide = dtype.accumulator if reduce in ("sum", "prod") else dtype
    result = np.full((len(offsets) - 1, *data.shape[1:]), operator.identity(wide), wide.numpy)
    for n, (start, stop) in enumerate(pairwise(offsets)):
        if start < stop:
            result[n] = operator.reference(data[start:stop].astype(wide.numpy), axis=0)
    return result.astype(data.dtype)


def _infer_grouped_matmul(operands: Types, attrs: Mapping[str, Any]) -> TensorType:
    x, w, offsets = operands
    require_one_dtype((x, w))
    require(offsets.dtype in (i64, i32), f"offsets must be i64 or i32, got {offsets.dtype.name}")
    require(
        x.rank == 2 and w.rank == 3 and offsets.rank == 1,
        f"needs x[rows, k], w[groups, k, n] and offsets[groups + 1], got ranks {x.rank}, {w.rank} and {offsets.rank}",
    )
    require(same(x.shape[1], w.shape[1]), f"x has {show(x.shape[1])} columns, matrices of w {show(w.shape[1])} rows")
    count = dim(offsets.shape[0] - 1)
    require(same(count, w.shape[0]), f"offsets are one more than groups: got {show(count)} + 1 for {show(w.shape[0])}")
    return TensorType(x.dtype, (x.shape[0], w.shape[2]))


def _grouped_matmul(b: FormBuilder) -> None:
    x, w = b.operands[0].type.shape, b.operands[1].type.shape
    group, point, column, k = b.axis(w[0], "g"), b.axis(x[0], "j"), b.axis(w[2], "n"), b.axis(w[1], "k")
    total = sum_of_products(b, (k,), b.load(0, (point, k)), b.load(1, (group, k, column)))
    rows = index_in_span(_span(b, 2, point, group))
    each = b.temporary((group, point, column), total)
    b.define((group, point, column), each, scatter=Scatter((rows, column), "set"))
    ends = (integer(0), _offset(b, 2, integer(0))), (_offset(b, 2, integer(w[0])), integer(x[0]))
    for start, stop in ends:  # rows of no group
        row, across = b.axis(x[0], "r"), b.axis(w[2], "m")
        rest = index_in_span(Span(row.name, start, stop))
        b.define((row, across), constant(0, each), scatter=Scatter((rest, across), "set"))


def _grouped_matmul_reference(x: Any, w: Any, offsets: Any) -> Any:
    require_in_range(offsets, x.shape[0] + 1)
    require_true(offsets[:-1] <= offsets[1:])
    result = np.zeros((x.shape[0], w.shape[2]), x.dtype)
    for matrix, (start, stop) in zip(w, pairwise(offsets), strict=True):
        result[start:stop] = (wide(x[start:stop]) @ wide(matrix)).astype(x.dtype)
    return result


OPS: list[Op] = [
    Op("grouped_matmul", "contraction", (3, 3), _infer_grouped_matmul, _grouped_matmul_reference,
       "rows offsets[g] up to offsets[g + 1] of x[rows, k] times w[g, k, n]; rows of no group are 0", {},
       _grouped_matmul),
    Op("segment_reduce", "reduction", (2, 2), _infer_segment_reduce, _segment_reduce_reference,
       "the rows offsets[n] up to offsets[n + 1] of the first operand as one", {"reduce": REQUIRED}, _segment_reduce),
]  # fmt: skip
