"""What a trace came to: how many operators have a rule, stand as they were seen, or were left out and why."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from functools import reduce
from operator import add
from typing import Any

from effcc.fuzz.learned.infer import INVALID, VALID, Learned, Score
from effcc.fuzz.learned.rule import is_in_place
from effcc.fuzz.learned.tracing import Trace


@dataclass(frozen=True)
class Report:
    """A trace and what was learned from it."""

    trace: Trace
    learned: Sequence[Learned]

    @property
    def score(self) -> Score:
        """That of all rules together."""
        return reduce(add, (one.score for one in self.learned), Score())

    def as_json(self) -> dict[str, Any]:
        """For programs."""
        score = self.score
        return {
            "records": sum(map(len, self.trace.records.values())),
            "refused": sum(not r.accepted for found in self.trace.records.values() for r in found),
            "operators": len(self.learned),
            "with_rule": sum(bool(one.rules) for one in self.learned),
            "rules": sum(len(one.rules) for one in self.learned),
            "concrete": sum(bool(one.concrete) for one in self.learned),
            "in_place": sum(is_in_place(one.operator) for one in self.learned if one.rules or one.concrete),
            "names": len({_name(one.operator) for one in self.learned if one.rules or one.concrete}),
            "held_out": {
                "accepted": [score.valid, score.of_valid], "refused": [score.invalid, score.of_invalid],
            },
            "left_out": dict(Counter(self.trace.left_out.values()).most_common()),
            "crashed": self.trace.lost,
            "damaged": self.trace.damaged, "skipped": self.trace.skipped,
        }  # fmt: skip

    def __str__(self) -> str:
        told = self.as_json()
        valid, of_valid = told["held_out"]["accepted"]
        invalid, of_invalid = told["held_out"]["refused"]
        usable = told["with_rule"] + told["concrete"]
        rows = [
            (told["records"], f"calls recorded, of which eager refused {told['refused']}"),
            (usable, f"operators to draw programs of ({told['names']} names; {told['in_place']} of them in place)"),
            (told["with_rule"], f"  with rules ({told['rules']})"),
            (told["concrete"], "  as they were seen: no rule stands"),
            (_percent(valid, of_valid), f"of {of_valid} held-out accepted calls, with shapes (at least {VALID:.0%})"),
            (_percent(invalid, of_invalid), f"of {of_invalid} held-out refused calls (at least {INVALID:.0%})"),
            (sum(told["left_out"].values()), "operators left out:"),
            *((count, f"  {why}") for why, count in told["left_out"].items()),
        ]  # fmt: skip
        if told["crashed"]:
            named = ", ".join(name.removeprefix("aten.") for name in told["crashed"])
            rows.append((len(told["crashed"]), f"end eager's process, called with other arguments: {named}"))
        if told["damaged"]:
            rows.append((told["damaged"], "damaged lines of earlier traces skipped"))
        rows += [(1, f"trace skipped: {why}") for why in told["skipped"]]
        return "\n".join(f"{count!s:>8}  {what}" for count, what in rows)


def _percent(part: int, whole: int) -> str:
    return f"{100 * part / whole:.1f} %" if whole else "-"


def _name(operator: str) -> str:
    return operator.rsplit(".", 1)[0]
