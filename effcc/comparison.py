"""Two compiles side by side: which kernels are the same, which changed and how, and what that did to their times.

Kernels are paired by what they compute: by equal cascades, then by the lines of the model that they stand for and the
names of their ops. What is left has no partner. Of each pair, differences are told as unified diffs.
"""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from effcc.explanation import Explanation, KernelReport, ProgramReport

MOST_LINES = 400
"""Of a difference that is told; the rest is counted."""


@dataclass(frozen=True)
class Pair:
    """A kernel before and after, by name; empty where there is none.

    before_seconds, after_seconds: measured, of all launches in a call. changes: of `cascade`, `schedule` and `C++`
    those that differ, with the difference; none for a kernel without a partner.
    """

    before: str
    after: str
    before_seconds: float | None
    after_seconds: float | None
    changes: Mapping[str, str]


@dataclass(frozen=True)
class ProgramComparison:
    """One program before and after: its kernels, those that take longest first, and the difference of its graph.

    figures: what a call takes, by name, before and after; None where it is not known.
    """

    before: str
    after: str
    pairs: tuple[Pair, ...]
    figures: Mapping[str, tuple[float | None, float | None]]
    graph: str = ""

    def __str__(self) -> str:
        from effcc.explanation_text import comparison_text

        return comparison_text(self)


@dataclass(frozen=True)
class Comparison:
    """All programs, paired in order; one that is there on one side only is compared with nothing."""

    programs: tuple[ProgramComparison, ...]

    def as_json(self) -> dict[str, Any]:
        """Everything, for programs."""
        return asdict(self)

    def __str__(self) -> str:
        return "\n\n".join(map(str, self.programs))


def compare(before: Explanation, after: Explanation) -> Comparison:
    """What changed from one compile to another."""
    olds, news = list(before.programs), list(after.programs)
    count = max(len(olds), len(news))
    padded = zip(olds + [None] * (count - len(olds)), news + [None] * (count - len(news)), strict=True)
    return Comparison(tuple(_programs(old, new) for old, new in padded))


def _programs(old: ProgramReport | None, new: ProgramReport | None) -> ProgramComparison:
    olds, news = old.kernels if old else (), new.kernels if new else ()
    partners = dict(_partners(old, new)) if old and new else {}
    taken = set(partners.values())
    pairs = [_pair(olds[partners[k]] if k in partners else None, one, old, new) for k, one in enumerate(news)]
    pairs += [_pair(one, None, old, new) for k, one in enumerate(olds) if k not in taken]
    pairs.sort(key=lambda p: -max(p.before_seconds or 0.0, p.after_seconds or 0.0))
    graph = difference(_graph(old), _graph(new)) if old and new else ""
    return ProgramComparison(_title(old), _title(new), tuple(pairs), _figures(old, new), graph)


def _title(report: ProgramReport | None) -> str:
    return f"{report.name} for {report.target}" if report else ""


def _graph(report: ProgramReport | None) -> str:
    return "\n".join(n.text for n in report.nodes) if report else ""


def _figures(old: ProgramReport | None, new: ProgramReport | None) -> dict[str, tuple[float | None, float | None]]:
    def of(report: ProgramReport | None) -> dict[str, float | None]:
        if report is None:
            return {}
        times = [s.measured for s in report.steps]
        return {
            "seconds": None if None in times or not times else sum(t or 0.0 for t in times),
            "launches": sum(k.launches for k in report.kernels),
            "kernels": len(report.kernels),
            "run by PyTorch": len(report.externs),
            "operations": sum(k.flops for k in report.kernels),
            "bytes": sum(k.bytes for k in report.kernels),
            "arena bytes": report.memory["arena"],
            "weight bytes": report.memory["weights"],
        }

    left, right = of(old), of(new)
    return {name: (left.get(name), right.get(name)) for name in dict.fromkeys([*left, *right])}


def _pair(before: KernelReport | None, after: KernelReport | None, old: Any, new: Any) -> Pair:
    changes = {}
    if before is not None and after is not None:
        texts = {
            "cascade": (_anonymous(before.text, before), _anonymous(after.text, after)),
            "schedule": (_anonymous(before.schedule, before), _anonymous(after.schedule, after)),
            "C++": (old.code.get(before.unit, ""), new.code.get(after.unit, "")),
        }
        changes = {what: difference(*sides) for what, sides in texts.items() if sides[0] != sides[1]}
    return Pair(
        before.name if before else "",
        after.name if after else "",
        before.measured if before else None,
        after.measured if after else None,
        changes,
    )


def difference(before: str, after: str) -> str:
    """A unified diff without its head; empty where the texts are equal."""
    lines = list(difflib.unified_diff(before.splitlines(), after.splitlines(), n=2, lineterm=""))[2:]
    if len(lines) > MOST_LINES:
        lines[MOST_LINES:] = [f"... {len(lines) - MOST_LINES} lines more"]
    return "\n".join(lines)


def _anonymous(text: str, kernel: KernelReport) -> str:
    """A text of a kernel without its name, which numbers may be part of, and without what was predicted."""
    head, newline, rest = text.partition("\n")
    head = head.replace(f"@{kernel.name}", "@").split(" predicted ")[0]
    return head + newline + rest


def _partners(old: ProgramReport, new: ProgramReport) -> Iterator[tuple[int, int]]:
    """For kernels of the new program, those of the old one that they are paired with, by their numbers."""
    left, right = list(range(len(old.kernels))), list(range(len(new.kernels)))
    for fits in (_same_cascade(old, new), _same_lines(old, new)):
        ranked = sorted((-score, n, o) for n in right for o in left if (score := fits(n, o)) > 0)
        for _, n, o in ranked:
            if n in right and o in left:
                right.remove(n)
                left.remove(o)
                yield n, o


def _same_cascade(old: ProgramReport, new: ProgramReport) -> Any:
    olds = [_anonymous(k.text, k) for k in old.kernels]
    news = [_anonymous(k.text, k) for k in new.kernels]
    return lambda n, o: float(news[n] == olds[o])


def _same_lines(old: ProgramReport, new: ProgramReport) -> Any:
    """How much of the model two kernels share, from 0 to 1, and 1 more for ops of the same names."""
    olds, news = _lines(old), _lines(new)

    def score(n: int, o: int) -> float:
        ops = float(_label(new.kernels[n].name) == _label(old.kernels[o].name))
        mine, theirs = news[n], olds[o]
        if not mine and not theirs:
            return ops
        return ops + len(mine & theirs) / len(mine | theirs) if mine & theirs else 0.0

    return score


def _label(name: str) -> str:
    return name.rstrip("0123456789_")


def _lines(report: ProgramReport) -> list[set[str]]:
    """The model's lines that each kernel computes something of."""
    found: dict[str, set[str]] = {k.name: set() for k in report.kernels}
    for node in report.nodes:
        for kernel in _kernels(report, node.steps):
            if node.location:
                found[kernel].add(node.location)
    return list(found.values())


def _kernels(report: ProgramReport, steps: Iterable[int]) -> set[str]:
    return {report.steps[s].kernel for s in steps if report.steps[s].kernel}
