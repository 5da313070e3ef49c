"""Loops right inside one another that walk all they touch as one loop would are one loop.

    loop i in 0..16 { loop j in 0..2 { ... X[2*i + j] ... W[64*i + 32*j] ... } }
    becomes  loop j in 0..32 { ... X[j] ... W[32*j] ... }

Axes were cut for the codes that share a byte, or for the groups of their scales; where these are decoded already, what
is left of the cuts would be loops of a few turns.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import fields, replace
from typing import Any

from effcc.ir.vectors import Affine, Function, Line, Loop, Place, Value, Var, bodies


def join_loops(function: Function) -> Function:
    """The function with every pair of loops joined that can be, the innermost first.

    >>> from effcc.ir.dtypes import f32
    >>> from effcc.ir.printer import print_vectors
    >>> from effcc.ir.vectors import Load, Parameter, Store, value_type
    >>> row = Load(Place("X", f32, Affine((("i", 2), ("j", 1)))), value_type(f32))
    >>> inner = Loop("j", Affine(), Affine((), 2), 1, (Store(Place("O", f32, Affine((("i", 2), ("j", 1)))), row),))
    >>> outer = Loop("i", Affine(), Affine((), 16), 1, (inner,))
    >>> buffers = Parameter("X", f32, "X", True), Parameter("O", f32, "O")
    >>> print(print_vectors(join_loops(Function("copy", buffers, (), (outer,)))))
    vectors @copy(X: f32 read, O: f32;) {
      loop j in [0]..[32] step 1 {
        do store(O[j], load<f32>(X[j]))
      }
    }
    """
    body = _joined(function.body)
    return function if body == function.body else replace(function, body=body)


def _joined(body: tuple[Line, ...]) -> tuple[Line, ...]:
    return tuple(map(_line, body))


def _line(line: Line) -> Line:
    if not bodies(line):
        return line
    changed = {f.name: _joined(getattr(line, f.name)) for f in fields(line) if f.name in ("body", "orelse")}
    line = replace(line, **changed)  # type: ignore[arg-type]
    if isinstance(line, Loop) and len(line.body) == 1 and isinstance(line.body[0], Loop):
        return _one(line, line.body[0]) or line
    return line


def _one(outer: Loop, inner: Loop) -> Loop | None:
    """Both as one loop with the inner one's name; None where something walks them apart."""
    often, length = turns(outer), turns(inner)
    if often is None or length is None:
        return None
    for place in _walked(inner.body):
        if isinstance(place, Var):
            if place.name in (outer.name, inner.name):
                return None
            continue
        steps = dict(place.terms)
        if steps.get(outer.name, 0) != length * steps.get(inner.name, 0):
            return None
    body = _without(inner.body, outer.name)
    return replace(inner, stop=Affine((), often * length), body=body)


def turns(loop: Loop) -> int | None:
    """How often a loop from 0 on runs, step by step."""
    match loop:
        case Loop(start=Affine((), 0), stop=Affine((), int() as stop), step=1) if stop > 0:
            return stop
    return None


def _walked(node: Any) -> Iterator[Affine | Var]:
    """All that depends on loops' variables."""
    if isinstance(node, Affine | Var):
        yield node
    elif isinstance(node, tuple):
        for part in node:
            yield from _walked(part)
    elif isinstance(node, Value | Line | Place):
        for f in fields(node):
            yield from _walked(getattr(node, f.name))


def _without(node: Any, name: str) -> Any:
    """A value or a statement, or several of them, with a variable left out of sums."""
    if isinstance(node, Affine):
        return replace(node, terms=tuple(t for t in node.terms if t[0] != name))
    if isinstance(node, tuple):
        return tuple(_without(part, name) for part in node)
    if not isinstance(node, Value | Line | Place) or isinstance(node, Var):
        return node
    return replace(node, **{f.name: _without(getattr(node, f.name), name) for f in fields(node)})
