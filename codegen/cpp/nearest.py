"""Floats that are rounded, brought within bounds and made integers: one conversion rounds, and integers are bounded.

    let r = round(v)
    let a = select(lt(r, 0.0), 0.0, r)
    let b = minimum(254.0, a)
    let c: u8x16 = convert<u8x16>(b)
    becomes
    let b = minimum(254.0, v)
    let a: i32x16 = maximum(0, nearest<i32x16>(b))
    let c: u8x16 = convert<u8x16>(a)

Whole bounds of what is rounded are those of the rounded; what is below all integers, or none, is the least i32, as
without this. Zen 4 compares, rounds, adds and converts floats on two of four ports: of eight such instructions for a
vector of results of quantized MobileNetV2, which takes longer than its sums, two go.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, fields, replace
from typing import Any

from effcc.ir.dtypes import f32, i8, i16, i32, u8
from effcc.ir.vectors import (
    Assign,
    Broadcast,
    Call,
    Convert,
    Function,
    Let,
    Line,
    Literal,
    Nearest,
    Select,
    SetLane,
    Type,
    Value,
    Var,
    bodies,
    parts,
    value_type,
    variables,
)

_LARGEST = float(2**24)
"""Whole bounds up to it are floats and integers alike."""


def convert_nearest(function: Function) -> Function:
    """The function with such conversions.

    >>> from effcc.ir.parser import parse_vectors
    >>> from effcc.ir.printer import print_vectors
    >>> lines = "let x: f32x8 = load<f32x8>(X[0]) let r: f32x8 = round(x) let c: i8x8 = convert<i8x8>(r)"
    >>> text = "vectors @f(X: f32 read, O: i8;) {" + lines + " do store(O[0], c) }"
    >>> print(print_vectors(convert_nearest(parse_vectors(text))))
    vectors @f(X: f32 read, O: i8;) {
      let x: f32x8 = load<f32x8>(X[0])
      let c: i8x8 = nearest<i8x8>(x)
      do store(O[0], c)
    }
    """
    lines = tuple(function.lines)
    if not any(isinstance(x, Let) and _rounded(x.value) is not None for x in lines):
        return function
    read = Counter(name for line in lines for value in parts(line) for name in set(variables(value)))
    for line in lines:
        if isinstance(line, Assign | SetLane):  # what it holds where it is rounded need not be what it holds later
            read[line.name if isinstance(line, Assign) else line.register.name] = 0
    return replace(function, body=_changed(function.body, read))


@dataclass(frozen=True)
class _Bound:
    """`name` is what is left of `inner` by a whole bound; `upper`: at most that, else at least."""

    name: str
    number: float
    upper: bool


def _changed(body: Sequence[Line], read: Mapping[str, int]) -> tuple[Line, ...]:
    """Lines of a block with their conversions changed, those of blocks inside too."""
    made = {line.name: line.value for line in body if isinstance(line, Let)}
    lines: dict[str, tuple[Line, ...]] = {}
    for line in body:
        match line:
            case Let(name, Convert(Var(given), type)) if type.lanes > 1 and type.dtype in (i8, u8, i16, i32):
                found = _chain(given, made, read)
                if found is not None:
                    value, bounds, gone = found
                    lines.update(dict.fromkeys(gone, ()))
                    lines[name] = tuple(_converted(name, value, bounds, type))
    changed: list[Line] = []
    for line in body:
        if isinstance(line, Let) and line.name in lines:
            changed += lines[line.name]
        elif bodies(line):
            inner: dict[str, Any] = {
                f.name: _changed(getattr(line, f.name), read) for f in fields(line) if f.name in ("body", "orelse")
            }
            changed.append(replace(line, **inner))
        else:
            changed.append(line)
    return tuple(changed)


def _chain(
    given: str, made: Mapping[str, Value], read: Mapping[str, int]
) -> tuple[Value, list[_Bound], list[str]] | None:
    """What is rounded, its bounds from the first on, and the names that nothing else reads; None where it is no such
    chain."""
    bounds: list[_Bound] = []
    while read[given] == 1 and given in made:
        rounded = _rounded(made[given])
        if rounded is not None and read[rounded.name] == 0:
            return None
        if rounded is not None:
            return rounded, bounds[::-1], [given, *(b.name for b in bounds)]
        found = _bounded(given, made[given])
        if found is None:
            return None
        bounds.append(found[0])
        given = found[1]
    return None


def _rounded(value: Value) -> Var | None:
    match value:
        case Call("round", (Var() as inner,)) if inner.type.dtype == f32 and inner.type.lanes > 1:
            return inner
    return None


def _bounded(name: str, value: Value) -> tuple[_Bound, str] | None:
    """A bound and the name of what it is for."""
    match value:
        case Call("minimum" | "maximum" as function, (Broadcast(Literal(value=float(number))), Var(inner))):
            upper = function == "minimum"
        case Select(Call("lt", (Var(inner), Broadcast(Literal(value=float(number))) as least)), low, Var(other)) if (
            low == least and other == inner
        ):
            upper = False
        case _:
            return None
    whole = number == int(number) if abs(number) <= _LARGEST else False
    return (_Bound(name, number, upper), inner) if whole else None


def _converted(name: str, value: Value, bounds: Sequence[_Bound], type: Type) -> Iterator[Line]:
    """Bounds of what is not rounded yet, and the conversion; a least byte of 0 is that of integers, too: what is no
    integer becomes 0 either way."""
    lowest = next((b for b in bounds if not b.upper), None)
    to_byte = type.dtype in (i8, u8)
    later = lowest if lowest is not None and lowest.number == 0 and to_byte and _all_above(bounds) else None
    for bound in bounds:
        if bound is later:
            continue
        edge = Broadcast(Literal(bound.number, value.type.element), value.type)
        function = "minimum" if bound.upper else "maximum"
        yield Let(bound.name, Call(function, (edge, value), value.type))
        value = Var(bound.name, value.type)
    if later is None:
        yield Let(name, Nearest(value, type))
        return
    wide = value_type(i32, type.lanes)
    zero = Broadcast(Literal(0, wide.element), wide)
    yield Let(later.name, Call("maximum", (zero, Nearest(value, wide)), wide))
    yield Let(name, Convert(Var(later.name, wide), type))


def _all_above(bounds: Sequence[_Bound]) -> bool:
    """Whether the other bounds keep what is at least 0 there, and are none from below."""
    return all(b.number >= 0 if b.upper else b.number == 0 for b in bounds)
