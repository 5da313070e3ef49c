"""Functions of sizes one by one: what torch's symbolic sizes become, computed beside Python's own integers.

Programs of run-time sizes mostly compute sums and products of them, at sizes that differ. Here an expression of all
that Python and torch can compute of sizes (quotients, remainders, comparisons, choices, doubles and their integers) is
written as a text, run on torch's symbolic integers and imported, and evaluated at sizes that are equal, neighbours,
multiples of each other and far apart; as an exported program's guard, and as packages evaluate it, too.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from random import Random
from typing import Any

import torch
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.fx.experimental.symbolic_shapes import ShapeEnv

from effcc.errors import EffccError
from effcc.frontend import sizes
from effcc.frontend.conditions import conditions
from effcc.fuzz.generate import Case
from effcc.fuzz.oracles import Failure, told
from effcc.ir.dims import evaluate_number
from effcc.ir.graph import GraphBuilder
from effcc.runtime.size_trees import evaluate_number as evaluate_packaged
from effcc.runtime.spell_manifest import spell_size

_NAMES = ("a", "b", "c")
_TRACED = (5, 9, 16)
_INTEGERS = (
    "({i} + {i})", "({i} - {i})", "({i} * {i})", "({i} // {p})", "({i} % {p})", "(-{i})", "torch.sym_max({i}, {i})",
    "torch.sym_min({i}, {i})", "abs({i})", "torch.sym_ite({t}, {i}, {i})", "({v} ** 2)", "math.floor({f})",
    "math.ceil({f})", "math.trunc({f})", "round({f})", "({v} & {v})", "({v} | {v})", "({v} ^ {v})",
)  # fmt: skip
# Sums of one double and a number alone: of several, torch's symbols forget the order.
_DOUBLES = (
    "({i} / {p})", "torch.sym_float({i})", "({f} * {k})", "(({v} / {p}) + {k})", "torch.sym_max({f}, {f})",
)  # fmt: skip
_TRUTHS = (
    "({i} < {i})", "({i} <= {i})", "({i} > {i})", "({i} >= {i})", "({i} == {i})", "({i} != {i})", "torch.sym_not({t})",
    "({t} & {t})", "({t} | {t})", "({v} <= {v})", "({v} < {v})", "({v} >= {v})", "({v} == {v})", "({f} <= {f})",
)  # fmt: skip


class SizeChecks:
    """Draws expressions, some at a time."""

    def __init__(self, seed: int) -> None:
        self._next = seed
        mode = FakeTensorMode(shape_env=ShapeEnv())
        self._fake = mode.from_tensor(torch.empty(_TRACED), static_shapes=False)

    def some(self, count: int) -> list[Failure]:
        """The next expressions, so many: those that become something else."""
        found = []
        for number in range(self._next, self._next + count):
            problem = self._problem(Random(number))
            if problem:
                case = Case(GraphBuilder("sizes").build(()), (), number)
                found.append(Failure(case, "sizes", "wrong size", problem))
        self._next += count
        return found

    def _problem(self, random: Random) -> str:
        text = _drawn(random, random.choice("iitttf"), random.choice((1, 1, 2, 3)))
        symbols = dict(zip(_NAMES, self._fake.shape, strict=True))
        try:
            traced = _run(text, symbols)
        except Exception:
            return ""  # torch has no such function of symbols
        try:
            made = sizes.number(traced)
            packaged = spell_size(made) if not isinstance(traced, torch.SymFloat | float) else None
            guard = _guard(text, self._fake) if isinstance(traced, torch.SymBool) else None
        except EffccError:
            return ""
        except Exception as error:
            return f"{text}: {told(error)}"
        names = {n: str(sizes.size(s)) for n, s in symbols.items()}
        for given in _sizes(random):
            try:
                want = _run(text, given)
            except (ZeroDivisionError, OverflowError, ValueError):
                continue
            bindings = {names[n]: v for n, v in given.items()}
            try:
                problem = _unlike("imported", evaluate_number(made, bindings), want)
                if packaged is not None and not problem:
                    problem = _unlike("packaged", evaluate_packaged(packaged, bindings), want)
                if guard is not None and not problem:
                    problem = _unlike("as a guard", min((evaluate_number(g, bindings) for g in guard), default=1), want)
            except Exception as error:
                problem = told(error)
            if problem:
                return f"{text} at {given}: {problem}"
        return ""


def _drawn(random: Random, kind: str, depth: int) -> str:
    """An expression: of integers (`i`), doubles (`f`), a truth value (`t`); `p` is a positive number, `v` a size."""
    if kind == "k":
        return random.choice(("0.5", "2.0", "4.0", "0.25"))
    if kind == "p":
        return random.choice((*_NAMES, "2", "3", "7"))
    if kind == "v" or (kind == "i" and depth <= 0):
        return random.choice((*_NAMES, *_NAMES, "1", "2", "3", "8")) if kind == "i" else random.choice(_NAMES)
    templates: tuple[str, ...] = {"i": _INTEGERS, "f": _DOUBLES, "t": _TRUTHS}[kind]
    if depth <= 0:
        templates = {"f": _DOUBLES[:2], "t": _TRUTHS[9:13]}[kind]
    found = random.choice(templates)
    for place in "iftpvk":
        while "{" + place + "}" in found:
            found = found.replace("{" + place + "}", _drawn(random, place, depth - 1), 1)
    return found


def _run(text: str, given: Mapping[str, Any]) -> Any:
    return eval(text, {"torch": torch, "math": math, **given})


def _guard(text: str, fake: torch.Tensor) -> tuple[Any, ...] | None:
    """The conditions that a guard of torch.export's makes; None where it would not be written so."""
    if "ite" in text or "not" in text or "**" in text:
        return None
    for k, name in enumerate(_NAMES):
        text = "".join(f"L['x'].size()[{k}]" if part == name else part for part in _parts(text))
    return conditions([text], {"x": fake})


def _parts(text: str) -> list[str]:
    """The names in a text, and what is between them."""
    found, name = [""], False
    for letter in text:
        if (letter.isalnum() or letter in "_.'[]") != name:
            found.append("")
            name = not name
        found[-1] += letter
    return found


def _sizes(random: Random) -> list[dict[str, int]]:
    """Equal sizes, neighbours, multiples, and any."""
    n = random.choice((2, 3, 4, 7, 8, 31))
    ways: list[tuple[int, ...]] = [(n, n, n), (n, n + 1, n), (n + 1, n, n + 2), (n, 2 * n, 4 * n), (3 * n, n, n)]
    ways += [tuple(random.choice((2, 3, 5, 8, 64, 1000, 50_000)) for _ in _NAMES) for _ in range(3)]
    return [dict(zip(_NAMES, way, strict=True)) for way in ways]


def _unlike(how: str, got: Any, want: Any) -> str:
    return "" if got == want else f"{how}, it is {got}, not {want}"
