"""Calls of one function brought side by side, so that they are one call.

A polynomial is a chain whose every step waits for the one before; called for one vector after the other, the processor
holds too few of these chains at a time to be busy. A call for several vectors has their chains side by side, and loads
each coefficient once.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import fields, replace

from effcc.ir.dtypes import f32
from effcc.ir.vectors import (
    Affine,
    Assign,
    Call,
    Function,
    Let,
    Line,
    Load,
    Prefetch,
    SetLane,
    Store,
    StoreRows,
    Type,
    Value,
    Var,
    bodies,
    parts,
)  # fmt: skip

AT_ONCE = 3
"""Vectors in a call, at most: more chains than that do not fit in the registers of AVX2."""

_REACH = 64
"""How many lines after a call are looked at for others."""

_Called = frozenset[tuple[str, Type]]


def bring_together(function: Function) -> Function:
    """The function with its calls moved up to earlier ones of the same function, with what they need, where nothing in
    between is in the way.

    >>> from effcc.ir.printer import print_vectors
    >>> from effcc.ir.vectors import Loop, Parameter, Place, value_type
    >>> v = value_type(f32, 8)
    >>> body = []
    >>> for n in range(2):
    ...     x = Load(Place("X", f32, Affine((), 8 * n)), v)
    ...     body += [Let(f"x{n}", x), Let(f"y{n}", Call("erf", (Var(f"x{n}", v),), v))]
    ...     body += [Store(Place("O", f32, Affine((), 8 * n)), Var(f"y{n}", v))]
    >>> buffers = Parameter("X", f32, "X", True), Parameter("O", f32, "O")
    >>> apart = Function("erfs", buffers, (), tuple(body), called=frozenset({("erf", v)}))
    >>> print(print_vectors(bring_together(apart)))
    vectors @erfs(X: f32 read, O: f32;) calls erf(f32x8) {
      let x0: f32x8 = load<f32x8>(X[0])
      let x1: f32x8 = load<f32x8>(X[8])
      let y0: f32x8 = erf(x0)
      let y1: f32x8 = erf(x1)
      do store(O[0], y0)
      do store(O[8], y1)
    }
    """
    if not any(type.dtype == f32 and type.lanes > 1 for _, type in function.called):
        return function
    return replace(function, body=_brought_together(function.body, function.called))


def grouped(body: Sequence[Line], called: _Called) -> Iterator[tuple[Line, ...]]:
    """The lines of a body in order: those that are one call together, and every other one alone."""
    group: list[Let] = []
    for line in body:
        which = _call(line, called)
        joins = which is not None and len(group) < AT_ONCE and (not group or which == _call(group[0], called))
        if joins and not _uses(line) & {g.name for g in group}:
            assert isinstance(line, Let)
            group.append(line)
            continue
        if group:
            yield tuple(group)
        group = [line] if which is not None and isinstance(line, Let) else []
        if not group:
            yield (line,)
    if group:
        yield tuple(group)


def calls_at_once(function: Function) -> set[tuple[str, Type, int]]:
    """The functions that are called for several vectors at once: their names, the type, and how many vectors."""
    found = set()
    for body in (function.body, *(inner for line in function.lines for inner in bodies(line))):
        for group in grouped(body, function.called):
            which = _call(group[0], function.called)
            if len(group) > 1 and which is not None:
                found.add((*which, len(group)))
    return found


def _call(line: Line, called: _Called) -> tuple[str, Type] | None:
    """The function of float vectors that a line is a call of, if it is one."""
    match line:
        case Let(_, Call(name, (_,), type)) if type.dtype == f32 and type.lanes > 1 and (name, type) in called:
            return name, type
    return None


def _brought_together(body: Sequence[Line], called: _Called) -> tuple[Line, ...]:
    rest = [_with_bodies(line, called) for line in body]
    made: list[Line] = []
    while rest:
        line = rest.pop(0)
        which = _call(line, called)
        if which is not None:
            needed, others = _others(line, rest, which, called)
            taken = {id(x) for x in (*needed, *others)}
            made += needed
            made.append(line)
            made += others
            rest = [x for x in rest if id(x) not in taken]
        else:
            made.append(line)
    return tuple(made)


def _with_bodies(line: Line, called: _Called) -> Line:
    if not bodies(line):
        return replace(line)  # an object of its own, known by its identity while lines move
    changed = {f.name: _brought_together(getattr(line, f.name), called) for f in fields(line) if f.name in _BODIES}
    return replace(line, **changed)  # type: ignore[arg-type]


_BODIES = ("body", "orelse")


def _others(
    first: Line, rest: Sequence[Line], which: tuple[str, Type], called: _Called
) -> tuple[list[Line], list[Line]]:
    """Later calls of the same function that may move up to the first one, and the lines before them that they need."""
    assert isinstance(first, Let)
    stays = {first.name}  # names that are defined, or registers that change, in what does not move
    written: set[str] = set()  # buffers that what does not move stores to
    free: dict[str, Let] = {}
    calls: list[Line] = []
    for line in rest[:_REACH]:
        match line:
            case Let() if not _uses(line) & stays and not _read(line.value) & written:
                if _call(line, called) == which:
                    calls.append(line)
                    stays.add(line.name)
                    if len(calls) + 1 == AT_ONCE:
                        break
                else:
                    free[line.name] = line
            case Let() | Assign():
                stays.add(line.name)
            case SetLane(register):
                stays.add(register.name)
            case Store(place) | StoreRows(place):
                written.add(place.buffer)
            case Prefetch():
                pass
            case _:
                break
    needed: set[str] = set()
    for call in calls:
        needed |= _needed(call, free)
    return [line for name, line in free.items() if name in needed], calls


def _needed(line: Line, free: dict[str, Let]) -> set[str]:
    found: set[str] = set()
    for name in _uses(line):
        if name in free and name not in found:
            found |= {name, *_needed(free[name], free)}
    return found


def _uses(node: Value | Line) -> set[str]:
    """The variables that a line reads, also in places of memory."""
    match node:
        case Var(name):
            return {name}
        case Affine(terms):
            return {name for name, _ in terms}
    found = set().union(*map(_uses, parts(node))) if parts(node) else set()
    if isinstance(node, Load):
        found |= _uses(node.place.at)
    return found


def _read(value: Value) -> set[str]:
    """The buffers that a value is loaded from."""
    found = {value.place.buffer} if isinstance(value, Load) else set()
    return found.union(*map(_read, parts(value)))
