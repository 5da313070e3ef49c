"""Scalar functions: everything a `Call` may name, with arity, result dtype and NumPy reference.

A backend spells each of them (`effcc.codegen.*.spelling`); a test fails when one has no spelling there.
`mod` and `floordiv` round towards minus infinity, as torch.remainder does; `maximum` and `minimum` propagate NaN.

`bits` reads a number's bits as one of the other kind: of f32 an i32, of f64 an i64, and back.

Three of them are run-time checks, and their last operand is the check's number: `in_range(i, n, k)` is whether
0 <= i < n, `divisor(d, k)` is d, or 1 in place of 0, and `holds(c, k)` is c. Where the index is outside, d is 0 or c is
false, check k has failed: the kernel goes on safely, and the call raises when it has run.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, TypeVar

import numpy as np

from effcc.errors import IRTypeError, OutOfRangeError, RefusedValueError, UnknownNameError, ZeroDivisorError
from effcc.ir.dtypes import DType, boolean, f32, f64, i32, i64

T = TypeVar("T")

CHECKED = 4.0
"""Vector instructions of a run-time check: two comparisons, their conjunction, a test."""


SAME_BITS: dict[DType, DType] = {f32: i32, i32: f32, f64: i64, i64: f64}
"""What the bits of a number are read as by `bits`."""


@dataclass(frozen=True)
class ScalarFunction:
    """A scalar function. `result`: 'same' (the operands' dtype), 'bool' or 'bits' (`SAME_BITS`). `domain`: 'any',
    'float' or 'int'.

    `instructions`: of vectors, roughly, for one evaluation; of a root or a transcendental function, between a division
    and a polynomial exp.
    """

    name: str
    arity: int
    reference: Callable[..., Any]
    result: str = "same"
    domain: str = "any"
    associative: bool = False
    commutative: bool = False
    instructions: float = 12.0

    def result_dtype(self, operand: DType) -> DType:
        """The dtype of the result; raises IRTypeError where bits are not read as a number of another kind."""
        if self.result != "bits":
            return boolean if self.result == "bool" else operand
        if operand not in SAME_BITS:
            known = ", ".join(d.name for d in SAME_BITS)
            raise IRTypeError(f"{self.name!r} reads bits of {known}, got {operand.name}")
        return SAME_BITS[operand]


def _vectorized(f: Callable[[float], float]) -> Callable[[Any], Any]:
    """A libm function on arrays, in float64, rounded back to the operand's dtype."""
    apply = np.frompyfunc(f, 1, 1)

    def reference(x: Any) -> Any:
        return np.asarray(apply(np.asarray(x, dtype=np.float64)), dtype=np.float64).astype(np.asarray(x).dtype)

    return reference


def _sigmoid(x: Any) -> Any:
    wide = np.asarray(x, dtype=np.float64)
    return (1.0 / (1.0 + np.exp(-wide))).astype(np.asarray(x).dtype)


def _exp2(x: Any) -> Any:
    """Rounded once from f64, so that powers of two are exact, as generated code has them."""
    with np.errstate(over="ignore"):
        return np.asarray(np.exp2(np.asarray(x, np.float64))).astype(np.asarray(x).dtype)


def _round(x: Any) -> Any:
    return np.rint(x)


def _lgamma(x: float) -> float:
    return math.inf if math.isinf(x) or (x <= 0 and x == math.floor(x)) else math.lgamma(x)


_UNARY_FLOAT: dict[str, Callable[..., Any]] = {
    "sqrt": np.sqrt, "rsqrt": lambda x: (1.0 / np.sqrt(np.asarray(x, np.float64))).astype(np.asarray(x).dtype),
    "exp": np.exp, "exp2": _exp2, "expm1": np.expm1,
    "log": np.log, "log2": np.log2, "log10": np.log10, "log1p": np.log1p,
    "sin": np.sin, "cos": np.cos, "tan": np.tan, "asin": np.arcsin, "acos": np.arccos, "atan": np.arctan,
    "sinh": np.sinh, "cosh": np.cosh, "tanh": np.tanh, "asinh": np.arcsinh, "acosh": np.arccosh, "atanh": np.arctanh,
    "erf": _vectorized(math.erf), "erfc": _vectorized(math.erfc), "lgamma": _vectorized(_lgamma), "sigmoid": _sigmoid,
    "floor": np.floor, "ceil": np.ceil, "trunc": np.trunc, "round": _round,
}  # fmt: skip


def _power(a: Any, b: Any) -> Any:
    """a^b; of integers with a negative b what is left of 1 / a^-b: 0 but for a = 1 and a = -1."""
    if np.result_type(a, b).kind not in "iu":
        return np.power(a, b)
    whole = np.power(a, np.where(b < 0, b & 1, b).astype(np.asarray(b).dtype))
    return np.where((b < 0) & (np.abs(a) != 1), np.zeros_like(whole), whole)


def _remainder(a: Any, b: Any) -> Any:
    """a - b floor(a / b); a zero has the sign of a, as eager's has: NumPy's has that of b."""
    if np.result_type(a, b).kind in "iu":
        return np.mod(a, b)
    left = np.fmod(a, b)
    return np.where((left != 0) & ((left < 0) != (np.asarray(b) < 0)), left + b, left)


def _bits(x: Any) -> Any:
    """The bits of floats as integers of their size, or of integers as floats."""
    given = np.asarray(x)
    return given.view(f"{'i' if given.dtype.kind == 'f' else 'f'}{given.dtype.itemsize}")


FUNCTIONS: dict[str, ScalarFunction] = {
    f.name: f
    for f in [
        *(ScalarFunction(name, 1, reference, domain="float") for name, reference in _UNARY_FLOAT.items()),
        ScalarFunction("neg", 1, np.negative, instructions=1.0),
        ScalarFunction("abs", 1, np.abs, instructions=1.0),
        ScalarFunction("sign", 1, lambda x: np.where(np.isnan(x), np.zeros_like(x), np.sign(x)), instructions=1.0),
        ScalarFunction("not", 1, lambda x: np.logical_not(x) if x.dtype == np.bool_ else np.invert(x), domain="int",
                       instructions=1.0),
        ScalarFunction("isnan", 1, np.isnan, result="bool", domain="float", instructions=1.0),
        ScalarFunction("isinf", 1, np.isinf, result="bool", domain="float", instructions=1.0),
        ScalarFunction("bits", 1, _bits, result="bits", instructions=0.0),
        ScalarFunction("add", 2, np.add, associative=True, commutative=True, instructions=1.0),
        ScalarFunction("sub", 2, np.subtract, instructions=1.0),
        ScalarFunction("mul", 2, np.multiply, associative=True, commutative=True, instructions=1.0),
        ScalarFunction("div", 2, np.divide, domain="float"),
        ScalarFunction("floordiv", 2, np.floor_divide),
        ScalarFunction("mod", 2, _remainder),
        ScalarFunction("fmod", 2, np.fmod),
        ScalarFunction("pow", 2, _power),
        ScalarFunction("atan2", 2, np.arctan2, domain="float"),
        ScalarFunction("copysign", 2, np.copysign, domain="float", instructions=1.0),
        ScalarFunction("maximum", 2, np.maximum, associative=True, commutative=True, instructions=1.0),
        ScalarFunction("minimum", 2, np.minimum, associative=True, commutative=True, instructions=1.0),
        ScalarFunction("and", 2, np.bitwise_and, domain="int", associative=True, commutative=True, instructions=1.0),
        ScalarFunction("or", 2, np.bitwise_or, domain="int", associative=True, commutative=True, instructions=1.0),
        ScalarFunction("xor", 2, np.bitwise_xor, domain="int", associative=True, commutative=True, instructions=1.0),
        ScalarFunction("shl", 2, np.left_shift, domain="int", instructions=1.0),
        ScalarFunction("shr", 2, np.right_shift, domain="int", instructions=1.0),
        *(
            ScalarFunction(name, 2, reference, result="bool", commutative=name in ("eq", "ne"), instructions=1.0)
            for name, reference in {
                "eq": np.equal, "ne": np.not_equal, "lt": np.less, "le": np.less_equal,
                "gt": np.greater, "ge": np.greater_equal,
            }.items()
        ),
        ScalarFunction("erf_plus_one", 1, _vectorized(lambda x: math.erfc(-x)), domain="float"),
        ScalarFunction("mul_add", 3, lambda a, b, c: a * b + c, domain="float", instructions=1.0),
        ScalarFunction("where", 3, np.where, instructions=1.0),
        ScalarFunction("cast", 1, lambda x: x, instructions=1.0),
    ]
}  # fmt: skip


def require_in_range(index: Any, size: Any, least: int = 0) -> None:
    """Raise OutOfRangeError unless least <= index < size everywhere."""
    outside = (index < least) | (index >= size)
    if np.any(outside):
        bad = int(np.broadcast_to(index, outside.shape)[outside][0])
        raise OutOfRangeError(f"index {bad} is out of bounds for a dimension with size {int(np.max(size))}")


def require_divisor(divisor: Any) -> None:
    """Raise ZeroDivisorError where an integer is 0."""
    if not np.all(divisor):
        raise ZeroDivisorError("an integer is divided by zero")


def _in_range(index: Any, size: Any, number: Any) -> Any:
    require_in_range(index, size)
    return np.ones(np.broadcast_shapes(np.shape(index), np.shape(size)), np.bool_)


def _divisor(divisor: Any, number: Any) -> Any:
    require_divisor(divisor)
    return divisor


def require_true(condition: Any, message: str = "a condition on data does not hold") -> None:
    """Raise RefusedValueError unless a condition holds everywhere."""
    if not np.all(condition):
        raise RefusedValueError(message)


def _holds(condition: Any, number: Any) -> Any:
    require_true(condition)
    return condition


CHECKS: dict[str, ScalarFunction] = {
    "in_range": ScalarFunction("in_range", 3, _in_range, result="bool", domain="int", instructions=CHECKED),
    "divisor": ScalarFunction("divisor", 2, _divisor, domain="int", instructions=CHECKED),
    "holds": ScalarFunction("holds", 2, _holds, result="bool", domain="int", instructions=CHECKED),
}
"""Functions that also raise, when the kernel has run, where what they check does not hold."""


def is_check(node: object) -> bool:
    """Whether an expression's node is a run-time check."""
    return getattr(node, "function", "") in CHECKS


def is_commutative(name: str) -> bool:
    """Whether `name` is a scalar function that gives the same for its operands in either order."""
    return name in FUNCTIONS and FUNCTIONS[name].commutative


def alike(name: str, operands: Sequence[T]) -> Sequence[T]:
    """Those operands of a function that must have one dtype: not a condition, not a check's number."""
    if name == "where":
        return operands[1:]
    return operands[:-1] if name in CHECKS else operands


@dataclass(frozen=True)
class Reduction:
    """A reduction operator: how two partial results combine (a scalar function), and its identity for a dtype."""

    name: str
    combine: str
    reference: Callable[..., Any]
    identity: Callable[[DType], float | int | bool]


def lowest(d: DType) -> float | int | bool:
    """The identity of `max`: -inf, the smallest integer, or False."""
    if d.is_float:
        return -math.inf
    return False if d == boolean else int(np.iinfo(d.numpy).min)


def highest(d: DType) -> float | int | bool:
    """The identity of `min`: inf, the largest integer, or True."""
    if d.is_float:
        return math.inf
    return True if d == boolean else int(np.iinfo(d.numpy).max)


REDUCTIONS: dict[str, Reduction] = {
    r.name: r
    for r in [
        Reduction("sum", "add", np.add.reduce, lambda d: 0.0 if d.is_float else 0),
        Reduction("prod", "mul", np.multiply.reduce, lambda d: 1.0 if d.is_float else 1),
        Reduction("max", "maximum", np.maximum.reduce, lowest),
        Reduction("min", "minimum", np.minimum.reduce, highest),
        Reduction("any", "or", np.bitwise_or.reduce, lambda d: False if d == boolean else 0),
        Reduction("all", "and", np.bitwise_and.reduce, lambda d: True if d == boolean else -1),
    ]
}


def function(name: str) -> ScalarFunction:
    """The scalar function called `name`; raises UnknownNameError with near misses."""
    found = FUNCTIONS.get(name) or CHECKS.get(name)
    if found is None:
        raise UnknownNameError("scalar function", name, [*FUNCTIONS, *CHECKS])
    return found


def reduction(name: str) -> Reduction:
    """The reduction operator called `name`; raises UnknownNameError with near misses."""
    try:
        return REDUCTIONS[name]
    except KeyError:
        raise UnknownNameError("reduction", name, REDUCTIONS) from None
