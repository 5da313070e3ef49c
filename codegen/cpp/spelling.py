"""How every scalar function of the IR is written in C++, for one value and for a vector of them; types, literals.

The header library is generic: each of its functions takes a scalar or a vector, so one template serves both. They are
chosen by the operands' kind; a function without a template for a kind is not defined there. `bool` in lanes is a mask.
"""

from __future__ import annotations

import functools
import math
from dataclasses import dataclass

import numpy as np

from effcc.errors import UnsupportedError
from effcc.ir.dtypes import DType, bf16, boolean, f64, i64
from effcc.ir.expr import Scalar
from effcc.ir.vectors import Type


@dataclass(frozen=True)
class Spelling:
    """Templates over operands `{0}`, `{1}`, `{2}` for floats, integers and booleans.

    In an `operator`, a vector may meet a scalar; a function wants all its operands to be vectors if one is. `header` is
    what to include.
    """

    floats: str = ""
    integers: str = ""
    booleans: str = ""
    operator: bool = False
    header: str = "vec.h"


def _functions(names: str, header: str = "vec.h") -> dict[str, Spelling]:
    return {name: Spelling(f"{name}({{0}})", header=header) for name in names.split()}


SPELLINGS: dict[str, Spelling] = {
    **_functions("sqrt rsqrt floor ceil trunc round"),
    **_functions("exp exp2 expm1 log log2 log10 log1p tanh sigmoid", "exp_log.h"),
    **_functions("erf erfc erf_plus_one", "erf.h"),
    **_functions("sin cos tan asin acos atan", "trig.h"),
    **_functions("sinh cosh asinh acosh atanh lgamma", "pow.h"),
    "neg": Spelling("-{0}", "-{0}", operator=True),
    "abs": Spelling("abs({0})", "abs({0})", "{0}"),
    "sign": Spelling("sign({0})", "sign({0})", "{0}"),
    "not": Spelling("", "~{0}", "mask_not({0})"),
    "isnan": Spelling("is_nan({0})"),
    "isinf": Spelling("is_inf({0})"),
    "bits": Spelling("bits({0})", "float_of_bits({0})"),
    "add": Spelling("{0} + {1}", "{0} + {1}", "{0} | {1}", operator=True),
    "sub": Spelling("{0} - {1}", "{0} - {1}", "{0} ^ {1}", operator=True),
    "mul": Spelling("{0} * {1}", "{0} * {1}", "{0} & {1}", operator=True),
    "div": Spelling("{0} / {1}", operator=True),
    "floordiv": Spelling("floor_divide({0}, {1})", "floor_divide({0}, {1})", header="pow.h"),
    "mod": Spelling("remainder({0}, {1})", "remainder({0}, {1})", header="pow.h"),
    "fmod": Spelling("fmod({0}, {1})", "fmod({0}, {1})", header="pow.h"),
    "pow": Spelling("pow({0}, {1})", "integer_pow({0}, {1})", header="pow.h"),
    "atan2": Spelling("atan2({0}, {1})", header="trig.h"),
    "copysign": Spelling("copysign({0}, {1})"),
    "maximum": Spelling("maximum({0}, {1})", "maximum({0}, {1})", "{0} | {1}"),
    "minimum": Spelling("minimum({0}, {1})", "minimum({0}, {1})", "{0} & {1}"),
    "and": Spelling("", "{0} & {1}", "{0} & {1}", operator=True),
    "or": Spelling("", "{0} | {1}", "{0} | {1}", operator=True),
    "xor": Spelling("", "{0} ^ {1}", "{0} ^ {1}", operator=True),
    "shl": Spelling("", "shift_left({0}, {1})"),
    "shr": Spelling("", "shift_right({0}, {1})"),
    "eq": Spelling("{0} == {1}", "{0} == {1}", "mask_not({0} ^ {1})", operator=True),
    "ne": Spelling("{0} != {1}", "{0} != {1}", "{0} ^ {1}", operator=True),
    "lt": Spelling("{0} < {1}", "{0} < {1}", "mask_not({0}) & {1}", operator=True),
    "le": Spelling("{0} <= {1}", "{0} <= {1}", "mask_not({0}) | {1}", operator=True),
    "gt": Spelling("{0} > {1}", "{0} > {1}", "{0} & mask_not({1})", operator=True),
    "ge": Spelling("{0} >= {1}", "{0} >= {1}", "{0} | mask_not({1})", operator=True),
    "mul_add": Spelling("mul_add({0}, {1}, {2})"),
    "where": Spelling("select({0}, {1}, {2})", "select({0}, {1}, {2})", "select({0}, {1}, {2})"),
    "cast": Spelling("convert<{0}>({1})", "convert<{0}>({1})"),
}

