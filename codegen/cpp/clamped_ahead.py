"""Stored columns brought inside their row for many steps of a loop at once, before it: by vectors, and not one by one.

    loop j in [0]..[64] step 1 {                        array ahead: i32[64]
      let c: i32 = load<i32>(C[768*n + j])              loop at in [0]..[64] step 16 {
      let low: i32 = maximum(c, 0)                        do store(ahead[at], minimum(maximum(.., 0), 767))
      let inside: i32 = minimum(low, 767)      becomes  }
      let k: i64 = convert<i64>(inside)                 loop j in [0]..[64] step 1 {
      .. load<f32>(x[k]) ..                               let inside: i32 = load<i32>(ahead[j])
    }                                                     ..

A block of four rows is two instructions in a product of one row, and finding its column took it six: a load, two
comparisons and moves, a widening. Of these are left the load, which widens, and a quarter of a vector's instructions.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, fields, replace
from typing import Any

from effcc.codegen.cpp.joined_loops import turns
from effcc.ir.dtypes import i32
from effcc.ir.vectors import (
    Affine,
    Array,
    Broadcast,
    Call,
    Function,
    Let,
    Line,
    Literal,
    Load,
    Loop,
    Place,
    Store,
    Value,
    Var,
    bodies,
    value_type,
)  # fmt: skip

FEWEST, MOST = 16, 1024
"""Steps of a loop that is worth it, and whose numbers stay in L1."""
FEWEST_LANES = 4
BESIDE = 12
"""Of a loop that does more for each column the columns are a small part."""


def clamp_ahead(function: Function, vector_bytes: int) -> Function:
    """The function with columns that loops read of buffers which nothing writes brought inside their rows ahead."""
    lanes = vector_bytes // i32.bytes
    if lanes < FEWEST_LANES:
        return function
    read_only = {p.name for p in function.buffers if p.read_only}
    taken = {line.name for line in function.lines if isinstance(line, Let | Loop | Array)}
    return replace(function, body=_changed(function.body, read_only, lanes, taken))


@dataclass(frozen=True)
class _Column:
    """A column that a loop reads: what names it inside its row, the load, and between what it is brought."""

    name: str
    unused: tuple[str, ...]
    load: Load
    low: Literal
    high: Literal


def _changed(body: tuple[Line, ...], read_only: set[str], lanes: int, taken: set[str]) -> tuple[Line, ...]:
    made: list[Line] = []
    for line in body:
        inner: dict[str, Any] = {
            f.name: _changed(getattr(line, f.name), read_only, lanes, taken)
            for f in fields(line)
            if f.name in ("body", "orelse")
        }
        made += _ahead(replace(line, **inner) if inner else line, read_only, lanes, taken)
    return tuple(made)


def _ahead(line: Line, read_only: set[str], lanes: int, taken: set[str]) -> list[Line]:
    """A statement, or what brings columns inside ahead and a loop that reads them."""
    steps = turns(line) if isinstance(line, Loop) else None
    if not isinstance(line, Loop) or steps is None or not FEWEST <= steps <= MOST:
        return [line]
    found = [c for c in _columns(line) if c.load.place.buffer in read_only]
    if not found or len(line.body) > BESIDE * len(found):
        return [line]
    arrays = {c.name: _fresh(f"{c.name}_ahead", taken) for c in found}
    made: list[Line] = [Array(i32, name, steps) for name in arrays.values()]
    whole = steps // lanes * lanes
    for begin, end, step in ((0, whole, lanes), (whole, steps, 1)):
        if begin < end:
            at = _fresh("at", taken)
            stores = tuple(_store(c, arrays[c.name], line.name, at, step) for c in found)
            made.append(Loop(at, Affine((), begin), Affine((), end), step, stores))
    gone = {name for c in found for name in c.unused}
    here = Affine(((line.name, 1),))
    rest: list[Line] = []
    for x in line.body:
        if isinstance(x, Let) and x.name in arrays:
            rest.append(Let(x.name, Load(Place(arrays[x.name], i32, here), value_type(i32))))
        elif not (isinstance(x, Let) and x.name in gone):
            rest.append(x)
    return [*made, replace(line, body=tuple(rest))]


def _columns(loop: Loop) -> Iterator[_Column]:
    """Columns that stand side by side for a loop's steps, each read only to be brought inside its row."""
    if any(bodies(x) for x in loop.body):
        return
    lets = {x.name: x.value for x in loop.body if isinstance(x, Let)}
    reads = Counter(name for x in loop.body for name in _names(x))
    for name, value in lets.items():
        match value:
            case Call("minimum", (Var(upper), Literal() as high)) if reads[upper] == 1:
                pass
            case _:
                continue
        match lets.get(upper):
            case Call("maximum", (Var(raw), Literal() as low)) if reads[raw] == 1:
                pass
            case _:
                continue
        load = lets.get(raw)
        if isinstance(load, Load) and load.type == value_type(i32) and _is_plain(load, loop.name, lets):
            yield _Column(name, (upper, raw), load, low, high)


def _is_plain(load: Load, axis: str, lets: Mapping[str, Value]) -> bool:
    terms = dict(load.place.at.terms)
    return (
        load.index is None
        and load.mask is None
        and load.count is None
        and load.place.dtype == i32
        and terms.get(axis) == 1
        and not any(name in lets for name in terms)
    )


def _store(column: _Column, array: str, axis: str, at: str, lanes: int) -> Store:
    place, wide = column.load.place, value_type(i32, lanes)
    terms = tuple((at if name == axis else name, n) for name, n in place.at.terms)
    loaded = Load(replace(place, at=replace(place.at, terms=terms)), wide)
    low, high = (v if lanes == 1 else Broadcast(v, wide) for v in (column.low, column.high))
    inside = Call("minimum", (Call("maximum", (loaded, low), wide), high), wide)
    return Store(Place(array, i32, Affine(((at, 1),))), inside)


def _names(node: Any) -> Iterator[str]:
    """Every name that a statement, or a value, reads."""
    if isinstance(node, Var):
        yield node.name
    elif isinstance(node, Affine):
        yield from (name for name, _ in node.terms)
    elif isinstance(node, tuple):
        for part in node:
            yield from _names(part)
    elif isinstance(node, Value | Line | Place):
        for f in fields(node):
            yield from _names(getattr(node, f.name))


def _fresh(base: str, taken: set[str]) -> str:
    name, n = base, 0
    while name in taken:
        name, n = f"{base}_{n}", n + 1
    taken.add(name)
    return name
