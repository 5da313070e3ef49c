"""Inlining: views are read through, and pointwise producers move into their readers where that recomputes little."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping
from dataclasses import replace
from math import inf, prod

from effcc.ir.affine import coefficient
from effcc.ir.contraction import contraction
from effcc.ir.dims import Dim, elements
from effcc.ir.division import fold_division
from effcc.ir.dots import PACKED
from effcc.ir.expr import Axis, Call, Const, Expr, Load, Reduce, children, ends_at, free_axes, loads, transform, walk
from effcc.ir.kernel import Scatter, Statement
from effcc.ir.scalars import function
from effcc.passes.fusion.cascade import (
    Cascade,
    Defined,
    Opaque,
    is_padding,
    is_pointwise,
    is_view,
    read_through,
)  # fmt: skip

OF_POINTS_ALONE = 4.0
"""Instructions of a value that only depends on where it is, up to which it is computed wherever it is read: masks. What
is read instead would be as many loads, and nobody could tell from it where loops may end."""
LARGEST_EXPRESSION = 160
"""Nodes in a right side, at most: longer ones spill registers and compile slowly."""


def scalar_cost(e: Expr) -> float:
    """A rough count of vector instructions for one evaluation; index arithmetic is free, and so is what was computed
    before: `where(x < 0, 0, x)` loads x once."""
    return _cost_of(e, set())


def _cost_of(e: Expr, known: set[Expr]) -> float:
    if e in known:
        return 0.0
    known.add(e)
    match e:
        case Load():
            return 1.0
        case Call() if e.dtype.name == "i64" and not loads(e):
            return 0.0
        case Call():
            return function(e.function).instructions + sum(_cost_of(o, known) for o in e.operands)
        case Reduce():
            return _cost_of(e.body, known)
    return 0.0


def inline_views(cascade: Cascade, kept: Iterable[str], stored: frozenset[str] = frozenset()) -> Cascade:
    """The cascade with views read through: the first half of `inline`."""
    wanted = set(kept) | {v.name for i in cascade.items if isinstance(i, Opaque) for v in i.node.operands}
    multiply_defined = _defined_again(cascade)
    solid = multiply_defined | stored
    return _inline_where(cascade, wanted, lambda item, _: is_view(item) and item.target not in solid, folded=False)


def inline(cascade: Cascade, kept: Iterable[str], stored: frozenset[str] = frozenset()) -> Cascade:
    """The cascade with views and cheap producers inlined; targets in `kept` (outputs, say) keep a statement.

    Those in `stored` are also read where they are stored, not through.
    """
    wanted = set(kept) | stored | {v.name for i in cascade.items if isinstance(i, Opaque) for v in i.node.operands}
    multiply_defined = _defined_again(cascade)
    first = _inline_widening(inline_views(cascade, wanted, stored), wanted | multiply_defined)
    first = _inline_padding(first, wanted, multiply_defined)
    chosen = _choose_pointwise(first, wanted | multiply_defined)
    return _alive(_inline_where(first, wanted, lambda item, _: item.target in chosen), wanted)


def _inline_padding(cascade: Cascade, wanted: set[str], multiply_defined: set[str]) -> Cascade:
    """The cascade with padding read through where windows alone read it: at their borders, loops are cut. What dot
    products of packed lanes sum is read as it lies in memory.
    """
    under_windows: dict[str, bool] = {}
    solid = wanted | multiply_defined
    for item in cascade.items:
        if isinstance(item, Defined):
            for load in item.statement.reads:
                slides = _is_window(item.statement, load, cascade.extents)
                under_windows[load.buffer] = under_windows.get(load.buffer, True) and slides
            product = contraction(item.statement)
            if product is not None and product.dot is not None and product.accumulator.is_integer:
                solid |= {product.left.data.buffer, product.right.data.buffer}
    return _inline_where(
        cascade,
        wanted,
        lambda item, _: is_padding(item) and item.target not in solid and under_windows.get(item.target, False),
    )


def _inline_widening(cascade: Cascade, solid: set[str]) -> Cascade:
    """The cascade with integers that are only widened to be multiplied and summed read as they were: sums of packed
    bytes want bytes, and there is less to store. So it is under windows with lanes along channels, for f32 too.
    """
    taken: dict[str, set[bool]] = {}
    for item in cascade.items:
        if isinstance(item, Defined):
            found = contraction(item.statement)
            values = () if found is None else (found.left.value, found.right.value)
            for load in item.statement.reads:
                by_window = found is None and _is_window(item.statement, load, cascade.extents)
                kinds = {load.dtype.is_float} if by_window else {False} if load in values else set()
                taken[load.buffer] = taken.get(load.buffer, kinds) & kinds
    return _inline_where(
        cascade,
        solid,
        lambda item, _: (
            item.target not in solid and _widens_to_float(item.statement.value) in taken.get(item.target, ())
        ),
    )


def _widens_to_float(e: Expr) -> bool | None:
    """Whether an integer becomes f32, which holds it, or a wider integer; None for any other value."""
    match e:
        case Call("cast", (Load(dtype=held),), wide) if held.is_integer and held.bits < wide.bits:
            return wide.is_float if wide.is_integer or (wide.name == "f32" and held.bits <= 16) else None
    return None


def _is_window(statement: Statement, load: Load, extents: Mapping[str, Dim]) -> bool:
    """Whether a reduction reads at places that a kept axis moves and reduced axes reach out from: less far than it
    moves, as the gradient of a convolution's weight does not, whose taps are kept and whose points are summed."""
    if statement.reduction is None:
        return False
    kept, reduced = set(statement.axes), set(statement.reduction.axes)
    axes = [{e.name for e in walk(i) if isinstance(e, Axis)} for i in load.index]
    return any(_reaches(a & kept, extents) >= _reaches(a & reduced, extents) for a in axes if a & kept and a & reduced)


