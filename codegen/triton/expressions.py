"""Expressions as values: operators between blocks with named axes, masked loads, casts, and branches as masks."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace

import numpy as np
import sympy

from effcc.codegen.blocks import block_start
from effcc.codegen.triton.sizes import calls, size_text
from effcc.codegen.triton.spelling import ATOM, COMPARE, PRODUCT, SUM, TYPES, UNARY, computed, literal, spell
from effcc.codegen.triton.values import Shape, Value, converted, widened
from effcc.errors import UnsupportedError
from effcc.ir.dims import Shape as Sizes
from effcc.ir.dtypes import DType, bf16, boolean, f16, f64, i64
from effcc.ir.expr import (
    Axis,
    Call,
    Const,
    Expr,
    Load,
    Size,
    add,
    both,
    children,
    compare,
    free_axes,
    integer,
    multiply,
    walk,
)  # fmt: skip

INDEX_LIMIT = 2**31 - 1
"""The largest index that Triton computes in 32 bits."""
LONG = 40
"""Characters of an offset, a mask or a result above which it gets a line and a name of its own."""
_ROUNDING = {"floordiv": "//", "mod": "%"}
"""Divisions of integers, which Triton rounds towards zero: right where nothing is negative."""
_TAKES_CONSTANTS = frozenset(["div", "maximum", "minimum"])
"""Functions spelled as calls that accept Python numbers beside blocks."""


@dataclass
class Scope:
    """What a block of code may refer to: loop variables, blocks in registers, and texts that have a name already.

    `changing` buffers are stored to and loaded from, so that a load holds for one statement only. `bounds` has the
    greatest value of each axis, where one is known; `define` writes `name = text` and gives the name.
    """

    define: Callable[[str, str], str]
    pointers: Mapping[str, tuple[str, Sizes]]
    registers: dict[str, str]
    axes: dict[str, str]
    bounds: dict[str, float]
    changing: frozenset[str]
    known: dict[str, str] = field(default_factory=dict)

    def named(self, base: str, text: str) -> str:
        """The name of `text`, which is defined here unless it has been before."""
        if text not in self.known:
            self.known[text] = self.define(base, text)
        return self.known[text]

    def inside(self) -> Scope:
        """The scope of a loop's body: what is defined there is forgotten after it."""
        return replace(self, axes=dict(self.axes), bounds=dict(self.bounds), known=dict(self.known))


