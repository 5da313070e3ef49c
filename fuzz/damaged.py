"""Hostile packages (`effcc.fuzz.packages`) beside a campaign, some at a time, by a process that holds a genuine one."""

from __future__ import annotations

import functools
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from effcc.fuzz.beside import Kind, Outcomes, answer_cases
from effcc.fuzz.hostile import Genuine
from effcc.fuzz.packages import BAD, attempt, sample

AT_A_TIME = 20
_SCRIPT = '''"""{title}

    python {name}
"""

import tempfile
from pathlib import Path

from effcc.fuzz.packages import attempt, sample

if __name__ == "__main__":
    with tempfile.TemporaryDirectory() as folder:
        print(attempt(sample(), {seed}, Path(folder)))
'''


@dataclass(frozen=True)
class Trials:
    """The hostile packages of some seeds: `AT_A_TIME` from that many times `seed` on."""

    seed: int


@dataclass(frozen=True)
class Failure:
    """A package that was not refused as it must be, and the seed of it."""

    case: Trials
    kind: str
    message: str
    seed: int = 0

    def __str__(self) -> str:
        return f"package {self.seed}, {self.kind}: {(self.message.splitlines() or [''])[-1][:200]}"

    def resembles(self, other: Failure) -> bool:
        """Whether both are likely one bug."""
        return (self.kind, self.message[-60:]) == (other.kind, other.message[-60:])


class DamageReport(Outcomes[Failure]):
    """How many were tried, and those that were not refused as they must be."""

    def as_json(self) -> dict[str, Any]:
        """For programs."""
        return {
            "packages": self.counts.total() * AT_A_TIME,
            "failures": [{"seed": f.seed, "kind": f.kind, "message": f.message} for f in self.failures],
            "files": [str(f) for f in self.files],
        }

    def __str__(self) -> str:
        lines = [f"{self.counts.total() * AT_A_TIME} hostile packages", *(f"  {f}" for f in self.failures)]
        return "\n".join([*lines, *(f"  written: {path}" for path in self.files)])


@functools.cache
def _genuine() -> Genuine:
    return sample()


def judge(case: Trials) -> Failure | str:
    """The first of a seed's packages that is not refused as it must be; "" where all are."""
    with tempfile.TemporaryDirectory(prefix="effcc-fuzz-") as folder:
        for seed in range(AT_A_TIME * case.seed, AT_A_TIME * (case.seed + 1)):
            outcome = attempt(_genuine(), seed, Path(folder))
            if outcome.kind in BAD:
                return Failure(case, outcome.kind, f"{outcome.harm}: {outcome.message}", seed)
    return ""


def main() -> None:
    """In the process: answer requests until the input ends."""
    answer_cases(Trials, judge)


def _script(failure: Failure) -> str:
    name = f"package_{failure.case.seed}.py"
    return _SCRIPT.format(title=str(failure).replace('"', "'").replace("\\", "/"), name=name, seed=failure.seed)


def _smaller(case: Trials) -> Iterator[Trials]:
    yield from ()


DAMAGED: Kind[Trials, Failure] = Kind(
    "package", "effcc.fuzz.damaged:main", Trials, _smaller, _script, lambda case, why: Failure(case, "process", why),
    renewed=10_000,
)  # fmt: skip
