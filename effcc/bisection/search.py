"""Start a script in a process of its own, and say what was found."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import tempfile
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from effcc.bisection.script import OUTCOME, PROGRESS, Outcome, Settings
from effcc.errors import InputError


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
        if found.status == "right":
            none = "" if found.programs else "; the script compiles nothing with effcc"
            return f"all right: {counted}{none}"
        if found.status == "failed":
            return (
                f"the script fails (exit code {found.code}), and every program that effcc compiled in it is right: "
                f"{counted}. What it checks lies outside of them: in what PyTorch traced, in what runs in eager, or in "
                "a tolerance tighter than roundings"
            )
        return "\n".join([*found.lines, f"written: {self.output} (python {self.output / 'repro.py'} shows it)"])


def search(script: Path, arguments: list[str], output: Path, calls: int | None, seconds: float) -> Search:
    """Run a script under bisection. Raises InputError where there is no such script."""
    if not script.is_file():
        raise InputError(
            f"{script}: expected a Python script, found {'a folder' if script.is_dir() else 'no such file'}"
        )
    settings = Settings(str(output.absolute()), calls, seconds)
    with tempfile.TemporaryDirectory(prefix="effcc-bisect-") as scratch:
        folder = Path(scratch)
        code = _run(folder, settings, script, arguments)
        written = folder / OUTCOME
        if written.is_file():
            found = json.loads(written.read_text())
            return Search(Outcome(**{**found, "lines": tuple(found["lines"])}), output)
        return Search(_crashed(folder, code), output)


def _run(folder: Path, settings: Settings, script: Path, arguments: list[str]) -> int:
    command = [
        sys.executable, "-m", "effcc.bisection.script", str(folder), json.dumps(asdict(settings)), str(script),
        *arguments,
    ]  # fmt: skip
    environment = {**os.environ, "EFFCC_REMEMBER": "0"}  # what steps make is looked at, not recalled
    return subprocess.run(command, env=environment).returncode


def _crashed(folder: Path, code: int) -> Outcome:
    how = f"signal {signal.Signals(-code).name}" if code < 0 else f"exit code {code}"
    said = (folder / PROGRESS).read_text().splitlines() if (folder / PROGRESS).is_file() else []
    last = f" after: {said[-1]}" if said else ""
    return Outcome("wrong", (f"the script's process ended with {how}{last}",), kind="crash", code=code)