@dataclass(frozen=True)
class Printer:
    """Prints the expressions of one tile statement. `limits` has the mask of each axis that sticks out of its extent.

    A subexpression that occurs more than once is defined under the name `part` and then referred to.
    """

    scope: Scope
    shape: Shape
    limits: Mapping[str, Value]
    part: str = "part"
    parts: dict[Expr, Value | None] = field(default_factory=dict)

    def whole(self, e: Expr) -> Value:
        """The value of a statement's right side."""
        self.parts.update(dict.fromkeys(_repeated(e)))
        return self.value(e)

    def value(self, e: Expr, guards: tuple[Value, ...] = ()) -> Value:
        """The value of an expression; loads in it happen only where all `guards` hold."""
        if guards or not isinstance(e, Call) or e not in self.parts:
            return self._value(e, guards)
        known = self.parts[e]
        if known is None:
            known = self._value(e, guards)
            if known.binding < ATOM or "(" in known.text:
                known = replace(known, text=self.scope.define(self.part, known.text), binding=ATOM)
            self.parts[e] = known
        return known

    def _value(self, e: Expr, guards: tuple[Value, ...]) -> Value:
        if _is_index(e):
            return self._index(e, self._bound(e) > INDEX_LIMIT)
        match e:
            case Const(value, dtype):
                return _constant(literal(value, dtype), dtype)
            case Size(value) if isinstance(value, sympy.Expr):
                return self.value(calls(value), guards)
            case Load():
                return self.load(e, guards)
            case Call("where"):
                return self._where(e, guards)
            case Call("in_range", (index, size, _)):  # nothing is raised on a device
                return self.value(both(compare("ge", index, integer(0)), compare("lt", index, size)), guards)
            case Call("divisor" | "holds", (checked, _)):
                return self.value(checked, guards)
            case Call("cast", (operand,)):
                return self._cast(self.value(operand, guards), operand.dtype, e.dtype)
            case Call():
                return self.call(e.function, [self.value(o, guards) for o in e.operands], e.dtype)
        raise UnsupportedError(f"the Triton backend cannot print {e!r} inside an expression")

    def masks(self, axes: tuple[str, ...]) -> list[Value]:
        """The limits of those of the axes that have one."""
        return [self.limits[a] for a in axes if a in self.limits]

    # Functions ------------------------------------------------------------------------------------------------------

    def call(self, name: str, operands: list[Value], dtype: DType) -> Value:
        """A function of values."""
        if operands[0].dtype in (f16, bf16):
            operands = [o if o.constant else converted(o, "tl.float32") for o in operands]
        template, binding = spell(name, computed(operands[0].dtype))
        axes = self.shape.union(operands)
        alone = name not in _TAKES_CONSTANTS or all(o.constant for o in operands)
        if binding == ATOM and alone:
            operands = [self.shape.full(o, ()) if o.constant else o for o in operands]
        expanded = [self.shape.expand(o if dtype == boolean else widened(o), axes) for o in operands]
        # Operators associate to the left, comparisons not at all.
        left = binding - 1 if binding > COMPARE and len(expanded) == 2 else binding
        texts = [o.text if binding == ATOM else o.within(binding if n else left) for n, o in enumerate(expanded)]
        result = Value(template.format(*texts), axes, dtype, binding)
        if dtype in (f16, bf16):
            return converted(result, TYPES[dtype])
        return result

    def _cast(self, value: Value, source: DType, target: DType) -> Value:
        if value.constant:
            if target.is_float == source.is_float:
                return replace(value, dtype=target)
            value = self.shape.full(value, ())
        if target == boolean:
            return Value(f"{value.within(COMPARE)} != 0", value.axes, boolean, COMPARE)
        return replace(converted(value, TYPES[target]), dtype=target, narrow=False)

    def _where(self, e: Call, guards: tuple[Value, ...]) -> Value:
        condition = self.value(e.operands[0], guards)
        chosen, other = e.operands[1:]
        if isinstance(other, Const) and isinstance(chosen, Load) and chosen.buffer in self.scope.pointers:
            return self.load(
                chosen, (*guards, condition), _constant(literal(other.value, other.dtype), other.dtype).text
            )
        denied = Value(f"{condition.within(COMPARE)} == 0", condition.axes, boolean, COMPARE)
        then = self.value(chosen, (*guards, condition) if self._touches_memory(chosen) else guards)
        orelse = self.value(other, (*guards, denied) if self._touches_memory(other) else guards)
        if then.constant and orelse.constant:
            then = self.shape.full(then, ())
        values = [condition, widened(then), widened(orelse)]
        axes = self.shape.union(values)
        texts = ", ".join(self.shape.expand(v, axes).text for v in values)
        return Value(f"tl.where({texts})", axes, e.dtype)

    def _touches_memory(self, e: Expr) -> bool:
        return any(isinstance(node, Load) and node.buffer in self.scope.pointers for node in walk(e))

    # Indices --------------------------------------------------------------------------------------------------------

    def _index(self, e: Expr, wide: bool) -> Value:
        """Index arithmetic without loads: in 32 bits, or in 64 where it may not fit."""
        match e:
            case Const(value, dtype):
                return _constant(literal(value, dtype), dtype)
            case Size(value, dtype):
                text = size_text(value)
                whole = Value(text, (), dtype, ATOM if text.isidentifier() else COMPARE, True)
                return widened(whole) if wide else whole
            case Axis():
                return self._axis(e.name, wide)
            case Call("add", (Axis(start), Axis(axis))) if start == block_start(axis) and axis in self.shape.extents:
                return self._placed(axis, wide)
            case Call(function, operands):
                parts = [replace(self._index(o, wide), narrow=False) for o in operands]
                if function in _ROUNDING and all(_nonnegative(o) for o in operands):
                    axes = self.shape.union(parts)
                    first, second = (self.shape.expand(p, axes).within(PRODUCT) for p in parts)
                    return Value(f"{first} {_ROUNDING[function]} {second}", axes, i64, PRODUCT, not wide)
                return replace(self.call(function, parts, e.dtype), narrow=not wide)
        raise UnsupportedError(f"the Triton backend cannot print the index {e!r}")

    def _axis(self, name: str, wide: bool) -> Value:
        if name in self.shape.extents and block_start(name) not in self.scope.axes:
            return self._placed(name, wide)
        if name in self.shape.extents:
            return Value(f"tl.arange(0, {self.shape.extents[name]})", (name,), i64, ATOM, True)
        value = Value(self.scope.axes[name], (), i64, ATOM, True)
        return widened(value) if wide else value

    def _placed(self, axis: str, wide: bool) -> Value:
        value = Value(self.scope.axes[axis], (axis,), i64, ATOM, True)
        return widened(value) if wide else value

    def _bound(self, e: Expr) -> float:
        """No absolute value of index arithmetic is above this."""
        match e:
            case Const(value=v):
                return abs(float(v))
            case Axis(name=name):
                return self.scope.bounds.get(name, math.inf)
            case Call("add" | "sub", (a, b)):
                return self._bound(a) + self._bound(b)
            case Call("mul", (a, b)):
                return self._bound(a) * self._bound(b)
            case Call("floordiv", (a, _)):
                return self._bound(a)
            case Call("mod", (a, b)):
                return max(self._bound(a), self._bound(b))
        return math.inf

    # Memory ---------------------------------------------------------------------------------------------------------

    def load(self, e: Load, guards: tuple[Value, ...] = (), other: str = "") -> Value:
        """A load, from registers or masked from memory; `other` is what stands where a mask is false (default zero)."""
        if e.buffer in self.scope.registers:
            axes = tuple(i.name for i in e.index if isinstance(i, Axis))
            stored = Value(self.scope.registers[e.buffer], axes, e.dtype)
            return self.shape.permute(stored, tuple(a for a in self.shape.extents if a in axes))
        dtype = e.dtype
        address, mask = self.address(e.buffer, e.index, guards)
        text = f"tl.load({address.text})"
        if mask is not None:
            default = other or ("0.0" if dtype.is_float else "0")
            text = f"tl.load({address.text}, mask={self.shape.expand(mask, address.axes).text}, other={default})"
        if dtype == boolean:
            text += ".to(tl.int1)"
        base = f"{self.scope.pointers[e.buffer][0]}_block"
        again = e.buffer in self.scope.changing
        return Value(self.scope.define(base, text) if again else self.scope.named(base, text), address.axes, dtype)

    def address(
        self, buffer: str, index: tuple[Expr, ...], guards: tuple[Value, ...] = (), axes: tuple[str, ...] | None = None
    ) -> tuple[Value, Value | None]:
        """Pointers to elements of a buffer over `axes` (default: those that occur), and the mask to touch them by."""
        pointer, strides = self.scope.pointers[buffer]
        offset: Expr = integer(0)
        for i, stride in zip(index, strides, strict=True):
            offset = add(offset, multiply(i, integer(stride)))
        where = self.value(offset, guards)
        over = where.axes if axes is None else axes
        mask = self.shape.all_of([*self.masks(over), *guards])
        if mask is not None:
            over = self.shape.union([where, mask]) if axes is None else axes
        if where.axes != over:
            where = self.shape.fill(where, over)
        if len(where.text) > LONG:
            where = replace(where, text=self.scope.named(f"{pointer}_at", where.text), binding=ATOM)
        if mask is not None and len(mask.text) > LONG:
            mask = replace(mask, text=self.scope.named("inside", mask.text), binding=ATOM)
        text = pointer if where.constant and where.text == "0" else f"{pointer} + {where.within(UNARY)}"
        return Value(text, over, i64, SUM), mask


