"""Preconditions: conditions that all accepted calls meet, chosen so that refused ones do not meet them all."""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Mapping, Sequence

import numpy as np
from numpy.typing import NDArray

from effcc.fuzz.learned.formula import Shape, holds
from effcc.fuzz.learned.record import Record
from effcc.fuzz.learned.rule import facts
from effcc.fuzz.learned.structure import tensors
from effcc.fuzz.learned.terms import NONE, Term, Terms, Values

Truths = NDArray[np.bool_]
_MOST = 6  # conditions of a rule
_PENALTY = 0.88  # of a number more in a condition
_ENOUGH = 0.98  # of the refused calls


def whole_needs(records: Sequence[Record]) -> tuple[str, ...]:
    """Conditions on whole shapes and ranks."""
    names = [n for n, _ in tensors(records[0].arguments)]
    given = [facts(r.operator, r.arguments) for r in records]
    accepted = np.array([r.accepted for r in records])
    candidates = [(text, size, _truths(text, given)) for text, size in _of_shapes(names)]
    return _cover([c for c in candidates if c[2][accepted].all()], accepted)


def _truths(text: str, given: Sequence[Mapping[str, int | Shape]]) -> Truths:
    return np.array([holds(text, g) for g in given])


def _of_shapes(names: Sequence[str]) -> Iterator[tuple[str, int]]:
    for name in names:
        for rank in range(1, 5):
            yield f"rank({name}) >= {rank}", 2
            yield f"rank({name}) <= {rank}", 3
        yield f"product({name}) >= 1", 2
        yield f"product({name}) == 1", 3
    for a, b in itertools.combinations(names, 2):
        yield f"{a} == {b}", 2
        yield f"broadcastable({a}, {b})", 2
        yield f"rank({a}) == rank({b})", 2
        yield f"rank({a}) >= rank({b})", 3
        yield f"rank({a}) <= rank({b})", 3
        yield f"product({a}) == product({b})", 2
    for a, b in itertools.permutations(names, 2):
        yield f"into({a}, {b})", 3
    if len(names) > 2:
        yield f"broadcastable({', '.join(names)})", 3
        for a, b, c in itertools.permutations(names, 3):
            if a < b:
                yield f"broadcastable({a}, {b}) and into(broadcast({a}, {b}), {c})", 5


def needs(records: Sequence[Record], terms: Terms, sizes: Sequence[str]) -> tuple[str, ...]:
    """Conditions on the numbers of calls, and on their shapes. terms: over the numbers of `records`. sizes: formulas of
    the results' sizes, which must not be negative."""
    accepted = np.array([r.accepted for r in records])
    if accepted.all():
        return ()
    given = [facts(r.operator, r.arguments) for r in records]
    names = [n for n, _ in tensors(records[0].arguments)][:4]
    found = [(text, size, _truths(text, given)) for text, size in _of_shapes(names) if "rank" not in text]
    found += [(text, size, _truths(text, given)) for text, size in _of_results(sizes)]
    found += _of_terms(terms.atoms, terms.atoms, accepted)
    found = [c for c in found if c[2][accepted].all()]
    chosen = _cover(found, accepted)
    if _covered(chosen, found, accepted) >= _ENOUGH:
        return chosen
    if len(terms.pairs) < 4000:
        found += _of_terms(terms.symbols, [*terms.pairs, *terms.atoms], accepted)
        found += _of_signs(terms.pairs, accepted)
    return _cover(found, accepted)


def _of_results(sizes: Sequence[str]) -> Iterator[tuple[str, int]]:
    for size in dict.fromkeys(sizes):
        if not size.isidentifier() and not size.isdigit():
            yield f"{size} >= 0", 3
            yield f"{size} >= 1", 3


def _of_terms(some: Sequence[Term], others: Sequence[Term], accepted: Truths) -> list[tuple[str, int, Truths]]:
    """Comparisons of terms that hold on all accepted calls."""
    found: list[tuple[str, int, Truths]] = []
    table = np.stack([o.values for o in others])
    defined = table > NONE
    for a in some:
        if a.text.isdigit():
            continue
        values = a.values[None]
        equal, less = table == values, values <= table
        for truths, text, cost in (
            (equal, "{a} == {b}", 0), (less, "{a} <= {b}", 0), (table <= values, "{a} >= {b}", 0),
            (equal | (values == 1), "({a} == {b} or {a} == 1)", 1), (_divides(values, table), "{a} % {b} == 0", 1),
            (equal | (values == 1) | (table == 1), "({a} == {b} or {a} == 1 or {b} == 1)", 2),
            (less & (values >= -table), "-{b} <= {a} and {a} <= {b}", 2),
            (~less & (values >= -table), "-{b} <= {a} and {a} < {b}", 2), (values < table, "{a} < {b}", 0),
            (equal | (values == 0), "({a} == {b} or {a} == 0)", 2),
        ):  # fmt: skip
            right = (truths & defined)[:, accepted].all(axis=1)
            for k in np.flatnonzero(right):
                other = others[int(k)]
                if other.text != a.text and not (truths[k] & defined[k]).all():
                    size = a.size + other.size + cost + other.text.isdigit() * (other.text not in "01")
                    told = text.format(a=a.inner, b=other.inner)
                    found.append((told, size, truths[k] & defined[k]))
    return found


def _divides(values: Values, table: Values) -> Truths:
    safe = np.where(table == 0, 1, table)
    return (table != 0) & (values % safe == 0)


def _of_signs(pairs: Sequence[Term], accepted: Truths) -> list[tuple[str, int, Truths]]:
    found = []
    for pair in pairs:
        for least in (0, 1):
            truths = pair.values >= least
            if truths[accepted].all() and not truths.all():
                found.append((f"{pair.text} >= {least}", pair.size + 1, truths))
    return found


def _covered(chosen: Sequence[str], found: Sequence[tuple[str, int, Truths]], accepted: Truths) -> float:
    met = np.ones(len(accepted), bool)
    for text, _, truths in found:
        if text in chosen:
            met &= truths
    refused = ~accepted
    return float((~met)[refused].mean()) if refused.any() else 1.0


def _cover(found: Sequence[tuple[str, int, Truths]], accepted: Truths) -> tuple[str, ...]:
    """Conditions that refuse as many refused calls as possible, the plainest and those that refuse most first."""
    left = ~accepted
    chosen: list[str] = []
    if not found or not left.any():
        return ()
    table = ~np.stack([truths for _, _, truths in found])
    weights = np.array([_PENALTY ** min(size, 12) for _, size, _ in found])
    while left.any() and len(chosen) < _MOST:
        gains = table[:, left].sum(axis=1)
        best = int(np.argmax(gains * weights))
        if not gains[best]:
            break
        chosen.append(found[best][0])
        left &= ~table[best]
    return tuple(chosen)
