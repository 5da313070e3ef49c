"""The run-time checks of a program: what a value must be, and what is said where it is not.

A kernel notes what fails (`effcc.codegen.cpp.notes`). The entry point then returns a code, and `effcc_describe` says
which check of the program failed, by a table in its source. The other half is `runtime/include/effcc/faults.h`.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence

from effcc.ir.expr import Call, Const, walk
from effcc.ir.loops import LoopNest, expressions
from effcc.ir.program import Check, Launch
from effcc.ir.scalars import CHECKS

_LONGEST_LINE = 80
"""Characters of a line of the user's that are shown: what was wrong comes after it."""
_KINDS = {
    "index": "index",
    "index from either end": "index_from_either_end",
    "divisor": "divisor",
    "requirement": "requirement",
}
_ALONE = {"divisor": "divisor", "holds": "requirement", "in_range": "index"}
"""What a check is of in a kernel that is no program's: it says nothing else."""


def numbers(nest: LoopNest) -> dict[int, str]:
    """The checks in a nest, by their numbers: the functions that they are."""
    found = {}
    for e in (part for whole in expressions(nest.body) for part in walk(whole)):
        if isinstance(e, Call) and e.function in CHECKS:
            number = e.operands[-1]
            assert isinstance(number, Const)
            found[int(number.value)] = e.function
    return found


class CheckTable:
    """The checks of a program in the model's order, and where those of each launch stand among them."""

    def __init__(self, launches: Sequence[Launch], nests: Mapping[str, LoopNest]) -> None:
        known: list[tuple[int, Check]] = []
        self._of: dict[int, dict[int, tuple[int, Check]]] = {}  # by the launch's identity
        within = {name: numbers(nests[name]) for name in {launch.kernel for launch in launches}}
        for place, launch in enumerate(launches):
            own: dict[int, tuple[int, Check]] = {}
            for number, function in within[launch.kernel].items():
                own[number] = (place, _meaning(launch, number, function))
            known += own.values()
            self._of[id(launch)] = own
        self._launches = tuple(launches)  # kept, for their identities to be
        self.checks = sorted(dict.fromkeys(known), key=lambda c: (c[1].order, c[0]))
        self._places = {check: place for place, check in enumerate(self.checks)}

    def positions(self, launch: Launch) -> str:
        """The positions of a launch's checks, by their numbers, as C++ text; empty where it has none."""
        own = self._of[id(launch)]
        if not own:
            return ""
        rows = [self._places[own[n]] if n in own else 0 for n in range(max(own) + 1)]
        return ", ".join(map(str, rows))

    def text(self) -> list[str]:
        """The table, and the exported function that says what a fault is."""
        if not self.checks:
            return []
        rows = [
            f"    {{check_place::{_KINDS[c.kind]}, {json.dumps(_place(c), ensure_ascii=False)}, {c.dimension}}},"
            for _, c in self.checks
        ]
        return [
            "static const check_place check_places[] = {", *rows, "};", "",
            'extern "C" int effcc_describe(const i64* fault, char* text, i64 room) {',
            "  return describe(check_places[fault[0]], fault, text, room);",
            "}", "",
        ]  # fmt: skip


def _meaning(launch: Launch, number: int, function: str) -> Check:
    if number < len(launch.checks):
        return launch.checks[number]
    return Check(number, _ALONE[function], f"kernel @{launch.kernel}")


def _place(check: Check) -> str:
    """`gather at model.py:12 (y = x.gather(0, i))`: a location is `file:line: code`."""
    path, _, rest = check.location.partition(":")
    line, _, code = rest.partition(": ")
    where = f" at {path}:{line}" if line else ""
    return f"{check.op}{where}{f' ({_shorter(code)})' if code else ''}"


def _shorter(code: str) -> str:
    return code if len(code) <= _LONGEST_LINE else f"{code[: _LONGEST_LINE - 3]}..."
