"""The index form of an op: the cascade statements that define its results.

A form is a small function that takes a `FormBuilder`, opens axes, and defines results by expressions over them. It is
the op's meaning for fusion, tiling and code generation; `effcc.ir.ops` has one for every op that is not opaque.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import sympy

from effcc.ir.dims import Dim, number
from effcc.ir.dtypes import DType, boolean, f64, i64
from effcc.ir.expr import Axis, Call, Const, Expr, Load, Reduce, Scalar, Size, Span, cast, integer
from effcc.ir.kernel import Param, Scatter, Statement
from effcc.ir.scalars import function
from effcc.ir.size_functions import is_real

Form = Callable[["FormBuilder"], None]


class FormBuilder:
    """Collects the statements of one op applied to named, typed operands.

    Axis names are unique: `prefix` is put before each, so the forms of many ops can share one kernel. So are the
    numbers of its run-time checks, which begin with `first_check`; `checks` has their kinds and dimensions.
    """

    def __init__(
        self,
        operands: Sequence[Param],
        results: Sequence[Param],
        attrs: Mapping[str, Any],
        prefix: str = "",
        first_check: int = 0,
    ) -> None:
        self.operands = tuple(operands)
        self.results = tuple(results)
        self.attrs = attrs
        self.prefix = prefix
        self.first_check = first_check
        self.statements: list[Statement] = []
        self.extents: dict[str, Dim] = {}
        self.scans: list[str] = []
        self.checks: list[tuple[str, int]] = []
        self._temporaries = 0

    def axis(self, extent: Dim, base: str = "i") -> Axis:
        """A fresh axis of the given extent."""
        name, n = f"{self.prefix}{base}", 0
        while name in self.extents:
            n += 1
            name = f"{self.prefix}{base}{n}"
        self.extents[name] = extent
        return Axis(name)

    def axes(self, shape: Sequence[Dim], base: str = "i") -> tuple[Axis, ...]:
        """Fresh axes, one for each size."""
        return tuple(self.axis(size, base) for size in shape)

    def load(self, operand: int, index: Sequence[Expr]) -> Load:
        """An element of an operand."""
        param = self.operands[operand]
        return Load(param.name, tuple(index), param.type.dtype)

    def broadcast(self, operand: int, index: Sequence[Expr]) -> Load:
        """An element of an operand that is broadcast, as NumPy does, to the shape that `index` runs over."""
        shape = self.operands[operand].type.shape
        aligned = index[len(index) - len(shape) :]
        zero = Const(0, Axis("").dtype)
        return self.load(operand, [zero if size == 1 else i for i, size in zip(aligned, shape, strict=True)])

    def define(self, axes: Sequence[Axis], value: Expr, result: int = 0, scatter: Scatter | None = None) -> None:
        """State that a result, at these axes, is `value`, cast to the result's dtype."""
        param = self.results[result]
        names = tuple(a.name for a in axes)
        if isinstance(value, Reduce) and value.dtype != param.type.dtype:
            value = self.temporary(axes, value)
        self.statements.append(Statement(param.name, names, cast(value, param.type.dtype), scatter))

    def fresh(self) -> str:
        """The name of a temporary, for a recurrence that reads it before its statement."""
        self._temporaries += 1
        return f"{self.results[0].name}.{self._temporaries}"

    def in_range(self, index: Expr, size: Dim, dimension: int, kind: str = "index") -> Expr:
        """Whether an index that comes from data is inside `dimension`; where it isn't, the call raises at its end."""
        return Call("in_range", (index, integer(size), self._check(kind, dimension)), boolean)

    def divisor(self, value: Expr) -> Expr:
        """An integer to divide by; where it is 0 the call raises at its end."""
        return Call("divisor", (value, self._check("divisor", 0)), value.dtype)

    def holds(self, condition: Expr) -> Expr:
        """A condition on data; where it is false the call raises at its end."""
        return Call("holds", (condition, self._check("requirement", 0)), boolean)

    def _check(self, kind: str, dimension: int) -> Const:
        self.checks.append((kind, dimension))
        return Const(self.first_check + len(self.checks) - 1, i64)

    def temporary(self, axes: Sequence[Axis], value: Expr, name: str = "") -> Load:
        """A statement of its own for `value`; the load of it at the same axes."""
        name = name or self.fresh()
        self.statements.append(Statement(name, tuple(a.name for a in axes), value))
        return Load(name, tuple(axes), value.dtype)

    def reduce(
        self,
        operator: str,
        axes: Sequence[Axis],
        body: Expr,
        dtype: DType | None = None,
        spans: Sequence[Span] = (),
    ) -> Expr:
        """`operator(axes: body)`, accumulated in `dtype` (default: for sums the body's accumulator type, else its own).

        Over no axes it is the body itself. `spans` are those of ragged axes.
        """
        if dtype is None:
            dtype = body.dtype.accumulator if operator in ("sum", "prod") else body.dtype
        wide = cast(body, dtype)
        return Reduce(operator, tuple(a.name for a in axes), wide, dtype, spans=tuple(spans)) if axes else wide


def call(name: str, *operands: Expr) -> Call:
    """A scalar function applied to operands of one dtype."""
    spec = function(name)
    return Call(name, operands, spec.result_dtype(operands[-1].dtype if name == "where" else operands[0].dtype))


def constant(value: Scalar | sympy.Expr, like: Expr) -> Expr:
    """A constant of the dtype of `like`."""
    return scalar(value, like.dtype)


def scalar(value: Any, dtype: DType) -> Expr:
    """A number, or one made of sizes, as an expression of `dtype`."""
    value = number(value)
    if isinstance(value, sympy.Expr):
        return cast(Size(value, f64 if is_real(value) else i64), dtype)
    if dtype.is_float:
        return Const(float(value), dtype)
    return Const(bool(value) if dtype.kind == "bool" else int(value), dtype)
