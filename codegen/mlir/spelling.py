"""Scalar functions in MLIR's arith and math dialects.

A spelling is a template over operand names, the type `{t}` and, where it needs more than one operation, fresh names
`{n0}`, `{n1}`, ... for what comes before the last.
"""

from __future__ import annotations

from effcc.errors import UnsupportedError
from effcc.ir.dtypes import DType, boolean

TYPES = {"f64": "f64", "f32": "f32", "f16": "f16", "bf16": "bf16", "i64": "i64", "i32": "i32", "i16": "i16", "i8": "i8",
         "u8": "i8", "u7": "i8", "i7": "i8", "b8": "i8", "l8": "i8", "bool": "i1"}  # fmt: skip

BITS = {
    "f64": ("7FF0000000000000", "FFF0000000000000", "7FF8000000000000"),
    "f32": ("7F800000", "FF800000", "7FC00000"),
    "f16": ("7C00", "FC00", "7E00"),
    "bf16": ("7F80", "FF80", "7FC0"),
}
"""Infinity, minus infinity and a NaN, in hexadecimal."""

_MATH = {
    "sqrt": "math.sqrt", "rsqrt": "math.rsqrt", "exp": "math.exp", "exp2": "math.exp2", "expm1": "math.expm1",
    "log": "math.log", "log2": "math.log2", "log10": "math.log10", "log1p": "math.log1p", "sin": "math.sin",
    "cos": "math.cos", "tan": "math.tan", "asin": "math.asin", "acos": "math.acos", "atan": "math.atan",
    "sinh": "math.sinh", "cosh": "math.cosh", "tanh": "math.tanh", "asinh": "math.asinh", "acosh": "math.acosh",
    "atanh": "math.atanh", "erf": "math.erf", "erfc": "math.erfc", "floor": "math.floor", "ceil": "math.ceil",
    "trunc": "math.trunc", "round": "math.roundeven", "abs": "math.absf",
}  # fmt: skip

FLOAT: dict[str, tuple[str, ...]] = {
    **{name: (f"{op} {{0}} : {{t}}",) for name, op in _MATH.items()},
    "rsqrt": ("math.sqrt {0} : {t}", "arith.constant 1.0 : {t}", "arith.divf {n1}, {n0} : {t}"),
    "neg": ("arith.negf {0} : {t}",),
    "sign": (
        "arith.constant 0.0 : {t}", "arith.constant 1.0 : {t}", "math.copysign {n1}, {0} : {t}",
        "arith.cmpf one, {0}, {n0} : {t}", "arith.select {n3}, {n2}, {n0} : {t}",
    ),
    "sigmoid": (
        "arith.negf {0} : {t}", "math.exp {n0} : {t}", "arith.constant 1.0 : {t}", "arith.addf {n1}, {n2} : {t}",
        "arith.divf {n2}, {n3} : {t}",
    ),
    "isnan": ("arith.cmpf uno, {0}, {0} : {t}",),
    "isinf": ("math.absf {0} : {t}", "arith.constant 0x{inf} : {t}", "arith.cmpf oeq, {n0}, {n1} : {t}"),
    "bits": ("arith.bitcast {0} : {t} to i{bits}",),
    "add": ("arith.addf {0}, {1} : {t}",),
    "sub": ("arith.subf {0}, {1} : {t}",),
    "mul": ("arith.mulf {0}, {1} : {t}",),
    "div": ("arith.divf {0}, {1} : {t}",),
    "fmod": ("arith.remf {0}, {1} : {t}",),
    "mod": (
        "arith.remf {0}, {1} : {t}", "arith.constant 0.0 : {t}", "arith.cmpf une, {n0}, {n1} : {t}",
        "arith.cmpf olt, {n0}, {n1} : {t}", "arith.cmpf olt, {1}, {n1} : {t}", "arith.xori {n3}, {n4} : i1",
        "arith.andi {n2}, {n5} : i1", "arith.addf {n0}, {1} : {t}", "arith.select {n6}, {n7}, {n0} : {t}",
    ),
    "floordiv": (
        "arith.remf {0}, {1} : {t}", "arith.subf {0}, {n0} : {t}", "arith.divf {n1}, {1} : {t}",
        "arith.constant 0.0 : {t}", "arith.cmpf une, {n0}, {n3} : {t}", "arith.cmpf olt, {n0}, {n3} : {t}",
        "arith.cmpf olt, {1}, {n3} : {t}", "arith.xori {n5}, {n6} : i1", "arith.andi {n4}, {n7} : i1",
        "arith.constant 1.0 : {t}", "arith.subf {n2}, {n9} : {t}", "arith.select {n8}, {n10}, {n2} : {t}",
        "math.roundeven {n11} : {t}",
    ),
    "erf_plus_one": ("arith.negf {0} : {t}", "math.erfc {n0} : {t}"),
    "mul_add": ("arith.mulf {0}, {1} : {t}", "arith.addf {n0}, {2} : {t}"),
    "pow": ("math.powf {0}, {1} : {t}",),
    "atan2": ("math.atan2 {0}, {1} : {t}",),
    "copysign": ("math.copysign {0}, {1} : {t}",),
    "maximum": ("arith.maximumf {0}, {1} : {t}",),
    "minimum": ("arith.minimumf {0}, {1} : {t}",),
    "eq": ("arith.cmpf oeq, {0}, {1} : {t}",),
    "ne": ("arith.cmpf une, {0}, {1} : {t}",),
    "lt": ("arith.cmpf olt, {0}, {1} : {t}",),
    "le": ("arith.cmpf ole, {0}, {1} : {t}",),
    "gt": ("arith.cmpf ogt, {0}, {1} : {t}",),
    "ge": ("arith.cmpf oge, {0}, {1} : {t}",),
}  # fmt: skip

