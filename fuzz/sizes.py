"""Functions of sizes one by one: what torch's symbolic sizes become, computed beside Python's own integers.

Programs of run-time sizes mostly compute sums and products of them, at sizes that differ. Here an expression of all
that Python and torch can compute of sizes (quotients, remainders, comparisons, choices, doubles and their integers) is
written as a text, run on torch's symbolic integers and imported, and evaluated at sizes that are equal, neighbours,
multiples of each other and far apart; as an exported program's guard, and as packages evaluate it, in Python and in C,
too.
"""

from __future__ import annotations

import ctypes
import math
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from random import Random
from typing import Any

import torch
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.fx.experimental.symbolic_shapes import ShapeEnv

from effcc.errors import EffccError
from effcc.frontend import sizes
from effcc.frontend.conditions import conditions
from effcc.fuzz.generate import Case
from effcc.fuzz.hosts import compile_c
from effcc.fuzz.oracles import Failure, told
from effcc.ir.dims import evaluate_number
from effcc.ir.graph import GraphBuilder
from effcc.runtime.c_header import SIZE_FUNCTIONS, size_in_c
from effcc.runtime.size_trees import Size
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


@dataclass
class _InC:
    """A function as packages have it, to be evaluated in C: what it is of which symbols, and its values."""

    text: str = ""
    size: Size = 0
    names: Mapping[str, str] = field(default_factory=dict)
    wanted: list[tuple[Mapping[str, int], int]] = field(default_factory=list)


class SizeChecks:
    """Draws expressions, some at a time."""

    def __init__(self, seed: int) -> None:
        self._next = seed
        mode = FakeTensorMode(shape_env=ShapeEnv())
        self._fake = mode.from_tensor(torch.empty(_TRACED), static_shapes=False)

    def some(self, count: int) -> list[Failure]:
        """The next expressions, so many: those that become something else."""
        problems, by_c = dict[int, str](), dict[int, _InC]()
        for number in range(self._next, self._next + count):
            problem = self._problem(Random(number), by_c.setdefault(number, _InC()))
            if problem:
                problems[number] = problem
        self._next += count
        problems = {**_problems_in_c(by_c), **problems}
        nothing = GraphBuilder("sizes").build(())
        return [Failure(Case(nothing, (), n), "sizes", "wrong size", problem) for n, problem in problems.items()]

    def _problem(self, random: Random, by_c: _InC) -> str:
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
        if packaged is not None:
            by_c.text, by_c.size, by_c.names = text, packaged, names
        for given in _sizes(random):
            try:
                want = _run(text, given)
            except (ZeroDivisionError, OverflowError, ValueError):
                continue
            bindings = {names[n]: v for n, v in given.items()}
            try:
                problem = _unlike("imported", evaluate_number(made, bindings), want)
                if packaged is not None and not problem:
                    by_c.wanted.append((given, int(want)))
                    problem = _unlike("packaged", evaluate_packaged(packaged, bindings), want)
                if guard is not None and not problem:
                    problem = _unlike("as a guard", min((evaluate_number(g, bindings) for g in guard), default=1), want)
            except Exception as error:
                problem = told(error)
            if problem:
                return f"{text} at {given}: {problem}"
        return ""


def _problems_in_c(functions: Mapping[int, _InC]) -> dict[int, str]:
    """The functions of sizes that the header of a package computes otherwise, all compiled into one library."""
    asked = {n: f for n, f in functions.items() if f.wanted and not isinstance(f.size, int | float)}
    if not asked:
        return {}
    found = {}
    with tempfile.TemporaryDirectory(prefix="effcc-fuzz-") as folder:
        parts = []
        for number, one in asked.items():
            arguments = ", ".join(f"int64_t {one.names[n]}" for n in _NAMES)
            parts.append(f"int64_t size_{number}({arguments}, int *told) {{ int wrong = 0; "
                         f"int64_t found = {size_in_c(one.size)}; *told = wrong; return found; }}")  # fmt: skip
        library = compile_c(SIZE_FUNCTIONS + "\n".join(parts), Path(folder) / "sizes")
        for number, one in asked.items():
            call = library[f"size_{number}"]
            call.restype, call.argtypes = ctypes.c_int64, [ctypes.c_int64] * 3 + [ctypes.POINTER(ctypes.c_int)]
            for given, want in one.wanted:
                wrong = ctypes.c_int()
                got = call(*(given[n] for n in _NAMES), ctypes.byref(wrong))
                if not wrong.value and got != want:
                    found[number] = f"{one.text} at {dict(given)}: {_unlike('in C', got, want)}"
                    break
    return found


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
