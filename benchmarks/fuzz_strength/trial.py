"""One trial: a copy of the package, a plant in it, and `effcc fuzz` as users run it, until its first failure."""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from benchmarks.fuzz_strength.plants import Plant, StaleError

ROOT = Path(__file__).parent.parent.parent
PARTS = ("effcc", "passes", "codegen", "runtime", "fuzz")
BEYOND = 600.0  # seconds beyond the fuzzer's own time, after which it counts as hanging
FUZZ = ("-m", "effcc.cli", "fuzz", "--json", "--stop-after", "1", "--reduce", "0")
UNTOUCHED = "(untouched)"


@dataclass(frozen=True)
class Result:
    """What became of a trial. outcome: `found`, `missed`, `crash` and `hang` (of the fuzzer itself, which are not
    counted as found), `import` (the package with the plant in it cannot even be imported), `stale`.

    seconds: until the first failure, else as long as it went on. door, step: where that was. programs: how many graphs
    were drawn until then. doors: if it went door by door, the doors that were asked for (`doors.py`); seconds are then
    those of processors, and programs what that door had drawn.
    """

    plant: str
    room: str
    digest: str
    seed: int
    minutes: float
    outcome: str
    seconds: float
    door: str = ""
    step: str = ""
    message: str = ""
    programs: int = 0
    doors: str = ""

    @property
    def is_found(self) -> bool:
        """Whether a failure was told: a campaign that dies may do so for the machine's load."""
        return self.outcome == "found"


def attempt(plant: Plant | None, seed: int, minutes: float, fuzz: Sequence[str] = FUZZ, root: Path = ROOT) -> Result:
    """Fuzz a copy of the package with the plant in it, or as it is; the copy and its caches go afterwards."""
    with tempfile.TemporaryDirectory(prefix="effcc-plant-", ignore_cleanup_errors=True) as scratch:
        folder = Path(scratch)
        _copy(root, folder)
        name, room, digest = (plant.name, plant.room, plant.digest) if plant else (UNTOUCHED, UNTOUCHED, "")
        blank = Result(name, room, digest, seed, minutes, "stale", 0.0)
        try:
            if plant is not None:
                plant.apply(folder)
        except StaleError as error:
            return replace(blank, message=str(error))
        command = [sys.executable, *fuzz, "--seed", str(seed), "--minutes", str(minutes), "-o", str(folder / "found")]
        begin = time.monotonic()
        code, output, errors = _run(command, folder, 60 * minutes + BEYOND)
        seconds = time.monotonic() - begin
        report = _report(output)
        if report is not None:
            return _judged(replace(blank, seconds=seconds), report)
        last = (errors.strip().splitlines() or [""])[-1][:300]
        if code is None:
            return replace(blank, outcome="hang", seconds=seconds, door="campaign", message=last)
        outcome = "crash" if _imports(folder) else "import"
        return replace(blank, outcome=outcome, seconds=seconds, door="campaign", message=f"exit {code}: {last}")


def _copy(root: Path, folder: Path) -> None:
    """The package with its links, without what running it left."""
    for part in PARTS:
        shutil.copytree(root / part, folder / part, symlinks=True, ignore=shutil.ignore_patterns("__pycache__"))
    shutil.copy(root / "pyproject.toml", folder)


def _environment(folder: Path) -> dict[str, str]:
    """A cache of its own: what other sources were compiled to is never taken, whatever the keys say."""
    return {**os.environ, "PYTHONPATH": str(folder), "EFFCC_CACHE_DIR": str(folder / "cache"), "TMPDIR": str(folder)}


def _run(command: Sequence[str], folder: Path, seconds: float) -> tuple[int | None, str, str]:
    """Exit code (None: it had to be ended), output, errors."""
    process = subprocess.Popen(
        command, cwd=folder, env=_environment(folder), text=True, stdout=subprocess.PIPE, stderr=subprocess.PIPE,
        start_new_session=True,
    )  # fmt: skip
    try:
        output, errors = process.communicate(timeout=seconds)
        return process.returncode, output, errors
    except subprocess.TimeoutExpired:
        os.killpg(process.pid, signal.SIGKILL)
        output, errors = process.communicate()
        return None, output, errors
    finally:
        _end_group(process.pid)


def _end_group(leader: int) -> None:
    """End what a campaign that crashed left running."""
    with contextlib.suppress(ProcessLookupError):
        os.killpg(leader, signal.SIGKILL)


def _imports(folder: Path) -> bool:
    command = [sys.executable, "-c", "import effcc.cli, effcc.backend, effcc.fuzz.campaign"]
    return subprocess.run(command, cwd=folder, env=_environment(folder), capture_output=True).returncode == 0


def _report(output: str) -> dict[str, Any] | None:
    try:
        report = json.loads(output[output.index("{") :])
    except ValueError:
        return None
    return report if isinstance(report, dict) else None


def _judged(blank: Result, report: Mapping[str, Any]) -> Result:
    done = replace(blank, outcome="missed", programs=int(report.get("graphs", 0)))
    for door, failure in _failures(report):
        found, step, message = report.get("found"), str(failure.get("step", "")), str(failure.get("message", ""))[:300]
        seconds = done.seconds if found is None else float(found)
        return replace(done, outcome="found", seconds=seconds, door=door, step=step, message=message)
    return done


def _failures(report: Mapping[str, Any]) -> Iterator[tuple[str, Mapping[str, Any]]]:
    """The failures of a report, and of the doors that report in it under their names."""
    for failure in report.get("failures", ()):
        yield "graphs", failure
    for door, part in report.items():
        if isinstance(part, dict):
            for failure in part.get("failures", ()):
                yield door, failure
