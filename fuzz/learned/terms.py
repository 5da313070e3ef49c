"""Small terms over the numbers of some calls, one for each way that they differ on these calls.

A term is a text and its value for each call. Of terms that are equal on all calls the shortest stays, so a search over
terms of terms stays small (observational equivalence, as in enumerative synthesis).
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Values = NDArray[np.int64]

_CONSTANTS = (0, 1, 2, 3, 4)


@dataclass(frozen=True)
class Term:
    """A formula, its size and its values. Values of -2**40 stand for none: it divides by zero there."""

    text: str
    size: int
    values: Values

    @property
    def inner(self) -> str:
        """The text as a part of another."""
        return self.text if self.size == 1 or (self.text.endswith(")") and self.text[0].isalpha()) else f"({self.text})"


NONE = -(2**40)


class Terms:
    """The terms over the numbers of calls, by size."""

    def __init__(self, given: Sequence[Mapping[str, int]], groups: Sequence[Sequence[str]] = ()) -> None:
        self._known: dict[bytes, Term] = {}
        self.names = list(given[0])
        self.atoms: list[Term] = []
        for name in self.names:
            self._add(self.atoms, name, 1, np.array([g[name] for g in given], np.int64))
        self.symbols = list(self.atoms)
        self._pairs: list[Term] | None = None
        for group in groups:  # products and sums of a tensor's sizes and of a list's integers
            parts = [np.array([g[n] for g in given], np.int64) for n in group]
            if len(group) > 1:
                self._add(self.atoms, " * ".join(group), len(group), np.prod(parts, axis=0))
                self._add(self.atoms, " + ".join(group), len(group), np.sum(parts, axis=0))
        for constant in _CONSTANTS:
            self._add(self.atoms, str(constant), 1, np.full(len(given), constant, np.int64))

    def _add(self, among: list[Term], text: str, size: int, values: Values) -> None:
        mark = values.tobytes()
        if mark not in self._known:
            self._known[mark] = term = Term(text, size, values)
            among.append(term)

    @property
    def pairs(self) -> list[Term]:
        """Those of two atoms."""
        if self._pairs is None:
            self._pairs = []
            for a, b in itertools.product(self.atoms, repeat=2):
                if a.size + b.size > 6:
                    continue
                for sign, function in OPERATIONS.items():
                    if sign in "+*m" and a.text > b.text:
                        continue
                    self._add(self._pairs, spelled(sign, a, b), a.size + b.size, function(a.values, b.values))
        return self._pairs

    def equal(self, wanted: Values) -> Iterator[Term]:
        """Terms with these values, shorter ones first: atoms, pairs, windows, and a pair with an atom."""
        mark = wanted.tobytes()
        if mark in self._known:
            yield self._known[mark]
        self.pairs  # noqa: B018 - makes them known
        if mark in self._known:
            yield self._known[mark]
        yield from self._windows(wanted)
        yield from self._triples(wanted)

    def _triples(self, wanted: Values) -> Iterator[Term]:
        for a in self.atoms:
            for sign, other in (("+", wanted - a.values), ("-", wanted + a.values)):
                found = self._known.get(other.tobytes())
                if found is not None:
                    yield Term(spelled(sign, found, a), found.size + a.size, wanted)
            if (a.values != 0).all() and (wanted % a.values == 0).all():
                found = self._known.get((wanted // a.values).tobytes())
                if found is not None:
                    yield Term(spelled("*", found, a), found.size + a.size, wanted)
        if len(self.pairs) > 6000:
            return
        table = np.stack([p.values for p in self.pairs]) if self.pairs else np.zeros((0, len(wanted)), np.int64)
        for a in self.atoms:
            for sign in ("//", "min", "max"):
                same = (OPERATIONS[sign](table, a.values[None]) == wanted).all(axis=1)
                for k in np.flatnonzero(same)[:1]:
                    yield Term(spelled(sign, self.pairs[k], a), self.pairs[k].size + a.size, wanted)

    def _windows(self, wanted: Values) -> Iterator[Term]:
        """Forms of convolutions and poolings, whose strides, paddings and dilations may be missing."""
        ones, none = [a for a in self.atoms if a.text == "1"], [a for a in self.atoms if a.text == "0"]
        integers = [a for a in self.symbols if not a.text[-1].isdigit() or a.text.rstrip("0123456789")[:-1] in _WINDOWS]
        if not ones or not integers:
            return
        strides = [a for a in integers if "stride" in a.text] + ones
        paddings = [a for a in integers if "padding" in a.text] + none
        dilations = [a for a in integers if "dilation" in a.text] + ones
        kernels = [a for a in self.symbols if "kernel" in a.text or "weight" in a.text] or self.symbols
        for size, kernel, stride, padding, dilation in itertools.product(
            self.symbols, kernels, strides + kernels, paddings, dilations
        ):
            parts = [t.values for t in (size, kernel, stride, padding, dilation)]
            inside = parts[0] + 2 * parts[3] - parts[4] * (parts[1] - 1) - 1
            if (divided(inside, parts[2]) + 1 == wanted).all():
                told = ", ".join(t.text for t in (size, kernel, stride, padding, dilation))
                yield Term(f"window({told})", 6, wanted)
        for size, kernel, stride, padding, dilation in itertools.product(
            self.symbols, kernels, strides, paddings, dilations
        ):
            s, k, by, pad, dil = (t.values for t in (size, kernel, stride, padding, dilation))
            rest = wanted - ((s - 1) * by - 2 * pad + dil * (k - 1) + 1)
            over = next((a for a in self.atoms if (a.values == rest).all()), None)
            if over is not None:
                text = (f"({size.text} - 1) * {stride.text} - 2 * {padding.text} + {dilation.text} * "
                        f"({kernel.text} - 1) + 1 + {over.text}")  # fmt: skip
                yield Term(text, 8, wanted)


_WINDOWS = ("stride", "padding", "dilation", "kernel_size", "output_padding")


def divided(a: Values, b: Values) -> Values:
    """Quotients as Python has them; NONE where there is none."""
    with np.errstate(divide="ignore"):
        return np.where(b == 0, NONE, a // np.where(b == 0, 1, b))


def _join(a: Values, b: Values) -> Values:
    return np.where(a == 1, b, a)


def _ceiled(a: Values, b: Values) -> Values:
    found = divided(-a, b)
    return np.where(found == NONE, NONE, -found)


OPERATIONS: dict[str, Callable[[Values, Values], Values]] = {
    "+": np.add, "-": np.subtract, "*": np.multiply, "//": divided, "min": np.minimum, "max": np.maximum,
    "join": _join, "ceil": _ceiled,
}  # fmt: skip


def spelled(sign: str, a: Term, b: Term) -> str:
    """The text of an operation."""
    return f"{sign}({a.text}, {b.text})" if sign[0].isalpha() else f"{a.inner} {sign} {b.inner}"
