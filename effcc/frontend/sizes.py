"""Torch's symbolic sizes and numbers as effcc's: SymInts, SymFloats and SymBools to expressions over effcc's symbols.

Sizes are symbols that are at least 0. A number among a call's arguments may be negative: it is the difference of two
sizes, `s5p - s5m`, of which one is 0. A size that is even at every call is `2 * s5over2`. Doubles keep the order of
operations that torch has kept (`effcc.ir.size_functions`); a rounded one that cannot have been inexact is a floor,
about which more is known.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any

import sympy
import torch
from sympy.core.relational import Relational
from torch.utils._sympy import functions as torch_functions
from torch.utils._sympy.numbers import int_oo

from effcc.errors import CaptureError, UnsupportedError
from effcc.frontend.divisors import divisor
from effcc.ir import dims
from effcc.ir.dims import Dim, Shape, symbol
from effcc.ir.size_functions import FUNCTIONS, is_real
from effcc.ir.size_table import Number

Range = tuple[int, int | None]
Constraints = Mapping[Any, Any]
"""Torch's symbols to the ranges (`ValueRanges`) that a user declared for them."""

_SYMBOLIC = (torch.SymInt, torch.SymFloat, torch.SymBool)
_KEPT_ORIGINS = 1 << 14
_EXACT_DIGITS = 2**20  # a product of a constant of so few bits and a size is exact in a double


def size(value: Any) -> Dim:
    """An int or SymInt as a Dim. Raises UnsupportedError for a function of sizes that effcc has none for."""
    if isinstance(value, bool | int):
        return int(value)
    return dims.dim(_expression(value))


def number(value: Any) -> Number | sympy.Expr:
    """A number, symbolic or not: as `size`, and doubles and truth values (1 or 0) too."""
    return dims.number(_expression(value)) if isinstance(value, _SYMBOLIC) else value


def shape(sizes: Iterable[Any]) -> Shape:
    """Sizes or strides as Dims."""
    return tuple(size(s) for s in sizes)


def _expression(value: Any) -> Any:
    node = value.node
    return _Conversion(node.shape_env).convert(node.expr)