# Counts at or beyond the width, or below 0, shift everything out; MLIR gives them no meaning.
_SHIFTS = ("arith.constant {bits} : {t}", "arith.cmpi ult, {1}, {n0} : {t}", "arith.constant 0 : {t}",
           "arith.select {n1}, {1}, {n2} : {t}")  # fmt: skip

INTEGER: dict[str, tuple[str, ...]] = {
    "neg": ("arith.constant 0 : {t}", "arith.subi {n0}, {0} : {t}"),
    "abs": ("math.absi {0} : {t}",),
    "sign": (
        "arith.constant 0 : {t}", "arith.constant 1 : {t}", "arith.constant -1 : {t}", "arith.maxsi {0}, {n2} : {t}",
        "arith.minsi {n3}, {n1} : {t}",
    ),
    "not": ("arith.constant -1 : {t}", "arith.xori {0}, {n0} : {t}"),
    "bits": ("arith.bitcast {0} : {t} to f{bits}",),
    "add": ("arith.addi {0}, {1} : {t}",),
    "sub": ("arith.subi {0}, {1} : {t}",),
    "mul": ("arith.muli {0}, {1} : {t}",),
    "floordiv": ("arith.floordivsi {0}, {1} : {t}",),
    "mod": (
        "arith.remsi {0}, {1} : {t}", "arith.constant 0 : {t}", "arith.cmpi ne, {n0}, {n1} : {t}",
        "arith.xori {n0}, {1} : {t}", "arith.cmpi slt, {n3}, {n1} : {t}", "arith.andi {n2}, {n4} : i1",
        "arith.addi {n0}, {1} : {t}", "arith.select {n5}, {n6}, {n0} : {t}",
    ),
    "fmod": ("arith.remsi {0}, {1} : {t}",),
    "maximum": ("arith.maxsi {0}, {1} : {t}",),
    "minimum": ("arith.minsi {0}, {1} : {t}",),
    "and": ("arith.andi {0}, {1} : {t}",),
    "or": ("arith.ori {0}, {1} : {t}",),
    "xor": ("arith.xori {0}, {1} : {t}",),
    "shl": (*_SHIFTS, "arith.shli {0}, {n3} : {t}", "arith.select {n1}, {n4}, {n2} : {t}"),
    "shr": (*_SHIFTS[:2], "arith.constant {most} : {t}", "arith.select {n1}, {1}, {n2} : {t}",
            "arith.shrsi {0}, {n3} : {t}"),
    **{n: (f"arith.cmpi {p}, {{0}}, {{1}} : {{t}}",) for n, p in
       {"eq": "eq", "ne": "ne", "lt": "slt", "le": "sle", "gt": "sgt", "ge": "sge"}.items()},
}  # fmt: skip

UNSIGNED = {"maximum": ("arith.maxui {0}, {1} : {t}",), "minimum": ("arith.minui {0}, {1} : {t}",),
            "floordiv": ("arith.divui {0}, {1} : {t}",), "mod": ("arith.remui {0}, {1} : {t}",),
            "fmod": ("arith.remui {0}, {1} : {t}",), "sign": ("arith.constant 1 : {t}", "arith.minui {0}, {n0} : {t}"),
            "shr": (*_SHIFTS, "arith.shrui {0}, {n3} : {t}", "arith.select {n1}, {n4}, {n2} : {t}"),
            "abs": ("arith.constant 0 : {t}", "arith.addi {0}, {n0} : {t}"),
            **{n: (f"arith.cmpi {p}, {{0}}, {{1}} : {{t}}",) for n, p in
               {"lt": "ult", "le": "ule", "gt": "ugt", "ge": "uge"}.items()}}  # fmt: skip

# i1 wraps around in arith.addi, so that true + true is false; of bools, add is "or" and mul is "and".
BOOLEAN = {
    "add": ("arith.ori {0}, {1} : {t}",),
    "mul": ("arith.andi {0}, {1} : {t}",),
    "sign": ("arith.ori {0}, {0} : {t}",),
    "abs": ("arith.ori {0}, {0} : {t}",),
}

NO_SPELLING = {"lgamma": "the math dialect has no log-gamma"}


def spelling(function: str, operand: DType) -> tuple[str, ...]:
    """The operations that compute a scalar function on a dtype. Raises UnsupportedError if MLIR has none."""
    if operand.is_float:
        found = FLOAT.get(function)
    else:
        unsigned = operand.kind == "uint" or operand == boolean
        found = (UNSIGNED.get(function) if unsigned else None) or INTEGER.get(function)
        found = (BOOLEAN.get(function) if operand == boolean else None) or found
    if found is None:
        why = NO_SPELLING.get(function, f"it is not defined on {operand.name}")
        raise UnsupportedError(f"MLIR: no spelling of {function!r} on {operand.name}: {why}")
    return found


def conversion(source: DType, to: DType) -> str:
    """The operation that converts between two different dtypes (to bool: see the emitter)."""
    a, b = TYPES[source.name], TYPES[to.name]
    unsigned = source.kind in ("uint", "bool")
    if source.is_float and to.is_float:
        return f"arith.{'extf' if to.bits > source.bits else 'truncf'} {{0}} : {a} to {b}"
    if source.is_float:
        return f"arith.{'fptoui' if to.kind == 'uint' else 'fptosi'} {{0}} : {a} to {b}"
    if to.is_float:
        return f"arith.{'uitofp' if unsigned else 'sitofp'} {{0}} : {a} to {b}"
    wide = to.bits > source.bits or source == boolean
    return f"arith.{('extui' if unsigned else 'extsi') if wide else 'trunci'} {{0}} : {a} to {b}"