VECTOR_SPELLINGS: dict[str, Spelling] = {
    "quotient": Spelling(integers="{0} / {1}", operator=True),
    "rest": Spelling(integers="{0} % {1}", operator=True),
    "saturate": Spelling(integers="saturate({0})"),
}
"""Functions of vectors that scalar expressions lack."""

COMPARISONS = ("eq", "ne", "lt", "le", "gt", "ge")


@dataclass(frozen=True)
class Fold:
    """A combine: the scalar function that does it, its identity by dtype, and how the lanes of one vector fold."""

    function: str
    lanes: str
    masks: str = ""


FOLDS: dict[str, Fold] = {
    "add": Fold("add", "reduce_sum({0})", "any({0})"),
    "mul": Fold("mul", "reduce_prod({0})", "all({0})"),
    "maximum": Fold("maximum", "reduce_max({0})", "any({0})"),
    "minimum": Fold("minimum", "reduce_min({0})", "all({0})"),
    "and": Fold("and", "reduce({0}, [](auto a, auto b) {{ return decltype(a)(a & b); }})", "all({0})"),
    "or": Fold("or", "reduce({0}, [](auto a, auto b) {{ return decltype(a)(a | b); }})", "any({0})"),
}
_SYNONYMS = {"max": "maximum", "min": "minimum", "sum": "add", "prod": "mul", "any": "or", "all": "and"}


def fold(combine: str) -> Fold:
    """The fold called `combine`; `max`, `min`, `sum`, `prod`, `any` and `all` are accepted too."""
    try:
        return FOLDS[_SYNONYMS.get(combine, combine)]
    except KeyError:
        raise UnsupportedError(
            f"no way to combine with {combine!r}; expected one of {', '.join(sorted(FOLDS))}"
        ) from None


def spell(name: str, operand: DType) -> tuple[str, Spelling]:
    """The template of a function for operands of a dtype, and its entry.

    Raises UnsupportedError where the function is not defined for the dtype.
    """
    spelling = SPELLINGS.get(name) or VECTOR_SPELLINGS.get(name)
    kind = "floats" if operand.is_float else "booleans" if operand == boolean else "integers"
    template = getattr(spelling, kind) if spelling is not None else ""
    if spelling is None or not template:
        raise UnsupportedError(f"the C++ backend has no {name!r} for operands of dtype {operand}")
    return template, spelling


_NAMES = {boolean: "bool"}


def element_name(dtype: DType) -> str:
    """The C++ type of an element in memory."""
    return _NAMES.get(dtype, dtype.name)


@functools.lru_cache(maxsize=1024)
def type_name(type: Type) -> str:
    """The C++ type of a value: `f32`, `f32x<16>`; truth values in lanes are a mask of integers, packed halves bits."""
    name = f"i{8 * type.mask_bytes}" if type.is_mask else "u16" if type.dtype == bf16 else element_name(type.dtype)
    return name if type.lanes == 1 else f"{name}x<{type.lanes}>"


def literal(value: Scalar, dtype: DType) -> str:
    """A constant of a dtype, as short as it can be written exactly.

    >>> from effcc.ir.dtypes import f32
    >>> literal(0.1, f32), literal(2, f64)
    ('0.1f', '2.0')
    """
    if dtype == boolean:
        return "true" if value else "false"
    if not dtype.is_float:
        number = int(value)
        if dtype == i64 and number == -(1 << 63):
            return "(-9223372036854775807 - 1)"
        return str(number)
    suffix = "" if dtype == f64 else "f"
    number_ = float(value)
    if math.isnan(number_):
        return f'__builtin_nan{suffix}("")'
    if math.isinf(number_):
        return f"{'-' if number_ < 0 else ''}__builtin_inf{suffix}()"
    with np.errstate(over="ignore"):
        rounded = np.float64(number_) if dtype == f64 else np.float32(dtype.numpy.type(number_))
    if not np.isfinite(rounded):
        return f"{'-' if rounded < 0 else ''}__builtin_inf{suffix}()"
    size = abs(float(rounded))
    if size != 0 and not 1e-4 <= size < 1e7:
        text = np.format_float_scientific(rounded, unique=True, trim="-")
    else:
        text = np.format_float_positional(rounded, unique=True, trim="0")
    return text + suffix


def header_of(function: str) -> str:
    """The header of the library that a function needs."""
    return (SPELLINGS.get(function) or VECTOR_SPELLINGS[function]).header
