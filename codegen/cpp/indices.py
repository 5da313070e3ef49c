"""Index arithmetic at a point of a tile: expressions of axes and sizes as linear forms."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass, field

from effcc.codegen.cpp import values
from effcc.codegen.cpp.linear import (
    LANE,
    Known,
    Linear,
    bounds,
    fine_part,
    floor_division,
    minus,
    multiple_part,
    of_atom,
    of_vector,
    plus,
    remainder,
    times,
    uniform,
)  # fmt: skip
from effcc.codegen.cpp.scope import Value, Writer
from effcc.ir import vectors
from effcc.ir.dtypes import boolean, i32, i64
from effcc.ir.expr import Axis, Call, Const, Expr, Load, Size, children
from effcc.ir.vectors import INDEX, NARROW, TRUTH, Var

_OPPOSITE = {"le": "gt", "ne": "eq"}


@dataclass
class Guard:
    """Which lanes count: the first `count` (None: all), and of those where `mask` holds."""

    count: int | vectors.Value | None = None
    mask: Value | None = None


@dataclass(kw_only=True)
class Indices(ABC):
    """Indices at the current `point`: the places of unrolled axes, and which vector of the lanes axis.

    `variables` are the names of loop axes here. Vectors are counted from `lanes_base`. `guard` says which lanes count.
    `epoch` counts the writes to the tile's own buffer, `written`, so that nothing read before a write stands for what
    is read after it. What is no linear form of axes and sizes is computed as any other expression, by `value`.
    """

    writer: Writer
    variables: Mapping[str, str]
    lanes_axis: str | None = None
    unrolled: frozenset[str] = frozenset()
    written: str = ""
    lanes_base: Linear = field(default_factory=Linear)
    point: dict[str, int] = field(default_factory=dict)
    guard: Guard = field(default_factory=Guard)
    epoch: int = 0
    _depends: dict[int, tuple[str, ...]] = field(default_factory=dict)
    _rereads: dict[int, bool] = field(default_factory=dict)
    _affine: dict[int, bool] = field(default_factory=dict)
    _forms: dict[tuple[int, ...], Linear] = field(default_factory=dict)

    @abstractmethod
    def value(self, e: Expr) -> Value:
        """The value of `e` at the current point."""

    def depends(self, e: Expr) -> tuple[str, ...]:
        """The unrolled axes and the lanes axis that `e` varies with."""
        found = self._depends.get(id(e))
        if found is None:
            if isinstance(e, Axis):
                found = (e.name,) if e.name in self.unrolled or e.name == self.lanes_axis else ()
            else:
                found = tuple(sorted({a for part in children(e) for a in self.depends(part)}))
            self._depends[id(e)] = found
        return found

    def rereads(self, e: Expr) -> bool:
        """Whether `e` reads the buffer that the tile writes."""
        found = self._rereads.get(id(e))
        if found is None:
            found = isinstance(e, Load) and e.buffer == self.written
            found = found or any(self.rereads(part) for part in children(e))
            self._rereads[id(e)] = found
        return found

    def _epoch(self, e: Expr) -> int:
        return self.epoch if self.rereads(e) else 0

    def linear(self, e: Expr) -> Linear:
        """An i64 expression as a linear form; what is not linear is computed and becomes an atom."""
        if not isinstance(e, Call) or not self._is_affine(e):
            return self._linear(e)
        key = (id(e), *[self.point[a] for a in self.depends(e)])
        found = self._forms.get(key)
        if found is None:
            found = self._forms[key] = self._linear(e)
        return found

    def moved(self) -> None:
        """Loops around have other variables now."""
        self._forms.clear()

    def _is_affine(self, e: Expr) -> bool:
        """Whether `e` is a linear form of axes and sizes, whatever is known of them."""
        found = self._affine.get(id(e))
        if found is None:
            match e:
                case Axis() | Const() | Size():
                    found = True
                case Call("add" | "sub" | "neg", parts):
                    found = all(map(self._is_affine, parts))
                case Call("mul", (a, Const())):
                    found = self._is_affine(a)
                case _:
                    found = False
            self._affine[id(e)] = found
        return found

    def _linear(self, e: Expr) -> Linear:
        match e:
            case Const(value):
                return Linear(constant=int(value))
            case Size(value):
                return Linear(constant=value)
            case Axis(name):
                return self._axis(name)
            case Call("add", (a, b)):
                return plus(self.linear(a), self.linear(b))
            case Call("sub", (a, b)):
                return minus(self.linear(a), self.linear(b))
            case Call("neg", (a,)):
                return times(self.linear(a), -1)
            case Call("mul" | "floordiv" | "mod" as function, (a, b)):
                found = self._arithmetic(function, self.linear(a), self.linear(b))
                if found is not None:
                    return found
        return self._atom(self.value(e) if not self._is_arithmetic(e) else self._opaque(e))

    @staticmethod
    def _is_arithmetic(e: Expr) -> bool:
        return isinstance(e, Axis | Const | Size) or (
            isinstance(e, Call) and e.function in ("add", "sub", "neg", "mul", "floordiv", "mod")
        )

    def _axis(self, name: str) -> Linear:
        if name == self.lanes_axis:
            return plus(Linear(((LANE, 1),), self.point[name] * self.writer.lanes), self.lanes_base)
        if name in self.unrolled:
            return Linear(constant=self.point[name])
        return of_atom(self.variables[name])

    def _arithmetic(self, function: str, a: Linear, b: Linear) -> Linear | None:
        if function == "mul":
            if not b.terms and not b.vectors:
                return times(a, b.constant)
            return times(b, a.constant) if not a.terms and not a.vectors else None
        divisor = b.value
        if divisor is None or divisor <= 0:
            return None
        known = self._known()
        exact = (floor_division if function == "floordiv" else remainder)(a, divisor, known)
        if exact is not None:
            return exact
        multiple = multiple_part(a, divisor, known)
        if multiple is not None:
            whole, number = multiple
            if function == "mod":
                return Linear(constant=number % divisor)
            return plus(self._scalar_division(function, whole, divisor), Linear(constant=number // divisor))
        split = fine_part(a, divisor, known)
        if split is None:
            return None
        coarse, fine = split
        part = self._scalar_division(function, coarse, divisor)
        return part if function == "floordiv" else plus(part, fine)

    def _scalar_division(self, function: str, a: Linear, divisor: int) -> Linear:
        """A uniform quotient or remainder by a constant: the quick ones where `a` cannot be negative."""
        exact = (floor_division if function == "floordiv" else remainder)(a, divisor, self._known())
        if exact is not None:
            return exact
        low, _ = bounds(a, self._known())
        if low is not None and low >= 0:
            function = "quotient" if function == "floordiv" else "rest"
        at = self.writer.let(vectors.Call(function, (uniform(a), values.number(divisor)), INDEX), "at")
        return of_atom(at.name)

    def _known(self) -> dict[str, Known]:
        known = dict(self.writer.known)
        if isinstance(self.guard.count, int):
            known[LANE] = Known(0, min(self.writer.lanes, self.guard.count) - 1)
        return known

    def _opaque(self, e: Expr) -> Value:
        """Index arithmetic that is not linear: computed as any other function."""
        assert isinstance(e, Call)
        operands = [self._index(self.linear(o)) for o in e.operands]
        if e.function in ("floordiv", "mod") and operands[0].lanes == 1:
            dividend, divisor = (self.linear(o) for o in e.operands)
            if divisor.value is not None and divisor.value > 0:
                return self._index(self._scalar_division(e.function, dividend, divisor.value))
        power = self.linear(e.operands[1]).value if e.function in ("floordiv", "mod") else None
        if power is not None and power > 0 and power & (power - 1) == 0:
            quick, number = ("shr", power.bit_length() - 1) if e.function == "floordiv" else ("and", power - 1)
            return values.call(
                self.writer, quick, i64, [operands[0], self._index(Linear(constant=number))], self._epoch(e)
            )
        return values.call(self.writer, e.function, i64, operands, self._epoch(e))

    def _atom(self, value: Value) -> Linear:
        if value.linear is not None:
            return value.linear
        node = value.node if isinstance(value.node, Var) else self.writer.define(values.node(self.writer, value), "at")
        return of_vector(node.name) if value.lanes > 1 else of_atom(node.name)

    def _index(self, a: Linear) -> Value:
        """A linear form as a value, not yet in a register."""
        return Value(None, i64, 1 if a.is_uniform else self.writer.lanes, linear=a)

    def _indexed(self, value: Value) -> Value:
        """A selected i64 as an atom, so that index arithmetic can go on with it."""
        if value.dtype != i64 or value.linear is not None:
            return value
        return self._index(self._atom(value))

    def _compare(self, e: Call) -> Value:
        """A comparison of indices: decided now if it can be, else of lane numbers with a scalar, in 32-bit lanes."""
        a, b = (self.linear(o) for o in e.operands)
        difference = minus(a, b)
        low, high = bounds(difference, self._known())
        decided = _decide(e.function, low, high)
        if decided is not None:
            return values.truth(decided)
        if difference.is_uniform:
            sides = (uniform(a), uniform(b))
            if a.lane != 0 or a.vectors:
                sides = (uniform(difference), values.ZERO)
            return Value(self.writer.let(vectors.Call(e.function, sides, TRUTH), "is"), boolean)
        alike = self._alike_in_all_lanes(e.function, difference)
        if alike is not None:
            return alike
        lanes = self.writer.lanes
        step = difference.lane
        if not difference.vectors and isinstance(step, int) and abs(step) * lanes < 1 << 29:
            type = values.type_of(self.writer, i32)
            limit = vectors.Call("saturate", (uniform(times(difference.base, -1)),), NARROW)
            body = vectors.Call(
                e.function,
                (values.lane_numbers(type, step), values.spread(limit, type)),
                values.type_of(self.writer, boolean),
            )
            return Value(self.writer.let(body, "is"), boolean, lanes, 4)
        operands = [self._index(x) for x in (a, b)]
        return values.call(self.writer, e.function, boolean, operands, self._epoch(e))

    def _alike_in_all_lanes(self, function: str, difference: Linear) -> Value | None:
        """`difference <function> 0` where no vector lies on both sides: `at + lane < 64` with `at` in steps of 16."""
        strict = {"lt": "lt", "ge": "ge", "le": "lt", "gt": "ge"}.get(function)
        if strict is None:
            return None
        if strict != function:
            difference = minus(difference, Linear(constant=1))
        split = fine_part(difference, 1 << 30, self._known())
        if split is None:
            return None
        coarse, _ = split
        return Value(self.writer.let(vectors.Call(strict, (uniform(coarse), values.ZERO), TRUTH), "is"), boolean)


def _decide(function: str, low: int | None, high: int | None) -> bool | None:
    """Whether `difference <function> 0` holds everywhere (True), nowhere (False), or cannot be told (None)."""
    if function in ("le", "ne"):
        opposite = _decide(_OPPOSITE[function], low, high)
        return None if opposite is None else not opposite
    match function:
        case "lt":
            return True if high is not None and high < 0 else False if low is not None and low >= 0 else None
        case "ge":
            return True if low is not None and low >= 0 else False if high is not None and high < 0 else None
        case "gt":
            return True if low is not None and low > 0 else False if high is not None and high <= 0 else None
        case "eq":
            if low is not None and low == high:
                return low == 0
            return False if (low is not None and low > 0) or (high is not None and high < 0) else None
    return None
