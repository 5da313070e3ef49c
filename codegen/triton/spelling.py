"""How every scalar function of the IR is written in Triton, by the kind of its operands.

Templates take operand texts `{0}`, `{1}`. A name without `tl.` is one of `effcc.codegen.triton.functions`, of which the
emitted module carries a copy. Half types are computed in f32 and rounded once an operation.
"""

from __future__ import annotations

import ast
import math
from collections.abc import Iterable
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

from effcc.errors import UnsupportedError
from effcc.ir.dtypes import DType, b8, bf16, boolean, f16, f32, f64, i7, i8, i16, i32, i64, l8, u7, u8
from effcc.ir.expr import Scalar

ATOM, UNARY, PRODUCT, SUM, SHIFT, AND, XOR, OR, COMPARE = range(9, 0, -1)
"""How tightly a text binds, as in Python; names and calls need no parentheses anywhere."""

_OPERATORS = {
    "*": PRODUCT, "%": PRODUCT, "+": SUM, "-": SUM, "<<": SHIFT, ">>": SHIFT, "&": AND, "^": XOR, "|": OR,
    "==": COMPARE, "!=": COMPARE, "<": COMPARE, "<=": COMPARE, ">": COMPARE, ">=": COMPARE, "/": PRODUCT,
}  # fmt: skip


@dataclass(frozen=True)
class Spelling:
    """Templates for floats, integers and booleans, '' where it is not defined; `f64` where that one differs."""

    floats: str = ""
    integers: str = ""
    booleans: str = ""
    f64: str = ""


def _language(names: str) -> dict[str, Spelling]:
    return {name: Spelling(f"tl.{name}({{0}})") for name in names.split()}


def _library(names: str) -> dict[str, Spelling]:
    return {name: Spelling(f"{name}({{0}})") for name in names.split()}


SPELLINGS: dict[str, Spelling] = {
    **_language("rsqrt exp exp2 log log2 sin cos erf floor ceil"),
    **_library("expm1 log10 log1p tan asin acos atan sinh cosh tanh asinh acosh atanh erfc lgamma sigmoid trunc"),
    "sqrt": Spelling("tl.sqrt_rn({0})", f64="tl.sqrt({0})"),
    "round": Spelling("round_to_even({0})"),
    "neg": Spelling("{0} * -1.0", "-{0}"),  # Triton's -x is 0 - x, which loses the sign of 0
    "abs": Spelling("tl.abs({0})", "tl.abs({0})", "{0}"),
    "sign": Spelling("sign({0})", "sign_integer({0})", "{0}"),
    "not": Spelling("", "invert({0})", "{0} == 0"),
    "isnan": Spelling("{0} != {0}"),
    "isinf": Spelling('tl.abs({0}) == float("inf")'),
    "bits": Spelling("bits({0})", "bits({0})"),
    "add": Spelling("{0} + {1}", "{0} + {1}", "{0} | {1}"),
    "sub": Spelling("{0} - {1}", "{0} - {1}", "{0} ^ {1}"),
    "mul": Spelling("{0} * {1}", "{0} * {1}", "{0} & {1}"),
    "div": Spelling("tl.div_rn({0}, {1})", f64="{0} / {1}"),
    "floordiv": Spelling("floor_divide({0}, {1})", "floor_divide_integer({0}, {1})"),
    "mod": Spelling("remainder({0}, {1})", "remainder_integer({0}, {1})"),
    "fmod": Spelling("fmod({0}, {1})", "{0} % {1}"),
    "pow": Spelling("power({0}, {1})", "power_integer({0}, {1})"),
    "atan2": Spelling("atan2({0}, {1})"),
    "copysign": Spelling("copysign({0}, {1})"),
    "maximum": Spelling("larger({0}, {1})", "tl.maximum({0}, {1})", "{0} | {1}"),
    "minimum": Spelling("smaller({0}, {1})", "tl.minimum({0}, {1})", "{0} & {1}"),
    "and": Spelling("", "{0} & {1}", "{0} & {1}"),
    "or": Spelling("", "{0} | {1}", "{0} | {1}"),
    "xor": Spelling("", "{0} ^ {1}", "{0} ^ {1}"),
    "shl": Spelling("", "shift_left({0}, {1})"),
    "shr": Spelling("", "shift_right({0}, {1})"),
    "eq": Spelling("{0} == {1}", "{0} == {1}", "{0} == {1}"),
    "ne": Spelling("{0} != {1}", "{0} != {1}", "{0} != {1}"),
    "lt": Spelling("{0} < {1}", "{0} < {1}", "{0} < {1}"),
    "le": Spelling("{0} <= {1}", "{0} <= {1}", "{0} <= {1}"),
    "gt": Spelling("{0} > {1}", "{0} > {1}", "{0} > {1}"),
    "ge": Spelling("{0} >= {1}", "{0} >= {1}", "{0} >= {1}"),
    "erf_plus_one": Spelling("erfc({0} * -1.0)"),
    "mul_add": Spelling("{0} * {1} + {2}"),
}

STRUCTURAL: dict[str, str] = {
    "where": "evaluates one branch only: printed as masks on the loads of its branches and `tl.where`",
    "cast": "printed as `.to(dtype)`, with truncation and saturation as in C",
}
"""Functions that have no template because the printer writes them out, and how."""

