"""How a tile's value meets what stands in its buffer: set, folded by an operator, or multiplied and added in one."""

from __future__ import annotations

from effcc.codegen.cpp import values
from effcc.codegen.cpp.points import Points
from effcc.codegen.cpp.scope import Value
from effcc.codegen.cpp.spelling import Fold, computed, fold, literal, spell, value_type
from effcc.errors import UnsupportedError
from effcc.ir.dtypes import DType, boolean, i64
from effcc.ir.expr import Call, Expr
from effcc.ir.scalars import reduction

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

    def identity(self, lanes: int) -> str:
        """What an accumulator begins with."""
        assert self.fold is not None
        number = reduction(_REDUCTIONS[self.fold.function]).identity(self.dtype)
        text = literal(int(number) if self.dtype.is_integer else number, self.dtype)
        type = value_type(self.dtype, lanes)
        if self.dtype == boolean and lanes > 1:
            return f"{type}{{}}" if text == "false" else f"~{type}{{}}"
        return f"broadcast<{type}>({text})" if lanes > 1 else text

    def value(self) -> Value:
        return self._stored(self.points.at.value(self.tile.value))

    def _stored(self, value: Value) -> Value:
        """The value in the dtype of the buffer; the half types wait for the store to be rounded."""
        dtype = self.dtype
        if computed(value.dtype) == computed(dtype):
            return value
        return values.convert(self.writer, value, dtype, self.points.at.epoch)

    def combined(self, before: Value) -> Value:
        """The value at the current point, folded with what stands there `before`."""
        product = self._product()
        return self.folded(before, self.value()) if product is None else self._multiply_add(product, before)

    def _product(self) -> tuple[Expr, Expr] | None:
        """The factors, where the statement is a contraction and may be rounded once."""
        e = self.tile.value
        same = computed(e.dtype) == computed(self.dtype) and e.dtype.is_float
        if self.tile.combine == "add" and isinstance(e, Call) and e.function == "mul" and same:
            return e.operands[0], e.operands[1]
        return None

    def _multiply_add(self, product: tuple[Expr, Expr], before: Value) -> Value:
        self.points.at.streams = True
        a, b = (self.points.at.value(factor) for factor in product)
        self.points.at.streams = False
        lanes = max(a.lanes, b.lanes, before.lanes)
        if lanes > 1 and a.lanes == b.lanes == 1:
            texts = [values.in_lanes(self.writer, a), b.text, before.text]
        elif lanes > 1:
            texts = [a.text, b.text, values.in_lanes(self.writer, before)]
        else:
            texts = [a.text, b.text, before.text]
        return Value(f"mul_add({', '.join(texts)})", self.dtype, lanes)

    def folded(self, before: Value, value: Value) -> Value:
        """`fold(value, before)` as text; the accumulator stands last, where maximum is quickest."""
        assert self.fold is not None
        dtype = self.dtype
        template, spelling = spell(self.fold.function, dtype)
        self.writer.functions.add(self.fold.function)
        lanes = max(before.lanes, value.lanes)
        if lanes > 1:
            texts = [values.in_lanes(self.writer, v, 4) for v in (value, before)]
        elif dtype == i64 and not spelling.operator:  # a literal alone would be an int
            texts = [f"i64({values.bare(values.text(self.writer, v))})" for v in (value, before)]
        else:
            texts = [values.text(self.writer, v) for v in (value, before)]
        if spelling.operator:
            texts.reverse()
        body = template.format(*texts)
        if lanes == 1 and computed(dtype).bits < 32 and dtype != boolean:
            body = f"{dtype.name}({body})"
        return Value(body, dtype, lanes)
