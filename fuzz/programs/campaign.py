"""Programs one after the other, each in a process of its own; what fails is reduced and written down as a script.

effcc fuzz --programs --minutes 10
"""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Any

from effcc.fuzz.beside import Kind, Outcomes, answer_cases, run_cases
from effcc.fuzz.journal import Before, Journal
from effcc.fuzz.programs.case import Case
from effcc.fuzz.programs.draw import draw
from effcc.fuzz.programs.judge import INVALID, KNOWN, PYTORCH, REFUSED, Failure, judge
from effcc.fuzz.programs.script import script
from effcc.fuzz.programs.smaller import smaller


class ProgramReport(Outcomes[Failure]):
    """What became of the programs, counted, and the failures with their files."""

    @property
    def programs(self) -> int:
        """How many were compiled and compared."""
        return self.counts.total() - self.counts[INVALID]

    def as_json(self) -> dict[str, Any]:
        """For programs."""
        return {
            "seed": self.seed, "programs": self.programs, "seconds": self.seconds,
            "refused": self.counts[REFUSED], "known": self.counts[KNOWN], "pytorch": self.counts[PYTORCH],
            "failures": [{"seed": f.case.seed, "kind": f.kind, "message": f.message} for f in self.failures],
            "files": [str(f) for f in self.files],
        }  # fmt: skip

    def __str__(self) -> str:
        apart = [
            f"{self.counts[PYTORCH]} where PyTorch's aot_eager differs likewise",
            f"{self.counts[REFUSED]} refused as packages",
            f"{self.counts[KNOWN]} known",
        ]
        told = f"{self.programs} programs in {self.seconds:.0f} s ({', '.join(apart)})"
        written = [f"  written: {path}" for path in self.files]
        return "\n".join(
            [told, *(f"  {f}" for f in self.failures), *written] if self.failures else [told, "no failures"]
        )


def run_programs(
    minutes: float,
    seed: int = 0,
    output: Path | None = None,
    *,
    most: int | None = None,
    reduce_seconds: float = 60.0,
    journal: Journal | None = None,
    before: Before | None = None,
) -> ProgramReport:
    """Call the programs of `seed` and following, for so long or until `most` were called.

    journal: where what is done and found is written at once. before: of the campaign that is gone on with.
    """
    report = ProgramReport(seed)
    run_cases(
        PROGRAMS, report, lambda: most is not None and report.programs >= most, minutes, seed, output, reduce_seconds,
        journal, before,
    )  # fmt: skip
    return report


def main() -> None:
    """In the process: answer requests until the input ends."""
    logging.disable(logging.CRITICAL)  # what Dynamo logs of calls that are refused
    answer_cases(draw, judge)


PROGRAMS: Kind[Case, Failure] = Kind(
    "program", "effcc.fuzz.programs.campaign:main", draw, smaller, script,
    lambda case, why: Failure(case, "process", why), renewed=300,
)  # fmt: skip
