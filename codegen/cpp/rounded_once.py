"""Values rounded to a half type that are only stored as that type: the store rounds them.

    let y = round<bf16>(a + b)
    do store(O[i], y)
    becomes  let y = a + b ...

A bfloat16 takes six instructions to round and, as a value, one to widen again; the store would do them once more.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import fields, replace
from typing import Any

from effcc.ir.dtypes import DType
from effcc.ir.vectors import Function, Let, Line, Round, Store, Var, bodies, parts, variables


def round_once(function: Function) -> Function:
    """The function with such values as they were before they were rounded.

    >>> from effcc.ir.dtypes import bf16, f32
    >>> from effcc.ir.printer import print_vectors
    >>> from effcc.ir.vectors import Affine, Load, Parameter, Place, value_type
    >>> value = Round(Load(Place("X", f32, Affine()), value_type(f32)), bf16)
    >>> body = (Let("y", value), Store(Place("O", bf16, Affine()), Var("y", value.type)))
    >>> buffers = Parameter("X", f32, "X", True), Parameter("O", bf16, "O")
    >>> print(print_vectors(round_once(Function("half", buffers, (), body))))
    vectors @half(X: f32 read, O: bf16;) {
      let y: f32 = load<f32>(X[0])
      do store(O[0], y)
    }
    """
    rounded = {x.name: x.value.dtype for x in function.lines if isinstance(x, Let) and isinstance(x.value, Round)}
    if not rounded:
        return function
    read = Counter(name for line in function.lines for value in parts(line) for name in variables(value))
    stored = Counter(name for line in function.lines if (name := _stored(line, rounded)) is not None)
    plain = {name for name, times in stored.items() if times == read[name]}
    return replace(function, body=_changed(function.body, plain)) if plain else function


def _stored(line: Line, rounded: dict[str, DType]) -> str | None:
    """The name of a rounded value that a statement stores as what it was rounded to."""
    match line:
        case Store(place, Var(name), fold="") if rounded.get(name) == place.dtype:
            return name
    return None


def _changed(body: tuple[Line, ...], plain: set[str]) -> tuple[Line, ...]:
    return tuple(_line(line, plain) for line in body)


def _line(line: Line, plain: set[str]) -> Line:
    match line:
        case Let(name, Round(value)) if name in plain:
            return Let(name, value)
    if not bodies(line):
        return line
    changed: dict[str, Any] = {
        f.name: _changed(getattr(line, f.name), plain) for f in fields(line) if f.name in ("body", "orelse")
    }
    return replace(line, **changed)
