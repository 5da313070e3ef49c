"""Reductions over segments: rows of a compressed matrix, bags, groups, sequences of different lengths."""

from __future__ import annotations

from collections.abc import Mapping
from itertools import pairwise
from typing import Any

import numpy as np

from effcc.ir.dims import dim
from effcc.ir.dtypes import boolean, from_numpy, i32, i64
from effcc.ir.expr import Expr, Span, add, both, cast, integer, where
from effcc.ir.form import FormBuilder, call
from effcc.ir.op import REQUIRED, Op, Types, require
from effcc.ir.scalars import REDUCTIONS, require_in_range, require_true
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


def _segment_reduce(b: FormBuilder) -> None:
    data = b.operands[0].type
    segment = b.axis(b.results[0].type.shape[0])
    rest = b.axes(data.shape[1:], "d")
    point = b.axis(data.shape[0], "j")

    def offset(position: Expr, *more: Expr) -> Expr:
        """An offset that is checked to lie within the data, or at its end."""
        found = cast(b.load(1, (position,)), i64)
        return where(both(b.in_range(found, dim(data.shape[0] + 1), 0), *more), found, integer(0))

    start, stop = (cast(b.load(1, (i,)), i64) for i in (segment, add(segment, integer(1))))
    span = Span(point.name, offset(segment), offset(add(segment, integer(1)), b.holds(call("le", start, stop))))
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


OPS: list[Op] = [
    Op("segment_reduce", "reduction", (2, 2), _infer_segment_reduce, _segment_reduce_reference,
       "the rows offsets[n] up to offsets[n + 1] of the first operand as one", {"reduce": REQUIRED}, _segment_reduce),
]  # fmt: skip
