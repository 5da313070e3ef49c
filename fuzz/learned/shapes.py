"""Shape rules: what sizes the results have, as formulas that are right on all records seen."""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Mapping, Sequence

import numpy as np

from effcc.fuzz.learned.formula import Shape, Undefined, shape
from effcc.fuzz.learned.record import Record
from effcc.fuzz.learned.rule import facts
from effcc.fuzz.learned.structure import tensors
from effcc.fuzz.learned.terms import Terms


def whole_shapes(accepted: Sequence[Record]) -> tuple[str, ...] | None:
    """A formula of each result's whole shape, for tensors of any rank: a tensor's own, one that several broadcast to,
    or always the same."""
    given = [facts(r.operator, r.arguments) for r in accepted]
    names = [n for n, _ in tensors(accepted[0].arguments)]
    found = []
    for k in range(len(accepted[0].results or ())):
        wanted = [_shape_of(r, k) for r in accepted]
        text = next((t for t in _whole(names, wanted[0]) if _is_right(t, given, wanted)), None)
        if text is None:
            return None
        found.append(text)
    return tuple(found)


def _whole(names: Sequence[str], first: Shape) -> Iterator[str]:
    yield "[]"
    yield from names
    for count in range(2, min(len(names), 4) + 1):
        yield from (f"broadcast({', '.join(chosen)})" for chosen in itertools.combinations(names, count))
    yield f"[{', '.join(map(str, first))}]"


def _is_right(text: str, given: Sequence[Mapping[str, int | Shape]], wanted: Sequence[Shape]) -> bool:
    try:
        return all(shape(text, g) == w for g, w in zip(given, wanted, strict=True))
    except Undefined:
        return False


def each_size(accepted: Sequence[Record], terms: Terms) -> tuple[str, ...] | None:
    """A formula of each result's sizes one by one, for tensors of given ranks; None if one has none."""
    whole = whole_shapes(accepted)
    if whole is not None:
        return whole
    found = []
    for k in range(len(accepted[0].results or ())):
        shapes = [_shape_of(r, k) for r in accepted]
        if len({len(s) for s in shapes}) > 1:
            return None
        sizes = []
        for axis in range(len(shapes[0])):
            wanted = np.array([s[axis] for s in shapes], np.int64)
            term = next(terms.equal(wanted), None)
            if term is None:
                return None
            sizes.append(term.text)
        found.append(f"[{', '.join(sizes)}]")
    return tuple(found)


def _shape_of(record: Record, k: int) -> Shape:
    return record.results[k].shape if record.results is not None and k < len(record.results) else (-1,)
