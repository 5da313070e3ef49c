"""Start a script in a process of its own, and say what was found."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
import tempfile
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from effcc.bisection.script import OUTCOME, PROGRESS, Outcome, Settings
from effcc.errors import InputError

CALLED = re.compile(r"^program (\d+): call (\d+)$")
"""What the process says before it makes a call (`effcc.bisection.watch.called`)."""


@dataclass(frozen=True)
class Search:
    """What a bisection found, and where it has written that."""

    outcome: Outcome
    output: Path

    @property
    def is_right(self) -> bool:
        return self.outcome.status == "right"

    def as_json(self) -> dict[str, Any]:
        """The finding for programs."""
        return {**asdict(self.outcome), "output": None if self.outcome.status != "wrong" else str(self.output)}

    def __str__(self) -> str:
        found = self.outcome
        counted = f"{found.compared} calls of {found.programs} programs compared"
        if found.unstable:
            counted += (
                f"; {found.unstable} differ from eager by more than its own roundings, and roundings alone may do that "
                "(a comparison, rounding or arg-max in the model hangs on a last bit)"
            )
        if found.faults:
            counted += "".join(f"\nnot compared: {fault}" for fault in found.faults)
        if found.status == "right":
            none = "" if found.programs else "; the script compiles nothing with effcc"
            return f"all right: {counted}{none}"
        if found.status == "failed":
            return (
                f"the script fails (exit code {found.code}), and every program that effcc compiled in it is right: "
                f"{counted}. What it checks lies outside of them: in what PyTorch traced, in what runs in eager, or in "
                "a tolerance tighter than roundings"
            )
        repro = self.output / "repro.py"
        shows = f" (python {repro} shows it)" if repro.is_file() else ""
        return "\n".join([*found.lines, *([f"written: {self.output}{shows}"] if self.output.is_dir() else [])])


def search(script: Path, arguments: list[str], output: Path, calls: int | None, seconds: float) -> Search:
    """Run a script under bisection. Raises InputError where there is no such script."""
    if not script.is_file():
        raise InputError(
            f"{script}: expected a Python script, found {'a folder' if script.is_dir() else 'no such file'}"
        )
    _require_free(output)
    settings = Settings(str(output.absolute()), calls, seconds)
    with tempfile.TemporaryDirectory(prefix="effcc-bisect-") as scratch:
        folder = Path(scratch)
        code = _run(folder, settings, script, arguments)
        written = folder / OUTCOME
        how, said = _crash(folder, code)
        at = re.search(CALLED, said)
        if not written.is_file() and at is not None:
            print(f"effcc bisect: the process ended with {how}: once more, up to that call", file=sys.stderr)
            again = replace(settings, crash=(int(at[1]), int(at[2])))
            _run(folder, again, script, arguments)
        if written.is_file():
            found = json.loads(written.read_text())
            listed = {name: tuple(found[name]) for name in ("lines", "faults")}
            return Search(Outcome(**{**found, **listed}), output)
        line = f"the script's process ended with {how}{', after: ' * bool(said)}{said}"
        return Search(Outcome("wrong", (line,), kind="crash", code=code), output)


FILES = frozenset({
    "program.ir", "reduced.ir", "before.ir", "after.ir", "inputs.safetensors", "repro.py", "verdict.txt",
})  # fmt: skip
"""What a bisection writes."""


def _require_free(output: Path) -> None:
    """Take away what an earlier bisection has written. Raises InputError where the folder holds anything else."""
    if not output.exists():
        return
    others = [p.name for p in output.iterdir() if p.name not in FILES] if output.is_dir() else [output.name]
    if others:
        raise InputError(f"{output}: expected a new folder, or one of an earlier bisection; it holds {min(others)}")
    for file in output.iterdir():
        file.unlink()
    output.rmdir()


def _run(folder: Path, settings: Settings, script: Path, arguments: list[str]) -> int:
    command = [
        sys.executable, "-m", "effcc.bisection.script", str(folder), json.dumps(asdict(settings)), str(script),
        *arguments,
    ]  # fmt: skip
    environment = {**os.environ, "EFFCC_REMEMBER": "0"}  # what steps make is looked at, not recalled
    return subprocess.run(command, env=environment).returncode


def _crash(folder: Path, code: int) -> tuple[str, str]:
    """How a process ended without an outcome, and what it said last."""
    how = f"signal {signal.Signals(-code).name}" if code < 0 else f"exit code {code}"
    progress = folder / PROGRESS
    said = progress.read_text().splitlines() if progress.is_file() else []
    return how, said[-1] if said else ""