def _is_index(e: Expr) -> bool:
    """Index arithmetic that depends on axes and sizes alone, so that 32 bits usually hold it."""
    return (
        e.dtype == i64
        and not isinstance(e, Const)
        and all(
            isinstance(n, Axis | Size | Const)
            or (isinstance(n, Call) and n.dtype == i64 and n.function not in ("where", "cast", "divisor"))
            for n in walk(e)
        )
    )


def _repeated(e: Expr) -> list[Expr]:
    """The calls, other than index arithmetic, that are operands in more than one place."""
    uses: Counter[Expr] = Counter()
    left = [e]
    while left:
        for child in children(left.pop()):
            uses[child] += 1
            if uses[child] == 1:
                left.append(child)
    return [x for x, n in uses.items() if n > 1 and isinstance(x, Call) and not _is_index(x) and free_axes(x)]


def _nonnegative(e: Expr) -> bool:
    """Whether index arithmetic cannot be negative, by its form alone."""
    match e:
        case Axis():
            return True
        case Size(value):
            return value >= 0 if isinstance(value, int) else bool(value.is_nonnegative)
        case Const(value=v):
            return v >= 0
        case Call("add" | "mul" | "floordiv" | "mod", operands):
            return all(_nonnegative(o) for o in operands)
    return False


def _constant(text: str, dtype: DType) -> Value:
    if dtype == f64 and text.strip("-")[:1].isdigit() and float(np.float32(text)) != float(text):
        # Beside a block, Triton takes a number for an f32.
        return Value(f"tl.full((), {text}, tl.float64)", (), dtype, ATOM)
    if text == "-0.0":  # Triton takes whatever equals 0 for 0
        return Value(f"tl.full((), 0.0, {TYPES[dtype]}) * -1.0", (), dtype, PRODUCT)
    return Value(text, (), dtype, UNARY if text.startswith("-") else ATOM, constant=True)