def _reaches(axes: set[str], extents: Mapping[str, Dim]) -> float:
    """How many points axes have together; those of unknown extent have more than any."""
    return prod(n if isinstance(n := extents[a], int) else inf for a in axes)


def _alive(cascade: Cascade, wanted: set[str]) -> Cascade:
    """The cascade without statements that nothing needs: a condition that always holds leaves out its other side."""
    reads: dict[str, set[str]] = {}
    for item in cascade.items:
        if isinstance(item, Defined):
            reads.setdefault(item.target, set()).update(load.buffer for load in item.statement.reads)
    live, found = set(wanted), list(wanted)
    while found:
        more = reads.get(found.pop(), set()) - live
        live |= more
        found += more
    items = [i for i in cascade.items if isinstance(i, Opaque) or i.target in live]
    return cascade if len(items) == len(cascade.items) else replace(cascade, items=items)


def _defined_again(cascade: Cascade) -> set[str]:
    """Targets that more than one statement writes (scatters update what an earlier statement put there)."""
    seen: set[str] = set()
    again: set[str] = set()
    for item in cascade.items:
        if isinstance(item, Defined):
            (again if item.target in seen else seen).add(item.target)
    return again


def _inline_where(cascade: Cascade, wanted: set[str], take, folded: bool = True) -> Cascade:  # type: ignore[no-untyped-def]
    """The cascade with what `take` takes read through. folded: whether divisions were folded before, so that only what
    reads through anything may have new ones."""
    definitions: dict[str, Statement] = {}
    items: list[Defined | Opaque] = []
    bounds = {axis: extent for axis, extent in cascade.extents.items() if isinstance(extent, int)}
    for item in cascade.items:
        if isinstance(item, Opaque):
            items.append(item)
            continue
        if not folded or any(load.buffer in definitions for load in item.statement.reads):
            item = _rewrite(item, definitions, bounds)
        if take(item, definitions):
            definitions[item.target] = item.statement
            if item.target not in wanted:
                continue
        items.append(item)
    return replace(cascade, items=items)


def _rewrite(item: Defined, definitions: Mapping[str, Statement], bounds: Mapping[str, int]) -> Defined:
    def through(e: Expr) -> Expr:
        read = read_through(e, definitions)
        return transform(read, lambda part: fold_division(_known_divisor(part), bounds.get))

    statement = item.statement
    value = through(statement.value)
    scatter = statement.scatter
    if scatter is not None:
        scatter = Scatter(tuple(through(i) for i in scatter.index), scatter.combine)
    return replace(item, statement=replace(statement, value=value, scatter=scatter))


def _known_divisor(e: Expr) -> Expr:
    """A divisor that is a number other than 0 needs no run-time check."""
    match e:
        case Call("divisor", (Const(value=v) as number, _)) if v != 0:
            return number
    return e


def _choose_pointwise(cascade: Cascade, wanted: set[str]) -> set[str]:
    """The pointwise targets to inline into all their readers."""
    readers: dict[str, list[tuple[Defined, Load]]] = defaultdict(list)
    for item in cascade.items:
        if isinstance(item, Defined):
            for load in set(item.statement.reads):
                readers[load.buffer].append((item, load))
    chosen: set[str] = set()
    size: dict[str, int] = {}
    alone: dict[str, float] = {}
    for item in cascade.items:
        if not isinstance(item, Defined):
            continue
        nodes = sum(size.get(e.buffer, 0) if isinstance(e, Load) else 1 for e in walk(item.statement.value))
        if item.target in wanted or not is_pointwise(item):
            continue
        cost = _cost_alone(item.statement.value, alone)
        free = cost is not None and cost <= OF_POINTS_ALONE
        if (free or _pays(item, readers[item.target], cascade.extents)) and nodes <= LARGEST_EXPRESSION:
            chosen.add(item.target)
            size[item.target] = nodes
            if cost is not None:
                alone[item.target] = cost
    return chosen