TYPES: dict[DType, str] = {
    f64: "tl.float64", f32: "tl.float32", f16: "tl.float16", bf16: "tl.bfloat16", i64: "tl.int64", i32: "tl.int32",
    i16: "tl.int16", i8: "tl.int8", u8: "tl.uint8", u7: "tl.uint8", i7: "tl.int8", b8: "tl.int8", l8: "tl.int8",
    boolean: "tl.int1",
}  # fmt: skip

POINTERS: dict[DType, str] = {
    f64: "*fp64", f32: "*fp32", f16: "*fp16", bf16: "*bf16", i64: "*i64", i32: "*i32", i16: "*i16", i8: "*i8",
    u8: "*u8", u7: "*u8", i7: "*i8", b8: "*i8", l8: "*i8", boolean: "*i1",
}  # fmt: skip
"""The types of kernel arguments, as Triton's compiler names them."""


@dataclass(frozen=True)
class Fold:
    """How a combine is written: between values, over an axis of a block (`{0}`, `{1}`), atomically in memory."""

    function: str
    reduce: str
    integer_reduce: str
    atomic: str = ""


FOLDS: dict[str, Fold] = {
    "add": Fold("add", "tl.sum({0}, axis={1})", "tl.sum({0}, axis={1})", "tl.atomic_add"),
    "mul": Fold("mul", "tl.reduce({0}, {1}, times)", "tl.reduce({0}, {1}, times)"),
    "maximum": Fold("maximum", "tl.reduce({0}, {1}, larger)", "tl.reduce({0}, {1}, larger_integer)", "tl.atomic_max"),
    "minimum": Fold("minimum", "tl.reduce({0}, {1}, smaller)", "tl.reduce({0}, {1}, smaller_integer)", "tl.atomic_min"),
    "or": Fold("or", "", "tl.reduce({0}, {1}, either)", "tl.atomic_or"),
    "and": Fold("and", "", "tl.reduce({0}, {1}, all_of)", "tl.atomic_and"),
}


def fold(combine: str) -> Fold:
    """The fold called `combine`; raises UnsupportedError with the ones there are."""
    try:
        return FOLDS[combine]
    except KeyError:
        expected = ", ".join(sorted(FOLDS))
        raise UnsupportedError(f"Triton: no way to combine with {combine!r}; expected one of {expected}") from None


def spell(name: str, operand: DType) -> tuple[str, int]:
    """The template of a function for operands of a dtype, and how tightly its text binds.

    Raises UnsupportedError where the function is not defined for the dtype.
    """
    spelling = SPELLINGS.get(name, Spelling())
    template = spelling.floats if operand.is_float else spelling.booleans if operand == boolean else spelling.integers
    if operand == f64 and spelling.f64:
        template = spelling.f64
    if not template:
        raise UnsupportedError(f"the Triton backend has no {name!r} for operands of dtype {operand}")
    return template, _binding(template)


def _binding(template: str) -> int:
    operators = [_OPERATORS[word] for word in template.split() if word in _OPERATORS]
    if operators:
        return min(operators)
    return UNARY if template[0] in "-~" else ATOM


def computed(dtype: DType) -> DType:
    """What a dtype is computed in: f32 for the half types, itself otherwise."""
    return f32 if dtype in (bf16, f16) else dtype


def literal(value: Scalar, dtype: DType) -> str:
    """A constant in Python; Triton gives it the dtype of what it meets."""
    if dtype == boolean:
        return "True" if value else "False"
    if not dtype.is_float:
        return str(int(value))
    number = float(dtype.numpy.type(float(value)))
    if math.isfinite(number):
        return repr(float(value)) if dtype == f64 or math.isfinite(float(value)) else repr(number)
    return f'float("{number}")' if number > 0 or math.isnan(number) else '-float("inf")'


# Library functions ---------------------------------------------------------------------------------------------------


@lru_cache(maxsize=1)
def _library_sources() -> dict[str, tuple[str, frozenset[str]]]:
    """The text of each library function, and which others it names."""
    text = (Path(__file__).parent / "functions.py").read_text()
    functions = [n for n in ast.parse(text).body if isinstance(n, ast.FunctionDef)]
    known = {f.name for f in functions}
    found = {}
    for f in functions:
        source = "\n".join(text.splitlines()[f.decorator_list[0].lineno - 1 : f.end_lineno])
        found[f.name] = (source, frozenset(n.id for n in ast.walk(f) if isinstance(n, ast.Name)) & known - {f.name})
    return found


def library(texts: Iterable[str]) -> list[str]:
    """The sources of the library functions that the texts call, in the library's order, each before its callers."""
    sources = _library_sources()
    words = {n.id for text in texts for n in ast.walk(ast.parse(text)) if isinstance(n, ast.Name)}
    wanted: set[str] = set()
    left = [w for w in words if w in sources]
    while left:
        name = left.pop()
        if name not in wanted:
            wanted.add(name)
            left += sources[name][1]
    return [source for name, (source, _) in sources.items() if name in wanted]


def library_names() -> frozenset[str]:
    """The names of the library's functions, which nothing else in a module may take."""
    return frozenset(_library_sources())
