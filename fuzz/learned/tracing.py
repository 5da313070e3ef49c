"""A trace: sources are run, every operator that they call is explored in a process of its own, records are gathered."""

from __future__ import annotations

import logging
import os
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from effcc.errors import EffccError
from effcc.fuzz.learned.explore import TRIES, Explored, explore
from effcc.fuzz.learned.record import Arguments, Record
from effcc.fuzz.learned.record_file import read_records
from effcc.fuzz.learned.sources import SOURCES, Calls
from effcc.runtime.worker import LostError, Worker, answer_requests

_PATIENCE = 300.0  # seconds for an operator
_PATIENCE_WITH_SOURCES = 900.0


class UnknownSourceError(EffccError, ValueError):
    """`--from` names what is neither a source nor a file."""


@dataclass
class Trace:
    """What was recorded.

    records: by operator. left_out: why others were. lost: operators that end eager's process when they are called with
    other arguments, and how. damaged: how many lines of earlier traces were. skipped: why whole traces were.
    """

    records: dict[str, list[Record]] = field(default_factory=dict)
    left_out: dict[str, str] = field(default_factory=dict)
    lost: dict[str, str] = field(default_factory=dict)
    damaged: int = 0
    skipped: list[str] = field(default_factory=list)

    def read(self, path: Path) -> None:
        """Add the records of an earlier trace."""
        earlier = read_records(path)
        self.damaged += earlier.damaged
        self.skipped += [earlier.skipped] if earlier.skipped else []
        for record in earlier.records:
            self.records.setdefault(record.operator, []).append(record)

    def add(self, found: Explored) -> None:
        """Add an operator."""
        if found.left_out:
            self.left_out[found.operator] = found.left_out
        else:
            self.records.setdefault(found.operator, []).extend(found.records)


def trace(
    sources: Sequence[str],
    only: Collection[str] | None = None,
    tries: int = TRIES,
    progress: Callable[[str], None] = lambda operator: None,
) -> Trace:
    """Run sources (`SOURCES`, or files of earlier traces) and explore what they call.

    only: which samples and models of a source, by name; all if None. tries: changed calls of each kind of a call.
    Raises UnknownSourceError, or UnsupportedError where a source needs what is not installed.
    """
    found, seen = Trace(), Seen()
    with Worker("effcc.fuzz.learned.tracing:main") as worker:
        for source in sources:
            if source in SOURCES:
                asked = worker.ask(("source", source, only), _PATIENCE_WITH_SOURCES)
                if isinstance(asked, EffccError):
                    raise asked
                seen.add(asked)
            elif not Path(source).exists():
                known = ", ".join(SOURCES)
                raise UnknownSourceError(
                    f"unknown source '{source}': expected {known}, or the file of an earlier trace"
                )
            else:
                found.read(Path(source))
        for operator in sorted(seen.calls):
            if operator not in found.records:
                progress(operator)
                explored, lost = _explored(worker, operator, seen.calls[operator], tries)
                found.add(explored)
                found.lost |= {operator: lost} if lost else {}
    for operator, why in seen.unlike.items():
        if operator not in found.records:
            found.left_out.setdefault(operator, why)
    return found


@dataclass
class Seen:
    """Calls of sources by operator, those of one kind together, and why others cannot be described."""

    calls: dict[str, dict[Any, list[Arguments]]] = field(default_factory=dict)
    unlike: dict[str, str] = field(default_factory=dict)

    def add(self, other: Seen) -> None:
        """Add those of another source."""
        for operator, frames in other.calls.items():
            mine = self.calls.setdefault(operator, {})
            for frame, calls in frames.items():
                mine.setdefault(frame, []).extend(calls)
        self.unlike = {**other.unlike, **self.unlike}


def _explored(
    worker: Worker, operator: str, frames: Mapping[Any, Sequence[Arguments]], tries: int
) -> tuple[Explored, str]:
    """An operator explored, and how its process was lost, if it was: then only calls that were seen are recorded."""
    lost = ""
    for count in (tries, 0):
        try:
            found: Explored = worker.ask(("operator", operator, frames, count), _PATIENCE)
        except LostError as error:
            lost = lost or str(error)
        else:
            return found, lost
    return Explored(operator, [], f"eager {lost}"), lost


def main() -> None:
    """In the process: run sources and explore operators until the input ends. What PyTorch warns of is not shown."""
    logging.disable(logging.CRITICAL)
    os.dup2(os.open(os.devnull, os.O_WRONLY), 2)
    answer_requests(_answer)


def _answer(asked: Any) -> Seen | Explored | EffccError:
    if asked[0] == "operator":
        return explore(*asked[1:])
    calls = Calls()
    try:
        SOURCES[asked[1]](calls, asked[2])
    except EffccError as error:
        return error
    return Seen({operator: dict(frames) for operator, frames in calls.found.items()}, calls.unlike)
