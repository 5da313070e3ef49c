"""The process in which a script runs under bisection: `python -m effcc.bisection.script FOLDER SETTINGS SCRIPT ARGS`.

It runs the script as Python does, watches every program that effcc compiles, and at the first wrong call ends the
script and looks for what made it wrong, in this same process: so that whatever the script changed holds. What it found
goes to `outcome.json` in the folder.
"""

from __future__ import annotations

import json
import os
import runpy
import sys
import traceback
import warnings
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from effcc.errors import FaultWarning

if TYPE_CHECKING:
    from effcc.bisection.blame import Say
    from effcc.bisection.watch import Wrong

OUTCOME = "outcome.json"
PROGRESS = "progress.txt"


@dataclass(frozen=True)
class Settings:
    """What the command was told. calls: how many of each program are compared (None: all). seconds: for reducing.
    crash: the program and the call of it that crashed when the script ran before. instead: how programs are run,
    without being compared (`effcc.bisection.instead`)."""

    output: str
    calls: int | None = None
    seconds: float = 60.0
    crash: tuple[int, int] | None = None
    instead: dict[str, Any] | None = None


@dataclass(frozen=True)
class Outcome:
    """What came of it. status: `right`, `wrong`, or `failed`, where the script fails though every program is right.

    lines: the finding in words. faults: parts that effcc failed to compile, which PyTorch runs. programs, compared: how
    many were compiled, and how many calls were compared; unstable: of these, how many differ by more than eager's
    roundings, and hang on a comparison or rounding in the model. names: the programs in words. fired: the rules that
    were applied to the one that ran interpreted, with their texts' places and the lines of the model.
    """

    status: str
    lines: tuple[str, ...] = ()
    programs: int = 0
    compared: int = 0
    unstable: int = 0
    step: str = ""
    rule: str = ""
    kernel: str = ""
    kind: str = ""
    pass_name: str = ""
    code: int = 0
    faults: tuple[str, ...] = ()
    names: tuple[str, ...] = ()
    fired: tuple[tuple[str, str, str], ...] = ()


def main() -> None:
    """Run the script of the command line."""
    folder, settings, script, *arguments = sys.argv[1:]
    outcome = run(Path(folder), Settings(**json.loads(settings)), script, arguments)
    Path(folder, OUTCOME).write_text(json.dumps(asdict(outcome)))
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(0)  # the script may have left threads


def run(folder: Path, settings: Settings, script: str, arguments: list[str]) -> Outcome:
    """Run a script, and bisect the first wrong call in it."""
    from effcc import backend
    from effcc.bisection.instead import Instead
    from effcc.bisection.watch import Found, Watch

    progress = (folder / PROGRESS).open("w", buffering=1)

    def say(line: str) -> None:
        progress.write(line + "\n")
        print(f"effcc bisect: {line}", file=sys.stderr, flush=True)

    crash = None if settings.crash is None else (settings.crash[0], settings.crash[1])
    instead = None if settings.instead is None else Instead(**settings.instead)
    watch = Watch(settings.calls, say, crash, instead)
    backend.watch(watch)
    faults: list[str] = []
    shown = warnings.showwarning

    def show(message: Any, category: type[Warning], *rest: Any) -> None:
        if issubclass(category, FaultWarning):
            faults.append(str(message))
        shown(message, category, *rest)

    warnings.showwarning = show  # type: ignore[assignment]
    code = 0
    sys.argv = [script, *arguments]
    sys.path[0] = str(Path(script).resolve().parent)
    try:
        runpy.run_path(script, run_name="__main__")
    except Found:
        pass
    except SystemExit as end:
        code = end.code if isinstance(end.code, int) else int(end.code is not None)
    except BaseException:
        traceback.print_exc()
        code = 1
    finally:
        backend.watch(None)
        warnings.showwarning = shown
    counted = Outcome(
        "failed" if code else "right",
        programs=len(watch.programs),
        compared=watch.compared,
        unstable=watch.unstable,
        code=code,
        faults=tuple(faults),
        names=tuple(map(str, watch.programs)),
        fired=tuple((f.rule.name, f"{f.rule.theme}.rules:{f.rule.line}", f.location) for f in watch.fired),
    )
    if watch.wrong is None:
        return counted
    with warnings.catch_warnings(), np.errstate(all="ignore"):
        warnings.simplefilter("ignore")
        return _bisected(watch.wrong, settings, say, counted)


def _bisected(wrong: Wrong, settings: Settings, say: Say, counted: Outcome) -> Outcome:
    """What makes a call wrong, with the folder written."""
    from effcc.bisection.blame import blame
    from effcc.bisection.imported import blame_import
    from effcc.bisection.report import words, write_import_report, write_report
    from effcc.bisection.shrink import shrink

    say(str(wrong))
    where = f"{wrong.program}: call {wrong.number}"
    if wrong.imported:
        program, call = wrong.program, wrong.call
        blamed, alone = blame_import(program.module, wrong.arguments, program.options, call.generator, wrong.problem)
        said = words(where, wrong.problem, blamed)
        write_import_report(Path(settings.output), call, alone, blamed, said)
        return replace(counted, status="wrong", lines=tuple(said), step="import", kind="import")
    verdict = blame(wrong.call, say, crashes=settings.crash is not None)
    if verdict is None and settings.crash is not None:
        line = "why: called again alone, it does not crash: what an earlier call did to memory, or a race"
        return _left_whole(wrong, settings, replace(counted, status="wrong", kind="crash", step="build"), line)
    if verdict is None:
        line = (
            "why: compiled again and called with the same inputs it is right, so it is what was kept from earlier "
            "calls (packed weights, sizes), or a race that shows rarely"
        )
        return _left_whole(wrong, settings, replace(counted, status="wrong", kind="calls", step="build"), line)
    say(verdict.sentence)
    reduced, found = wrong.call, verdict
    if verdict.kind != "crash":
        reduced, found = shrink(wrong.call, verdict, settings.seconds, say)
    report = words(where, wrong.problem, verdict)
    write_report(Path(settings.output), wrong.call, reduced, verdict, found, report)
    return replace(
        counted, status="wrong", lines=tuple(report), step=verdict.step, rule=verdict.rule, kernel=verdict.kernel,
        kind=verdict.kind, pass_name=verdict.pass_name,
    )  # fmt: skip


def _left_whole(wrong: Wrong, settings: Settings, outcome: Outcome, line: str) -> Outcome:
    """A call that is right by itself: its program and inputs are written, there is nothing to show again."""
    from effcc.bisection.report import write_whole

    lines = [f"wrong: {wrong}", line]
    write_whole(Path(settings.output), wrong.call, lines)
    return replace(outcome, lines=tuple(lines))


if __name__ == "__main__":
    main()