def _pays(item: Defined, readers: list[tuple[Defined, Load]], extents: Mapping[str, Dim]) -> bool:
    """Whether computing the producer again in each reader costs less than storing and loading it."""
    cost = scalar_cost(item.statement.value)
    if cost <= 0.0:
        return True
    if _makes_codes(item.statement.value):
        return False  # another kernel then reads a byte, not what is wider; in its own it is in registers
    own = _points(item.statement, extents)
    work = 0.0
    for reader, among in _by_reader(readers):
        points = _points(reader.statement, extents)
        if reader.statement.spans and item.statement.dtype.is_integer:
            apart = {a for load in among for i in load.index for a in free_axes(i)}
            points = elements(tuple(extents[a] for a in apart))  # the same in all lanes
        if isinstance(reader.statement.value, Reduce) and points > own and cost > 1.0:
            return False
        if len(among) == 1 and _reads_once(among[0], reader.statement):
            points = min(points, own)  # what else there is, of a concatenation say, reads elsewhere
        work += points * _reads_at_once(reader.statement.value, item.target)
    traffic = 3.0
    return cost * (work - own) <= traffic * own or (cost <= 1.0 and len(readers) == 1)


def _by_reader(readers: list[tuple[Defined, Load]]) -> list[tuple[Defined, list[Load]]]:
    found: dict[int, tuple[Defined, list[Load]]] = {}
    for reader, load in readers:
        found.setdefault(id(reader), (reader, []))[1].append(load)
    return list(found.values())


def _reads_at_once(e: Expr, target: str) -> int:
    """At how many places a point reads a buffer: of a condition's two sides, one."""

    def count(e: Expr, known: frozenset[Expr]) -> tuple[int, frozenset[Expr]]:
        if e in known:
            return 0, known
        if isinstance(e, Call) and e.function == "where":
            condition, *sides = e.operands
            total, known = count(condition, known)
            found = [count(side, known) for side in sides]
            return total + max(n for n, _ in found), frozenset.intersection(*(k for _, k in found)) | {e}
        total = int(isinstance(e, Load) and e.buffer == target)
        known |= {e}
        for part in children(e):
            n, known = count(part, known)
            total += n
        return total, known

    return count(e, frozenset())[0]


def _reads_once(load: Load, reader: Statement) -> bool:
    """Whether no two points of a statement read the same element: each axis moves a dimension of its own."""
    moved = [free_axes(i) for i in load.index]
    own = {a for (a,) in (axes for axes in moved if len(axes) == 1)}
    even = all(coefficient(i, a) for i, axes in zip(load.index, moved, strict=True) for a in axes)
    return (
        even
        and all(len(axes) <= 1 for axes in moved)
        and not isinstance(reader.value, Reduce)
        and own >= set(reader.axes)
    )


def _makes_codes(e: Expr) -> bool:
    """Whether a float becomes one of the small integers that products are of."""
    match e:
        case Call("cast", (operand,), dtype):
            return operand.dtype.is_float and dtype.is_integer and dtype in PACKED
    return False


def _cost_alone(e: Expr, alone: Mapping[str, float]) -> float | None:
    """What a value costs that is made of axes and of single elements, the same for whatever else there is; None for any
    other. `alone`: what is read through that is made so, with its cost.
    """
    match e:
        case Load() if e.buffer in alone:
            return alone[e.buffer]
        case Load():
            return None if any(free_axes(i) or loads(i) for i in e.index) else 0.0
        case Reduce():
            return None
    parts = [_cost_alone(part, alone) for part in children(e)]
    if not all(part is not None for part in parts):
        return None
    return scalar_cost(replace(e, operands=())) + sum(p for p in parts if p is not None) if isinstance(e, Call) else 0.0


def _points(statement: Statement, extents: Mapping[str, Dim]) -> int:
    """The size of a statement's box, reduced axes included; of ragged ones the spans, taken to be disjoint."""
    axes = {*statement.axes, *(statement.value.axes if isinstance(statement.value, Reduce) else ())}
    axes -= {a for span in statement.spans for a in ends_at(span)}
    return max(elements(tuple(extents[a] for a in axes)), 1)
