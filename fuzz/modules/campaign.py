"""Modules one after the other, each in a process of its own; what fails is reduced and written down as a script.

effcc fuzz --modules --minutes 10
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

from effcc.fuzz.beside import Kind, Outcomes, answer_cases, run_cases
from effcc.fuzz.journal import Before, Journal
from effcc.fuzz.modules.case import Case
from effcc.fuzz.modules.checks import Failure, judge
from effcc.fuzz.modules.draw import draw
from effcc.fuzz.modules.script import script


class ModuleReport(Outcomes[Failure]):
    """What became of the cases, counted, and the failures with their files."""

    @property
    def modules(self) -> int:
        """How many were stored and called."""
        return self.counts[""] + self.counts["failed"]

    def as_json(self) -> dict[str, Any]:
        """For programs."""
        return {
            "seed": self.seed, "modules": self.modules, "refused": self.counts["refused"], "seconds": self.seconds,
            "failures": [{"seed": f.case.seed, "step": f.step, "message": f.message} for f in self.failures],
            "files": [str(f) for f in self.files],
        }  # fmt: skip

    def __str__(self) -> str:
        told = f"{self.modules} modules in {self.seconds:.0f} s, {self.counts['refused']} refused to be stored as asked"
        written = [f"  written: {path}" for path in self.files]
        return "\n".join(
            [told, *(f"  {f}" for f in self.failures), *written] if self.failures else [told, "no failures"]
        )


def run_modules(
    minutes: float,
    seed: int = 0,
    output: Path | None = None,
    *,
    most: int | None = None,
    reduce_seconds: float = 60.0,
    journal: Journal | None = None,
    before: Before | None = None,
) -> ModuleReport:
    """Take the modules of `seed` and following through all checks, for so long or until `most` were called.

    journal: where what is done and found is written at once. before: of the campaign that is gone on with.
    """
    report = ModuleReport(seed)
    run_cases(
        MODULES, report, lambda: most is not None and report.modules >= most, minutes, seed, output, reduce_seconds,
        journal, before,
    )  # fmt: skip
    return report


def main() -> None:
    """In the process: answer requests until the input ends."""
    answer_cases(draw, judge)


def _smaller(case: Case) -> Iterator[Case]:
    if len(case.batches) > 1:
        yield replace(case, batches=case.batches[:1])
        yield replace(case, batches=case.batches[1:])
    for k, block in enumerate(case.blocks):
        if not block.needed and len(case.blocks) > 1:
            yield replace(case, blocks=case.blocks[:k] + case.blocks[k + 1 :])
    for k in range(len(case.storing)):
        if len(case.storing) > 1:
            yield replace(case, storing=case.storing[:k] + case.storing[k + 1 :])
    for k in range(len(case.setup)):
        yield replace(case, setup=case.setup[:k] + case.setup[k + 1 :])
    for k in range(len(case.checks)):
        yield replace(case, checks=case.checks[:k] + case.checks[k + 1 :])
    if ".to(torch" not in case.input and case.dtype != "float32":
        yield replace(case, dtype="float32")
    if case.target != "host":
        yield replace(case, target="host")
    if case.dynamic is not None:
        yield replace(case, dynamic=None)


MODULES: Kind[Case, Failure] = Kind(
    "module",
    "effcc.fuzz.modules.campaign:main",
    draw,
    _smaller,
    script,
    lambda case, why: Failure(case, "process", why),
)