@dataclass(frozen=True)
class Parts:
    """What stands for a symbol of torch's: its value is `factor * first`, or `first - second` where it has a sign."""

    first: sympy.Symbol
    second: sympy.Symbol | None = None
    factor: int = 1

    @property
    def whole(self) -> Any:
        """The symbol's value, as an expression of the sizes."""
        return self.factor * self.first - (self.second or 0)

    def of(self, value: int) -> dict[str, int]:
        """The values of the sizes where the symbol has this one."""
        if self.second is None:
            return {self.first.name: value // self.factor}
        return {self.first.name: max(value, 0), self.second.name: max(-value, 0)}

    def ranges(self, low: int | None, high: int | None) -> dict[str, Range]:
        """The ranges of the sizes where the symbol has this one."""
        least, most = max(low or 0, 0), None if high is None else max(high, 0)
        if self.second is None:
            return {self.first.name: (-(-least // self.factor), None if most is None else most // self.factor)}
        below = max(-high, 0) if high is not None else 0, None if low is None else max(-low, 0)
        return {self.first.name: (least, most), self.second.name: below}


def parts(torch_symbol: Any, environment: Any) -> Parts:
    """What stands for a symbol of torch's."""
    name = torch_symbol.name
    if not torch_symbol.is_integer:
        raise UnsupportedError(f"the number {name} was taken out of a tensor as a float; keep it a tensor")
    known = environment.var_to_range.get(torch_symbol)
    signed = not torch_symbol.is_nonnegative if known is None else known.lower < 0
    if signed:
        return Parts(symbol(f"{name}p"), symbol(f"{name}m"))
    factor = divisor(torch_symbol, environment, lambda e, given: _Conversion(environment, given).convert(e))
    return Parts(symbol(f"{name}over{factor}" if factor > 1 else name), factor=factor)


class _Conversion:
    """From torch's expressions to effcc's, for the symbols of one shape environment; `given`: what stands for some."""

    def __init__(self, environment: Any, given: Mapping[Any, Any] = MappingProxyType({})) -> None:
        self.environment = environment
        self.given = given

    def convert(self, e: Any) -> Any:
        if isinstance(e, sympy.Symbol):
            return self.given[e] if e in self.given else parts(e, self.environment).whole
        if e in (sympy.true, sympy.false):
            return sympy.Integer(int(bool(e)))
        if not e.args:
            return e
        exact = self.exactly_rounded(e) if e.func in _ROUNDINGS else None
        if exact is not None:
            return exact
        args = [self.convert(a) for a in e.args]
        made = _relation(e, args) if isinstance(e, Relational) else _function(e, args)
        if made is None:
            raise UnsupportedError(f"effcc has no form for {e.func.__name__} of sizes, in {e}")
        if made.args and not self.given:
            if len(_ORIGINS) >= _KEPT_ORIGINS:
                _ORIGINS.clear()
            _ORIGINS[made] = e
        return made

    def exactly_rounded(self, e: Any) -> Any:
        """A double rounded to an integer, where the double has no rounding error; None where it may have."""
        (inner,) = e.args
        if inner.func is torch_functions.IntTrueDiv:  # the quotient of sizes below 2**52 is on the right side
            a, b = map(self.convert, inner.args)
            value = None if is_real(a) or is_real(b) else a / b
        else:
            value = self.exact(inner)
        if value is None:
            return None
        return _ROUNDINGS[e.func](value)

    def exact(self, e: Any) -> Any:
        """What a double is equal to, as an expression of sizes; None where it may be rounded."""
        if e.func is torch_functions.ToFloat:
            return self.convert(e.args[0])
        if e.is_Float:
            value = sympy.Rational(float(e))
            return value if abs(value.p) < _EXACT_DIGITS and value.q < _EXACT_DIGITS else None
        if e.is_Mul and len(e.args) == 2 and e.args[0].is_Number:
            factors = [self.exact(sympy.Float(e.args[0])), self.exact(e.args[1])]
            whole = factors[1] is not None and factors[1].is_integer
            return factors[0] * factors[1] if factors[0] is not None and whole else None
        return None


_ORIGINS: dict[Any, Any] = {}
"""The last expression of torch's that each of effcc's came from, for `effcc.frontend.facts`."""


def origin(e: sympy.Expr) -> Any:
    """The expression of torch's that one of effcc's came from; None where it did not come from one."""
    return _ORIGINS.get(e)


def _truncated(value: Any) -> Any:
    if value.is_nonnegative:
        return sympy.floor(value)
    return sympy.Max(sympy.floor(value), 0) + sympy.Min(sympy.ceiling(value), 0)


_ROUNDINGS: Mapping[Any, Callable[[Any], Any]] = {
    torch_functions.TruncToInt: _truncated,
    torch_functions.FloorToInt: sympy.floor,
    torch_functions.CeilToInt: sympy.ceiling,
}


def _real(e: Any) -> Any:
    """An operand of arithmetic on doubles."""
    if is_real(e) or e in (sympy.oo, -sympy.oo, sympy.nan):
        return e
    return sympy.Float(float(e)) if e.is_Number else FUNCTIONS["real"](e)


def _on_reals(name: str) -> Callable[..., Any]:
    return lambda *args: FUNCTIONS[name](*map(_real, args))


def _chosen(whole: Callable[..., Any], real: str) -> Callable[..., Any]:
    """A function of integers that is another one as soon as one operand is a double."""

    def apply(*args: Any) -> Any:
        if not any(map(is_real, args)):
            return whole(*args)
        found = _real(args[0])
        for other in args[1:]:
            found = FUNCTIONS[real](found, _real(other))
        return found

    return apply


def _power(base: Any, exponent: Any) -> Any:
    if not is_real(base) and not is_real(exponent):
        return base**exponent
    if exponent == 2:
        return FUNCTIONS["fmul"](base, base)
    return FUNCTIONS["fpow"](_real(base), _real(exponent))


def _choose(condition: Any, a: Any, b: Any) -> Any:
    if is_real(a) or is_real(b):
        return FUNCTIONS["fchoose"](condition, _real(a), _real(b))
    return FUNCTIONS["choose"](condition, a, b)


def _to_integer(name: str) -> Callable[[Any], Any]:
    return lambda x: FUNCTIONS[name](x) if is_real(x) else x


def _bitwise(name: str) -> Callable[[Any, Any], Any]:
    return lambda a, b: FUNCTIONS[name](a, b)


def _divided(a: Any, b: Any) -> Any:
    return sympy.floor(a / b)


_FUNCTIONS: dict[Any, Callable[..., Any]] = {
    sympy.Add: _chosen(sympy.Add, "fadd"),
    sympy.Mul: _chosen(sympy.Mul, "fmul"),
    sympy.Pow: _power,
    sympy.floor: sympy.floor,
    sympy.ceiling: sympy.ceiling,
    sympy.Abs: lambda a: FUNCTIONS["fabs"](a) if is_real(a) else sympy.Max(a, -a),
    sympy.Max: _chosen(sympy.Max, "fmax"),
    sympy.Min: _chosen(sympy.Min, "fmin"),
    sympy.Mod: _chosen(sympy.Mod, "fmod"),
    sympy.And: lambda *args: sympy.Min(*args),
    sympy.Or: lambda *args: sympy.Max(*args),
    sympy.Not: lambda a: 1 - a,
    torch_functions.FloorDiv: _divided,
    torch_functions.CleanDiv: _divided,
    torch_functions.CeilToInt: _to_integer("upper"),
    torch_functions.FloorToInt: _to_integer("lower"),
    torch_functions.TruncToInt: _to_integer("trunc"),
    torch_functions.RoundToInt: _to_integer("nearest"),
    torch_functions.TruncToFloat: _on_reals("ftrunc"),
    torch_functions.RoundDecimal: lambda x, digits: FUNCTIONS["fround"](_real(x), digits),
    torch_functions.ToFloat: _real,
    torch_functions.IntTrueDiv: lambda a, b: FUNCTIONS["ratio"](a, b),
    torch_functions.FloatTrueDiv: _on_reals("fdiv"),
    torch_functions.FloatPow: _on_reals("fpow"),
    torch_functions.PowByNatural: lambda a, b: FUNCTIONS["power"](a, b),
    torch_functions.LShift: lambda a, b: a * FUNCTIONS["power"](sympy.Integer(2), b),
    torch_functions.RShift: lambda a, b: _divided(a, FUNCTIONS["power"](sympy.Integer(2), b)),
    torch_functions.Mod: _chosen(sympy.Mod, "fmod"),
    torch_functions.PythonMod: _chosen(sympy.Mod, "fmod"),
    torch_functions.ModularIndexing: lambda a, b, c: sympy.Mod(_divided(a, b), c),
    torch_functions.Where: _choose,
    torch_functions.Identity: lambda a: a,
    torch_functions.Max: _chosen(sympy.Max, "fmax"),
    torch_functions.Min: _chosen(sympy.Min, "fmin"),
    torch_functions.BitwiseFn_bitwise_and: _bitwise("bitand"),
    torch_functions.BitwiseFn_bitwise_or: _bitwise("bitor"),
    torch_functions.BitwiseFn_bitwise_xor: _bitwise("bitxor"),
}
_UNARY = "OpaqueUnaryFn_"
_FUNCTIONS.update(
    (function, _on_reals(name.removeprefix(_UNARY)))
    for name, function in vars(torch_functions).items()
    if name.startswith(_UNARY) and name.removeprefix(_UNARY) in FUNCTIONS
)


def _function(e: Any, args: list[Any]) -> Any:
    """A function of converted operands; None where effcc has none."""
    found = _FUNCTIONS.get(e.func)
    return found(*args) if found is not None else None


_RELATIONS = {
    sympy.StrictLessThan: ("lt", False), sympy.StrictGreaterThan: ("lt", True),
    sympy.LessThan: ("le", False), sympy.GreaterThan: ("le", True),
    sympy.Equality: ("eq", False), sympy.Unequality: ("eq", False),
}  # fmt: skip


def _relation(e: Any, args: list[Any]) -> Any:
    """A comparison as 1 or 0."""
    name, swapped = _RELATIONS[e.func]
    a, b = reversed(args) if swapped else args
    found = compared(name, a, b)
    return 1 - found if e.func is sympy.Unequality else found


def compared(name: str, a: Any, b: Any) -> Any:
    """`lt`, `le` or `eq` of two numbers, as 1 or 0."""
    if is_real(a) or is_real(b):
        return FUNCTIONS[f"f{name}"](_real(a), _real(b))
    return FUNCTIONS[name](a, b)


def _quotient(a: Any, b: Any) -> Any:
    return FUNCTIONS["fdiv"](_real(a), _real(b)) if is_real(a) or is_real(b) else FUNCTIONS["ratio"](a, b)


_ARITHMETIC: Mapping[str, Callable[..., Any]] = {
    "add": _FUNCTIONS[sympy.Add], "mul": _FUNCTIONS[sympy.Mul], "pow": _power, "truediv": _quotient,
    "sub": lambda a, b: arithmetic("add", a, arithmetic("mul", sympy.Integer(-1), b)),
    "floordiv": _divided, "mod": _FUNCTIONS[torch_functions.PythonMod], "abs": _FUNCTIONS[sympy.Abs],
    "bitand": _bitwise("bitand"), "bitor": _bitwise("bitor"), "bitxor": _bitwise("bitxor"),
    "lshift": _FUNCTIONS[torch_functions.LShift], "rshift": _FUNCTIONS[torch_functions.RShift],
    "max": _FUNCTIONS[sympy.Max], "min": _FUNCTIONS[sympy.Min], "choose": _choose, "ite": _choose,
    "trunc": _to_integer("trunc"), "floor": _to_integer("lower"), "ceil": _to_integer("upper"),
    "round": lambda x, *digits: _FUNCTIONS[torch_functions.RoundDecimal](x, *digits) if digits else _nearest(x),
    "float": _real,
}  # fmt: skip
"""Python's operators and functions on numbers, by name."""


def _nearest(x: Any) -> Any:
    return FUNCTIONS["nearest"](x) if is_real(x) else x


def arithmetic(name: str, *operands: Any) -> Any:
    """A function of Python's on numbers made of sizes; None where effcc has none of that name."""
    found = _ARITHMETIC.get(name)
    if found is None and name in FUNCTIONS and FUNCTIONS[name].entry.takes == "f":
        found = _on_reals(name)
    return found(*operands) if found is not None else None


# What is known of symbols ---------------------------------------------------------------------------------------------


def torch_symbols(values: Iterable[Any]) -> dict[Any, Any]:
    """The symbols of torch's that occur in the shapes of these (fake) values, with their shape environment."""
    found: dict[Any, Any] = {}
    for value in values:
        sizes = (*value.shape, *_strides(value)) if isinstance(value, torch.Tensor) else [value]
        for s in sizes:
            if isinstance(s, torch.SymInt):
                found.update(dict.fromkeys(sorted(s.node.expr.free_symbols, key=str), s.node.shape_env))
    return found


def _strides(value: torch.Tensor) -> tuple[Any, ...]:
    return value.stride() if value.layout == torch.strided else ()


def is_ragged(value: Any) -> bool:
    """Whether a number stands for the lengths of a jagged tensor's rows: none that can be computed with."""
    return isinstance(value, torch.SymInt) and value.node.has_hint() and not isinstance(value.node.hint, int)


def ranges(values: Iterable[Any], constraints: Constraints = MappingProxyType({})) -> dict[str, Range]:
    """The range of every size that occurs in the shapes of these (fake) values: inclusive, None for no bound.

    constraints: what a user declared; a shape environment takes sizes of 0 and 1 as special, and so excludes them.
    """
    found: dict[str, Range] = {}
    for torch_symbol, environment in torch_symbols(values).items():
        bounds = constraints.get(torch_symbol)
        bounds = environment.bound_sympy(torch_symbol) if bounds is None else bounds
        found.update(parts(torch_symbol, environment).ranges(_limit(bounds.lower), _limit(bounds.upper)))
    return found


def _limit(bound: Any) -> int | None:
    """A bound as a number; None where it is none."""
    if bound in (int_oo, -int_oo, sympy.oo, -sympy.oo) or abs(bound) >= 2**62:
        return None
    return int(bound)


def hints(values: Iterable[Any]) -> dict[str, int]:
    """The value that each size symbol had in the example inputs, where torch remembers it."""
    found: dict[str, int] = {}
    for value in values:
        sizes = value.shape if isinstance(value, torch.Tensor) else [value]
        for s in sizes:
            if isinstance(s, torch.SymInt) and isinstance(s.node.expr, sympy.Symbol):
                if not s.node.has_hint():
                    continue
                hint = s.node.hint
                if not isinstance(hint, int):
                    raise CaptureError(f"size {s} has the hint {hint!r}, expected an integer")
                found.update(parts(s.node.expr, s.node.shape_env).of(hint))
    return found
