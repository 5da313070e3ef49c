"""How a tile's value meets what stands in its buffer: set, folded by an operator, or multiplied and added in one."""

from __future__ import annotations

from effcc.codegen.cpp import values
from effcc.codegen.cpp.points import Points
from effcc.codegen.cpp.scope import Value
from effcc.codegen.cpp.spelling import Fold, fold, spell
from effcc.codegen.cpp.values import computed
from effcc.errors import UnsupportedError
from effcc.ir import vectors
from effcc.ir.contraction import factors_of, summands_of
from effcc.ir.dtypes import DType
from effcc.ir.expr import Expr
from effcc.ir.scalars import reduction
from effcc.ir.vectors import Broadcast, Fma, Literal

_REDUCTIONS = {"add": "sum", "mul": "prod", "maximum": "max", "minimum": "min", "or": "any", "and": "all"}


class Combine:
    """The combine of one tile into a buffer of `dtype`; `fold` is None where it sets.

    Raises UnsupportedError for a tile that sets a buffer at an axis that does not index it.
    """

    def __init__(self, points: Points, dtype: DType) -> None:
        tile = points.tile
        self.points, self.writer, self.tile, self.dtype = points, points.writer, tile, dtype
        self.fold: Fold | None = None if tile.combine == "set" else fold(tile.combine)
        if points.folded and self.fold is None:
            raise UnsupportedError(
                f"a tile sets {tile.buffer} for every {points.folded[0]}, which does not index it: "
                "expected a combine, got 'set'"
            )

    def identity(self, lanes: int) -> vectors.Value:
        """What an accumulator begins with."""
        assert self.fold is not None
        number = values.literal(reduction(_REDUCTIONS[self.fold.function]).identity(self.dtype), self.dtype)
        type = values.type_of(self.writer, self.dtype, lanes)
        if type.is_mask and isinstance(number, Literal):
            return Literal(number.value, type)
        return Broadcast(number, type) if lanes > 1 else number

    def value(self) -> Value:
        return self._of(self.tile.value)

    def _of(self, e: Expr) -> Value:
        return self._stored(self.points.at.value(e))

    def _stored(self, value: Value) -> Value:
        """The value in the dtype of the buffer; the half types wait for the store to be rounded."""
        dtype = self.dtype
        if computed(value.dtype) == computed(dtype):
            return value
        return values.convert(self.writer, value, dtype, self.points.at.epoch)

    def combined(self, before: Value) -> Value:
        """The value at the current point, folded with what stands there `before`."""
        e = self.tile.value
        if self.tile.combine != "add" or computed(e.dtype) != computed(self.dtype) or not e.dtype.is_float:
            return self.folded(before, self.value())
        *rest, first = summands_of(e)
        before = self._added(first, before) if factors_of(first) else self.folded(before, self._of(first))
        for term in reversed(rest):
            before = self._added(term, before)
        return before

    def _added(self, product: Expr, before: Value) -> Value:
        """What stands there and a product, which may be rounded once with it."""
        factors = factors_of(product)
        assert factors is not None
        self.points.at.streams = True
        a, b = (self.points.at.value(factor) for factor in factors)
        self.points.at.streams = False
        lanes = max(a.lanes, b.lanes, before.lanes)
        take = values.in_lanes if lanes > 1 else values.node
        return Value(Fma(*(take(self.writer, v) for v in (a, b, before))), self.dtype, lanes)

    def folded(self, before: Value, value: Value) -> Value:
        """`value` folded with what stands there `before`, which stands last in a function: it is quickest there."""
        assert self.fold is not None
        dtype = self.dtype
        spelling = spell(self.fold.function, dtype)[1]
        lanes = max(before.lanes, value.lanes)
        take = values.in_lanes if lanes > 1 else values.node
        operands = [take(self.writer, v) for v in ((before, value) if spelling.operator else (value, before))]
        body = vectors.Call(self.fold.function, tuple(operands), values.type_of(self.writer, dtype, lanes))
        return Value(body, dtype, lanes)
