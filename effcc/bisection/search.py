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

from effcc.bisection.blame import first_wrong
from effcc.bisection.script import OUTCOME, PROGRESS, Outcome, Settings
from effcc.errors import InputError
from effcc.steps import STEPS

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
        if found.status == "failed" and found.lines:
            return "\n".join([*found.lines, counted])
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
            outcome = _outcome(written)
            if outcome.status == "failed" and outcome.programs:
                outcome = _by_script(outcome, folder, settings, script, arguments)
            return Search(outcome, output)
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


def _outcome(written: Path) -> Outcome:
    found = json.loads(written.read_text())
    listed = {name: tuple(map(tuple, found[name]) if name == "fired" else found[name]) for name in _LISTS}
    return Outcome(**{**found, **listed})


_LISTS = ("lines", "faults", "names", "fired")


def _by_script(outcome: Outcome, folder: Path, settings: Settings, script: Path, arguments: list[str]) -> Outcome:
    """What makes a script fail whose programs are all right by effcc's measure: asked of the script itself."""
    fired: dict[int | None, Outcome] = {}

    def fails(compiled: int, step: str | None = None, most: int | None = None) -> bool:
        how = {"compiled": compiled, "step": step, "most": most}
        written = folder / OUTCOME
        written.unlink(missing_ok=True)
        _say(f"the script again: {_in_words(compiled, step, most)}")
        _run(folder, replace(settings, instead=how), script, arguments)
        found = _outcome(written) if written.is_file() else Outcome("failed")
        fired[most] = found
        _say("  it fails" if found.status != "right" else "  it passes")
        return found.status != "right"

    if fails(0):
        line = (
            f"the script fails (exit code {outcome.code}), also where PyTorch runs every graph that effcc compiled: "
            "what it checks lies outside of compiled code, in what PyTorch traced or runs in eager, or in the check"
        )
        return replace(outcome, lines=(line,))
    number = first_wrong(outcome.programs + 1, lambda n: n == outcome.programs or (n > 0 and fails(n)))
    where = f"the script fails (exit code {outcome.code}) as soon as it runs compiled: {outcome.names[number - 1]}"
    within = "each of its calls is right by effcc's measure: the script's own is tighter"
    steps = ["", *[s for s in STEPS if s not in ("vectorize", "emit")]]
    if not fails(number - 1, steps[-1]):
        why = "what its last interpretable step, `lower`, gives passes with NumPy: it is compiled code that does not"
        return replace(outcome, status="wrong", kind="script", step="build", lines=(where, within, why))
    at = first_wrong(len(steps), lambda k: k == len(steps) - 1 or fails(number - 1, steps[k]))
    if at == 0:
        why = "the imported graph, interpreted with NumPy in its own dtypes, fails likewise: roundings that differ"
        return replace(outcome, status="wrong", kind="script", step="import", lines=(where, within, why))
    why = f"it fails with what the step `{steps[at]}` makes of it, interpreted, and passes with what went into that"
    found = replace(outcome, status="wrong", kind="script", step=steps[at])
    if steps[at] != "simplify":
        return replace(found, lines=(where, within, why))
    fails(number - 1, "simplify")
    rules = fired[None].fired
    if not rules or fails(number - 1, "simplify", 0):
        return replace(found, lines=(where, within, why))
    count = first_wrong(len(rules) + 1, lambda n: n == len(rules) or (n > 0 and fails(number - 1, "simplify", n)))
    name, place, location = rules[count - 1]
    rule = f"rewrite rule `{name}` (passes/rules/{place}), application {count} of {len(rules)}"
    line = f"model line: {location}"
    return replace(found, rule=name, lines=(where, within, f"{why}: the {rule}", line))


def _in_words(compiled: int, step: str | None, most: int | None) -> str:
    others = f"programs 1 to {compiled} compiled, others by PyTorch" if compiled else "all programs by PyTorch"
    if step is None:
        return others
    made = f"what `{step}` made of it" if step else "as it was imported"
    rules = "" if most is None else f", of rules the first {most} applications"
    return f"{others}, program {compiled + 1} interpreted, {made}{rules}"


def _say(line: str) -> None:
    print(f"effcc bisect: {line}", file=sys.stderr, flush=True)


def _crash(folder: Path, code: int) -> tuple[str, str]:
    """How a process ended without an outcome, and what it said last."""
    how = f"signal {signal.Signals(-code).name}" if code < 0 else f"exit code {code}"
    progress = folder / PROGRESS
    said = progress.read_text().splitlines() if progress.is_file() else []
    return how, said[-1] if said else ""
