"""From the compiler's terms to a manifest's: sizes, types, and how a model nests what it takes and returns, as data.

The compiler writes with this what `effcc.runtime.manifest` reads; loading needs none of it, nor sympy.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable, Mapping
from typing import Any, cast

import sympy

from effcc.errors import UnsupportedError
from effcc.ir.dims import Dim
from effcc.ir.size_functions import SizeFunction
from effcc.ir.types import TensorType
from effcc.runtime.manifest import PackagedBuffer, Role
from effcc.runtime.nesting import DEEPEST, Nesting
from effcc.runtime.size_trees import Size


def spell_size(size: Dim) -> Size:
    """A size as data.

    >>> from effcc.ir.dims import symbol
    >>> spell_size(2 * symbol("s0") + 1)
    ('add', 1, ('mul', 2, 's0'))

    Raises UnsupportedError for a function of sizes that manifests have no name for.
    """
    return size if isinstance(size, int) else _spelled(sympy.sympify(size))


def _spelled(e: sympy.Expr) -> Size:
    if e.is_Integer:
        return int(e)
    if e.is_Symbol:
        return str(e.name)
    if e.is_Float:
        return float(e)
    if isinstance(e, SizeFunction):
        return (e.entry.name, *map(_spelled, e.args))
    if e.is_Add:
        return ("add", *map(_spelled, sorted(e.args, key=sympy.default_sort_key)))
    if e.is_Mul or e.is_Rational:
        numerator, denominator = sympy.fraction(e)
        if denominator != 1:
            return ("floordiv", _spelled(numerator), _spelled(denominator))
        return ("mul", *map(_spelled, sorted(e.args, key=sympy.default_sort_key)))
    if e.is_Pow and e.exp.is_Integer and e.exp > 0:
        return ("mul", *([_spelled(e.base)] * int(e.exp)))
    match e.func.__name__:
        case "floor":
            numerator, denominator = sympy.fraction(sympy.together(e.args[0]))
            return ("floordiv", _spelled(numerator), _spelled(denominator))
        case "Max" | "Min" | "Mod":
            return (e.func.__name__.lower(), *map(_spelled, e.args))
    raise UnsupportedError(
        f"the size {e} has no form in a package: expected sums, products, floor divisions, Max, Min and functions of "
        "effcc.ir.size_table"
    )


def spell_buffer(name: str, type: TensorType, role: str) -> PackagedBuffer:
    """A buffer of the program, of that type, as a manifest has it."""
    return PackagedBuffer(
        name=name,
        dtype=type.dtype.name,
        shape=[spell_size(d) for d in type.shape],
        strides=None if type.is_contiguous else [spell_size(s) for s in type.layout],
        role=cast(Role, role),
    )


@dataclasses.dataclass(frozen=True)
class Leaf:
    """Stands for the tensor, number or other value of that position while a model's nesting is looked at."""

    position: int


def spell_nesting(value: Any, leaf: Callable[[int], Nesting], what: str, depth: int = 0) -> Nesting:
    """How `value`, a tree whose tensors are `Leaf`s, nests; `leaf` says what stands at each position.

    Dataclasses and other mappings (such as the results of transformers' models) become dicts. Raises UnsupportedError
    for containers that packages have no form for; `what` says whose they are.
    """
    if isinstance(value, Leaf):
        return leaf(value.position)

    def spell(part: Any) -> Nesting:
        return spell_nesting(part, leaf, what, depth + 1)

    if depth > DEEPEST:
        raise UnsupportedError(f"{what} nests deeper than {DEEPEST} levels; a package holds no more")
    if isinstance(value, tuple) and hasattr(value, "_fields"):
        return {"named": [type(value).__name__, list(value._fields), [spell(part) for part in value]]}
    if isinstance(value, tuple):
        return {"tuple": [spell(part) for part in value]}
    if isinstance(value, list):
        return {"list": [spell(part) for part in value]}
    if isinstance(value, Mapping):
        return {"dict": [[_key(key, what), spell(part)] for key, part in value.items()]}
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return {"dict": [[f.name, spell(getattr(value, f.name))] for f in dataclasses.fields(value)]}
    return spell_constant(value, what)


def spell_constant(value: Any, what: str) -> Nesting:
    """A number, string or None that a model always takes or returns."""
    if isinstance(value, float) and not math.isfinite(value):
        return {"constant": {"float": str(value)}}
    if value is None or type(value) in (bool, int, float, str):
        return {"constant": value}
    raise UnsupportedError(
        f"{what} holds a {type(value).__name__}; ahead of time, expected tensors, numbers, strings and None in tuples, "
        "lists, dicts, named tuples and dataclasses"
    )


def _key(key: Any, what: str) -> Any:
    if key is None or type(key) in (bool, int, float, str):
        return key
    raise UnsupportedError(f"{what} holds a dict with the key {key!r}; ahead of time, keys are strings and numbers")
