"""What holds in every scalar expression: names known, ranks and dtypes agreed."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace

import numpy as np

from effcc.ir.dims import Dim, dim, symbols
from effcc.ir.dtypes import DType, boolean, f64, i64
from effcc.ir.expr import Axis, Call, Const, Expr, Load, Reduce, Size, loads
from effcc.ir.op import require
from effcc.ir.scalars import CHECKS, alike, function, reduction
from effcc.ir.size_functions import is_real


@dataclass(frozen=True)
class Scope:
    """What an expression may name: `open` axes have a value here, `bindable` ones may be reduced over.

    `buffers` gives dtype and rank; `sizes` are the names of size symbols; `primes` says whether running values (`M'`)
    may be read, as they may in a rescale.
    """

    open: frozenset[str]
    buffers: Mapping[str, tuple[DType, int]]
    sizes: frozenset[str]
    bindable: frozenset[str] = frozenset()
    primes: bool = False

    def check(self, e: Expr) -> None:
        """Raise IRTypeError or UnknownNameError unless `e` makes sense in this scope."""
        match e:
            case Const():
                _check_constant(e)
            case Axis(name, dtype):
                require(name in self.open, f"axis {name!r} has no value here; open are: {', '.join(sorted(self.open))}")
                require(dtype == i64, f"axis {name!r} must be i64, got {dtype}")
            case Size(value, dtype):
                for symbol in symbols((value,)):
                    require(symbol.name in self.sizes, f"size symbol {symbol.name!r} is in no parameter's shape")
                require(dtype == (f64 if is_real(value) else i64), f"a number made of sizes is i64 or f64, got {dtype}")
            case Load():
                self._check_load(e)
            case Call():
                self._check_call(e)
            case Reduce():
                self._check_reduce(e)

    def check_index(self, index: tuple[Expr, ...]) -> None:
        """Indices are integers."""
        for i in index:
            self.check(i)
            require(i.dtype.is_integer, f"an index must be an integer, got {i.dtype}")

    def _check_load(self, e: Load) -> None:
        known = e.buffer in self.buffers and (self.primes or not e.before)
        require(known, f"buffer {e.written!r} is read, but is neither a parameter nor defined before")
        dtype, rank = self.buffers[e.buffer]
        require(rank == len(e.index), f"{e.written!r} has {rank} dimensions, got {len(e.index)} indices")
        require(dtype == e.dtype, f"{e.written!r} is {dtype}, its load says {e.dtype}")
        self.check_index(e.index)

    def _check_call(self, e: Call) -> None:
        spec = function(e.function)
        require(len(e.operands) == spec.arity, f"{e.function!r} takes {spec.arity} operands, got {len(e.operands)}")
        for operand in e.operands:
            self.check(operand)
        if e.function == "cast":
            return
        if e.function == "where":
            require(e.operands[0].dtype == boolean, f"the condition of 'where' must be bool, got {e.operands[0].dtype}")
        if e.function in CHECKS:
            require(isinstance(e.operands[-1], Const), f"the last operand of {e.function!r} is the check's number")
        group = alike(e.function, e.operands)
        found = {o.dtype for o in group}
        names = ", ".join(o.dtype.name for o in group)
        require(len(found) == 1, f"operands of {e.function!r} must have one dtype, got {names}")
        (dtype,) = found
        require(spec.domain != "float" or dtype.is_float, f"{e.function!r} needs a floating dtype, got {dtype}")
        require(spec.domain != "int" or not dtype.is_float, f"{e.function!r} needs an integer dtype, got {dtype}")
        wanted = spec.result_dtype(dtype)
        require(e.dtype == wanted, f"{e.function!r} of {dtype} gives {wanted}, its node says {e.dtype}")

    def _check_reduce(self, e: Reduce) -> None:
        reduction(e.operator)
        require(bool(e.axes), f"{e.operator!r} reduces over no axis")
        require(len(set(e.axes)) == len(e.axes), f"{e.operator!r} binds an axis twice: {', '.join(e.axes)}")
        for axis in e.axes:
            require(axis in self.bindable, f"{e.operator!r} binds {axis!r}, which is no axis with an extent here")
            require(axis not in self.open, f"{e.operator!r} binds {axis!r}, which already has a value here")
        self._check_spans(e)
        replace(self, open=self.open | set(e.axes)).check(e.body)
        require(e.operator not in ("any", "all") or e.dtype == boolean, f"{e.operator!r} gives bool, not {e.dtype}")
        require(e.body.dtype.is_float <= e.dtype.is_float, f"{e.operator!r} of {e.body.dtype} accumulates in {e.dtype}")
        if e.rescale is not None:
            replace(self, primes=True).check(e.rescale)
            require(e.rescale.dtype == e.dtype, f"the rescale factor is {e.rescale.dtype}, its reduction {e.dtype}")
            primes = any(load.before for load in loads(e.rescale))
            require(primes, "rescale names no running value (a load such as M'[m])")

    def _check_spans(self, e: Reduce) -> None:
        """Spans are of the reduced axes, at most one each; where they start and stop is known outside, or at a point of
        the reduced axes that have none."""
        named = [s.axis for s in e.spans]
        known = replace(self, open=self.open | {a for a in e.axes if a not in named})
        for span in e.spans:
            require(span.axis in e.axes, f"{e.operator!r} has a span of {span.axis!r}, which it does not reduce")
            require(named.count(span.axis) == 1, f"{e.operator!r} has two spans of {span.axis!r}")
            for end in (span.start, span.stop):
                known.check(end)
                require(end.dtype == i64, f"the span of {span.axis!r} must be i64, got {end.dtype}")
        require(not e.spans or e.rescale is None, "an online reduction has no ragged axis")


def _check_constant(e: Const) -> None:
    value, dtype = e.value, e.dtype
    if dtype.is_integer:
        require(isinstance(value, int) and not isinstance(value, bool), f"constant {value!r} is no {dtype}")
        limits = np.iinfo(dtype.numpy)
        require(limits.min <= value <= limits.max, f"constant {value!r} is outside {dtype}")
    elif dtype == boolean:
        require(isinstance(value, bool | int) and value in (0, 1), f"constant {value!r} is no bool")


def surely_differ(a: Dim, b: Dim) -> bool:
    """Whether two sizes differ whatever the values of their symbols."""
    difference = dim(a - b)
    return isinstance(difference, int) and difference != 0
