"""Hostile packages: a genuine one is damaged or made to lie in some way, and loading it must refuse with a typed error.

What still loads must compute what the genuine one does. Each trial runs in a forked process with little memory and
little time, so that crashes, hangs and bombs are counted, not suffered:

    effcc fuzz --packages --minutes 10

A liar may know how digests are made (`summed`) and how the library is sealed (`sealed`): then the manifest and the
weights are looked at as far as loading goes before it runs the library's code, which such a person could as well have
written. Everything is derived from a seed.
"""

from __future__ import annotations

import random
import shutil
import tempfile
import time
import traceback
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from effcc.errors import EffccError
from effcc.fuzz.hostile import HARMS, Genuine
from effcc.fuzz.isolation import forked
from effcc.fuzz.journal import Before, Door, Find, Journal
from effcc.runtime.package import Package, examined

Kind = Literal["typed", "loaded", "untyped", "crash", "hang", "wrong"]
BAD: tuple[Kind, ...] = ("untyped", "crash", "hang", "wrong")
TIMEOUT = 20.0
MEMORY = 1 << 30
DOOR = "packages"
WRITTEN_EVERY = 20  # trials: how often the journal says how many there were


@dataclass(frozen=True)
class Outcome:
    """What became of a trial: which way of harming, and what loading said to it."""

    seed: int
    harm: str
    kind: Kind
    message: str


@dataclass
class PackageReport:
    """Trials counted by harm and outcome; the bad ones with their messages."""

    counts: Counter[tuple[str, Kind]] = field(default_factory=Counter)
    failures: list[Outcome] = field(default_factory=list)

    def add(self, outcome: Outcome) -> None:
        """Count one."""
        self.counts[outcome.harm, outcome.kind] += 1
        if outcome.kind in BAD:
            self.failures.append(outcome)

    @property
    def trials(self) -> int:
        """How many were tried."""
        return sum(self.counts.values())

    def as_json(self) -> dict[str, Any]:
        """For programs."""
        return {
            "trials": self.trials,
            **{kind: self._of(kind) for kind in ("typed", "loaded", *BAD)},
            "failures": [vars(o) for o in self.failures],
        }

    def flat(self) -> dict[str, int]:
        """The counts by "harm: outcome"."""
        return {f"{harm}: {kind}": n for (harm, kind), n in self.counts.items()}

    def go_on_from(self, before: Before, seed: int) -> int:
        """Take up the counts and failures of a campaign; the next seed."""
        door = before.doors.get(DOOR, Door(seed, {}))
        for name, count in door.counts.items():
            harm, _, kind = name.rpartition(": ")
            self.counts[harm, next(k for k in ("typed", "loaded", *BAD) if k == kind)] = count
        self.failures += [Outcome(f.seed, **f.facts) for f in before.of(DOOR) if f.seed < door.next]
        return door.next

    def _of(self, kind: str) -> int:
        return sum(n for (_, k), n in self.counts.items() if k == kind)

    def __str__(self) -> str:
        kinds = ("typed", "loaded", *BAD)
        lines = [f"{self.trials} packages: " + ", ".join(f"{self._of(k)} {k}" for k in kinds)]
        for harm in sorted({h for h, _ in self.counts}):
            lines.append(
                f"  {harm}: " + ", ".join(f"{self.counts[harm, k]} {k}" for k in kinds if self.counts[harm, k])
            )
        return "\n".join([*lines, *(f"  seed {o.seed}, {o.harm}: {o.kind}: {o.message}" for o in self.failures[:20])])


def sample() -> Genuine:
    """The package of a small model of run-time size, with nested results and weights of several dtypes."""
    import torch

    import effcc

    class Labelled(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.project = torch.nn.Linear(8, 16)
            self.labels = torch.nn.Embedding(5, 16)
            self.register_buffer("mask", torch.arange(16) % 3 > 0)
            self.mask: torch.Tensor

        def forward(self, x: torch.Tensor, label: torch.Tensor) -> Any:
            h = torch.relu(self.project(x)) * self.mask + self.labels(label)
            return {"h": h, "more": (h.sum(-1), [None, 3])}

    rows = {0: torch.export.Dim("rows", min=2, max=64)}
    args = (torch.zeros(3, 8), torch.zeros(3, dtype=torch.long))
    with tempfile.TemporaryDirectory(prefix="effcc-fuzz-") as folder:
        path = Path(folder, "model.effcc")
        return Genuine.of(effcc.export(Labelled().eval(), args, path, dynamic_shapes=(rows, rows)))


def run_packages(
    genuine: Genuine,
    *,
    seed: int = 0,
    trials: int | None = None,
    minutes: float | None = None,
    output: Path | None = None,
    journal: Journal | None = None,
    before: Before | None = None,
) -> PackageReport:
    """Try so many hostile packages, or as many as fit in the time; the bad ones are left in `output`.

    journal: where what is done and found is written at once. before: of the campaign that is gone on with.
    """
    report = PackageReport()
    begin = time.monotonic()
    if before is not None:
        seed = report.go_on_from(before, seed)
        begin -= before.seconds
    deadline = None if minutes is None else begin + 60 * minutes
    with tempfile.TemporaryDirectory(prefix="effcc-fuzz-") as folder:
        while (trials is None or report.trials < trials) and (deadline is None or time.monotonic() < deadline):
            outcome = attempt(genuine, seed, Path(folder))
            report.add(outcome)
            if outcome.kind in BAD and output is not None:
                output.mkdir(parents=True, exist_ok=True)
                for made in Path(folder).iterdir():
                    shutil.move(made, output / f"package-{seed}{made.suffix}")
            if outcome.kind in BAD and journal is not None:
                journal.find(Find(DOOR, seed, {f: v for f, v in vars(outcome).items() if f != "seed"}, True))
            seed += 1
            if journal is not None and (seed % WRITTEN_EVERY == 0 or outcome.kind in BAD):
                journal.done(time.monotonic() - begin, doors={DOOR: Door(seed, report.flat())})
    return report


def attempt(genuine: Genuine, seed: int, folder: Path) -> Outcome:
    """Make the hostile package of a seed in `folder`, which is emptied first, and load it."""
    for left in folder.iterdir():
        shutil.rmtree(left) if left.is_dir() and not left.is_symlink() else left.unlink()
    rng = random.Random(seed)
    harm = list(HARMS)[seed % len(HARMS)]
    path, runs = HARMS[harm](genuine, rng, folder)
    found = forked(lambda: _load(genuine, path, runs), timeout=TIMEOUT, memory=MEMORY)
    if isinstance(found, str):
        return Outcome(seed, harm, "hang" if "did not return" in found else "crash", found)
    kind, message = found
    return Outcome(seed, harm, kind, message)


def _load(genuine: Genuine, path: Path, runs: bool) -> tuple[Kind, str]:
    """Load the package, and call it if it `runs`; else only look at it."""
    try:
        if not runs:
            examined(path)
            return "loaded", ""
        package = Package(path, threads=1)
        results = package.run({n: a.copy() for n, a in genuine.inputs.items()})
    except EffccError as error:
        return "typed", str(error)[:400]
    except BaseException as error:  # whatever else comes out is what this looks for
        return "untyped", "".join(traceback.format_exception(error))[-1500:]
    same = all(results[n].tobytes() == genuine.results[n].tobytes() for n in genuine.results)
    return ("loaded", "") if same else ("wrong", "it computes something else")
